package inference

import (
	"testing"

	"dreamcad/inference/device/cpu"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/models"
	"dreamcad/inference/vae"
)

// shapes is a checkpoint without numbers.
type shapes map[string][]int

func (s shapes) Shape(name string) ([]int, bool) { x, ok := s[name]; return x, ok }

func (s shapes) Float32(string, int, []float32) error { return nil }

// The footprint is at least the weights in two bytes, and grows with the jobs.
func TestFootprint(t *testing.T) {
	m := open(t, cpu.Options{})
	var weights int64
	for _, w := range m.Bundle.Tensors() {
		n := int64(2)
		for _, s := range w.Shape {
			n *= int64(s)
		}
		weights += n
	}
	one, err := m.Footprint(1)
	if err != nil {
		t.Fatal(err)
	}
	eight, err := m.Footprint(32)
	if err != nil {
		t.Fatal(err)
	}
	if one < weights+besides || eight <= one || eight > 32*one {
		t.Errorf("footprint %d for one job, %d for 32, weights %d", one, eight, weights)
	}
}

// The full model needs about 3 GiB for one job, so that cards of 4 GiB serve it; a
// card holds 3.47 GiB after one, the driver's own half included (docs/performance.md).
func TestFootprintOfTheFullModel(t *testing.T) {
	d, err := models.Registered("mvdream-sd21")
	if err != nil {
		t.Fatal(err)
	}
	src := shapes{}
	for _, w := range d.Tensors() {
		src[w.Name] = w.Shape
	}
	m := &Model{Bundle: &models.Bundle{Description: *d}, vae: vae.New(src, models.VAEPrefix, d.VAE)}
	if m.unet, err = diffusion.NewUNet(src, models.UNetPrefix, d.UNet, d.LatentChannels); err != nil {
		t.Fatal(err)
	}
	for jobs, most := range map[int]float64{1: 3.3, 4: 4, 8: 5} {
		n, err := m.Footprint(jobs)
		gib := float64(n) / (1 << 30)
		if err != nil || gib < 2.8 || gib > most {
			t.Errorf("%d jobs need %.2f GiB, want 2.8 to %.1f (%v)", jobs, gib, most, err)
		}
		t.Logf("%d jobs: %.2f GiB", jobs, gib)
	}
}
