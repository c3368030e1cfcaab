//go:build unix

package host

import (
	"os"
	"path/filepath"
	"syscall"
)

// Distinct keeps the first directory of each file system. One that is not there
// yet stands for its nearest parent; empty names are left out.
func Distinct(dirs []string) []string {
	var out []string
	seen := map[any]bool{} // device numbers, whose type differs between systems
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		for {
			if i, err := os.Stat(dir); err == nil {
				if s, ok := i.Sys().(*syscall.Stat_t); ok && !seen[s.Dev] {
					seen[s.Dev] = true
					out = append(out, dir)
				}
				break
			}
			up := filepath.Dir(dir)
			if up == dir {
				break
			}
			dir = up
		}
	}
	return out
}
