//go:build cuda

package cuda

import (
	"fmt"
	"unsafe"

	"gorgonia.org/cu"

	"dreamcad/inference/device"
)

// form is how a weight lies in device memory.
type form int

const (
	formMatrix    form = iota // fp16 (O, taps·K), rows padded to 8
	formGEGLU                 // the same with value and gate rows interleaved by eights
	formGrad                  // fp16 (K, taps·O): the kernel of the gradient
	formVector                // fp32
	formVectors               // fp32, interleaved as formGEGLU
	formQuad                  // fp16 (4·O, 4·K): a 3×3 kernel behind an enlargement by two, for each of four output places
	formQuadGrad              // fp16 (4·K, 4·O): the gradient of one with stride 2 and no zeros before the image
	formQuadGrad1             // the same with one row and column of zeros before it
)

type weightKey struct {
	param *device.Param
	form  form
}

// folded is a matrix into which the norm before it went, with what its product needs beside it.
type folded struct {
	weight
	sums, shift Ptr
}

type foldKey struct {
	weight, bias, gamma, beta *device.Param
	form                      form
}

type weight struct {
	ptr   Ptr
	ld    int
	bytes int64
}

// weightStore converts each weight once and keeps it until the device is
// closed. Weights are packed into large blocks.
type weightStore struct {
	card    *Card
	have    map[weightKey]weight
	folds   map[foldKey]folded
	block   Ptr
	left    int64
	staging Ptr
	room    int64
	host    []float32
}

const weightBlock = 64 << 20

func (s *weightStore) reserve(bytes int64) (Ptr, error) {
	bytes = (bytes + 255) &^ 255
	if bytes > weightBlock/4 {
		return s.card.allocate(bytes, "a weight")
	}
	if bytes > s.left {
		p, err := s.card.allocate(weightBlock, "a block of weights")
		if err != nil {
			return 0, err
		}
		s.block, s.left = p, weightBlock
	}
	p := s.block
	s.block += Ptr(bytes)
	s.left -= bytes
	return p, nil
}

// dims of a weight as the kernels see it: O rows, K channels, taps.
func dims(p *device.Param) (o, k, taps int) {
	o, k, taps = p.Shape[0], 1, 1
	if len(p.Shape) > 1 {
		k = p.Shape[1]
	}
	for _, d := range p.Shape[min(2, len(p.Shape)):] {
		taps *= d
	}
	return o, k, taps
}

// get returns the weight in a form, converting it at first use.
func (s *weightStore) get(p *device.Param, f form) (weight, error) {
	if p == nil {
		return weight{}, nil
	}
	key := weightKey{p, f}
	if w, ok := s.have[key]; ok {
		return w, nil
	}
	if s.have == nil {
		s.have = map[weightKey]weight{}
	}
	var w weight
	var err error
	if f == formVector || f == formVectors {
		w, err = s.vector(p, f)
	} else {
		w, err = s.matrix(p, f)
	}
	if err != nil {
		return weight{}, fmt.Errorf("prepare weight %q: %w", p.Name, err)
	}
	s.have[key] = w
	return w, nil
}

// affine is the scale and the shift of a norm.
func (s *weightStore) affine(gamma, beta *device.Param) (g, b weight, err error) {
	if g, err = s.get(gamma, formVector); err == nil {
		b, err = s.get(beta, formVector)
	}
	return g, b, err
}

// folded prepares the weight of o for rows that are yet to be normalised.
func (s *weightStore) folded(o *device.Linear, norm *device.LayerNorm, matrix, vector form) (folded, error) {
	key := foldKey{o.Weight, o.Bias, norm.Gamma, norm.Beta, matrix}
	if f, ok := s.folds[key]; ok {
		return f, nil
	}
	gamma, beta, err := s.affine(norm.Gamma, norm.Beta)
	if err != nil {
		return folded{}, err
	}
	bias, err := s.get(o.Bias, vector)
	if err != nil {
		return folded{}, err
	}
	w, err := s.matrix(o.Weight, matrix)
	if err != nil {
		return folded{}, fmt.Errorf("prepare weight %q: %w", o.Weight.Name, err)
	}
	rows := o.Weight.Shape[0]
	vectors, err := s.reserve(int64(rows) * 8)
	if err != nil {
		return folded{}, err
	}
	f := folded{w, vectors, vectors + Ptr(rows)*4}
	l := launcher{card: s.card}
	l.fold(kFoldNorm, grid{x: (rows + 7) / 8, y: 1, z: 1, threads: 256}, &FoldParams{W: w.ptr, Gamma: gamma.ptr, Beta: beta.ptr, Bias: bias.ptr,
		Sums: f.sums, Shift: f.shift, N: int32(rows), K: int32(o.In.C), Ld: int32(w.ld)})
	if s.folds == nil {
		s.folds = map[foldKey]folded{}
	}
	s.folds[key] = f
	return f, l.err
}

