package inference

import (
	"testing"

	"dreamcad/inference/camera"
	"dreamcad/inference/device/cpu"
)

// TestNetworkDoesNotAllocate: all operations of a UNet call run without taking memory
// from the heap; around them a step makes a handful of short lists.
func TestNetworkDoesNotAllocate(t *testing.T) {
	m := open(t, cpu.Options{})
	p, err := m.Prompt("a ceramic coffee mug", "")
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Denoise(DenoiseOptions{Prompt: p, Cameras: camera.Orbit(90, 15, 360, 4), Guidance: 5, Steps: 20, Latents: m.Noise(1, 0, 4)})
	if err != nil {
		t.Fatal(err)
	}
	step := func() {
		d.next = 0
		if err := d.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(2, step); n > 10 {
		t.Errorf("a step takes memory %g times", n)
	}
	network, err := m.denoiserOf(d.key(1))
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(2, func() {
		if err := network.exec.Run(); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("the network takes memory %g times", n)
	}
}
