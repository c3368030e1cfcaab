package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"dreamcad/inference/weights"
)

// ConvertOptions say what Convert does.
type ConvertOptions struct {
	Replace  bool // delete the file that was converted, now or before
	Progress func(Progress)
}

// Convert writes the weights of a pulled model as weights.safetensors: fp16,
// but scalars and vectors (norms and biases) fp32, only the tensors that the
// networks need, each aligned so that the file can be mapped and copied to a
// card as it is. The bundle then uses this file.
func (s *Store) Convert(ctx context.Context, name string, o ConvertOptions) (*Bundle, error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	b, err := s.convert(ctx, name, o)
	if err != nil {
		return nil, fmt.Errorf("convert model %q: %w", name, err)
	}
	return b, nil
}

func (s *Store) convert(ctx context.Context, name string, o ConvertOptions) (*Bundle, error) {
	unlock, err := s.lock(name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	b, err := s.Open(name)
	if err != nil {
		return nil, err
	}
	if b.dir == "" {
		return nil, errors.New("it is part of the program and needs no conversion")
	}
	const converted = "weights.safetensors"
	old := b.Files.Weights.Name
	if old == converted {
		if left := s.replaced(b); o.Replace && left != "" {
			return b, os.Remove(left)
		}
		return nil, errors.New("it is converted already")
	}
	src, err := b.OpenWeights()
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if err := b.Account(src).Err(); err != nil {
		return nil, err
	}
	entries, total := halves(ctx, src, b.Tensors())
	if err := room(b.dir, total+margin); err != nil {
		return nil, err
	}
	path := filepath.Join(b.dir, converted)
	d := b.Description
	d.Files.Weights, err = writeConverted(path+".part", entries, map[string]string{"format": "pt", "converted_from": old},
		func(n int64) { o.Progress(Progress{converted, "convert", min(n, total), total}) })
	if err != nil {
		return nil, errors.Join(err, ignoreAbsent(os.Remove(path+".part")))
	}
	d.Files.Weights.Name = converted
	// The description decides which weights count, so it changes last.
	if err := os.Rename(path+".part", path); err != nil {
		return nil, err
	}
	if err := s.addTrust(name, map[string]Trusted{converted: {SHA256: d.Files.Weights.SHA256, Bytes: d.Files.Weights.Bytes, From: old, At: now(), By: "conversion"}}); err != nil {
		return nil, err
	}
	if err := writeDescription(b.dir, &d); err != nil {
		return nil, err
	}
	if o.Replace {
		if err := os.Remove(filepath.Join(b.dir, old)); err != nil {
			return nil, err
		}
	}
	return OpenDir(b.dir)
}

// replaced is the file of which a converted bundle was made, when it is still
// there and the bundle is whole without it, else "".
func (s *Store) replaced(b *Bundle) string {
	d, err := s.registered(b.Name)
	if err != nil || d.Files.Weights.Name == b.Files.Weights.Name || !b.complete() {
		return ""
	}
	path := filepath.Join(b.dir, d.Files.Weights.Name)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// halves describes the converted tensors and their size in all.
func halves(ctx context.Context, src weights.Source, want []weights.Wanted) (entries []weights.Entry, total int64) {
	for _, w := range want {
		info := weights.Info{DType: weights.F16, Shape: w.Shape}
		if len(w.Shape) < 2 {
			info.DType = weights.F32
		}
		total += info.Bytes()
		entries = append(entries, weights.Entry{Name: w.Name, Info: info, Data: func() ([]byte, error) {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			v, err := src.Float32(w.Name, nil)
			if err != nil {
				return nil, err
			}
			if err := checkRange(v, info.DType); err != nil {
				return nil, err
			}
			if info.DType == weights.F32 {
				return weights.EncodeF32(v), nil
			}
			return weights.EncodeF16(v), nil
		}})
	}
	return entries, total
}

// checkRange refuses values that the type cannot hold, and those that no
// network has.
func checkRange(v []float32, d weights.DType) error {
	const largestHalf = 65504
	limit := float32(math.MaxFloat32)
	if d == weights.F16 {
		limit = largestHalf
	}
	for i, x := range v {
		if x >= -limit && x <= limit {
			continue
		}
		if x != x || math.IsInf(float64(x), 0) {
			return fmt.Errorf("element %d is %v: the weights are damaged", i, x)
		}
		return fmt.Errorf("element %d is %v, which fp16 cannot hold", i, x)
	}
	return nil
}

// writeConverted writes and digests the file.
func writeConverted(path string, entries []weights.Entry, meta map[string]string, progress func(int64)) (File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return File{}, err
	}
	h := sha256.New()
	c := &counter{to: io.MultiWriter(f, h), progress: progress}
	err = weights.Write(c, meta, entries)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return File{}, err
	}
	return File{SHA256: hex.EncodeToString(h.Sum(nil)), Bytes: c.n}, nil
}

// counter reports how much went through a writer.
type counter struct {
	to       io.Writer
	n        int64
	progress func(int64)
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.to.Write(b)
	c.n += int64(n)
	c.progress(c.n)
	return n, err
}
