package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"dreamcad/storage"
)

// report writes report.md and report.json: what was asked, what came out, how
// long it took, how much memory it used, and how well the views fit together.
func (o *output) report(man *storage.Manifest, consistency []float64) error {
	var mean float64
	for _, c := range consistency {
		mean += c / float64(len(consistency))
	}
	data, err := json.MarshalIndent(struct {
		*storage.Manifest
		Consistency     []float64 `json:"silhouette_consistency"`
		ConsistencyMean float64   `json:"silhouette_consistency_mean"`
	}{man, consistency, mean}, "", "  ")
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n![views](views.png)\n\n", markdown(man.Prompt))
	for _, f := range o.files {
		if f.Role == storage.RolePreview || f.Role == storage.RoleTurntable {
			fmt.Fprintf(&b, "![%s](%s)\n\n", f.Role, f.Name)
		}
	}
	if man.Negative != "" {
		fmt.Fprintf(&b, "Avoiding: %s\n\n", markdown(man.Negative))
	}
	for _, n := range man.Notices {
		fmt.Fprintf(&b, "> %s\n\n", markdown(n))
	}
	fmt.Fprintf(&b, "| | |\n|---|---|\n| seed | %d |\n| model | %s |\n| settings | `%s` |\n| device | %s |\n| version | %s |\n", man.Seed, man.Model.Name, man.Settings, man.Device, man.Version)
	fmt.Fprintf(&b, "| peak memory | %.0f MB |\n| silhouette consistency | %.4f (1 is perfect) |\n\n", float64(man.PeakMemory)/1e6, mean)
	b.WriteString("| stage | seconds |\n|---|---|\n")
	stages := make([]string, 0, len(man.Timings))
	for s := range man.Timings {
		stages = append(stages, s)
	}
	sort.Strings(stages)
	for _, s := range stages {
		fmt.Fprintf(&b, "| %s | %.2f |\n", s, man.Timings[s])
	}
	b.WriteString("\n| view | azimuth | elevation | consistency |\n|---|---|---|---|\n")
	for i, c := range man.Cameras {
		fmt.Fprintf(&b, "| ![](view-%d.png) | %.0f° | %.0f° | %.4f |\n", i, c.Azimuth, c.Elevation, consistency[i])
	}
	for name, content := range map[string][]byte{"report.json": append(data, '\n'), "report.md": []byte(b.String())} {
		if err := os.WriteFile(filepath.Join(o.temp, name), content, 0o644); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	return nil
}

// markdown keeps a person's text from being read as markup.
func markdown(s string) string {
	var b strings.Builder
	for _, r := range strings.Join(strings.Fields(s), " ") {
		if strings.ContainsRune("\\`*_{}[]<>()#+-.!|&~", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
