//go:build linux || darwin

package doctor

import "golang.org/x/sys/unix"

// maxFiles is how many files this process may open when it asks for all: Go
// raises the soft limit to the hard one by itself.
func maxFiles() (uint64, error) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Max, err
}
