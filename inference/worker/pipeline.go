package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/inference/field"
	"dreamcad/queue"
	"dreamcad/storage"
)

// Pipeline makes jobs with models that are loaded on one device. It fulfils [Maker].
type Pipeline struct {
	// Mesh are the 3D settings of draft quality; formats and seed come from the job.
	Mesh inference.MeshSettings

	// Together is how many jobs are made at once at most; 0 and 1: each alone.
	Together int

	// Explain adds to an error what the program around knows of it, such as who holds
	// the memory of a card; may be nil.
	Explain func(error) error

	models []*inference.Model
	refs   []storage.ModelRef
	pace   pace
}

// NewPipeline serves the given models; the first is the default.
func NewPipeline(models ...*inference.Model) (*Pipeline, error) {
	if len(models) == 0 {
		return nil, errors.New("starting the pipeline: no model")
	}
	p := &Pipeline{models: models, Mesh: inference.DefaultMeshSettings(), pace: pace{}}
	for _, m := range models {
		digest, err := m.Bundle.Digest()
		if err != nil {
			return nil, fmt.Errorf("starting the pipeline: %w", err)
		}
		p.refs = append(p.refs, storage.ModelRef{Name: m.Bundle.Name, Digest: digest})
	}
	return p, nil
}

// Models lists what is loaded.
func (p *Pipeline) Models() []storage.ModelRef { return p.refs }

// Device names the device.
func (p *Pipeline) Device() string {
	return p.models[0].Device().Info().String()
}

// Start begins a job or goes on from a checkpoint.
func (p *Pipeline) Start(_ context.Context, t Task) (Work, error) {
	i, err := p.choose(t.Job.Model)
	if err != nil {
		return nil, err
	}
	order, quality, err := p.order(&t.Job)
	if err != nil {
		return nil, err
	}
	var making *inference.Making
	if t.Checkpoint != nil {
		making, err = p.models[i].ResumeMaking(order, t.Checkpoint)
	} else {
		making, err = p.models[i].NewMaking(order)
	}
	switch {
	case errors.Is(err, inference.ErrState):
		return nil, fmt.Errorf("%w: %w", ErrCheckpoint, err)
	case err != nil && t.Checkpoint != nil: // the order was good once; this is the device
		return nil, p.failed(err)
	case err != nil:
		return nil, &InputError{Sentence: "This request cannot be made: " + err.Error() + ".", Err: err}
	}
	w := &pipelineWork{p: p, kind: t.Job.Kind, making: making, dir: t.Dir, model: p.refs[i], quality: quality}
	if err := w.write(); err != nil {
		return nil, err
	}
	return w, nil
}

// Batch implements [Batcher].
func (p *Pipeline) Batch() int { return max(p.Together, 1) }

// Ahead implements [Batcher]: the UNet calls of pictures in the making become one
// call a model. When a device cannot do so many at once (its memory is too small),
// fewer are tried from then on.
func (p *Pipeline) Ahead(works []Work) error {
	begun := time.Now()
	members, runs := map[storage.ModelRef][]*pipelineWork{}, map[storage.ModelRef][]*inference.Denoising{}
	for _, w := range works {
		w := w.(*pipelineWork)
		if d := w.making.Denoising(); d != nil {
			members[w.model], runs[w.model] = append(members[w.model], w), append(runs[w.model], d)
		}
	}
	for ref, ds := range runs {
		if len(ds) == 1 {
			continue // alone in any case
		}
		if err := p.models[slices.Index(p.refs, ref)].Ahead(ds); err != nil {
			if err = p.failed(err); !errors.Is(err, ErrDevice) {
				p.Together = len(ds) - 1
			}
			return err
		}
		for _, w := range members[ref] {
			w.ahead = time.Since(begun)
		}
	}
	return nil
}

// failed explains an error and marks that of a device that is gone as [ErrDevice].
func (p *Pipeline) failed(err error) error {
	if p.Explain != nil {
		err = p.Explain(err)
	}
	if errors.Is(err, device.ErrLost) {
		return fmt.Errorf("%w: %w", ErrDevice, err)
	}
	return err
}

