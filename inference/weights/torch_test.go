package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What PyTorch wrote (testdata/checkpoints.py) is read as PyTorch reads it:
// every type, views with offsets and strides, shared storages, modules.
func TestCheckpoints(t *testing.T) {
	for _, name := range []string{"every", "module", "wrapped"} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var want map[string]struct {
				DType  string
				Shape  []int
				Values []float64
			}
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			src, err := Open(filepath.Join("testdata", name+".pt"))
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if got := src.Keys(); !slices.Equal(got, sorted(want)) {
				t.Errorf("keys %q", got)
			}
			for k, w := range want {
				i, _ := src.Lookup(k)
				if !slices.Equal(i.Shape, w.Shape) || torchName(i.DType) != w.DType {
					t.Errorf("%q is %v, want %s %v", k, i, w.DType, w.Shape)
					continue
				}
				raw, err := src.Raw(k)
				if err != nil {
					t.Fatal(err)
				}
				if got := decode(t, raw, i.DType); !slices.Equal(got, w.Values) {
					t.Errorf("%q holds %v, want %v", k, got, w.Values)
				}
				if !i.DType.Float() {
					continue
				}
				f, err := src.Float32(k, nil)
				if err != nil {
					t.Fatal(err)
				}
				for j, v := range f {
					if float64(v) != w.Values[j] {
						t.Fatalf("%q element %d is %v, want %v", k, j, v, w.Values[j])
					}
				}
			}
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
			if err := src.Close(); err != nil {
				t.Errorf("second close: %v", err)
			}
		})
	}
}

func sorted[V any](m map[string]V) []string {
	keys := []string{}
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func torchName(d DType) string {
	return [...]string{F32: "float32", F16: "float16", BF16: "bfloat16", F64: "float64",
		I64: "int64", I32: "int32", I16: "int16", I8: "int8", U8: "uint8", Bool: "bool"}[d]
}

// decode widens any type, one element at a time.
func decode(t *testing.T, raw []byte, d DType) []float64 {
	t.Helper()
	out := []float64{}
	for ; len(raw) > 0; raw = raw[d.Size():] {
		var v float64
		switch d {
		case F32:
			v = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw)))
		case F16:
			v = float64(HalfToFloat(binary.LittleEndian.Uint16(raw)))
		case BF16:
			v = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(raw)) << 16))
		case F64:
			v = math.Float64frombits(binary.LittleEndian.Uint64(raw))
		case I64:
			v = float64(int64(binary.LittleEndian.Uint64(raw)))
		case I32:
			v = float64(int32(binary.LittleEndian.Uint32(raw)))
		case I16:
			v = float64(int16(binary.LittleEndian.Uint16(raw)))
		case I8:
			v = float64(int8(raw[0]))
		case U8, Bool:
			v = float64(raw[0])
		}
		out = append(out, v)
	}
	return out
}

// Checkpoints that are not plain state dicts are refused with one sentence,
// and nothing in them runs.
func TestRefusedCheckpoints(t *testing.T) {
	const ran = "/tmp/a-checkpoint-ran-this"
	if err := os.Remove(ran); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"evil":         `it wants to use "posix.system"`,
		"legacy":       "before version 1.6",
		"expanded":     "repeats elements",
		"list":         "is not one that weights need",
		"nothing":      "holds no tensors",
		"whole_module": `it wants to use "torch.nn.modules.linear.Linear"`,
		"parameter":    `it wants to use "torch._utils._rebuild_parameter"`,
		"script":       "TorchScript program",
	} {
		_, err := Open(filepath.Join("testdata", name+".pt"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", name, err, want)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the checkpoint ran a command")
	}
}

// Every truncation of a real file is refused, or leaves it whole: the archive
// ends in a directory, so that only cutting nothing is harmless.
func TestTruncatedCheckpoint(t *testing.T) {
	b, err := os.ReadFile("testdata/module.pt")
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		if _, err := ReadCheckpoint("cut", b[:n]); err == nil {
			t.Fatalf("%d of %d bytes were accepted", n, len(b))
		}
	}
}

