//go:build cuda

package cuda

import (
	"strings"
	"testing"
	"time"

	"dreamcad/inference/device"
)

// The tests that dream doctor runs on a card: the memory comes back whole, more
// than there is is refused in words, and figures are those of a card.
func TestMemoryTester(t *testing.T) {
	card := openCard(t, Options{}).(*Card)
	before, total, err := card.Memory()
	if err != nil || before <= 0 || before > total {
		t.Fatalf("%d of %d free, %v", before, total, err)
	}
	if err := card.TestMemory(5<<30 + 12); err != nil {
		t.Error(err)
	}
	if err := card.TestMemory(2 * total); err == nil || !strings.Contains(err.Error(), "are free") {
		t.Errorf("twice the memory: %v", err)
	}
	after, _, err := card.Memory()
	if err != nil || after < before-1<<28 {
		t.Errorf("%d bytes free before, %d after, %v", before, after, err)
	}
	rate, err := card.TestCopy(1 << 30)
	if err != nil || rate < 50e9 {
		t.Errorf("copies %g bytes/s, %v", rate, err)
	}
	flops, err := device.MeasureProduct(card, 4096, 100*time.Millisecond)
	if err != nil || flops < 1e12 {
		t.Errorf("%g FLOP/s, %v", flops, err)
	}
	t.Logf("%.0f GB/s, %.0f TFLOP/s", rate/1e9, flops/1e12)
}
