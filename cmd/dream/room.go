package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/ops/gpu"
)

// noRoom says that a card's memory does not hold a model.
type noRoom struct {
	model, card string
	need        int64 // bytes
	free, total int64
	holders     string // who has the rest; empty: not known
}

// spare is what the driver itself takes of a card.
const spare = 600 << 20

func (e *noRoom) Error() string {
	if e.need > e.total-spare {
		return fmt.Sprintf("%s is too small for the model %s, which needs %s of memory: it has %s (--model %s needs little, --device cpu none)",
			e.card, e.model, gibibytes(e.need), gibibytes(e.total), builtin)
	}
	who := e.holders
	if who == "" {
		who = "other programs hold the rest"
	}
	return fmt.Sprintf("the model %s needs %s of memory on %s, and %s of %s are free: %s", e.model, gibibytes(e.need), e.card, gibibytes(e.free), gibibytes(e.total), who)
}

// checkRoom demands that pictures of one job fit into the free memory of a card.
func checkRoom(m *inference.Model) error {
	card, ok := m.Device().(device.Limited)
	if !ok {
		return nil
	}
	need, err := m.Footprint(1)
	if err != nil {
		return err
	}
	free, err := card.FreeMemory()
	if err != nil {
		return err
	}
	if need <= free {
		return nil
	}
	info := m.Device().Info()
	return &noRoom{model: m.Bundle.Name, card: info.Name, need: need, free: free, total: info.Memory, holders: holders(cardProcesses(info.UUID))}
}

// mostTogether is how many jobs a card makes at once: beyond it a batch gains little
// and each job in it takes longer (docs/performance.md).
const mostTogether = 4

// together is how many jobs a worker makes at once. A processor gains nothing by it.
func (a *app) together(m *inference.Model, f engineFlags) int {
	switch n := a.config.Worker.Batch; {
	case f.Deterministic:
		return 1
	case n > 0:
		return n
	}
	card, ok := m.Device().(device.Limited)
	if !ok {
		return 1
	}
	free, err := card.FreeMemory()
	if err != nil {
		return 1
	}
	for n := mostTogether; n > 1; n-- {
		// A fifth stays free: near a full card no new work is taken. One of the jobs may be a mesh.
		set := inference.DefaultMeshSettings()
		if need, err := m.Footprint(n); err == nil && need+m.MeshFootprint(&set) < free/5*4 {
			return n
		}
	}
	return 1
}

// cardProcesses lists the programs on a card, or on every card without a UUID.
func cardProcesses(uuid string) []gpu.Process {
	s, err := gpu.Open()
	if err != nil {
		return nil
	}
	defer s.Close()
	var out []gpu.Process
	for _, c := range s.Read() {
		if uuid == "" || c.UUID == uuid {
			out = append(out, c.Processes...)
		}
	}
	return out
}

// holders says who holds a card's memory, this process left out.
func holders(ps []gpu.Process) string {
	ps = slices.DeleteFunc(slices.Clone(ps), func(p gpu.Process) bool { return p.PID == os.Getpid() })
	slices.SortFunc(ps, func(a, b gpu.Process) int { return cmp.Compare(b.Memory.V, a.Memory.V) })
	var out []string
	for _, p := range ps {
		name := "a program"
		if p.Name != "" {
			name = p.Name
		}
		text := fmt.Sprintf("%s (process %d)", name, p.PID)
		if p.Memory.Known {
			text += " holds " + gibibytes(int64(p.Memory.V))
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// withHolders adds to an error about a card's memory who holds it.
func withHolders(err error) error {
	var memory *device.MemoryError
	if !errors.As(err, &memory) {
		return err
	}
	if who := holders(cardProcesses(memory.UUID)); who != "" {
		return fmt.Errorf("%w; %s", err, who)
	}
	return err
}

func gibibytes(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
