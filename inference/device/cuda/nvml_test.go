//go:build cuda

package cuda

import (
	"fmt"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvmlUsed is the memory in use of every card by its UUID, in bytes, as NVML counts it:
// all programs, their contexts and what the driver keeps for them.
func nvmlUsed() (map[string]uint64, error) {
	if r := nvml.Init(); r != nvml.SUCCESS {
		return nil, fmt.Errorf("open NVML: %s", nvml.ErrorString(r))
	}
	defer nvml.Shutdown()
	n, r := nvml.DeviceGetCount()
	if r != nvml.SUCCESS {
		return nil, fmt.Errorf("count the cards: %s", nvml.ErrorString(r))
	}
	out := map[string]uint64{}
	for i := range n {
		d, r := nvml.DeviceGetHandleByIndex(i)
		if r != nvml.SUCCESS {
			return nil, fmt.Errorf("card %d: %s", i, nvml.ErrorString(r))
		}
		uuid, r := d.GetUUID()
		if r != nvml.SUCCESS {
			return nil, fmt.Errorf("UUID of card %d: %s", i, nvml.ErrorString(r))
		}
		m, r := d.GetMemoryInfo()
		if r != nvml.SUCCESS {
			return nil, fmt.Errorf("memory of card %d: %s", i, nvml.ErrorString(r))
		}
		out[uuid] = m.Used
	}
	return out, nil
}

// viewsMemory prints what a job of pictures took of the card since before, when no
// program of ours was on it, and fails beyond what a small card has.
func viewsMemory(t *testing.T, uuid string, before map[string]uint64) {
	t.Helper()
	after, err := nvmlUsed()
	if err != nil {
		t.Error(err)
		return
	}
	was, known := before[uuid]
	if !known {
		t.Errorf("NVML knows no card %s", uuid)
		return
	}
	took := float64(after[uuid]-was) / (1 << 30)
	fmt.Printf("device memory of views by NVML: %.2f GiB, context included (before %.2f, after %.2f)\n", took, float64(was)/(1<<30), float64(after[uuid])/(1<<30))
	if took > 4 {
		t.Errorf("views took %.2f GiB, at most 4 are allowed", took)
	}
}

// The scripted card of ops/gpu/gputest stands for a real one in LD_LIBRARY_PATH.
func TestMemoryByNVML(t *testing.T) {
	used, err := nvmlUsed()
	if err != nil {
		t.Skip(err)
	}
	for uuid, n := range used {
		if uuid == "" || n == 0 {
			t.Errorf("card %q has %d bytes in use", uuid, n)
		}
	}
	t.Log(used)
}
