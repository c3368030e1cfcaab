package inference

import (
	"fmt"
	"slices"

	"dreamcad/inference/device"
	"dreamcad/inference/field"
)

// What a card needs besides weights and the planned values of the largest program:
// sums of split products, room for transfers, blocks half full.
const besides = 160 << 20

// Footprint is the device memory, in bytes, that pictures of so many jobs at once
// take on a card with numbers of two bytes, its context not counted. For meshes see
// MeshFootprint.
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
	return 2*(elements+int64(largest)+int64(m.keptElements(d.Views))) + besides, nil
}

// MeshFootprint is the device memory, in bytes, that the fields of one mesh take besides
// the pictures: two fits at a time (a vessel is fitted closed and emptied), room for the
// largest kept, the drawing, and the rays of every pixel of every view while their list
// moves to a larger place.
func (m *Model) MeshFootprint(set *MeshSettings) int64 {
	views, size := m.Bundle.Views, m.Bundle.ImageSize
	grid := set.Draft.Refit.Grid
	for _, s := range append(slices.Clone(set.Draft.Scaffold), set.Draft.Final...) {
		grid = max(grid, s.Grid)
	}
	fits := 2 * field.FitBytes(grid, grid*grid*grid)
	pictures := views * (1 + len(set.Draft.Rounds))
	rays := int64(pictures) * int64(size) * int64(size) * field.RayBytes
	return fits + field.DrawBytes(grid, pictures, size) + rays*(1+field.RayGrowth)
}
