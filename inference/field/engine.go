package field

// Engine does the heavy work on fields. [CPU] is the specification: another engine
// agrees with it up to the order of sums. Its methods are safe for concurrent use.
type Engine interface {
	// Fit prepares to fit g in place, as NewFit does. g holds the result once the
	// Fitter has reported done, and must not be touched before.
	Fit(g *Grid, active []bool, rays *Rays, cfg Schedule, seed uint64) (Fitter, error)
	// Render draws g as RenderAll does.
	Render(g *Grid, cams []Camera, size int, beta float64) ([]Picture, error)
}

// Fitter is a fit under way. It is not safe for concurrent use.
type Fitter interface {
	// Step runs up to n iterations and reports whether the schedule is finished.
	Step(n int) (done bool, err error)
}

// CPU is the engine that needs nothing else.
type CPU struct{}

// Fit implements Engine.
func (CPU) Fit(g *Grid, active []bool, rays *Rays, cfg Schedule, seed uint64) (Fitter, error) {
	f, err := NewFit(g, active, rays, cfg, seed)
	if err != nil {
		return nil, err
	}
	return stepper{f}, nil
}

// Render implements Engine.
func (CPU) Render(g *Grid, cams []Camera, size int, beta float64) ([]Picture, error) {
	return g.RenderAll(cams, size, beta), nil
}

type stepper struct{ f *Fit }

// Step implements Fitter.
func (s stepper) Step(n int) (bool, error) { return s.f.Step(n), nil }

// Plan is a fit as another engine needs it: checked, and reduced to numbers.
type Plan struct{ f *Fit }

// NewPlan takes the arguments of NewFit and fails where that fails.
func NewPlan(g *Grid, active []bool, rays *Rays, cfg Schedule, seed uint64) (*Plan, error) {
	f, err := planFit(g, active, rays, cfg, seed)
	return &Plan{f}, err
}

// Voxels are those that change, in the grid's order.
func (p *Plan) Voxels() []int32 {
	out := make([]int32, 0, p.f.active)
	for _, r := range p.f.runs {
		for i := range r.n {
			out = append(out, int32(r.start+i))
		}
	}
	return out
}

// Box is what rays are clipped to, in world units.
func (p *Plan) Box() (lo, hi [3]float32) { return p.f.box() }

// Constants are what the iterations of a fit differ in. Every weight is per voxel or
// ray, the Laplacians being sums of differences that nothing divides.
type Constants struct {
	Threshold  float32 // cells are empty below this f
	Look       bool    // for empty cells, before this iteration
	InvBeta    float32 // 1/β
	Bilaplace  float32 // weight of the Laplacian of f's Laplacian
	Laplace    float32 // of the negative Laplacian of f
	Eikonal    float32
	ColourTV   float32 // of the negative Laplacian of the colours
	Rate       float32 // Adam's, of f, over its first bias correction
	ColourRate float32
	Bias       float32 // 1/√ of Adam's second bias correction
}

// Constants are those of an iteration, from 0 on.
func (p *Plan) Constants(it int) Constants {
	f := *p.f
	f.it = it
	h := float64(f.grid.Voxel())
	t := float64(it) / float64(f.cfg.Iterations)
	beta := geometric(f.cfg.Beta, t) * h
	c := f.constants(t, h)
	return Constants{
		Threshold: float32(-cutoff * beta), Look: it%refresh == 0, InvBeta: float32(1 / beta),
		Bilaplace: c.bilaplace[0], Laplace: c.laplace[0], Eikonal: c.eikonal[0], ColourTV: c.laplace[1],
		Rate: c.rate[0], ColourRate: c.rate[1], Bias: c.bias2[0],
	}
}

// Gradient is that of the rays' loss of an iteration by the grid (N, N, N, 4), as the CPU
// finds it: what the tests of other engines compare with.
func (p *Plan) Gradient(rays *Rays, it int) []float32 {
	f := *p.f
	f.it = it
	f.clip(rays)
	f.occ = newOccupancy(f.grid.N)
	k := p.Constants(it)
	f.occ.mark(f.grid.V, f.runs, k.Threshold)
	s := newShard(len(f.grid.V))
	for r := range f.cfg.Rays {
		q, jitter := f.draw(r)
		f.trace(s, q, jitter, k.InvBeta, 1/float32(f.cfg.Rays))
	}
	return s.grad
}

// CameraFloats is the length of a camera in PackCamera: the unit vector from the origin
// to the camera, the image's right and up, pixels per unit of tangent, distance.
const CameraFloats = 11

// PackCamera writes what the rays of a size×size picture are made from.
func PackCamera(c Camera, size int, dst []float32) {
	p := c.Projection(size)
	for i, v := range [3]vec{p.pos, p.right, p.up} {
		for k := range 3 {
			dst[i*3+k] = float32(v[k])
		}
	}
	dst[9], dst[10] = float32(p.scale), float32(p.Distance)
}

// RayFloats is the length of a ray in Pack: origin and direction (world), where it
// enters and leaves the bounding sphere, colour, opacity, weight.
const RayFloats = 13

// Memory of a device, in bytes, that an engine takes for a grid of n voxels a side.

// FitBytes is that of a fit in which so many voxels change: the grid twice, its
// gradient and Adam's two moments (4 floats a voxel each), a Laplacian, marks, indices.
func FitBytes(n, voxels int) int64 {
	cells := int64(n) * int64(n) * int64(n)
	return cells*(5*16+4+1) + int64(voxels)*4 + 4096
}

// DrawBytes is that of so many pictures of size×size: grid, marks, cameras, pixels.
func DrawBytes(n, pictures, size int) int64 {
	cells := int64(n) * int64(n) * int64(n)
	return cells*17 + int64(pictures)*(CameraFloats+int64(size)*int64(size)*5)*4 + 1024
}

// RayBytes is that of a ray; lists of rays have room for RayGrowth times as many.
const (
	RayBytes  = 4 * RayFloats
	RayGrowth = 2
)

// Pack writes the rays from index from on, (n, RayFloats).
func (r *Rays) Pack(from int, dst []float32) {
	const part = 4096
	list := r.list[from:]
	parallel((len(list)+part-1)/part, func(k int) {
		for i := k * part; i < min((k+1)*part, len(list)); i++ {
			q, d := &list[i], dst[i*RayFloats:(i+1)*RayFloats]
			copy(d, q.o[:])
			copy(d[3:], q.d[:])
			d[6], d[7] = q.near, q.far
			copy(d[8:], q.colour[:])
			d[11], d[12] = q.opacity, q.weight
		}
	})
}

// Limits of the march, for engines.
const (
	StepLength = stepLength // of a fitting sample, in voxels
	DrawLength = 0.5        // of a drawing sample, in voxels
	MinLight   = minLight   // transmittance at which a ray ends
	Cutoff     = cutoff     // cells with f < −Cutoff·β are empty
	Bound      = bound      // radius of the sphere that rays are clipped to
)
