// Package mesheval measures the way from prompts to meshes: it writes every mesh with
// renders for a judge to name, and figures that need no judge.
package mesheval

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"dreamcad/inference"
	"dreamcad/inference/asset"
	"dreamcad/inference/distill"
	"dreamcad/inference/field"
	"dreamcad/inference/mesh"
)

// Renders is the number of pictures of each mesh that a judge gets.
const Renders = 12

// rowName is a mesh's row of the contact sheet, in its folder.
const rowName = "row.png"

// Case is one prompt.
type Case struct {
	Prompt string `json:"prompt"`
	Seed   uint64 `json:"seed"`
}

// Figures are what is measured of one mesh.
type Figures struct {
	Case
	Folder     string             `json:"folder"`
	Renders    []string           `json:"renders"` // file names, azimuths 30° apart
	Faces      int                `json:"faces"`
	Watertight bool               `json:"watertight"`
	Manifold   bool               `json:"manifold"`
	Components int                `json:"components"`
	Genus      int                `json:"genus"`
	IoU        float64            `json:"iou"`       // silhouettes, mesh against source views, mean
	IoUWorst   float64            `json:"iou_worst"` // of the four
	IoURounds  float64            `json:"iou_rounds"`
	IoUField   float64            `json:"iou_field"`
	PSNR       float64            `json:"psnr"` // dB, mesh against source views, object pixels
	PSNRField  float64            `json:"psnr_field"`
	Roughness  float64            `json:"roughness"`  // mean angle between neighbouring faces, degrees
	Depth      float64            `json:"depth"`      // of a ray straight down the middle, share of the height
	Hollow     bool               `json:"hollow"`     // the draft started it empty
	LidErrors  [2]float64         `json:"lid_errors"` // colour errors on the lid, closed and emptied
	ViewTime   float64            `json:"view_seconds"`
	MeshTime   float64            `json:"mesh_seconds"`
	Stages     map[string]float64 `json:"stages"` // seconds
}

// Options of a run. Zero values mean the model's.
type Options struct {
	Steps     int
	Elevation *float64
	Mesh      inference.MeshSettings
}

// Run makes a mesh of each case under dir and calls done with its figures.
func Run(ctx context.Context, m *inference.Model, cases []Case, dir string, o Options, done func(Figures) error) error {
	for i, c := range cases {
		f, err := One(ctx, m, c, filepath.Join(dir, fmt.Sprintf("%03d", i)), o)
		if err != nil {
			return fmt.Errorf("evaluating %q: %w", c.Prompt, err)
		}
		if err := done(f); err != nil {
			return err
		}
	}
	return nil
}

// One makes and measures one mesh; its files go to dir.
func One(ctx context.Context, m *inference.Model, c Case, dir string, o Options) (Figures, error) {
	f := Figures{Case: c, Folder: dir, Stages: map[string]float64{}}
	start := time.Now()
	views, net, err := sources(ctx, m, c, o)
	if err != nil {
		return f, err
	}
	f.ViewTime = time.Since(start).Seconds()
	start = time.Now()
	set := o.Mesh
	set.Draft.Seed = c.Seed
	stage, err := inference.NewMeshStage(views, net, set)
	if err != nil {
		return f, err
	}
	stage.Use(m.Fields())
	for finished := false; !finished; {
		name, _, _ := stage.Progress()
		at := time.Now()
		if finished, err = stage.Step(ctx); err != nil {
			return f, err
		}
		f.Stages[name] += time.Since(at).Seconds()
	}
	f.MeshTime = time.Since(start).Seconds()
	files, err := stage.Files()
	if err != nil {
		return f, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(dir, file.Name), file.Data, 0o644); err != nil {
			return f, err
		}
	}
	if err := f.measure(stage); err != nil {
		return f, err
	}
	if err := f.render(stage, dir); err != nil {
		return f, err
	}
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return f, err
	}
	return f, os.WriteFile(filepath.Join(dir, "figures.json"), data, 0o644)
}

// sources samples the source views.
func sources(ctx context.Context, m *inference.Model, c Case, o Options) ([]field.View, distill.Denoiser, error) {
	job, err := m.NewViews(inference.Request{Prompt: c.Prompt, Seed: int64(c.Seed), Steps: o.Steps, Elevation: o.Elevation})
	if err != nil {
		return nil, nil, err
	}
	for !job.Done() {
		if err := job.Step(ctx); err != nil {
			return nil, nil, err
		}
	}
	r := job.Result()
	var views []field.View
	for i, im := range r.Images {
		views = append(views, field.View{Camera: r.Cameras[i], Image: im})
	}
	return views, m.Redrawer(job.Prompt(), r.Settings.Guidance), nil
}

