//go:build cuda

package cuda

import (
	"context"
	"math"
	"slices"
	"testing"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
)

func openMini(t *testing.T, dev device.Device) *inference.Model {
	t.Helper()
	m, err := inference.Open(bundles(t)[0], dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// miniPictures makes the views of one prompt, one after the other in one slice.
func miniPictures(t *testing.T, dev device.Device) []float32 {
	t.Helper()
	r, err := openMini(t, dev).Views(context.Background(), inference.Request{Prompt: "a red chair", Seed: 7}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []float32
	for _, i := range r.Images {
		out = append(out, i.Pix...)
	}
	return out
}

func cpuDevice(t *testing.T) device.Device {
	t.Helper()
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	return dev
}

// TestMiniModel draws with the built-in model on the card and on the processor: nobody may see a difference.
func TestMiniModel(t *testing.T) {
	card := openCard(t, Options{})
	got, want := miniPictures(t, card), miniPictures(t, cpuDevice(t))
	var square float64
	for i := range want {
		d := float64(got[i] - want[i])
		square += d * d
	}
	psnr := -10 * math.Log10(square/float64(len(want)))
	t.Logf("%d pixels, PSNR %.1f dB", len(want)/3, psnr)
	if !(psnr > 45) {
		t.Errorf("the card's pictures differ from the processor's: PSNR %.1f dB", psnr)
	}
}

// TestMiniGradient takes the gradient of the built-in encoder on both devices.
func TestMiniGradient(t *testing.T) {
	card := openCard(t, Options{})
	pixels := miniPictures(t, card)
	var latents, grads [2][]float32
	for i, dev := range []device.Device{card, cpuDevice(t)} {
		m := openMini(t, dev)
		var err error
		if latents[i], err = m.Encode(pixels, 4); err != nil {
			t.Fatal(err)
		}
		direction := slices.Clone(latents[0]) // the gradient of half the squared length
		if _, grads[i], err = m.EncodeGradient(pixels, direction, 4); err != nil {
			t.Fatal(err)
		}
	}
	for i, pair := range [][2][]float32{latents, grads} {
		if d := distance(pair[0], pair[1]); !(d < 1e-2) {
			t.Errorf("%s differ by %.3g", []string{"latents", "gradients"}[i], d)
		} else {
			t.Logf("%s: %.2g", []string{"latents", "gradients"}[i], d)
		}
	}
}

// TestDeterministic opens the card twice with fixed algorithms and wants the same bytes.
func TestDeterministic(t *testing.T) {
	a, b := miniPictures(t, openCard(t, Options{Deterministic: true})), miniPictures(t, openCard(t, Options{Deterministic: true}))
	if !slices.Equal(a, b) {
		t.Errorf("two deterministic runs differ by %.3g", distance(a, b))
	}
}
