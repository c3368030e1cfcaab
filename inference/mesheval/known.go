package mesheval

import (
	"context"
	"math"
	"time"

	"dreamcad/inference"
	"dreamcad/inference/camera"
	"dreamcad/inference/distill"
	"dreamcad/inference/field"
	"dreamcad/inference/field/shapes"
	"dreamcad/inference/mesh"
)

// Known are the figures of a reconstruction whose true shape is known: views and
// redrawn views are renders of it, so the model has no part in them.
type Known struct {
	Name     string  `json:"name"`
	Manifold bool    `json:"manifold"`
	IoU      float64 `json:"iou"`
	Distance float64 `json:"distance"`        // mean distance of the vertices to the true surface
	Tail     float64 `json:"distance_p95"`    // 95th percentile
	Normals  float64 `json:"normals_degrees"` // mean angle of the faces to the true normals
	Depth    float64 `json:"depth"`
	Hollow   bool    `json:"hollow"`
	Seconds  float64 `json:"seconds"`
}

// Reconstruct measures one shape, made on an engine.
func Reconstruct(ctx context.Context, s *shapes.Shape, lens camera.Lens, size int, elevation float64, set inference.MeshSettings, engine field.Engine) (Known, error) {
	k := Known{Name: s.Name}
	var views []field.View
	for i := range 4 {
		c := field.Camera{Camera: camera.FromFront(20+90*float64(i), elevation), Lens: lens}
		views = append(views, field.View{Camera: c, Image: s.Render(c, size, 2)})
	}
	net := &truth{shape: s}
	start := time.Now()
	stage, err := inference.NewMeshStage(views, net, set)
	if err != nil {
		return k, err
	}
	stage.Use(engine)
	for done := false; !done; {
		if done, err = stage.Step(ctx); err != nil {
			return k, err
		}
	}
	k.Seconds = (time.Since(start) - net.spent).Seconds()
	t, r, err := stage.Mesh()
	if err != nil {
		return k, err
	}
	k.Manifold, k.Depth, k.Hollow = t.Mesh.Check().Manifold, t.Mesh.Depth(), r.Hollow
	for _, v := range r.Views {
		if v.Source {
			k.IoU += mesh.IoU(t.Mesh.Silhouette(v.Camera, size), v.Mask) / 4
		}
	}
	k.Distance, k.Tail, k.Normals = compare(t.Mesh, s)
	return k, nil
}

// compare samples the faces' centres, weighted by area.
func compare(m *mesh.Mesh, s *shapes.Shape) (mean, tail, angle float64) {
	const bins, width = 2000, 0.0005
	var hist [bins + 1]float64
	var total float64
	for _, f := range m.Faces {
		var c, u, v [3]float64
		for a := range 3 {
			p, q, r := float64(m.Vertices[f[0]][a]), float64(m.Vertices[f[1]][a]), float64(m.Vertices[f[2]][a])
			c[a], u[a], v[a] = (p+q+r)/3, q-p, r-p
		}
		n := [3]float64{u[1]*v[2] - u[2]*v[1], u[2]*v[0] - u[0]*v[2], u[0]*v[1] - u[1]*v[0]}
		area := math.Sqrt(n[0]*n[0] + n[1]*n[1] + n[2]*n[2])
		if area == 0 {
			continue
		}
		d, _ := s.Distance(c[0], c[1], c[2])
		d = math.Abs(d)
		// The normal is that of the true surface near the centre.
		want := s.Normal(c[0], c[1], c[2])
		cos := (n[0]*want[0] + n[1]*want[1] + n[2]*want[2]) / area
		mean += d * area
		angle += math.Acos(min(max(cos, -1), 1)) * 180 / math.Pi * area
		hist[min(int(d/width), bins)] += area
		total += area
	}
	if total == 0 {
		return 0, 0, 0
	}
	var sum float64
	for i, h := range hist {
		if sum += h; sum >= 0.95*total {
			tail = float64(i) * width
			break
		}
	}
	return mean / total, tail, angle / total
}

// truth redraws by rendering the true shape.
type truth struct {
	shape *shapes.Shape
	spent time.Duration
}

// Redraw implements distill.Denoiser.
func (o *truth) Redraw(images []field.Image, cams []field.Camera, timestep, stride int, seed uint64) (distill.Redrawing, error) {
	start := time.Now()
	defer func() { o.spent += time.Since(start) }()
	var out drawn
	for _, c := range cams {
		out = append(out, o.shape.Render(c, images[0].Size, 2))
	}
	return out, nil
}

type drawn []field.Image

// Step implements distill.Redrawing.
func (d drawn) Step(ctx context.Context) (bool, error) { return true, ctx.Err() }

// Steps implements distill.Redrawing.
func (d drawn) Steps() int { return 1 }

// Images implements distill.Redrawing.
func (d drawn) Images() ([]field.Image, error) { return d, nil }
