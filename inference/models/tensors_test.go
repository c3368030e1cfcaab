package models

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"dreamcad/inference/weights"
)

// catalogue is a Source without data: names and shapes only.
type catalogue map[string]weights.Info

func (c catalogue) Keys() []string {
	keys := sortedKeys(c)
	return keys
}
func (c catalogue) Lookup(name string) (weights.Info, bool)      { i, ok := c[name]; return i, ok }
func (c catalogue) Raw(string) ([]byte, error)                   { return nil, os.ErrNotExist }
func (c catalogue) Float32(string, []float32) ([]float32, error) { return nil, os.ErrNotExist }
func (c catalogue) Close() error                                 { return nil }

// checkpointTable is the state dict of the original's modules.
func checkpointTable(t *testing.T) catalogue {
	t.Helper()
	b, err := os.ReadFile("testdata/mvdream-sd21-tensors.tsv")
	if err != nil {
		t.Fatal(err)
	}
	c := catalogue{}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, text, _ := strings.Cut(strings.TrimSpace(line), "\t")
		shape := []int{}
		if err := json.Unmarshal([]byte(text), &shape); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		c[name] = weights.Info{DType: weights.F32, Shape: shape}
	}
	return c
}

func fullModel(t *testing.T) *Description {
	t.Helper()
	d, err := Registered("mvdream-sd21")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// All 1,244 tensors of the original checkpoint are accounted for: each is
// needed, in the shape that the description gives it, or known to be spare.
func TestEveryTensorOfTheOriginal(t *testing.T) {
	table, d := checkpointTable(t), fullModel(t)
	if len(table) != 1244 {
		t.Fatalf("the table has %d tensors", len(table))
	}
	elements := 0
	for _, i := range table {
		elements += i.Elements()
	}
	if elements != 1_305_270_668 {
		t.Errorf("%d elements", elements)
	}
	diff := d.Account(table)
	if err := diff.Err(); err != nil {
		t.Error(err)
	}
	if len(diff.Extra) > 0 {
		t.Errorf("unknown: %q", diff.Extra)
	}
	needed := map[string]bool{}
	for _, w := range d.Tensors() {
		if needed[w.Name] {
			t.Errorf("%q is listed twice", w.Name)
		}
		needed[w.Name] = true
	}
	spare := 0
	for name := range table {
		if !needed[name] {
			spare++
		}
	}
	if len(needed) != 1218 || spare != 12+2+12 {
		t.Errorf("%d needed, %d spare", len(needed), spare)
	}
}

// What differs is named.
func TestAccountNames(t *testing.T) {
	table, d := checkpointTable(t), fullModel(t)
	delete(table, UNetPrefix+"out.2.bias")
	table[VAEPrefix+"quant_conv.weight"] = weights.Info{DType: weights.F32, Shape: []int{8, 8}}
	table[UNetPrefix+"input_blocks.0.0.weight"] = weights.Info{DType: weights.I64, Shape: []int{320, 4, 3, 3}}
	table["model_ema.decay"] = weights.Info{DType: weights.F32}
	table[TextPrefix+"attn_mask"] = weights.Info{DType: weights.F32, Shape: []int{77, 77}}
	diff := d.Account(table)
	if !slices.Equal(diff.Missing, []string{UNetPrefix + "out.2.bias"}) ||
		!slices.Equal(diff.Extra, []string{"model_ema.decay"}) ||
		len(diff.Misshapen) != 2 ||
		!slices.Contains(diff.Misshapen, VAEPrefix+"quant_conv.weight: F32 [8 8], not [8 8 1 1]") {
		t.Errorf("%+v", diff)
	}
}

func TestRegistered(t *testing.T) {
	if _, err := Registered("nothing"); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("%v", err)
	}
	d := fullModel(t)
	if d.LatentSize() != 32 || d.UNet.TimeDim() != 1280 || !d.UNet.Attention(2) || d.UNet.Attention(3) {
		t.Errorf("%+v", d.UNet)
	}
	if s, ok := d.Notice("a dragon"); ok {
		t.Errorf("an open vocabulary has a notice: %s", s)
	}
}

// The whole way with a checkpoint of full size that PyTorch wrote
// (testdata/full_checkpoint.py): pull, account, convert, read back. It needs
// 13 GB of disk, so it runs when DREAM_FULL_CHECKPOINT names the file.
func TestFullCheckpoint(t *testing.T) {
	path := os.Getenv("DREAM_FULL_CHECKPOINT")
	if path == "" {
		t.Skip("DREAM_FULL_CHECKPOINT names no file")
	}
	ctx := context.Background()
	s := &Store{Dir: t.TempDir()}
	b, err := s.Pull(ctx, "mvdream-sd21", PullOptions{From: path})
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.OpenWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if n := len(before.Keys()); n != 1244 {
		t.Errorf("%d tensors", n)
	}
	if b, err = s.Convert(ctx, "mvdream-sd21", ConvertOptions{}); err != nil {
		t.Fatal(err)
	}
	after, err := b.OpenWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	for _, w := range b.Tensors() {
		x, err := before.Float32(w.Name, nil)
		if err != nil {
			t.Fatal(err)
		}
		y, err := after.Float32(w.Name, nil)
		if err != nil {
			t.Fatal(err)
		}
		zero := true
		for i := range x {
			if math.Abs(float64(x[i]-y[i])) > 1e-3*math.Abs(float64(x[i]))+1e-7 {
				t.Fatalf("%s element %d: %v became %v", w.Name, i, x[i], y[i])
			}
			zero = zero && x[i] == 0
		}
		if zero {
			t.Errorf("%s is all zero", w.Name)
		}
	}
	if findings, err := s.Verify(ctx, b, nil); err != nil || !Healthy(findings) {
		t.Errorf("%+v, %v", findings, err)
	}
}
