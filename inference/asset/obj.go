package asset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"dreamcad/inference/mesh"
)

// OBJ writes a mesh as Wavefront OBJ that refers to a material library. Positions are
// shared between charts, so that a reader finds the surface closed; texture
// coordinates are not. v grows upwards in OBJ.
func OBJ(t *mesh.Textured, library string) []byte {
	b := make([]byte, 0, 64*len(t.Mesh.Vertices))
	b = fmt.Appendf(b, "# dreamcad: y up, front to +z, metres\nmtllib %s\no model\n", library)
	row := func(key string, v ...float32) {
		b = append(b, key...)
		for _, x := range v {
			b = append(b, ' ')
			b = strconv.AppendFloat(b, float64(x), 'f', 6, 32)
		}
		b = append(b, '\n')
	}
	for _, p := range t.Mesh.Vertices {
		q := axes(p)
		row("v", q[:]...)
	}
	for _, uv := range t.Atlas.UV {
		row("vt", uv[0], 1-uv[1])
	}
	for _, n := range t.Normals {
		q := axes(n)
		row("vn", q[:]...)
	}
	b = append(b, "usemtl surface\ns 1\n"...)
	for i, f := range t.Mesh.Faces {
		a := t.Atlas.Faces[i]
		b = append(b, 'f')
		for k := range 3 {
			b = fmt.Appendf(b, " %d/%d/%d", f[k]+1, a[k]+1, f[k]+1)
		}
		b = append(b, '\n')
	}
	return b
}

// MTL writes the material library of OBJ: matt, with the light of the views already in
// the texture.
func MTL(texture string) []byte {
	return fmt.Appendf(nil, "newmtl surface\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nd 1\nillum 1\nmap_Kd %s\n", texture)
}

// STL writes a mesh as binary STL, which has neither colour nor shared vertices.
func STL(m *mesh.Mesh) []byte {
	var b bytes.Buffer
	b.Grow(84 + 50*len(m.Faces))
	header := make([]byte, 80)
	copy(header, "dreamcad, y up, front to +z")
	b.Write(header)
	var w [4]byte
	u32 := func(v uint32) {
		binary.LittleEndian.PutUint32(w[:], v)
		b.Write(w[:])
	}
	u32(uint32(len(m.Faces)))
	for _, f := range m.Faces {
		p := [4]mesh.Vec{{}, axes(m.Vertices[f[0]]), axes(m.Vertices[f[1]]), axes(m.Vertices[f[2]])}
		p[0] = facing(p[1], p[2], p[3])
		for _, v := range p {
			for _, x := range v {
				u32(math.Float32bits(x))
			}
		}
		b.Write([]byte{0, 0})
	}
	return b.Bytes()
}

func facing(a, b, c mesh.Vec) mesh.Vec {
	var u, v, n mesh.Vec
	for k := range 3 {
		u[k], v[k] = b[k]-a[k], c[k]-a[k]
	}
	n = mesh.Vec{u[1]*v[2] - u[2]*v[1], u[2]*v[0] - u[0]*v[2], u[0]*v[1] - u[1]*v[0]}
	return unit(n, mesh.Vec{})
}

// unit normalises n; where n is zero it returns instead.
func unit(n, instead mesh.Vec) mesh.Vec {
	l := float32(math.Sqrt(float64(n[0]*n[0] + n[1]*n[1] + n[2]*n[2])))
	if l < 1e-12 {
		return instead
	}
	return mesh.Vec{n[0] / l, n[1] / l, n[2] / l}
}
