package asset

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"dreamcad/inference/mesh"
)

// Numbers of the glTF 2.0 specification.
const (
	glbMagic      = 0x46546C67
	glbJSON       = 0x4E4F534A
	glbBinary     = 0x004E4942
	floatType     = 5126
	shortType     = 5123
	intType       = 5125
	arrayTarget   = 34962
	elementTarget = 34963
	linear        = 9729
	mipmapLinear  = 9987
	clampToEdge   = 33071
)

type bufferView struct {
	Buffer     int `json:"buffer"`
	ByteOffset int `json:"byteOffset"`
	ByteLength int `json:"byteLength"`
	Target     int `json:"target,omitempty"`
}

type accessor struct {
	BufferView    int       `json:"bufferView"`
	ComponentType int       `json:"componentType"`
	Count         int       `json:"count"`
	Type          string    `json:"type"`
	Min           []float32 `json:"min,omitempty"`
	Max           []float32 `json:"max,omitempty"`
}

type object = map[string]any

// GLB writes a mesh and its PNG texture as binary glTF 2.0: one primitive with
// positions, normals, texture coordinates and a matt material.
func GLB(t *mesh.Textured, texture []byte) ([]byte, error) {
	n := len(t.Atlas.Source)
	if n == 0 || len(t.Mesh.Faces) == 0 {
		return nil, fmt.Errorf("writing a GLB of %d vertices and %d faces", n, len(t.Mesh.Faces))
	}
	var bin bytes.Buffer
	var views []bufferView
	view := func(target int, write func()) int {
		start := bin.Len()
		write()
		views = append(views, bufferView{0, start, bin.Len() - start, target})
		for bin.Len()%4 != 0 {
			bin.WriteByte(0)
		}
		return len(views) - 1
	}
	var w [4]byte
	u32 := func(v uint32) {
		binary.LittleEndian.PutUint32(w[:], v)
		bin.Write(w[:])
	}
	f32 := func(v float32) { u32(math.Float32bits(v)) }
	inf := float32(math.Inf(1))
	lo, hi := []float32{inf, inf, inf}, []float32{-inf, -inf, -inf}
	var accessors []accessor
	view(arrayTarget, func() {
		for _, s := range t.Atlas.Source {
			p := axes(t.Mesh.Vertices[s])
			for k, x := range p {
				lo[k], hi[k] = min(lo[k], x), max(hi[k], x)
				f32(x)
			}
		}
	})
	accessors = append(accessors, accessor{0, floatType, n, "VEC3", lo, hi})
	view(arrayTarget, func() {
		for _, s := range t.Atlas.Source {
			for _, x := range unit(axes(t.Normals[s]), mesh.Vec{0, 1, 0}) {
				f32(x)
			}
		}
	})
	accessors = append(accessors, accessor{1, floatType, n, "VEC3", nil, nil})
	view(arrayTarget, func() {
		for _, uv := range t.Atlas.UV {
			f32(uv[0])
			f32(uv[1])
		}
	})
	accessors = append(accessors, accessor{2, floatType, n, "VEC2", nil, nil})
	kind := shortType
	if n > math.MaxUint16 {
		kind = intType
	}
	view(elementTarget, func() {
		for _, f := range t.Atlas.Faces {
			for _, v := range f {
				if kind == intType {
					u32(uint32(v))
				} else {
					binary.LittleEndian.PutUint16(w[:], uint16(v))
					bin.Write(w[:2])
				}
			}
		}
	})
	accessors = append(accessors, accessor{3, kind, 3 * len(t.Atlas.Faces), "SCALAR", nil, nil})
	image := view(0, func() { bin.Write(texture) })

	doc, err := json.Marshal(object{
		"asset":       object{"version": "2.0", "generator": "dreamcad"},
		"scene":       0,
		"scenes":      []object{{"nodes": []int{0}}},
		"nodes":       []object{{"mesh": 0, "name": "model"}},
		"meshes":      []object{{"name": "model", "primitives": []object{{"attributes": object{"POSITION": 0, "NORMAL": 1, "TEXCOORD_0": 2}, "indices": 3, "material": 0}}}},
		"materials":   []object{{"name": "surface", "pbrMetallicRoughness": object{"baseColorTexture": object{"index": 0}, "metallicFactor": 0, "roughnessFactor": 0.9}}},
		"textures":    []object{{"source": 0, "sampler": 0}},
		"samplers":    []object{{"magFilter": linear, "minFilter": mipmapLinear, "wrapS": clampToEdge, "wrapT": clampToEdge}},
		"images":      []object{{"bufferView": image, "mimeType": "image/png"}},
		"accessors":   accessors,
		"bufferViews": views,
		"buffers":     []object{{"byteLength": bin.Len()}},
	})
	if err != nil {
		return nil, fmt.Errorf("writing a GLB: %w", err)
	}
	for len(doc)%4 != 0 {
		doc = append(doc, ' ')
	}
	out := make([]byte, 0, 28+len(doc)+bin.Len())
	for _, v := range []uint32{glbMagic, 2, uint32(28 + len(doc) + bin.Len()), uint32(len(doc)), glbJSON} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	out = append(out, doc...)
	out = binary.LittleEndian.AppendUint32(out, uint32(bin.Len()))
	out = binary.LittleEndian.AppendUint32(out, glbBinary)
	return append(out, bin.Bytes()...), nil
}
