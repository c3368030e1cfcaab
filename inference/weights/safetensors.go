package weights

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
)

// The reference implementation's limit on the header, kept so that a corrupt
// length cannot make us allocate.
const maxHeader = 100 << 20

// Safetensors is an open safetensors file: 8 bytes of header length, a JSON
// header, and the data of the tensors without gaps
// (github.com/huggingface/safetensors, README). It is a Source.
type Safetensors struct {
	name string // for errors
	data []byte // the tensors
	keys []string
	at   map[string]span
	meta map[string]string

	once  sync.Once
	unmap func() error
}

type span struct {
	Info
	begin, end int64
}

// OpenSafetensors maps a file. The caller closes it.
func OpenSafetensors(path string) (*Safetensors, error) {
	b, unmap, err := mapFile(path)
	if err != nil {
		return nil, fmt.Errorf("open weights: %w", err)
	}
	s, err := ReadSafetensors(path, b)
	if err != nil {
		return nil, errors.Join(err, unmap())
	}
	s.unmap = unmap
	return s, nil
}

// ReadSafetensors reads a file that is in memory, without copying it; name is
// for errors.
func ReadSafetensors(name string, file []byte) (*Safetensors, error) {
	s := &Safetensors{name: name, at: map[string]span{}, meta: map[string]string{}}
	if err := s.parse(file); err != nil {
		return nil, fmt.Errorf("read weights %q: %w", name, err)
	}
	return s, nil
}

var errNotSafetensors = errors.New("not a safetensors file, or its beginning is damaged")

func (s *Safetensors) parse(file []byte) error {
	if len(file) < 8 {
		return errors.New("the file is too short to be safetensors")
	}
	n := binary.LittleEndian.Uint64(file)
	switch {
	case n > maxHeader || n < 2 || (len(file) > 8 && file[8] != '{'):
		return errNotSafetensors
	case n > uint64(len(file)-8):
		return fmt.Errorf("the file is truncated: its header alone has %d bytes, the file %d", n, len(file))
	}
	s.data = file[8+n:]
	if err := s.header(file[8 : 8+n]); err != nil {
		return err
	}
	s.keys = make([]string, 0, len(s.at))
	for k := range s.at {
		s.keys = append(s.keys, k)
	}
	sort.Strings(s.keys)
	return s.checkCover()
}

// header reads the JSON object key by key, since encoding/json would let a
// second tensor of the same name replace the first.
func (s *Safetensors) header(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	damaged := func(err error) error {
		if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok { // whose text shows Go's types
			return fmt.Errorf("the header is damaged: it holds a %s where none belongs", typed.Value)
		}
		return fmt.Errorf("the header is damaged: %w", err)
	}
	if _, err := d.Token(); err != nil {
		return damaged(err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return damaged(err)
		}
		key, _ := t.(string)
		if key == "__metadata__" {
			if err := d.Decode(&s.meta); err != nil {
				return damaged(err)
			}
			continue
		}
		var e struct {
			DType   string    `json:"dtype"`
			Shape   []int     `json:"shape"`
			Offsets *[2]int64 `json:"data_offsets"`
		}
		if err := d.Decode(&e); err != nil {
			return damaged(err)
		}
		if _, twice := s.at[key]; twice {
			return fmt.Errorf("tensor %q occurs twice", key)
		}
		dt, ok := dtypeByName(e.DType)
		if !ok {
			return fmt.Errorf("tensor %q has the unknown type %q", key, e.DType)
		}
		if e.Offsets == nil {
			return fmt.Errorf("tensor %q has no place in the file", key)
		}
		size, err := checkShape(e.Shape, dt)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		begin, end := e.Offsets[0], e.Offsets[1]
		switch {
		case begin < 0 || end < begin:
			return fmt.Errorf("tensor %q lies at the impossible place %d to %d", key, begin, end)
		case end > int64(len(s.data)):
			return fmt.Errorf("the file is truncated: tensor %q ends at byte %d of its data, which has %d", key, end, len(s.data))
		case end-begin != size:
			return fmt.Errorf("tensor %q of %s %v needs %d bytes and has %d", key, e.DType, e.Shape, size, end-begin)
		}
		s.at[key] = span{Info{dt, e.Shape}, begin, end}
	}
	if _, err := d.Token(); err != nil {
		return damaged(err)
	}
	// The header may be padded with spaces, nothing else.
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the header is damaged: something follows its end")
	}
	return nil
}

// checkCover insists, as the format does, that the tensors fill the data
// without overlaps, gaps or a rest.
func (s *Safetensors) checkCover() error {
	byPlace := slices.Clone(s.keys)
	sort.SliceStable(byPlace, func(i, j int) bool {
		a, b := s.at[byPlace[i]], s.at[byPlace[j]]
		if a.begin != b.begin {
			return a.begin < b.begin
		}
		return a.end < b.end
	})
	var end int64
	for _, k := range byPlace {
		t := s.at[k]
		if t.begin < end {
			return fmt.Errorf("tensor %q overlaps another one", k)
		}
		if t.begin > end {
			return fmt.Errorf("%d bytes before tensor %q belong to nothing", t.begin-end, k)
		}
		end = t.end
	}
	if end != int64(len(s.data)) {
		return fmt.Errorf("%d bytes at the end belong to no tensor", int64(len(s.data))-end)
	}
	return nil
}

// Keys implements Source.
func (s *Safetensors) Keys() []string { return slices.Clone(s.keys) }

// Metadata is the free-form part of the header; never nil.
func (s *Safetensors) Metadata() map[string]string { return s.meta }

// Lookup implements Source.
func (s *Safetensors) Lookup(name string) (Info, bool) {
	t, ok := s.at[name]
	return t.Info, ok
}

// Raw implements Source without copying.
func (s *Safetensors) Raw(name string) ([]byte, error) {
	t, ok := s.at[name]
	if !ok {
		return nil, fmt.Errorf("read weights %q: tensor %q is missing", s.name, name)
	}
	return s.data[t.begin:t.end:t.end], nil
}

// Float32 implements Source.
func (s *Safetensors) Float32(name string, dst []float32) ([]float32, error) {
	return float32s(s, s.name, name, dst)
}

// Close implements Source.
func (s *Safetensors) Close() error {
	var err error
	s.once.Do(func() {
		s.data = nil
		if s.unmap != nil {
			err = s.unmap()
		}
	})
	return err
}

// float32s is Source.Float32 on top of the other methods.
func float32s(src Source, file, name string, dst []float32) ([]float32, error) {
	raw, err := src.Raw(name)
	if err != nil {
		return nil, err
	}
	i, _ := src.Lookup(name)
	if dst == nil {
		dst = make([]float32, i.Elements())
	}
	if len(dst) != i.Elements() {
		return nil, fmt.Errorf("read weights %q: tensor %q has %d elements, room for %d", file, name, i.Elements(), len(dst))
	}
	if err := toFloat32(dst, raw, i.DType); err != nil {
		return nil, fmt.Errorf("read weights %q: tensor %q: %w", file, name, err)
	}
	return dst, nil
}
