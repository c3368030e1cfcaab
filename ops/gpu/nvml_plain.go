//go:build !cgo || !linux

package gpu

import "errors"

// ErrNoDriver means that no NVIDIA driver (or no card) is here.
var ErrNoDriver = errors.New("this build cannot look at GPUs (it was made without cgo)")

// Sensors is the twin of builds without cgo: nothing is known.
type Sensors struct{}

// Open always answers ErrNoDriver.
func Open() (*Sensors, error) { return nil, ErrNoDriver }

// Driver is unknown.
func (*Sensors) Driver() Driver { return Driver{} }

// Read returns no cards.
func (*Sensors) Read() []Sample { return nil }

// Close does nothing.
func (*Sensors) Close() error { return nil }
