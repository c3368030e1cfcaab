//go:build !amd64

package cpu

import "runtime"

func available() []*kernels { return []*kernels{portable()} }

func pause() { runtime.Gosched() }
