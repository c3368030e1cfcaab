// Package tensor holds host arrays' helpers that several rooms share: the
// counter-based random numbers and the change of layout at the border between
// images and channels-last activations.
package tensor

import "math"

// Normal fills dst with standard normal numbers: the same for the same seed and
// call, whatever the device and the number of threads. Elements are those of the
// Philox 4x32-10 stream that torch's CUDA generator uses (Salmon et al. 2011;
// AUTOMATIC1111/stable-diffusion-webui, modules/rng_philox.py): call numbers the
// draws of one seed.
func Normal(dst []float32, seed uint64, call uint32) {
	for i := range dst {
		r := philox([4]uint32{call, 0, uint32(i), 0}, [2]uint32{uint32(seed), uint32(seed >> 32)})
		u := (float64(r[0]) + 0.5) / (1 << 32)
		v := (float64(r[1]) + 0.5) / (1 << 32) * 2 * math.Pi
		dst[i] = float32(math.Sqrt(-2*math.Log(u)) * math.Sin(v))
	}
}

// philox is ten rounds on a counter.
func philox(c [4]uint32, key [2]uint32) [4]uint32 {
	for range 10 {
		a, b := uint64(c[0])*0xD2511F53, uint64(c[2])*0xCD9E8D57
		c = [4]uint32{uint32(b>>32) ^ c[1] ^ key[0], uint32(b), uint32(a>>32) ^ c[3] ^ key[1], uint32(a)}
		key[0] += 0x9E3779B9
		key[1] += 0xBB67AE85
	}
	return c
}

// ToLast copies src (N, C, H·W) to dst (N, H·W, C).
func ToLast(dst, src []float32, n, c, pixels int) {
	for i := range n {
		for k := range c {
			for p := range pixels {
				dst[(i*pixels+p)*c+k] = src[(i*c+k)*pixels+p]
			}
		}
	}
}
