package mesh

import (
	"math"

	"dreamcad/inference/field"
)

// Textured is a mesh with its atlas and picture, ready for export.
type Textured struct {
	Mesh    *Mesh // welded
	Atlas   *Atlas
	Normals []Vec       // of the welded vertices
	Texture field.Image // Atlas.Size texels a side
}

// Bake weights.
const (
	leastCosine = 0.15 // flatter views of a texel are ignored
	depthSlack  = 0.02 // world units behind the nearest surface still count as seen
	roundShare  = 0.25 // of the redrawn views
	fillShare   = 5e-4 // of the colour of the surroundings, which decides where no view looks
	depthSize   = 256  // pixels of the depth maps
)

// Bake paints the atlas from the views. A texel takes the mean of the views that see
// it, weighted by the fourth power of the cosine to the view and fading out at
// silhouettes; redrawn views count less, shifted to agree with the source views. What
// no view sees takes the colour of its surroundings.
func (m *Mesh) Bake(atlas *Atlas, views []field.View) *Textured {
	t := &Textured{Mesh: m, Atlas: atlas, Normals: m.Normals(), Texture: field.NewImage(atlas.Size)}
	size := atlas.Size
	buf := rasterise(func(f, k int) [3]float32 {
		uv := atlas.UV[atlas.Faces[f][k]]
		return [3]float32{uv[0] * float32(size), uv[1] * float32(size), 0}
	}, len(m.Faces), size, size, true)
	var texels []int32
	for i, f := range buf.Face {
		if f >= 0 {
			texels = append(texels, int32(i))
		}
	}
	place, normal := make([]Vec, len(texels)), make([]Vec, len(texels))
	colour, weight := make([]Vec, len(texels)), make([]float32, len(texels))
	const part = 4096
	parts := (len(texels) + part - 1) / part
	bounds := func(p int) (int, int) { return p * part, min((p+1)*part, len(texels)) }
	each(parts, func(p int) {
		lo, hi := bounds(p)
		for k := lo; k < hi; k++ {
			i := texels[k]
			f, b := m.Faces[buf.Face[i]], buf.Bary[i]
			w := [3]float32{1 - b[0] - b[1], b[0], b[1]}
			var q, n Vec
			for c, v := range f {
				q, n = q.add(m.Vertices[v].scale(w[c])), n.add(t.Normals[v].scale(w[c]))
			}
			place[k], normal[k] = q, n.unit()
		}
	})
	depth := make([]*Buffer, len(views))
	fade := make([][]float32, len(views))
	each(len(views), func(i int) {
		depth[i] = m.Rasterise(views[i].Camera, depthSize)
		fade[i] = edgeFade(views[i].Mask, views[i].Image.Size)
	})
	seen, w := make([]Vec, len(texels)), make([]float32, len(texels))
	for vi := range views {
		v := &views[vi]
		pr := v.Camera.Projection(v.Image.Size)
		eye := v.Camera.Position()
		ratio := float64(depthSize) / float64(v.Image.Size)
		share := float32(1)
		if !v.Source {
			share = roundShare
		}
		type sums struct {
			have, want Vec
			w          float32
		}
		acc := make([]sums, parts)
		each(parts, func(p int) {
			lo, hi := bounds(p)
			for k := lo; k < hi; k++ {
				w[k] = 0
				q := place[k]
				d := Vec{float32(eye[0]), float32(eye[1]), float32(eye[2])}.sub(q).unit()
				cos := d.dot(normal[k])
				if cos <= leastCosine {
					continue
				}
				x, y, z := pr.Project(float64(q[0]), float64(q[1]), float64(q[2]))
				px, py := min(max(int(x*ratio), 0), depthSize-1), min(max(int(y*ratio), 0), depthSize-1)
				if float32(z) >= depth[vi].Depth[py*depthSize+px]+depthSlack {
					continue
				}
				w[k] = cos * cos * cos * cos * share * sampleMap(fade[vi], v.Image.Size, x, y)
				seen[k] = v.Image.Sample(x, y)
				if weight[k] > 0 {
					acc[p].have = acc[p].have.add(colour[k].scale(w[k] / weight[k]))
					acc[p].want = acc[p].want.add(seen[k].scale(w[k]))
					acc[p].w += w[k]
				}
			}
		})
		var total sums
		for _, s := range acc {
			total.have, total.want, total.w = total.have.add(s.have), total.want.add(s.want), total.w+s.w
		}
		var shift Vec
		if !v.Source && total.w > 0 {
			shift = total.have.sub(total.want).scale(1 / total.w)
		}
		each(parts, func(p int) {
			lo, hi := bounds(p)
			for k := lo; k < hi; k++ {
				if w[k] == 0 {
					continue
				}
				c := seen[k].add(shift)
				for i := range c {
					c[i] = min(max(c[i], 0), 1)
				}
				colour[k] = colour[k].add(c.scale(w[k]))
				weight[k] += w[k]
			}
		})
	}
	fill := m.diffuse(func(add func(f int32, bary [2]float32, c Vec, w float32)) {
		for k, i := range texels {
			if weight[k] > 0 {
				add(buf.Face[i], buf.Bary[i], colour[k].scale(1/weight[k]), min(weight[k], 1))
			}
		}
	})
	for k, i := range texels {
		f, b := m.Faces[buf.Face[i]], buf.Bary[i]
		around := fill[f[0]].scale(1 - b[0] - b[1]).add(fill[f[1]].scale(b[0])).add(fill[f[2]].scale(b[1]))
		c := colour[k].add(around.scale(fillShare)).scale(1 / (weight[k] + fillShare))
		copy(t.Texture.Pix[i*3:], c[:])
	}
	spread(t.Texture, buf.Face)
	return t
}

