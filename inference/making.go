package inference

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"time"

	"dreamcad/inference/asset"
	"dreamcad/inference/field"
)

// Order says what to make of a prompt.
type Order struct {
	Request
	Mesh *MeshSettings // nil: pictures only
}

// Making turns an order into finished files, in steps of a few tenths of a second,
// so that a scheduler can run several alternately. It is not safe for concurrent use.
type Making struct {
	m     *Model
	order Order
	views *Views
	stage *MeshStage

	known   known        // what is known once the pictures exist
	pending []asset.File // made, and not yet taken
	files   []asset.File // all that were made
	done    bool
}

// known is what of the pictures outlives the run that made them.
type known struct {
	Cameras  []field.Camera
	Settings ViewSettings
	Notices  []string
	Timings  map[string]float64 // seconds by stage
	Images   []field.Image
}

// NewMaking checks the order. Nothing is computed yet.
func (m *Model) NewMaking(o Order) (*Making, error) {
	v, err := m.NewViews(o.Request)
	if err != nil {
		return nil, err
	}
	if o.Mesh != nil {
		set := *o.Mesh
		set.Draft.Seed = uint64(o.Seed)
		if err := set.Check(); err != nil {
			return nil, err
		}
		o.Mesh = &set
		if m.Bundle.ExperimentalMesh {
			v.result.Notices = append(v.result.Notices, fmt.Sprintf("Meshes of the model %s are experimental: they were never judged on its real weights.", m.Bundle.Name))
		}
	}
	return &Making{m: m, order: o, views: v, known: known{Timings: map[string]float64{}}}, nil
}

// Progress names the stage that the next Step works at and counts its steps.
func (k *Making) Progress() (stage string, step, total int) {
	if k.stage != nil {
		return k.stage.Progress()
	}
	return k.views.Progress()
}

// Done tells whether everything was made.
func (k *Making) Done() bool { return k.done }

// Denoising is the run of the pictures whose step the next Step takes, nil when it
// does something else; see [Model.Ahead].
func (k *Making) Denoising() *Denoising {
	if k.stage != nil {
		return nil
	}
	return k.views.Denoising()
}

// Step does the next piece of work. atBoundary marks a good place to save: the
// pictures, or a stage of the mesh, are done.
func (k *Making) Step(ctx context.Context) (atBoundary bool, err error) {
	if k.done {
		return false, nil
	}
	if k.stage == nil {
		return k.stepViews(ctx)
	}
	before, _, _ := k.stage.Progress()
	start := time.Now()
	finished, err := k.stage.Step(ctx)
	k.known.Timings[before] += time.Since(start).Seconds()
	if err != nil {
		return false, err
	}
	if finished {
		files, err := k.stage.Files()
		if err != nil {
			return false, err
		}
		k.take(files)
		k.done = true
	}
	return k.stage.AtBoundary(), nil
}

func (k *Making) stepViews(ctx context.Context) (bool, error) {
	if err := k.views.Step(ctx); err != nil || !k.views.Done() {
		return false, err
	}
	r := k.views.Result()
	k.known = known{Cameras: r.Cameras, Settings: r.Settings, Notices: r.Notices, Timings: maps.Clone(r.Timings), Images: r.Images}
	files, err := viewFiles(r.Images)
	if err != nil {
		return false, err
	}
	k.take(files)
	if k.order.Mesh == nil {
		k.done = true
		return true, nil
	}
	views := make([]field.View, len(r.Images))
	for i := range views {
		views[i] = field.View{Image: r.Images[i], Camera: r.Cameras[i]}
	}
	if k.stage, err = NewMeshStage(views, k.m.Redrawer(k.views.Prompt(), r.Settings.Guidance), *k.order.Mesh); err != nil {
		return true, err
	}
	k.stage.Use(k.m.Fields())
	return true, nil
}

func (k *Making) take(files []asset.File) {
	k.pending = append(k.pending, files...)
	k.files = append(k.files, files...)
}

// Take returns the files made since the last call.
func (k *Making) Take() []asset.File {
	out := k.pending
	k.pending = nil
	return out
}

// Cameras are those of the pictures, once they exist.
func (k *Making) Cameras() []field.Camera { return k.known.Cameras }

// Images are the pictures, once they exist.
func (k *Making) Images() []field.Image { return k.known.Images }

// Notices are sentences for the requester.
func (k *Making) Notices() []string { return k.known.Notices }

// Timings are the seconds that each stage took.
func (k *Making) Timings() map[string]float64 { return k.known.Timings }

// Settings are all numbers that shaped the result, for the manifest.
func (k *Making) Settings() any {
	return struct {
		Views ViewSettings  `json:"views"`
		Mesh  *MeshSettings `json:"mesh,omitempty"`
	}{k.known.Settings, k.order.Mesh}
}

// viewFiles encodes the pictures and their sheet.
func viewFiles(images []field.Image) ([]asset.File, error) {
	var files []asset.File
	add := func(role, name string, im image.Image) error {
		var b bytes.Buffer
		if err := png.Encode(&b, im); err != nil {
			return fmt.Errorf("encode %q: %w", name, err)
		}
		files = append(files, asset.File{Role: role, Name: name, MediaType: "image/png", Data: b.Bytes()})
		return nil
	}
	for i, im := range images {
		if err := add(asset.RoleView, fmt.Sprintf("view-%d.png", i), Picture(im)); err != nil {
			return nil, err
		}
	}
	return files, add(asset.RoleSheet, "views.png", Sheet(images))
}

// making is the form on disk.
type making struct {
	Order Order
	Known known
	Files []asset.File
	Stage []byte // nil: the pictures are not finished
}

// Save writes what ResumeMaking needs. Before the pictures are finished that is
// the order alone: they take seconds.
func (k *Making) Save(w io.Writer) error {
	st := making{Order: k.order}
	if k.stage != nil {
		stage, err := k.stage.MarshalBinary()
		if err != nil {
			return err
		}
		st.Known, st.Stage = k.known, stage
		st.Known.Images = nil // the stage has them
		st.Files = k.files
	}
	if err := gob.NewEncoder(w).Encode(&st); err != nil {
		return fmt.Errorf("save the making of %q: %w", k.order.Prompt, err)
	}
	return nil
}

// ErrState says that a saved state is damaged or belongs to another order.
var ErrState = errors.New("the saved state cannot be used")

// ResumeMaking goes on with an order from what Save wrote. The result equals that
// of a making that was never stopped.
func (m *Model) ResumeMaking(o Order, r io.Reader) (*Making, error) {
	var st making
	if err := gob.NewDecoder(r).Decode(&st); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if st.Order.Prompt != o.Prompt || st.Order.Seed != o.Seed || (st.Order.Mesh == nil) != (o.Mesh == nil) {
		return nil, fmt.Errorf("%w: it was made for another order", ErrState)
	}
	k, err := m.NewMaking(o)
	if err != nil || st.Stage == nil {
		return k, err
	}
	// The rounds need the prompt again; the pictures are in the state.
	p, err := m.Prompt(o.Prompt+m.Bundle.Defaults.PromptSuffix, k.views.Request().Negative)
	if err != nil {
		return nil, err
	}
	if k.stage, err = ResumeMeshStage(st.Stage, m.Redrawer(p, st.Known.Settings.Guidance)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	k.stage.Use(m.Fields())
	k.known = st.Known
	k.take(st.Files)
	return k, nil
}
