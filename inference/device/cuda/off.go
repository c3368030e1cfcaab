//go:build !cuda

package cuda

import "dreamcad/inference/device"

// Built tells whether this binary can use a card at all.
const Built = false

// Count is the number of cards.
func Count() int { return 0 }

// Open reports that this build has no CUDA device.
func Open(int, Options) (device.Device, error) {
	return nil, &Unavailable{Reason: "this build has no CUDA support (make build-cuda gives one that has)"}
}
