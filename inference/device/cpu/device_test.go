package cpu

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/inference/device"
	"dreamcad/inference/device/devicetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for _, name := range KernelNames() {
		for _, threads := range []int{1, 3} {
			t.Run(fmt.Sprint(name, threads), func(t *testing.T) {
				d, err := New(Options{Kernels: name, Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				devicetest.Run(t, d, 3e-6)
				devicetest.Grads(t, d, 3e-6)
				devicetest.Copies(t, d)
				devicetest.Large(t, d)
			})
		}
	}
}

func TestMeasureProduct(t *testing.T) {
	d, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	flops, err := device.MeasureProduct(d, 128, 10*time.Millisecond)
	if err != nil || flops < 1e6 {
		t.Fatalf("%g FLOP/s, %v", flops, err)
	}
}