// measure compares the mesh with the views and the field.
func (f *Figures) measure(stage *inference.MeshStage) error {
	t, r, err := stage.Mesh()
	if err != nil {
		return err
	}
	c := t.Mesh.Check()
	f.Faces, f.Watertight, f.Manifold, f.Components, f.Genus = len(t.Mesh.Faces), c.Watertight, c.Manifold, c.Components, c.Genus
	f.Hollow, f.LidErrors = r.Hollow, r.LidErrors
	f.IoUWorst = 1
	var sources, rounds float64
	for _, v := range r.Views {
		size := v.Image.Size
		iou := mesh.IoU(t.Mesh.Silhouette(v.Camera, size), v.Mask)
		if !v.Source {
			f.IoURounds += iou
			rounds++
			continue
		}
		sources++
		f.IoU += iou
		f.IoUWorst = min(f.IoUWorst, iou)
		im, cover := t.Draw(v.Camera, size)
		f.PSNR += mesh.PSNR(im, v.Image, v.Mask)
		p := r.Grid.Render(v.Camera, size, 0.3)
		inField, inMesh := make([]bool, len(cover)), make([]bool, len(cover))
		for i := range cover {
			inField[i], inMesh[i] = p.Opacity[i] > 0.5, cover[i] > 0.5
		}
		f.IoUField += mesh.IoU(inField, inMesh)
		f.PSNRField += mesh.PSNR(im, p.Image, inField)
	}
	for _, x := range []*float64{&f.IoU, &f.IoUField, &f.PSNR, &f.PSNRField} {
		*x /= sources
	}
	f.IoURounds /= max(rounds, 1)
	f.Roughness, f.Depth = t.Mesh.Roughness(), t.Mesh.Depth()
	return nil
}

// render writes the pictures for the judge, and a contact sheet of the same views
// with the shape from above, below and the side.
func (f *Figures) render(stage *inference.MeshStage, dir string) error {
	t, r, err := stage.Mesh()
	if err != nil {
		return err
	}
	base := r.Views[0].Camera
	size := r.Views[0].Image.Size
	var cams []field.Camera
	for i := range Renders {
		c := base
		c.Azimuth += 15 + 360*float64(i)/Renders
		cams = append(cams, c)
	}
	for i, im := range t.DrawAll(cams, size) {
		b, err := asset.PNG(im)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("render-%02d.png", i)
		f.Renders = append(f.Renders, name)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return err
		}
	}
	row := []field.Image{r.Views[0].Image, r.Views[1].Image}
	at := func(azimuth, elevation float64) field.Camera {
		c := base
		c.Azimuth += azimuth
		c.Elevation = elevation
		return c
	}
	row = append(row, t.DrawAll([]field.Camera{at(0, 25), at(45, 10), at(135, 25), at(225, 10), at(20, 60), at(0, 80), at(60, -30)}, size)...)
	row = append(row, t.DrawShape(at(0, 25), size), t.DrawShape(at(150, 50), size))
	b, err := asset.Sheet(row, len(row))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, rowName), b, 0o644); err != nil {
		return err
	}
	var all []field.Image
	for _, v := range r.Views {
		all = append(all, v.Image)
	}
	if b, err = asset.Sheet(all, 4); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "all-views.png"), b, 0o644)
}

// Summary condenses a run.
type Summary struct {
	Meshes      int     `json:"meshes"`
	Cores       int     `json:"cores"`
	Watertight  float64 `json:"watertight"`
	Manifold    float64 `json:"manifold"`
	OnePiece    float64 `json:"one_piece"`
	IoU         float64 `json:"iou"`
	IoUWorst    float64 `json:"iou_worst_prompt"`
	IoUField    float64 `json:"iou_field"`
	IoURounds   float64 `json:"iou_rounds"`
	PSNR        float64 `json:"psnr"`
	PSNRField   float64 `json:"psnr_field"`
	Roughness   float64 `json:"roughness"`
	MeshSeconds float64 `json:"mesh_seconds"`
	ViewSeconds float64 `json:"view_seconds"`
}

// Summarise averages figures.
func Summarise(list []Figures) Summary {
	s := Summary{Meshes: len(list), Cores: runtime.GOMAXPROCS(0), IoUWorst: 1}
	count := func(sum *float64, b bool) {
		if b {
			*sum++
		}
	}
	for _, f := range list {
		count(&s.Watertight, f.Watertight)
		count(&s.Manifold, f.Manifold)
		count(&s.OnePiece, f.Components == 1)
		s.IoU += f.IoU
		s.IoUWorst = min(s.IoUWorst, f.IoU)
		s.IoUField += f.IoUField
		s.IoURounds += f.IoURounds
		s.PSNR += f.PSNR
		s.PSNRField += f.PSNRField
		s.Roughness += f.Roughness
		s.MeshSeconds += f.MeshTime
		s.ViewSeconds += f.ViewTime
	}
	for _, sum := range []*float64{&s.Watertight, &s.Manifold, &s.OnePiece, &s.IoU, &s.IoUField, &s.IoURounds, &s.PSNR, &s.PSNRField, &s.Roughness, &s.MeshSeconds, &s.ViewSeconds} {
		*sum /= float64(max(len(list), 1)) // at the end, so that all of all is 1
	}
	return s
}
