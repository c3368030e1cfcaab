package devicetest

import (
	"slices"
	"testing"

	"dreamcad/inference/device"
)

// Copies tests copies between buffers, of numbers that fp16 holds.
func Copies(t *testing.T, d device.Device) {
	buffer := func(s device.Shape, p device.Precision, first float32) device.Buffer {
		b, err := d.NewBuffer(s, p)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		x := make([]float32, s.Len())
		for i := range x {
			x[i] = first + float32(i)
		}
		if err := b.Write(x); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, p := range []device.Precision{device.Working, device.Full} {
		src := buffer(device.Shape{N: 3, H: 1, W: 2, C: 5}, p, 100)
		dst := buffer(device.Shape{N: 4, H: 1, W: 2, C: 5}, p, 500)
		if err := dst.Copy(2, src, 1, 2); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, 40)
		if err := dst.Read(got); err != nil {
			t.Fatal(err)
		}
		want := make([]float32, 40)
		for i := range want {
			want[i] = 500 + float32(i)
			if i >= 20 {
				want[i] = 100 + float32(i-10)
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("copy of images 1, 2 to 2, 3 gave %v", got)
		}
		other := buffer(device.Shape{N: 3, H: 1, W: 2, C: 4}, p, 0)
		for name, err := range map[string]error{
			"behind the end of the source": dst.Copy(0, src, 2, 2), "behind the end of the target": dst.Copy(3, src, 0, 2),
			"other images": dst.Copy(0, other, 0, 1), "nothing": dst.Copy(0, src, 0, 0), "before the start": dst.Copy(-1, src, 0, 1), "itself": dst.Copy(0, dst, 1, 1),
		} {
			if err == nil {
				t.Errorf("copy of %s went through", name)
			}
		}
	}
}

// Large checks that a buffer larger than a device's room for transfers arrives
// whole, both ways.
func Large(t *testing.T, d device.Device) {
	s := device.Shape{N: 5, H: 1024, W: 1024, C: 1}
	b, err := d.NewBuffer(s, device.Full)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Free)
	want, got := make([]float32, s.Len()), make([]float32, s.Len())
	for i := range want {
		want[i] = float32(i)
	}
	if err := b.Write(want); err != nil {
		t.Fatal(err)
	}
	if err := b.Read(got); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Error("a buffer of 20 MB came back changed")
	}
}
