package inference

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"math"
	"time"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"
)

// Stages of pictures, as progress events name them.
const (
	StageText  = "text"
	StageViews = "views"
)

// Request says which pictures to make. Zero values of the optional fields mean
// the bundle's defaults; a Guidance of 1 switches guidance off.
type Request struct {
	Prompt    string
	Negative  string // optional
	Seed      int64
	Steps     int       // optional
	Guidance  float64   // optional
	Elevation *float64  // optional, degrees
	Azimuths  []float64 // optional, degrees counted from the front, one a view
}

// ViewSettings are the settings with which pictures were made, for manifests.
type ViewSettings struct {
	Steps     int     `json:"steps"`
	Guidance  float64 `json:"guidance"`
	Suffix    string  `json:"prompt_suffix,omitempty"`
	ImageSize int     `json:"image_size"`
}

// ViewsResult is what the job made.
type ViewsResult struct {
	Images   []field.Image
	Cameras  []field.Camera
	Latents  []float32 // (views, h, w, Z)
	Settings ViewSettings
	Notices  []string // sentences for the requester
	// Timings are the seconds that the job waited in each stage. A card queues what it
	// is told: its time for the prompt appears in StageViews, whose first step waits for it.
	Timings map[string]float64
}

// Views is the job that turns a prompt into consistent pictures. It is not safe
// for concurrent use; several jobs may alternate on one model.
type Views struct {
	m       *Model
	r       Request
	cams    []camera.Camera
	prompt  *Prompt
	run     *Denoising
	result  *ViewsResult
	decoded bool
}

// NewViews checks the request and fills in its defaults. Nothing is computed yet.
func (m *Model) NewViews(r Request) (*Views, error) {
	d := m.Bundle.Defaults
	if r.Negative == "" {
		r.Negative = d.Negative
	}
	if r.Steps == 0 {
		r.Steps = d.Steps
	}
	if r.Guidance == 0 {
		r.Guidance = d.Guidance
	}
	if r.Elevation == nil {
		r.Elevation = &d.Elevation
	}
	if len(r.Azimuths) == 0 {
		r.Azimuths = d.Azimuths
	}
	if math.IsNaN(r.Guidance) || r.Guidance < 0 || r.Guidance > 100 {
		return nil, fmt.Errorf("guidance %g is outside 0 to 100", r.Guidance)
	}
	if math.IsNaN(*r.Elevation) || math.Abs(*r.Elevation) > 90 {
		return nil, fmt.Errorf("elevation %g is outside -90 to 90 degrees", *r.Elevation)
	}
	if len(r.Azimuths) != m.Bundle.Views {
		return nil, fmt.Errorf("%d azimuths for a model of %d views", len(r.Azimuths), m.Bundle.Views)
	}
	if _, err := m.schedule.Steps(r.Steps); err != nil {
		return nil, err
	}
	v := &Views{m: m, r: r, result: &ViewsResult{
		Settings: ViewSettings{Steps: r.Steps, Guidance: r.Guidance, Suffix: d.PromptSuffix, ImageSize: m.Bundle.ImageSize},
		Timings:  map[string]float64{}}}
	for _, a := range r.Azimuths {
		c := camera.FromFront(a, *r.Elevation)
		v.cams = append(v.cams, c)
		v.result.Cameras = append(v.result.Cameras, field.Camera{Camera: c, Lens: m.Lens()})
	}
	if s, ok := m.Bundle.Notice(r.Prompt); ok {
		v.result.Notices = append(v.result.Notices, s)
	}
	return v, nil
}

// Request is the job's request with its defaults filled in.
func (v *Views) Request() Request { return v.r }

// Prompt is the encoded prompt once the first step is done; a mesh goes on with it.
func (v *Views) Prompt() *Prompt { return v.prompt }

// Progress says which stage the next Step works at and how many of its steps are
// done. The last step of StageViews decodes the pictures.
func (v *Views) Progress() (stage string, step, total int) {
	if v.run == nil {
		return StageText, 0, 1
	}
	total = v.run.Len() + 1
	if v.decoded {
		return StageViews, total, total
	}
	return StageViews, v.run.Done(), total
}

// Done tells whether the pictures are there.
func (v *Views) Done() bool { return v.decoded }

// Denoising is the run whose step the next Step takes, nil when it does something
// else; see [Model.Ahead].
func (v *Views) Denoising() *Denoising {
	if v.run == nil || v.run.Done() == v.run.Len() {
		return nil
	}
	return v.run
}

// Step does one short piece of work: encodes the prompt, takes one denoising step
// or decodes. It ends early with the context's error.
func (v *Views) Step(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	stage, _, _ := v.Progress()
	start := time.Now()
	defer func() { v.result.Timings[stage] += time.Since(start).Seconds() }()
	switch {
	case v.run == nil:
		return v.begin()
	case v.run.Done() < v.run.Len():
		return v.run.Next(ctx)
	case !v.decoded:
		return v.finish()
	}
	return nil
}

