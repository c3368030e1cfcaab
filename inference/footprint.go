package inference

import (
	"fmt"

	"dreamcad/inference/device"
)

// What a card needs besides weights and the planned values of the largest program:
// sums of split products, room for transfers, prompts, tables, blocks half full.
const besides = 160 << 20

// Footprint is the device memory, in bytes, that pictures of so many jobs at once
// take on a card with numbers of two bytes, its context not counted.
func (m *Model) Footprint(jobs int) (int64, error) {
	d, halves := m.Bundle, 2
	images, size := jobs*d.Views, d.LatentSize()
	step := device.NewProgram("denoising step")
	x := step.New(images, size, size, d.LatentChannels)
	emb := step.New(halves*images, 1, 1, m.unet.EmbedWidth())
	kv := step.New(halves*jobs, 1, d.Text.ContextLength, m.unet.KeysWidth())
	if err := m.unet.Forward(step, x, emb, kv, d.Views, step.New(halves*images, size, size, d.LatentChannels)); err != nil {
		return 0, fmt.Errorf("plan the memory of model %q: %w", d.Name, err)
	}
	decode := device.NewProgram("decoder")
	err := m.vae.Decode(decode, decode.New(d.Views, size, size, d.LatentChannels), decode.New(d.Views, d.ImageSize, d.ImageSize, 3))
	if err != nil {
		return 0, fmt.Errorf("plan the memory of model %q: %w", d.Name, err)
	}
	largest := 0
	for _, p := range []*device.Program{step, decode} {
		if p.Err() != nil {
			return 0, p.Err()
		}
		_, total := device.Plan(p, 128, 0)
		largest = max(largest, total)
	}
	elements := int64(0)
	for _, t := range d.Tensors() {
		n := int64(1)
		for _, s := range t.Shape {
			n *= int64(s)
		}
		elements += n
	}
	return 2*(elements+int64(largest)) + besides, nil
}
