package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"dreamcad/inference"
	"dreamcad/inference/asset"
	"dreamcad/queue"

	"github.com/goccy/go-yaml"
)

type meshCmd struct {
	Prompt   []string `arg:"" help:"What to make."`
	Out      string   `short:"o" help:"Folder for the files (default: out/ and the job's id)." type:"path" placeholder:"DIR"`
	Seed     *int64   `help:"Number that picks one of many results (default: random)." placeholder:"N"`
	Steps    int      `help:"Denoising steps of the views (default: the model's)." placeholder:"N"`
	Guidance float64  `help:"How closely to follow the prompt; 1 switches guidance off (default: the model's)." placeholder:"X"`
	Negative string   `help:"What to avoid." placeholder:"TEXT"`
	Quality  string   `help:"draft, standard or high (default: the best that there is)." placeholder:"QUALITY"`
	Formats  []string `help:"Mesh formats: glb, obj, stl (default: glb,obj)." placeholder:"LIST"`
	Settings string   `help:"File with settings of the 3D stage (YAML or JSON)." type:"existingfile" placeholder:"FILE"`
	Report   bool     `help:"Write report.md and report.json too."`
	JSON     bool     `name:"json" help:"Print the manifest on standard output."`
	Quiet    bool     `short:"q" help:"No progress."`
	engineFlags
}

// Help is the long help.
func (c *meshCmd) Help() string {
	return `Writes the four views, the mesh (model.glb; model.obj with model.mtl and texture.png),
turntable.gif, preview.png and the manifest result.json.
Meshes of the model mvdream-sd21 are experimental.`
}

// Run makes four views and a mesh of them.
func (c *meshCmd) Run(a *app) error {
	start := time.Now()
	if c.Steps < 0 || c.Guidance < 0 {
		return usagef("steps and guidance must not be negative")
	}
	set, err := c.settings()
	if err != nil {
		return usageError{err}
	}
	req, err := localRequest(queue.Mesh, joinWords(c.Prompt), c.Negative, c.Seed)
	if err != nil {
		return err
	}
	out, err := newOutput(c.Out, req.ID)
	if err != nil {
		return err
	}
	defer out.discard()
	m, closeModel, err := a.openModel(c.engineFlags)
	if err != nil {
		return err
	}
	defer closeModel()
	work, err := m.NewMaking(inference.Order{
		Request: inference.Request{Prompt: req.Prompt, Negative: req.Negative, Seed: *req.Seed, Steps: c.Steps, Guidance: c.Guidance},
		Mesh:    set,
	})
	if err != nil {
		return usageError{err}
	}
	loaded := time.Since(start).Seconds()
	card, err := a.spare(m.Device().Info(), c.engineFlags)
	if err != nil {
		return err
	}
	defer card.close()
	bar := newProgress(a.stderr, c.Quiet)
	defer bar.close()
	for !work.Done() {
		if err := card.rest(a.ctx); err != nil {
			return err
		}
		if _, err := work.Step(a.ctx); err != nil {
			return err
		}
		if !work.Done() {
			bar.show(work.Progress())
		}
	}
	bar.done()
	for _, f := range work.Take() {
		if err := out.write(f); err != nil {
			return err
		}
	}
	timings := work.Timings()
	timings["load"] = loaded
	man, err := manifest(a, m, req, &inference.ViewsResult{Images: work.Images(), Cameras: work.Cameras(), Notices: work.Notices(), Timings: timings})
	if err != nil {
		return err
	}
	man.Quality = "draft"
	if c.Quality == "standard" || c.Quality == "high" {
		man.Notices = append(man.Notices, fmt.Sprintf("Quality %s is not available here; the mesh was made in draft quality.", c.Quality))
	}
	if man.Settings, err = json.Marshal(work.Settings()); err != nil {
		return err
	}
	man.Timings["total"] = time.Since(start).Seconds()
	man.PeakMemory = peakMemory()
	if c.Report {
		if err := out.report(man, inference.Consistency(work.Images(), work.Cameras())); err != nil {
			return err
		}
	}
	return out.publish(a, man, c.JSON)
}

// settings are the defaults, changed by a file and by flags.
func (c *meshCmd) settings() (*inference.MeshSettings, error) {
	switch c.Quality {
	case "", "draft", "standard", "high":
	default:
		return nil, fmt.Errorf("the quality %q is unknown; use draft, standard or high", c.Quality)
	}
	set := inference.DefaultMeshSettings()
	if c.Settings != "" {
		data, err := os.ReadFile(c.Settings)
		if err != nil {
			return nil, fmt.Errorf("read the settings: %w", err)
		}
		if err := yaml.UnmarshalWithOptions(data, &set, yaml.Strict(), yaml.UseJSONUnmarshaler()); err != nil {
			return nil, fmt.Errorf("read the settings %q: %s", c.Settings, yaml.FormatError(err, false, false))
		}
	}
	if len(c.Formats) > 0 {
		set.Formats = c.Formats
	}
	return &set, set.Check()
}

// write puts a finished file into the folder.
func (o *output) write(f asset.File) error {
	if err := os.WriteFile(filepath.Join(o.temp, f.Name), f.Data, 0o644); err != nil {
		return fmt.Errorf("write %q: %w", f.Name, err)
	}
	o.add(f.Role, f.Name)
	return nil
}
