package field

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
)

// Schedule says how a stage fits the grid: rates and sharpness go from the first to
// the second value geometrically over the iterations. Lengths are in voxels.
type Schedule struct {
	Iterations  int
	Rays        int        // random rays an iteration
	Beta        [2]float64 // width β of the surface
	SDFRate     [2]float64 // Adam's rate of f
	ColourRate  [2]float64 // Adam's rate of the colours
	Colour      float32    // weight of the robust colour loss √(e² + 1e-4)
	Opacity     float32    // weight of the squared opacity error
	Eikonal     float32    // weight of (|∇f| − 1)²
	Laplace     float32    // weight of the Laplacian of f
	Bilaplace   float32    // weight of the squared Laplacian of f
	ColourTV    float32    // weight of the colours' squared differences
	MaxShards   int        // at most so many gradient buffers; 0: one a core, up to 8
	FreezeShape bool       // fit colours only
}

// DefaultSchedule holds the constants that all stages share.
func DefaultSchedule() Schedule {
	return Schedule{
		Rays: 4096, SDFRate: [2]float64{0.6, 0.1}, ColourRate: [2]float64{0.05, 0.01},
		Colour: 0.8, Opacity: 2, ColourTV: 0.5,
	}
}

const (
	stepLength = 0.8  // of a fitting sample, in voxels
	cutoff     = 6    // cells with f < −cutoff·β are empty
	minLight   = 1e-3 // transmittance at which a ray ends
	bound      = 0.99 // radius of the sphere that rays are clipped to
	block      = 4    // cells a side of a block of the empty-space map
	chunk      = 8    // samples that are taken together
	maxSamples = 1024 // a ray
	refresh    = 16   // iterations between looks for empty cells
	together   = 64   // rays in a row that one shard traces
)

// Rays are pixels to be explained, ready to be drawn from.
type Rays struct{ list []ray }

type ray struct {
	o, d    [3]float32 // world
	near    float32    // where it enters the bounding sphere
	far     float32
	colour  [3]float32
	opacity float32
	weight  float32
}

// Len is the number of rays.
func (r *Rays) Len() int { return len(r.list) }

// Add appends the rays through the pixels of a view's mask dilated by pad pixels, but
// for those it is unsure of.
func (r *Rays) Add(v View, pad int) {
	keep := v.Mask
	if pad > 0 {
		keep = Dilate(v.Mask, v.Image.Size, pad)
	}
	pr := v.Camera.Projection(v.Image.Size)
	var pixels []int32
	for _, p := range tiled(v.Image.Size) {
		if keep[p] && (v.Unsure == nil || !v.Unsure[p]) {
			pixels = append(pixels, p)
		}
	}
	rays := make([]ray, len(pixels))
	const part = 1024
	parallel((len(pixels)+part-1)/part, func(k int) {
		for at := k * part; at < min((k+1)*part, len(pixels)); at++ {
			i := int(pixels[at])
			q, ok := newRay(&pr, i%v.Image.Size, i/v.Image.Size)
			if !ok {
				continue
			}
			copy(q.colour[:], v.Image.Pix[i*3:])
			if v.Mask[i] {
				q.opacity = 1
			}
			q.weight = v.Weight
			rays[at] = q
		}
	})
	// A ray that misses the sphere was left zero.
	r.list = append(r.list, slices.DeleteFunc(rays, func(q ray) bool { return q.far == q.near })...)
}

// tiled lists the pixels of a size×size picture along a Z curve, so that neighbours in
// the list are neighbours in the picture.
func tiled(size int) []int32 {
	list := make([]int32, 0, size*size)
	for code := uint32(0); len(list) < size*size; code++ {
		if x, y := int(everySecond(code)), int(everySecond(code>>1)); x < size && y < size {
			list = append(list, int32(y*size+x))
		}
	}
	return list
}

// everySecond gathers bits 0, 2, 4, …
func everySecond(v uint32) uint32 {
	v &= 0x55555555
	v = (v | v>>1) & 0x33333333
	v = (v | v>>2) & 0x0f0f0f0f
	v = (v | v>>4) & 0x00ff00ff
	return (v | v>>8) & 0xffff
}

func newRay(pr *Projection, x, y int) (q ray, ok bool) {
	d := pr.Ray(float64(x)+0.5, float64(y)+0.5)
	o := pr.pos.scale(pr.Distance)
	b, c := o.dot(d), o.dot(o)-bound*bound
	disc := b*b - c
	if disc <= 0 {
		return q, false
	}
	s := math.Sqrt(disc)
	for k := range 3 {
		q.o[k], q.d[k] = float32(o[k]), float32(d[k])
	}
	q.near, q.far = float32(-b-s), float32(-b+s)
	return q, true
}

// run is a stretch of active voxels along x, of even length.
type run struct{ start, n int }