// tiny builds checkpoints by hand: the pickle and the entries are the test's.
func tiny(t testing.TB, pickle string, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newArchive(t, &b)
	w.store("m/data.pkl", []byte(pickle))
	for i := 0; i < len(entries); i += 2 {
		w.store(entries[i], []byte(entries[i+1]))
	}
	w.close()
	return b.Bytes()
}

// one is the pickle of {"a": tensor} with everything but the storage given.
func one(elements, offset string, size, stride string) string {
	return "\x80\x02}" + item(elements, offset, size, stride) + "."
}

// item puts one tensor under the key "a" into the dictionary on the stack.
func item(elements, offset, size, stride string) string {
	return "X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" +
		"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + elements + "tQ" +
		offset + size + stride + "\x89ccollections\nOrderedDict\n)RtRs"
}

func TestHandmadeCheckpoints(t *testing.T) {
	const data = "\x00\x00\x80\x3f\x00\x00\x00\x40" // 1, 2
	good := one("K\x02", "K\x00", "K\x02\x85", "K\x01\x85")
	c, err := ReadCheckpoint("m", tiny(t, good, "m/data/0", data))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.Float32("a", nil); err != nil || !slices.Equal(v, []float32{1, 2}) {
		t.Fatalf("%v, %v", v, err)
	}
	long := "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f" // the largest integer
	negative := "J\xff\xff\xff\xff"
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"no pickle":        {emptyArchive(t), "no data.pkl"},
		"no storage":       {tiny(t, good), `no storage "0"`},
		"short storage":    {tiny(t, good, "m/data/0", data[:4]), "has 4 bytes, not 2 elements"},
		"long storage":     {tiny(t, good, "m/data/0", data+data), "has 16 bytes, not 2 elements"},
		"twice":            {tiny(t, good, "m/data/0", data, "m/data/0", data), "twice"},
		"two pickles":      {tiny(t, good, "n/data.pkl", good), "two pickles"},
		"big-endian":       {tiny(t, good, "m/data/0", data, "m/byteorder", "big"), "big-endian"},
		"offset":           {tiny(t, one("K\x02", "K\x01", "K\x02\x85", "K\x01\x85"), "m/data/0", data), "does not fit"},
		"offset far":       {tiny(t, one("K\x02", long, "K\x01\x85", "K\x01\x85"), "m/data/0", data), "does not fit"},
		"offset negative":  {tiny(t, one("K\x02", negative, "K\x01\x85", "K\x01\x85"), "m/data/0", data), "does not fit"},
		"stride":           {tiny(t, one("K\x02", "K\x00", "K\x02\x85", "K\x02\x85"), "m/data/0", data), "does not fit"},
		"stride far":       {tiny(t, one("K\x02", "K\x00", "K\x02\x85", long+"\x85"), "m/data/0", data), "does not fit"},
		"stride negative":  {tiny(t, one("K\x02", "K\x01", "K\x02\x85", negative+"\x85"), "m/data/0", data), "does not fit"},
		"size far":         {tiny(t, one("K\x02", "K\x00", long+"\x85", "K\x00\x85"), "m/data/0", data), "too large"},
		"size negative":    {tiny(t, one("K\x02", "K\x00", negative+"\x85", "K\x01\x85"), "m/data/0", data), "negative"},
		"sizes overflow":   {tiny(t, one("K\x02", "K\x00", long+long+"\x86", "K\x00K\x00\x86"), "m/data/0", data), "too large"},
		"zero hides":       {tiny(t, one("K\x02", "K\x00", long+long+"K\x00\x87", "K\x00K\x00K\x00\x87"), "m/data/0", data), "too large"},
		"rank":             {tiny(t, one("K\x02", "K\x00", "K\x02\x85", "K\x01K\x01\x86"), "m/data/0", data), "unknown way"},
		"elements far":     {tiny(t, one(long, "K\x00", "K\x02\x85", "K\x01\x85"), "m/data/0", data), "not 9223372036854775807 elements"},
		"pickle cut":       {tiny(t, good[:len(good)-3], "m/data/0", data), "ends too early"},
		"pickle empty":     {tiny(t, ""), "ends too early"},
		"protocol 4":       {tiny(t, "\x80\x04."), "pickle protocol 4"},
		"op code":          {tiny(t, "\x80\x02I1\n."), "op code 0x49"},
		"stack":            {tiny(t, "\x80\x02s."), "stack"},
		"left over":        {tiny(t, "\x80\x02NN."), "stack"},
		"memo":             {tiny(t, "\x80\x02h\x07."), "recalls value 7"},
		"no dictionary":    {tiny(t, "\x80\x02N."), "not a dictionary"},
		"mark in a tensor": {tiny(t, one("K\x02", "K\x00", "(K\x02t", "(K\x01tt"), "m/data/0", data), "stack"},
		"same key":         {tiny(t, good[:len(good)-1]+item("K\x02", "K\x00", "K\x01\x85", "K\x01\x85")+".", "m/data/0", data), `tensor "a" occurs twice`},
		"build":            {tiny(t, "\x80\x02NNb."), "sets attributes"},
		"call":             {tiny(t, "\x80\x02ctorch\nFloatStorage\n)R."), "calls something"},
		"call with":        {tiny(t, "\x80\x02ccollections\nOrderedDict\nN\x85R."), "built from arguments"},
		"persistent":       {tiny(t, "\x80\x02NQ."), "persistent id"},
		"integer":          {tiny(t, "\x80\x02\x8a\x09123456789."), "9 bytes"},
		"string":           {tiny(t, "\x80\x02X\xff\xff\xff\xff."), "ends too early"},
		"endless name":     {tiny(t, "\x80\x02c"+strings.Repeat("a", 1000)), "ends too early"},
	} {
		_, err := ReadCheckpoint("m", c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line with %q", name, err, c.want)
		}
	}
	deflated := deflatedArchive(t, "m/data.pkl", good)
	if _, err := ReadCheckpoint("m", deflated); err == nil || !strings.Contains(err.Error(), "compressed") {
		t.Errorf("a compressed entry: %v", err)
	}
}

