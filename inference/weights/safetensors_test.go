package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// file builds a safetensors file out of a header and n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	return append(b, make([]byte, n)...)
}

func TestDamagedSafetensors(t *testing.T) {
	huge := binary.LittleEndian.AppendUint64(nil, 1<<40)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":          {nil, "too short"},
		"a few bytes":    {[]byte("abc"), "too short"},
		"not the format": {[]byte("PK\x03\x04 something else"), "not a safetensors file"},
		"huge header":    {append(huge, '{'), "not a safetensors file"},
		"cut header":     {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4)[:20], "truncated"},
		"cut data":       {file(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 12), `truncated: tensor "a" ends at byte 16`},
		"no json":        {file(`{"a"`, 0), "damaged"},
		"not tensors":    {file(`{"a":1}`, 0), "it holds a number where none belongs"},
		"two values":     {file(`{} {}`, 0), "damaged"},
		"unknown type":   {file(`{"a":{"dtype":"F12","shape":[1],"data_offsets":[0,4]}}`, 4), `unknown type "F12"`},
		"wrong size":     {file(`{"a":{"dtype":"F16","shape":[3],"data_offsets":[0,4]}}`, 4), "needs 6 bytes and has 4"},
		"negative":       {file(`{"a":{"dtype":"F16","shape":[-1,-2],"data_offsets":[0,4]}}`, 4), "negative"},
		"overflow":       {file(`{"a":{"dtype":"F16","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}`, 0), "too large"},
		"backwards":      {file(`{"a":{"dtype":"F16","shape":[0],"data_offsets":[4,0]}}`, 4), "impossible place"},
		"before":         {file(`{"a":{"dtype":"F16","shape":[2],"data_offsets":[-4,0]}}`, 4), "impossible place"},
		"no place":       {file(`{"a":{"dtype":"F16","shape":[2]}}`, 4), "no place"},
		"overlap":        {file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), "overlaps"},
		"gap":            {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12), "belong to nothing"},
		"rest":           {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 8), "belong to no tensor"},
		"twice":          {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadSafetensors("m.safetensors", c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
		})
	}
}

func TestWriteAndMap(t *testing.T) {
	f32, f16 := []float32{1, -2.5, 3e-8}, []float32{0.5, 65504, -6e-8, 1.0 / 3}
	entry := func(name string, d DType, data []byte, shape ...int) Entry {
		return Entry{name, Info{d, shape}, func() ([]byte, error) { return data, nil }}
	}
	entries := []Entry{
		entry("half", F16, EncodeF16(f16), 2, 2),
		entry("scalar", F32, EncodeF32([]float32{7})),
		entry("single", F32, EncodeF32(f32), 3),
		entry("none", F32, nil, 0, 5),
		entry("ids", I64, make([]byte, 16), 2),
	}
	var b bytes.Buffer
	if err := Write(&b, map[string]string{"format": "pt"}, entries); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Keys(); !slices.Equal(got, []string{"half", "ids", "none", "scalar", "single"}) {
		t.Errorf("keys %v", got)
	}
	if s.Metadata()["format"] != "pt" {
		t.Errorf("metadata %v", s.Metadata())
	}
	if got, err := s.Float32("single", nil); err != nil || !slices.Equal(got, f32) {
		t.Errorf("single: %v, %v", got, err)
	}
	if got, err := s.Float32("half", nil); err != nil || !slices.Equal(got, []float32{0.5, 65504, -5.9604645e-08, 0.33325195}) {
		t.Errorf("half: %v, %v", got, err)
	}
	for _, c := range []struct{ got, want string }{
		{errText(s.Float32("other", nil)), `"other"`},
		{errText(s.Float32("ids", nil)), "I64 is not a floating-point type"},
		{errText(s.Float32("half", make([]float32, 3))), "has 4 elements, room for 3"},
	} {
		if !strings.Contains(c.got, c.want) {
			t.Errorf("error %q, want one with %q", c.got, c.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func errText(_ []float32, err error) string { return fmt.Sprint(err) }

func TestWriteRefuses(t *testing.T) {
	data := func() ([]byte, error) { return make([]byte, 4), nil }
	e := Entry{"a", Info{F32, []int{1}}, data}
	for want, es := range map[string][]Entry{
		"two tensors": {e, e},
		"needs 8":     {{"b", Info{F32, []int{2}}, data}},
		"negative":    {{"c", Info{F32, []int{-2}}, data}},
	} {
		if err := Write(new(bytes.Buffer), nil, es); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestOpenNothing(t *testing.T) {
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "absent")} {
		if _, err := OpenSafetensors(path); err == nil {
			t.Errorf("opened %q", path)
		}
	}
}

func TestCompare(t *testing.T) {
	s, err := ReadSafetensors("m", file(
		`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]},"x":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}`, 24))
	if err != nil {
		t.Fatal(err)
	}
	d := Compare(s, []Wanted{{"a", []int{2}}, {"b", []int{4}}, {"c", nil}})
	if err := d.Err(); err == nil || !strings.Contains(err.Error(), "1 missing: c") ||
		!strings.Contains(err.Error(), "b: F16 [2 2], not [4]") || !strings.Contains(err.Error(), "1 unknown: x") {
		t.Errorf("got %v", err)
	}
	if err := Compare(s, []Wanted{{"a", []int{2}}}).Err(); err != nil {
		t.Errorf("extra tensors alone are no error: %v", err)
	}
	if err := Compare(s, []Wanted{{"x", []int{1}}}).Err(); err == nil {
		t.Error("an integer tensor passed for weights")
	}
}

// Any bytes either give an error or a file whose tensors can all be read.
func FuzzSafetensors(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[1,2],"data_offsets":[8,12]}}`, 12))
	f.Add(file(`{"__metadata__":{"k":"v"}}   `, 0))
	f.Add(file(`{"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}`, 2))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadSafetensors("fuzz", b)
		if err != nil {
			return
		}
		for _, k := range s.Keys() {
			i, _ := s.Lookup(k)
			raw, err := s.Raw(k)
			if err != nil || int64(len(raw)) != i.Bytes() {
				t.Fatalf("%q: %d bytes of %v, %v", k, len(raw), i, err)
			}
			if _, err := s.Float32(k, nil); (err == nil) != i.DType.Float() {
				t.Fatalf("%q of %v: %v", k, i, err)
			}
		}
	})
}

// What Write writes, ReadSafetensors reads: names, shapes, bytes.
func TestWriteReadProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfDistinct(rapid.StringN(1, 8, -1), rapid.ID[string]).Draw(t, "names")
		names = slices.DeleteFunc(names, func(s string) bool { return s == "__metadata__" })
		content := map[string][]byte{}
		var entries []Entry
		for _, n := range names {
			i := Info{DType(rapid.IntRange(1, int(Bool)).Draw(t, "type")), rapid.SliceOfN(rapid.IntRange(0, 4), 0, 4).Draw(t, "shape")}
			b := rapid.SliceOfN(rapid.Byte(), int(i.Bytes()), int(i.Bytes())).Draw(t, "data")
			content[n] = b
			entries = append(entries, Entry{n, i, func() ([]byte, error) { return b, nil }})
		}
		var buf bytes.Buffer
		if err := Write(&buf, nil, entries); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSafetensors("m", buf.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Keys()) != len(content) {
			t.Fatalf("%d tensors of %d", len(s.Keys()), len(content))
		}
		for n, b := range content {
			if raw, err := s.Raw(n); err != nil || !bytes.Equal(raw, b) {
				t.Fatalf("%q: %v", n, err)
			}
		}
	})
}