// diffuse spreads colours over the mesh: each vertex gets the mean of the samples on
// its faces, and vertices without samples the mean of their neighbours, from the known
// ones outwards, then smoothed among themselves.
func (m *Mesh) diffuse(samples func(add func(f int32, bary [2]float32, c Vec, w float32))) []Vec {
	sum, weight := make([]Vec, len(m.Vertices)), make([]float32, len(m.Vertices))
	samples(func(f int32, b [2]float32, c Vec, w float32) {
		for k, s := range [3]float32{1 - b[0] - b[1], b[0], b[1]} {
			v := m.Faces[f][k]
			sum[v] = sum[v].add(c.scale(s * w))
			weight[v] += s * w
		}
	})
	known := make([]bool, len(m.Vertices))
	anchor := make([]bool, len(m.Vertices))
	left := 0
	for v, w := range weight {
		if w > 0.01 {
			sum[v], known[v], anchor[v] = sum[v].scale(1/w), true, true
		} else {
			sum[v] = Vec{field.Background, field.Background, field.Background}
			left++
		}
	}
	next, count := make([]Vec, len(m.Vertices)), make([]float32, len(m.Vertices))
	const smoothing = 30
	for pass := 0; left > 0 && pass < 1000+smoothing; pass++ {
		clear(next)
		clear(count)
		for _, f := range m.Faces {
			for k, v := range f {
				if o := f[(k+1)%3]; !anchor[v] && known[o] {
					next[v] = next[v].add(sum[o])
					count[v]++
				}
			}
		}
		grown := false
		for v, n := range count {
			if n > 0 {
				sum[v] = next[v].scale(1 / n)
				grown = grown || !known[v]
				known[v] = true
			}
		}
		if !grown && pass < 1000 {
			pass = 1000 // all reached: only smooth from here on
		}
	}
	return sum
}

// edgeFade is 0 at a mask's edge and 1 from about three pixels inside.
func edgeFade(mask []bool, size int) []float32 {
	out := make([]float32, len(mask))
	cur := mask
	// Distance in steps of the four directions, enough for a fade.
	for step := range 4 {
		next := make([]bool, len(mask))
		for y := 1; y < size-1; y++ {
			for x := 1; x < size-1; x++ {
				i := y*size + x
				next[i] = cur[i] && cur[i-1] && cur[i+1] && cur[i-size] && cur[i+size]
			}
		}
		for i, in := range cur {
			if in {
				out[i] = min(max((float32(step)+1-0.7)/2.5, 0), 1)
			}
		}
		cur = next
	}
	return out
}

func sampleMap(m []float32, size int, u, v float64) float32 {
	hi := float64(size) - 1.001
	u, v = min(max(u-0.5, 0), hi), min(max(v-0.5, 0), hi)
	i, j := int(u), int(v)
	a, b := float32(u-float64(i)), float32(v-float64(j))
	p := m[j*size+i:]
	x := p[0] + (p[1]-p[0])*a
	y := p[size] + (p[size+1]-p[size])*a
	return x + (y-x)*b
}