// Fit optimises a grid against rays, one iteration at a time.
type Fit struct {
	grid      *Grid
	next      []float32 // the grid of the next iteration; outside the runs equal to grid
	lap, m, v []float32
	runs      []run
	active    int
	rays      []ray
	cfg       Schedule
	seed      uint64
	it        int
	occ       occupancy
	shards    []*shard
	loss      Loss
}

// Loss is the mean over the rays of the last iterations.
type Loss struct {
	Colour  float64 // squared error a channel
	Opacity float64 // squared error
	Samples float64 // a ray
}

// shard is one worker's gradient and scratch.
type shard struct {
	grad    []float32
	ray     samples
	loss    [2]float64
	samples int
}

// samples are those of one ray, front to back, from index lead on; the room before
// and behind lets vector kernels read and write whole vectors.
type samples struct {
	idx        [room]int32 // voxel at the lower corner of the cell
	step       [room]int32 // number on the ray's lattice; neighbours differ by one
	fx, fy, fz [room]float32
	val        [room * 4]float32 // the field: f, r, g, b
	phi        [room]float32     // Φ
	alpha      [room]float32     // opacity of the segment that ends at the sample
	light      [room]float32     // transmittance before it
	mr, mg, mb [room]float32     // its colour
	gv         [room * 4]float32 // the loss by val
}

const (
	lead = 8
	room = lead + maxSamples + 16
)

func newShard(values int) *shard {
	return &shard{grad: make([]float32, values)}
}

// NewFit prepares to fit g in place. Only voxels marked in active (N³) change, and of
// those none at the grid's border. The result is a function of the arguments and of
// the number of shards.
func NewFit(g *Grid, active []bool, rays *Rays, cfg Schedule, seed uint64) (*Fit, error) {
	f, err := planFit(g, active, rays, cfg, seed)
	if err != nil {
		return nil, err
	}
	f.clip(rays)
	f.next = append([]float32(nil), g.V...)
	f.lap, f.m, f.v = make([]float32, len(g.V)), make([]float32, len(g.V)), make([]float32, len(g.V))
	count := min(runtime.GOMAXPROCS(0), 8)
	if cfg.MaxShards > 0 {
		count = min(count, cfg.MaxShards)
	}
	for range count {
		f.shards = append(f.shards, newShard(len(g.V)))
	}
	f.occ = newOccupancy(g.N)
	return f, nil
}

// planFit checks the arguments of NewFit and finds the voxels that change.
func planFit(g *Grid, active []bool, rays *Rays, cfg Schedule, seed uint64) (*Fit, error) {
	n := g.N
	if len(active) != n*n*n {
		return nil, fmt.Errorf("fitting a grid of %d³ cells: the active map has %d entries", n, len(active))
	}
	if rays.Len() == 0 {
		return nil, errors.New("fitting a field: no view shows any object")
	}
	if cfg.Rays <= 0 || cfg.Iterations <= 0 {
		return nil, fmt.Errorf("fitting a field: %d iterations of %d rays", cfg.Iterations, cfg.Rays)
	}
	f := &Fit{grid: g, cfg: cfg, seed: seed}
	for z := 1; z < n-1; z++ {
		for y := 1; y < n-1; y++ {
			row := (z*n + y) * n
			for x := 2; x < n-2; x += 2 {
				if !active[row+x] && !active[row+x+1] {
					continue
				}
				if k := len(f.runs) - 1; k >= 0 && f.runs[k].start+f.runs[k].n == row+x {
					f.runs[k].n += 2
				} else {
					f.runs = append(f.runs, run{row + x, 2})
				}
				f.active += 2
			}
		}
	}
	if f.active == 0 {
		return nil, errors.New("fitting a field: the views leave no room for an object")
	}
	return f, nil
}

// box is what the active voxels lie in, with a voxel around.
func (f *Fit) box() (lo, hi [3]float32) {
	n := f.grid.N
	lo, hi = [3]float32{2, 2, 2}, [3]float32{-2, -2, -2}
	at := func(i int) float32 { return (float32(i)+0.5)*2/float32(n) - 1 }
	step := f.grid.Voxel()
	for _, r := range f.runs {
		for k, p := range [3][2]int{{r.start % n, (r.start + r.n - 1) % n}, {r.start / n % n, r.start / n % n}, {r.start / n / n, r.start / n / n}} {
			lo[k], hi[k] = min(lo[k], at(p[0])-step), max(hi[k], at(p[1])+step)
		}
	}
	return lo, hi
}

// clip copies the rays, shortened to the box around the active voxels.
func (f *Fit) clip(rays *Rays) {
	lo, hi := f.box()
	f.rays = make([]ray, len(rays.list))
	for i, q := range rays.list {
		for k := range 3 {
			if q.d[k] == 0 {
				continue
			}
			a, b := (lo[k]-q.o[k])/q.d[k], (hi[k]-q.o[k])/q.d[k]
			q.near, q.far = max(q.near, min(a, b)), min(q.far, max(a, b))
		}
		f.rays[i] = q
	}
}

// Active is the number of voxels that may change.
func (f *Fit) Active() int { return f.active }

