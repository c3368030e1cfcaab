package inference

import "golang.org/x/sys/unix"

// PeakMemory is the largest resident size of this process so far, in bytes, or 0
// when it is not known.
func PeakMemory() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return u.Maxrss * 1024 // Linux counts kibibytes
}