func (v *Views) begin() error {
	m := v.m
	p, err := m.Prompt(v.r.Prompt+m.Bundle.Defaults.PromptSuffix, v.r.Negative)
	if err != nil {
		return err
	}
	if p.Cut > 0 {
		v.result.Notices = append(v.result.Notices, fmt.Sprintf("The prompt is longer than the model reads: its last %d tokens were left out.", p.Cut))
	}
	run, err := m.Denoise(DenoiseOptions{Prompt: p, Cameras: v.cams, Guidance: v.r.Guidance, Steps: v.r.Steps,
		Latents: m.Noise(uint64(v.r.Seed), 0, len(v.cams))})
	if err != nil {
		return err
	}
	v.prompt, v.run = p, run
	return nil
}

func (v *Views) finish() error {
	x, err := v.run.Latents()
	if err != nil {
		return err
	}
	pixels, err := v.m.Decode(x, len(v.cams))
	if err != nil {
		return err
	}
	v.result.Latents = x
	v.result.Images = split(pixels, v.m.Bundle.ImageSize)
	v.decoded = true
	return nil
}

// split cuts a batch of pictures, (n, size, size, 3).
func split(pixels []float32, size int) []field.Image {
	var out []field.Image
	for n := size * size * 3; len(pixels) > 0; pixels = pixels[n:] {
		out = append(out, field.Image{Size: size, Pix: pixels[:n:n]})
	}
	return out
}

// Result is what the job made, nil before Done.
func (v *Views) Result() *ViewsResult {
	if !v.decoded {
		return nil
	}
	return v.result
}

// Progress is told how far a job is: done steps of a stage.
type Progress func(stage string, step, total int)

// Views makes pictures in one call; progress may be nil.
func (m *Model) Views(ctx context.Context, r Request, progress Progress) (*ViewsResult, error) {
	v, err := m.NewViews(r)
	if err != nil {
		return nil, err
	}
	for !v.Done() {
		stage, _, _ := v.Progress()
		if err := v.Step(ctx); err != nil {
			return nil, err
		}
		if progress == nil {
			continue
		}
		if now, step, total := v.Progress(); now == stage {
			progress(stage, step, total)
		} else {
			progress(stage, 1, 1)
		}
	}
	return v.Result(), nil
}

// Picture converts to 8 bits a channel, truncating as upstream does.
func Picture(im field.Image) *image.NRGBA {
	out := image.NewNRGBA(image.Rect(0, 0, im.Size, im.Size))
	for i := range im.Size * im.Size {
		p := im.Pix[3*i : 3*i+3]
		out.SetNRGBA(i%im.Size, i/im.Size, color.NRGBA{byteOf(p[0]), byteOf(p[1]), byteOf(p[2]), 255})
	}
	return out
}

func byteOf(x float32) uint8 { return uint8(min(max(x, 0), 1) * 255) }

// Sheet lays pictures of one size out in rows of two.
func Sheet(images []field.Image) *image.NRGBA {
	if len(images) == 0 {
		return image.NewNRGBA(image.Rectangle{})
	}
	size := images[0].Size
	rows := (len(images) + 1) / 2
	out := image.NewNRGBA(image.Rect(0, 0, min(2, len(images))*size, rows*size))
	for k, im := range images {
		p := Picture(im)
		for y := range size {
			copy(out.Pix[(k/2*size+y)*out.Stride+k%2*size*4:], p.Pix[y*p.Stride:(y+1)*p.Stride])
		}
	}
	return out
}

// Consistency measures how well the silhouettes of views fit one solid: for each
// view the share of its silhouette that the visual hull of all views covers (the
// hull never exceeds it, so this is their intersection over union). 1 is perfect;
// views of different objects reach about 0.98, because a hull forgives much.
func Consistency(images []field.Image, cams []field.Camera) []float64 {
	masks := make([][]bool, len(images))
	for i, im := range images {
		masks[i] = field.Mask(im)
	}
	inside := func(k int, p [3]float64) bool {
		u, v, _ := cams[k].Project(cams[k].Camera, p)
		n := float64(images[k].Size)
		x, y := int(math.Floor(u*n)), int(math.Floor(v*n))
		return x >= 0 && y >= 0 && x < images[k].Size && y < images[k].Size && masks[k][y*images[k].Size+x]
	}
	const samples = 384 // along the two units around the origin
	out := make([]float64, len(images))
	for k, im := range images {
		var all, covered int
		for i, m := range masks[k] {
			if !m {
				continue
			}
			all++
			o, d := cams[k].Ray(cams[k].Camera, (float64(i%im.Size)+0.5)/float64(im.Size), (float64(i/im.Size)+0.5)/float64(im.Size))
		march:
			for s := range samples {
				t := cams[k].Distance - 1 + (float64(s)+0.5)*2/samples
				p := [3]float64{o[0] + t*d[0], o[1] + t*d[1], o[2] + t*d[2]}
				for j := range images {
					if j != k && !inside(j, p) {
						continue march
					}
				}
				covered++
				break
			}
		}
		if all > 0 {
			out[k] = float64(covered) / float64(all)
		}
	}
	return out
}