// choose finds the model of that name.
func (p *Pipeline) choose(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	i := slices.IndexFunc(p.refs, func(r storage.ModelRef) bool { return r.Name == name })
	if i < 0 {
		return 0, &InputError{Sentence: fmt.Sprintf("The model %q is not loaded here.", name)}
	}
	return i, nil
}

// order turns a job into an order. Draft is the only quality so far.
func (p *Pipeline) order(j *queue.Job) (inference.Order, queue.Quality, error) {
	if j.Quality != "" && j.Quality != queue.Draft {
		return inference.Order{}, "", &InputError{Sentence: fmt.Sprintf("The quality %q is not offered by this worker; use draft.", j.Quality)}
	}
	o := inference.Order{Request: inference.Request{Prompt: j.Prompt, Negative: j.Negative}}
	if j.Seed != nil {
		o.Seed = *j.Seed
	}
	if j.Kind == queue.Mesh {
		set := p.Mesh
		set.Formats = j.Formats
		o.Mesh = &set
	}
	return o, queue.Draft, nil
}

// pipelineWork is one job in the making.
type pipelineWork struct {
	p        *Pipeline
	kind     queue.Kind
	making   *inference.Making
	dir      string
	model    storage.ModelRef
	quality  queue.Quality
	products []Product
	told     bool // the views were reported
	spent    spent
	ahead    time.Duration // spent on the next step already
}

// write puts new files into the job's folder.
func (w *pipelineWork) write() error {
	for _, f := range w.making.Take() {
		if err := os.WriteFile(filepath.Join(w.dir, f.Name), f.Data, 0o600); err != nil {
			return fmt.Errorf("write result file %q: %w", f.Name, err)
		}
		w.products = append(w.products, Product{Role: f.Role, Name: f.Name})
	}
	return nil
}

// Step does the next short piece of work.
func (w *pipelineWork) Step(ctx context.Context) (Update, error) {
	if !w.told && len(w.products) > 0 {
		// Resumed behind the views: tell them under this attempt.
		return w.update(true), nil
	}
	stage, _, _ := w.making.Progress()
	begun := time.Now()
	boundary, err := w.making.Step(ctx)
	if err != nil {
		return Update{}, w.p.failed(err)
	}
	next, _, _ := w.making.Progress()
	w.p.pace.note(&w.spent, stage, time.Since(begun)+w.ahead, next != stage || w.making.Done())
	w.ahead = 0
	if err := w.write(); err != nil {
		return Update{}, err
	}
	return w.update(boundary), nil
}

func (w *pipelineWork) update(boundary bool) Update {
	stage, step, total := w.making.Progress()
	u := Update{Stage: queue.Stage(stage), Step: step, Total: total, Boundary: boundary,
		Remaining: w.p.pace.remaining(&w.spent, w.kind, stage, step, total)}
	if !w.told && len(w.products) > 0 {
		w.told = true
		u.Views = slices.Clone(w.products)
	}
	if w.making.Done() {
		u.Outcome = w.outcome()
	}
	return u
}

func (w *pipelineWork) outcome() *Outcome {
	settings, err := json.Marshal(w.making.Settings())
	if err != nil {
		settings = nil // numbers and names only: cannot happen
	}
	return &Outcome{
		Products: w.products, Quality: string(w.quality), Model: w.model, Settings: settings,
		Cameras: Cameras(w.making.Cameras()), Notices: w.making.Notices(), PeakMemory: inference.PeakMemory(),
	}
}

// Cameras converts cameras to the manifest's convention.
func Cameras(cams []field.Camera) []storage.Camera {
	out := make([]storage.Camera, len(cams))
	for i, c := range cams {
		out[i] = storage.Camera{Azimuth: c.FrontAzimuth(), Elevation: c.Elevation, FOV: c.FOV, Distance: c.Distance}
	}
	return out
}

// Save writes a checkpoint.
func (w *pipelineWork) Save(out io.Writer) error { return w.making.Save(out) }

// Close frees what the work holds: nothing but memory.
func (w *pipelineWork) Close() error { return nil }