// Any bytes are read without panic, and every tensor that is accepted can be
// read in full.
func FuzzCheckpoint(f *testing.F) {
	for _, name := range []string{"every", "module", "wrapped", "evil", "legacy"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".pt"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ReadCheckpoint("fuzz", b)
		if err != nil {
			return
		}
		readAll(t, c)
	})
}

// The pickle alone, so that the fuzzer need not get an archive right. The
// storage has 64 bytes.
func FuzzPickle(f *testing.F) {
	f.Add([]byte(one("K\x10", "K\x00", "K\x10\x85", "K\x01\x85")))
	f.Add([]byte(one("K\x10", "K\x01", "K\x03K\x05\x86", "K\x05K\x01\x86")))
	f.Add([]byte(one("K\x10", "K\x00", "K\x04K\x04\x86", "K\x01K\x04\x86")))
	for _, name := range []string{"every", "module", "wrapped", "evil"} {
		f.Add(pickleOf(f, filepath.Join("testdata", name+".pt")))
	}
	storage := strings.Repeat("\x00\x00\x80\x3f", 16)
	f.Fuzz(func(t *testing.T, pickle []byte) {
		c, err := ReadCheckpoint("fuzz", tiny(t, string(pickle), "m/data/0", storage))
		if err != nil {
			return
		}
		readAll(t, c)
	})
}

func readAll(t *testing.T, c *Checkpoint) {
	t.Helper()
	for _, k := range c.Keys() {
		i, ok := c.Lookup(k)
		raw, err := c.Raw(k)
		if !ok || err != nil || int64(len(raw)) != i.Bytes() {
			t.Fatalf("%q: %d bytes of %v, %v", k, len(raw), i, err)
		}
	}
}

func ExampleCompare() {
	src, err := Open("testdata/module.pt")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer src.Close()
	d := Compare(src, []Wanted{{"0.weight", []int{4, 3, 3, 3}}, {"0.bias", []int{8}}, {"3.weight", []int{2}}})
	fmt.Println(d.Err())
	// Output:
	// the tensors are not those of the model: 1 missing: 3.weight; 1 of the wrong shape or type: 0.bias: F32 [4], not [8]; 4 unknown: 1.bias, 1.weight, 2.bias, 2.weight
}