// Loss tells how the rays of the last Step were met.
func (f *Fit) Loss() Loss { return f.loss }

// Step runs up to n iterations and reports whether the schedule is finished.
func (f *Fit) Step(n int) (done bool) {
	end := min(f.it+n, f.cfg.Iterations)
	its := end - f.it
	for _, s := range f.shards {
		s.loss, s.samples = [2]float64{}, 0
	}
	for ; f.it < end; f.it++ {
		f.iterate()
	}
	if its > 0 {
		f.loss = Loss{}
		k := 1 / float64(its*f.cfg.Rays)
		for _, s := range f.shards {
			f.loss.Colour += s.loss[0] * k / 3
			f.loss.Opacity += s.loss[1] * k
			f.loss.Samples += float64(s.samples) * k
		}
	}
	return f.it >= f.cfg.Iterations
}

func geometric(v [2]float64, t float64) float64 {
	if v[0] == 0 {
		return 0
	}
	return v[0] * math.Pow(v[1]/v[0], t)
}

func (f *Fit) iterate() {
	g, n := f.grid, f.grid.N
	h := float64(g.Voxel())
	t := float64(f.it) / float64(f.cfg.Iterations)
	beta := geometric(f.cfg.Beta, t) * h
	if f.it%refresh == 0 {
		f.occ.mark(g.V, f.runs, float32(-cutoff*beta))
	}
	ib := float32(1 / beta)
	f.each(func(k int, s *shard) {
		q, jitter := f.draw(k * together)
		for r := k * together; r < f.cfg.Rays; {
			if r++; r%together == 0 {
				r += together * (len(f.shards) - 1)
			}
			// The next ray is fetched while this one is traced.
			next, j := f.draw(min(r, f.cfg.Rays-1))
			prefetch(next)
			f.trace(s, q, jitter, ib, 1/float32(f.cfg.Rays))
			q, jitter = next, j
		}
	})
	f.each(func(k int, _ *shard) {
		for _, r := range f.part(k) {
			for _, o := range f.shards[1:] {
				merge(f.shards[0].grad, o.grad, r.start*4, r.n*4)
			}
			laplacian(f.lap, g.V, r.start, r.n, n, n*n)
		}
	})
	p := f.constants(t, h)
	f.each(func(k int, _ *shard) {
		for _, r := range f.part(k) {
			update(f.next, g.V, f.lap, f.shards[0].grad, f.m, f.v, r.start, r.n, n, n*n, p)
		}
	})
	g.V, f.next = f.next, g.V
}

// draw picks ray r of this iteration and the jitter of its samples: one of the r-th of
// cfg.Rays equal parts of the list, so that the rays of an iteration are spread evenly
// and follow each other in space.
func (f *Fit) draw(r int) (q *ray, jitter float32) {
	u := mix(f.seed, uint64(f.it)<<32|uint64(r))
	i := (uint64(r)<<24 | u>>40) * uint64(len(f.rays)) / uint64(f.cfg.Rays) >> 24
	return &f.rays[i], float32(u&0xffffff) / (1 << 24)
}

// constants gathers what the update of iteration f.it needs.
func (f *Fit) constants(t, h float64) *stepConstants {
	c, p := &f.cfg, &stepConstants{}
	step := float64(f.it + 1)
	bias1, bias2 := 1-math.Pow(0.9, step), 1-math.Pow(0.99, step)
	na := 1 / float32(f.active)
	ih := float32(1 / h)
	inf := float32(math.Inf(1))
	for k := range 8 {
		p.inverseH[k], p.bias2[k] = ih, float32(1/math.Sqrt(bias2))
		if k%4 == 0 {
			// The Laplacians are taken in units of f; those of the loss are divided by h.
			p.bilaplace[k] = c.Bilaplace * na * ih
			p.laplace[k] = c.Laplace * na * ih
			p.eikonal[k] = c.Eikonal * na
			p.low[k], p.high[k] = -inf, inf
			if !c.FreezeShape {
				p.rate[k] = float32(geometric(c.SDFRate, t) * h / bias1)
			}
		} else {
			p.laplace[k] = 2 * c.ColourTV * na
			p.high[k] = 1
			p.rate[k] = float32(geometric(c.ColourRate, t) / bias1)
		}
	}
	p.beta = [8]float32{0.9, 0.1, 0.99, 0.01}
	return p
}

// part is shard k's share of the active voxels.
func (f *Fit) part(k int) []run {
	n := len(f.shards)
	return f.runs[len(f.runs)*k/n : len(f.runs)*(k+1)/n]
}

func (f *Fit) each(work func(k int, s *shard)) {
	var wg sync.WaitGroup
	for k, s := range f.shards[1:] {
		wg.Go(func() { work(k+1, s) })
	}
	work(0, f.shards[0])
	wg.Wait()
}

// mix hashes a counter (splitmix64).
func mix(seed, i uint64) uint64 {
	z := seed*0x9E3779B97F4A7C15 + i*0xD1B54A32D192ED03 + 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
