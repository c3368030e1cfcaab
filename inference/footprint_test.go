package inference

import (
	"testing"

	"dreamcad/inference/device/cpu"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/field"
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

// The fields of a mesh take what the fits, the drawing and the rays of a draft take:
// about a quarter of a GiB with the small model, half of one with the full one.
func TestMeshFootprint(t *testing.T) {
	set := DefaultMeshSettings()
	of := func(name string, views, size int) int64 {
		d := models.Description{Name: name, Views: views, ImageSize: size}
		return (&Model{Bundle: &models.Bundle{Description: d}}).MeshFootprint(&set)
	}
	small, full := of("small", 4, 64), of("full", 4, 256)
	t.Logf("%d and %d MiB", small>>20, full>>20)
	if least := 2 * field.FitBytes(96, 0); small < least || small > 320<<20 {
		t.Errorf("the small model: %d MiB, two fits alone take %d", small>>20, least>>20)
	}
	// The pictures of all rounds, each pixel a ray.
	if more := int64(20*(256*256-64*64)) * field.RayBytes; full < small+more || full > 512<<20 {
		t.Errorf("the full model: %d MiB", full>>20)
	}
	coarse := set
	coarse.Draft.Final, coarse.Draft.Scaffold, coarse.Draft.Rounds = nil, nil, nil
	if m := (&Model{Bundle: &models.Bundle{Description: models.Description{Views: 4, ImageSize: 64}}}); m.MeshFootprint(&coarse) >= small {
		t.Error("rounds take nothing")
	}
}
