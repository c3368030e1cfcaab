package mesheval

import (
	_ "embed"
	"strings"
)

// Prompts are one of every thing that the first models knew, one a line, in colours
// that their training left out where there were such.
//
//go:embed prompts.txt
var Prompts string

// Cases reads prompts, one a line, and takes each with several seeds. Empty lines and
// lines that start with # are skipped, as are those that do not contain only.
func Cases(text, only string, seed uint64, seeds int) []Case {
	var list []Case
	for p := range strings.Lines(text) {
		p = strings.TrimSpace(p)
		if p == "" || strings.HasPrefix(p, "#") || !strings.Contains(p, only) {
			continue
		}
		for k := range seeds {
			list = append(list, Case{Prompt: p, Seed: seed + uint64(k)})
		}
	}
	return list
}
