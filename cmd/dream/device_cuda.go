//go:build cuda

package main

// builtWithCUDA tells whether this binary holds the CUDA device.
const builtWithCUDA = true
