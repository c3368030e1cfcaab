package distill

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"

	"dreamcad/inference/field"
)

// snapshot is a draft between two phases.
type snapshot struct {
	phase     int
	views     int
	hullViews int
	grid      []float32
	n         int
	isHollow  bool
}

// save remembers the state between two phases; MarshalBinary writes the last one.
func (d *Draft) save() {
	s := snapshot{phase: d.at, views: len(d.views), hullViews: d.hullViews, isHollow: d.isHollow}
	if d.grid != nil {
		s.n = d.grid.N
		s.grid = append(d.saved.grid[:0], d.grid.V...)
	}
	d.saved = s
}

// stored is the form on disk.
type stored struct {
	Version   int
	Settings  Settings
	Phase     int
	Sources   int
	HullViews int
	Size      int
	Cameras   []field.Camera
	Weights   []float32
	Pictures  [][]byte
	Masks     [][]byte // bits
	Grid      int
	Field     []byte // float32, little endian, deflated
	Hollow    bool
}

const version = 4

// MarshalBinary writes the state after the last finished phase: a few megabytes.
func (d *Draft) MarshalBinary() ([]byte, error) {
	s := stored{Version: version, Settings: d.set, Phase: d.saved.phase, Sources: d.sources, HullViews: d.saved.hullViews,
		Size: d.views[0].Image.Size, Grid: d.saved.n, Hollow: d.saved.isHollow}
	for _, v := range d.views[:d.saved.views] {
		s.Cameras = append(s.Cameras, v.Camera)
		s.Weights = append(s.Weights, v.Weight)
		s.Pictures = append(s.Pictures, pack(v.Image))
		s.Masks = append(s.Masks, packMask(v.Mask))
	}
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("saving a draft: %w", err)
	}
	raw := make([]byte, 4*len(d.saved.grid))
	for i, v := range d.saved.grid {
		binary.LittleEndian.PutUint32(raw[i*4:], math.Float32bits(v))
	}
	if _, err := z.Write(raw); err != nil {
		return nil, fmt.Errorf("saving a draft: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("saving a draft: %w", err)
	}
	s.Field = packed.Bytes()
	var out bytes.Buffer
	if err := gob.NewEncoder(&out).Encode(s); err != nil {
		return nil, fmt.Errorf("saving a draft: %w", err)
	}
	return out.Bytes(), nil
}

// Resume goes on from what MarshalBinary wrote.
func Resume(data []byte, net Denoiser) (*Draft, error) {
	var s stored
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&s); err != nil {
		return nil, fmt.Errorf("resuming a draft: %w", err)
	}
	if s.Version != version {
		return nil, fmt.Errorf("resuming a draft: version %d of the state, want %d", s.Version, version)
	}
	if err := s.Settings.Check(); err != nil {
		return nil, fmt.Errorf("resuming a draft: %w", err)
	}
	if s.Sources < 1 || s.Sources > len(s.Pictures) || s.HullViews < 0 || s.HullViews > len(s.Pictures) ||
		len(s.Cameras) != len(s.Pictures) || len(s.Weights) != len(s.Pictures) || len(s.Masks) != len(s.Pictures) || s.Size < 16 || s.Size > 4096 || s.Grid < 0 || s.Grid > 256 {
		return nil, errors.New("resuming a draft: the state is inconsistent")
	}
	if len(s.Settings.Rounds) > 0 && net == nil {
		return nil, errors.New("resuming a draft: rounds without a network")
	}
	d := &Draft{set: s.Settings, net: net, engine: field.CPU{}, rays: &field.Rays{}, sources: s.Sources, isHollow: s.Hollow}
	d.plan()
	if s.Phase < 0 || s.Phase > len(d.phases) || s.Phase > 0 && s.Grid == 0 {
		return nil, errors.New("resuming a draft: the state is inconsistent")
	}
	d.at = s.Phase
	for i, b := range s.Pictures {
		if len(b) != s.Size*s.Size*3 || len(s.Masks[i]) != (s.Size*s.Size+7)/8 {
			return nil, fmt.Errorf("resuming a draft: view %d has %d bytes and a mask of %d", i, len(b), len(s.Masks[i]))
		}
		im := unpack(b, s.Size)
		d.include(field.View{Camera: s.Cameras[i], Image: im, Mask: unpackMask(s.Masks[i], s.Size),
			Weight: s.Weights[i], Source: i < s.Sources})
	}
	if s.Grid > 0 {
		g, err := field.NewGrid(s.Grid)
		if err != nil {
			return nil, fmt.Errorf("resuming a draft: %w", err)
		}
		raw := make([]byte, 4*len(g.V))
		if _, err := io.ReadFull(flate.NewReader(bytes.NewReader(s.Field)), raw); err != nil {
			return nil, fmt.Errorf("resuming a draft: reading the field: %w", err)
		}
		for i := range g.V {
			g.V[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[i*4:]))
		}
		d.grid = g
		d.hullViews = s.HullViews
		d.hull = field.NewHull(d.views[:s.HullViews], s.Grid)
		d.castRays()
	}
	d.save()
	return d, nil
}

func packMask(m []bool) []byte {
	b := make([]byte, (len(m)+7)/8)
	for i, v := range m {
		if v {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func unpackMask(b []byte, size int) []bool {
	m := make([]bool, size*size)
	for i := range m {
		m[i] = b[i/8]>>(i%8)&1 == 1
	}
	return m
}