func (s *weightStore) vector(p *device.Param, f form) (weight, error) {
	v := make([]float32, p.Len())
	if err := p.Load(v); err != nil {
		return weight{}, err
	}
	if f == formVectors {
		from := v
		v = make([]float32, len(v))
		for r := range v {
			v[r] = from[interleaved(r, len(v))]
		}
	}
	ptr, err := s.reserve(int64(len(v)) * 4)
	if err != nil {
		return weight{}, err
	}
	return weight{ptr: ptr, bytes: int64(len(v)) * 4}, cu.MemcpyHtoD(cu.DevicePtr(ptr), unsafe.Pointer(&v[0]), int64(len(v))*4)
}

// interleaved is the source row of row r when values and gates alternate by eights.
func interleaved(r, n int) int {
	src := r/16*8 + r%8
	if r%16 >= 8 {
		src += n / 2
	}
	return src
}

func (s *weightStore) matrix(p *device.Param, f form) (weight, error) {
	o, k, taps := dims(p)
	rows, inner := o, k
	pack := PackParams{N: int32(o), C: int32(k), Taps: int32(taps)}
	switch f {
	case formGEGLU:
		pack.Geglu = 1
	case formQuad:
		pack.Quad = 1
	case formQuadGrad:
		pack.Quad = 2
	case formQuadGrad1:
		pack.Quad = 3
	}
	if f == formGrad || pack.Quad > 1 {
		pack.Grad = 1
		rows, inner = k, o
	}
	kernel := kPackWeights
	if pack.Quad != 0 {
		kernel, rows, taps = kPackQuads, 4*rows, 4
	}
	ld := (taps*inner + 7) &^ 7
	pack.CP, pack.Ldo = int32(inner), int32(ld)
	if err := s.upload(p, &pack); err != nil {
		return weight{}, err
	}
	bytes := int64(rows) * int64(ld) * 2
	ptr, err := s.reserve(bytes)
	if err != nil {
		return weight{}, err
	}
	pack.Out = ptr
	l := launcher{card: s.card}
	l.pack(kernel, spread(int64(rows)*int64(ld)), &pack)
	return weight{ptr, ld, bytes}, l.err
}

// upload copies the stored elements to the staging memory and tells the pack
// kernel their type. fp16 and fp32 travel as they are stored.
func (s *weightStore) upload(p *device.Param, pack *PackParams) error {
	if raw, ok := p.Source.(device.RawWeights); ok && len(p.Tensors) > 0 {
		dtype, _, ok := raw.Raw(p.Tensors[0])
		size := map[string]int64{"F16": 2, "BF16": 2, "F32": 4}[dtype]
		var at int64
		for i := 0; ok && size > 0 && i < len(p.Tensors); i++ {
			d, data, found := raw.Raw(p.Tensors[i])
			if !found || d != dtype || len(data) == 0 || at+int64(len(data)) > int64(p.Len())*size {
				ok = false
				break
			}
			if at == 0 {
				if err := s.stage(int64(p.Len()) * size); err != nil {
					return err
				}
			}
			if err := cu.MemcpyHtoD(cu.DevicePtr(s.staging)+cu.DevicePtr(at), unsafe.Pointer(&data[0]), int64(len(data))); err != nil {
				return err
			}
			at += int64(len(data))
		}
		if ok && size > 0 && at == int64(p.Len())*size {
			if size == 4 {
				pack.F = s.staging
			} else {
				pack.H = s.staging
			}
			if dtype == "BF16" {
				pack.Bf16 = 1
			}
			return nil
		}
	}
	if cap(s.host) < p.Len() {
		s.host = make([]float32, p.Len())
	}
	host := s.host[:p.Len()]
	if err := p.Load(host); err != nil {
		return err
	}
	if err := s.stage(int64(len(host)) * 4); err != nil {
		return err
	}
	pack.F = s.staging
	return cu.MemcpyHtoD(cu.DevicePtr(s.staging), unsafe.Pointer(&host[0]), int64(len(host))*4)
}

func (s *weightStore) stage(bytes int64) error {
	if bytes <= s.room {
		return nil
	}
	if err := s.card.synchronize(); err != nil {
		return err
	}
	s.card.release(s.staging, s.room)
	s.staging, s.room = 0, 0
	p, err := s.card.allocate(bytes, "the staging memory of weights")
	if err != nil {
		return err
	}
	s.staging, s.room = p, bytes
	return nil
}

// settle frees what only uploading needs.
func (s *weightStore) settle() error {
	if s.room == 0 {
		return nil
	}
	if err := s.card.synchronize(); err != nil {
		return err
	}
	s.card.release(s.staging, s.room)
	s.staging, s.room, s.host = 0, 0, nil
	return nil
}

// spread covers n elements with blocks of 256 threads, several elements a thread when n is large.
func spread(n int64) grid {
	return grid{x: int(min((n+255)/256, 132*16)), y: 1, z: 1, threads: 256}
}
