// Package cuda runs networks on an NVIDIA card.
//
// Programs become CUDA graphs of our own kernels (kernels/*.cu, compiled ahead
// for every generation of cards and embedded): implicit-GEMM convolutions and
// products on tensor cores, attention without a stored score matrix, fused
// norms. Storage is fp16 with fp32 accumulation; norms and softmax are fp32.
// Only the driver is needed at run time.
//
// Card.Fields fits and draws the fields of draft meshes (kernels/field.cu).
//
// Without the build tag cuda, or without a driver, [Open] returns an
// [Unavailable] that says why, and the caller takes the CPU device.
package cuda

import "fmt"

// Unavailable says in one sentence why no card can be used.
type Unavailable struct {
	Reason string // for people, without a full stop
	Cause  error  // may be nil
}

func (u *Unavailable) Error() string {
	if u.Cause != nil {
		return fmt.Sprintf("%s: %v", u.Reason, u.Cause)
	}
	return u.Reason
}

// Unwrap gives the cause.
func (u *Unavailable) Unwrap() error { return u.Cause }

// Options of a device.
type Options struct {
	// Deterministic fixes the algorithm of every operation, so that the same
	// card gives the same bytes in every process; otherwise the fastest of
	// several is chosen by measuring.
	Deterministic bool
	// CacheDir keeps the choices between processes; empty means the user's cache folder.
	CacheDir string
}