// spread fills the texels outside all faces with the nearest colour, so that filtering
// and mipmaps take nothing foreign.
func spread(im field.Image, face []int32) {
	n := im.Size
	known := make([]bool, len(face))
	var front, next []int32
	for i, f := range face {
		if f >= 0 {
			known[i] = true
			front = append(front, int32(i))
		}
	}
	for len(front) > 0 {
		next = next[:0]
		for _, i := range front {
			x, y := int(i)%n, int(i)/n
			for _, d := range [4][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}} {
				u, v := x+d[0], y+d[1]
				if u < 0 || v < 0 || u >= n || v >= n || known[v*n+u] {
					continue
				}
				o := v*n + u
				known[o] = true
				copy(im.Pix[o*3:o*3+3], im.Pix[i*3:i*3+3])
				next = append(next, int32(o))
			}
		}
		front, next = next, front
	}
}

// Draw renders the textured mesh over the background in size×size pixels, with the
// coverage of each pixel.
func (t *Textured) Draw(cam field.Camera, size int) (field.Image, []float32) {
	const sub = 2
	big := t.Mesh.Rasterise(cam, size*sub)
	im := field.NewImage(size)
	cover := make([]float32, size*size)
	s := float64(t.Atlas.Size)
	for i := range cover {
		var c Vec
		n := 0
		for k := range sub * sub {
			j := (i/size*sub+k/sub)*size*sub + i%size*sub + k%sub
			f := big.Face[j]
			if f < 0 {
				c = c.add(Vec{field.Background, field.Background, field.Background})
				continue
			}
			n++
			b := big.Bary[j]
			a := t.Atlas.Faces[f]
			var uv [2]float64
			for q, w := range [3]float32{1 - b[0] - b[1], b[0], b[1]} {
				uv[0] += float64(w * t.Atlas.UV[a[q]][0])
				uv[1] += float64(w * t.Atlas.UV[a[q]][1])
			}
			c = c.add(t.Texture.Sample(uv[0]*s, uv[1]*s))
		}
		c = c.scale(1 / float32(sub*sub))
		copy(im.Pix[i*3:], c[:])
		cover[i] = float32(n) / (sub * sub)
	}
	return im, cover
}

// DrawShape renders the untextured surface, lit from beside the camera.
func (t *Textured) DrawShape(cam field.Camera, size int) field.Image {
	b := t.Mesh.Rasterise(cam, size)
	im := field.NewImage(size)
	p, r, u := cam.Basis()
	var light Vec
	for k := range light {
		light[k] = float32(p[k]*0.7 + u[k]*0.5 - r[k]*0.4)
	}
	light = light.scale(1 / 0.95)
	for i, f := range b.Face {
		if f < 0 {
			continue
		}
		w := [3]float32{1 - b.Bary[i][0] - b.Bary[i][1], b.Bary[i][0], b.Bary[i][1]}
		var n Vec
		for k, v := range t.Mesh.Faces[f] {
			n = n.add(t.Normals[v].scale(w[k]))
		}
		s := 0.25 + 0.6*min(max(n.unit().dot(light), 0), 1)
		copy(im.Pix[i*3:], []float32{s, s, s})
	}
	return im
}

// PSNR compares two pictures where mask is set, in dB.
func PSNR(a, b field.Image, mask []bool) float64 {
	var sum float64
	n := 0
	for i, m := range mask {
		if !m {
			continue
		}
		for c := range 3 {
			d := float64(a.Pix[i*3+c] - b.Pix[i*3+c])
			sum += d * d
		}
		n += 3
	}
	if n == 0 {
		return 0
	}
	return 10 * math.Log10(1/max(sum/float64(n), 1e-8))
}

// IoU is the intersection over the union of two masks.
func IoU(a, b []bool) float64 {
	var in, un int
	for i := range a {
		if a[i] && b[i] {
			in++
		}
		if a[i] || b[i] {
			un++
		}
	}
	if un == 0 {
		return 1
	}
	return float64(in) / float64(un)
}

// DrawAll is Draw for several cameras, without the coverage.
func (t *Textured) DrawAll(cams []field.Camera, size int) []field.Image {
	out := make([]field.Image, len(cams))
	each(len(cams), func(i int) { out[i], _ = t.Draw(cams[i], size) })
	return out
}
