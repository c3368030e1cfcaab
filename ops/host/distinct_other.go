//go:build !unix

package host

import "slices"

// Distinct leaves out empty names and repetitions; file systems are not told apart here.
func Distinct(dirs []string) []string {
	var out []string
	for _, dir := range dirs {
		if dir != "" && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}
