package shapes

import (
	"math"

	"dreamcad/inference/field"
)

// shade lights a point as the mini model's training data does: light fixed to the
// world, mostly ambient, so that it can be baked into a field.
func (s *Shape) shade(p, n, v vec, material int) vec {
	m := &s.Materials[material]
	c := m.pattern(p)
	var occluded float64
	for i := 1; i <= 3; i++ {
		h := 0.05 * float64(i)
		q := p.plus(n.times(h))
		d, _ := s.Distance(q[0], q[1], q[2])
		occluded += (h - d) / (h * float64(i))
	}
	open := clamp(1-0.38*occluded, 0.35, 1)
	l1, l2 := vec{0.549, 0.412, 0.727}, vec{-0.70, -0.55, 0.455}
	light := 0.58 + 0.17*n[2] + 0.36*max(n.dot(l1), 0) + 0.20*max(n.dot(l2), 0)
	h1, h2 := l1.plus(v).unit(), l2.plus(v).unit()
	gloss := func(sharp float64) float64 {
		return math.Pow(max(n.dot(h1), 0), sharp) + 0.6*math.Pow(max(n.dot(h2), 0), sharp)
	}
	strength, sharp := 0.08, 12.0
	switch m.Finish {
	case Plastic:
		strength, sharp = 0.22, 24
	case Ceramic:
		strength, sharp = 0.42, 60
	case Wood:
		grain := math.Sin(26*p[0] + 7*p[1] + 5*math.Sin(3.1*p[2]+2*p[1]))
		c, strength = c.times(0.88+0.13*grain), 0.04
	case Stone:
		c, strength = c.times(0.66+0.55*(0.6*noise(p.times(9))+0.4*noise(p.times(21)))), 0
	case Metal:
		r := n.times(2 * n.dot(v)).minus(v)
		e := 0.34 + 0.25*(1+r[2])
		if r[2] > 0 {
			e = 0.75 + 0.55*r[2]
		}
		w := math.Exp(-60 * r[2] * r[2])
		e += (0.22 - e) * w
		g := 0.5 * gloss(40)
		return c.times((0.32*light + 0.72*e) * open).plus(vec{g, g, g})
	case Glass:
		rim := 1 - math.Abs(n.dot(v))
		rim *= rim * 0.75
		g := 0.65 * gloss(70)
		var out vec
		edges := vec{0.9, 0.95, 0.95}
		for i, edge := range edges {
			x := field.Background + (c[i]*light-field.Background)*0.42
			out[i] = x + (edge-x)*rim + g
		}
		return out
	}
	g := strength * gloss(sharp)
	return c.times(light * open).plus(vec{g, g, g})
}

func (m *Material) pattern(p vec) vec {
	switch m.Pattern {
	case 1:
		if math.Sin(2*math.Pi*(p[2]*m.Frequency+m.Phase)) > 0 {
			return m.Second
		}
	case 2:
		f := m.Frequency * 1.35
		x, y, z := p[0]*f+m.Phase, p[1]*f, p[2]*f
		row := math.Floor(z)
		x += 0.5 * (row - 2*math.Floor(row/2))
		g := vec{x - math.Floor(x) - 0.5, y - math.Floor(y) - 0.5, z - row - 0.5}
		if g.dot(g) < 0.13 {
			return m.Second
		}
	case 3:
		if math.Sin(math.Atan2(p[1], p[0])*4+m.Phase*6.28) > 0 {
			return m.Second
		}
	}
	return m.Colour
}

func noise(p vec) float64 {
	var f vec
	var i [3]int
	for k := range p {
		b := math.Floor(p[k])
		i[k], f[k] = int(b), p[k]-b
		f[k] *= f[k] * (3 - 2*f[k])
	}
	var r float64
	for k := range 8 {
		w := 1.0
		var c [3]int
		for a := range 3 {
			bit := k >> a & 1
			c[a] = i[a] + bit
			if bit == 1 {
				w *= f[a]
			} else {
				w *= 1 - f[a]
			}
		}
		h := uint32(c[0])*374761393 + uint32(c[1])*668265263 + uint32(c[2])*2147483647
		h = (h ^ h>>13) * 1274126177
		h ^= h >> 16
		r += w * float64(h&0xffffff) / 16777215
	}
	return r
}
