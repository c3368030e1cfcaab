package inference

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"dreamcad/inference/asset"
	"dreamcad/inference/distill"
	"dreamcad/inference/field"
	"dreamcad/inference/mesh"
)

// Stages of a mesh, as progress events name them.
const (
	StageOptimise = "optimise"
	StageExtract  = "extract"
	StageTexture  = "texture"
	StagePreview  = "preview"
)

// MeshSettings is all that shapes a mesh, apart from the views.
type MeshSettings struct {
	Draft     distill.Settings `json:"draft"`
	Surface   mesh.Options     `json:"surface"`
	Turntable Turntable        `json:"turntable"`
	Formats   []string         `json:"formats"` // see asset.Formats; none: glb and obj
}

// Turntable says how the spinning preview is drawn.
type Turntable struct {
	Frames    int     `json:"frames"`
	Size      int     `json:"size"` // pixels a side
	Elevation float64 `json:"elevation"`
	Delay     int     `json:"delay"` // hundredths of a second a frame
}

// DefaultMeshSettings are those of draft quality.
func DefaultMeshSettings() MeshSettings {
	return MeshSettings{
		Draft: distill.DefaultSettings(), Surface: mesh.DefaultOptions(),
		Turntable: Turntable{Frames: 30, Size: 256, Elevation: 20, Delay: 8},
	}
}

// Check says what is wrong with the settings, if anything.
func (s *MeshSettings) Check() error {
	if err := s.Draft.Check(); err != nil {
		return err
	}
	if s.Surface.Faces < 100 || s.Surface.Faces > 1_000_000 || s.Surface.Texture < 64 || s.Surface.Texture > 4096 {
		return fmt.Errorf("3D settings: %d faces with a texture of %d: want 100 to 1000000 and 64 to 4096", s.Surface.Faces, s.Surface.Texture)
	}
	if t := s.Turntable; t.Frames < 1 || t.Frames > 240 || t.Size < 16 || t.Size > 1024 {
		return fmt.Errorf("3D settings: turntable of %d frames of %d pixels: want 1 to 240 and 16 to 1024", t.Frames, t.Size)
	}
	return asset.CheckFormats(s.Formats)
}

// MeshStage makes a textured mesh of views, in steps short enough (a few tenths of a
// second) for a scheduler to run other work in between. It is not safe for concurrent
// use.
type MeshStage struct {
	set   MeshSettings
	draft *distill.Draft

	at     int // finished steps after the draft
	result distill.Result
	mesh   *mesh.Mesh
	atlas  *mesh.Atlas
	out    *mesh.Textured
	frames []field.Image
	files  []asset.File
}

// framesAStep is how many turntable frames one step draws: two a core, at least five.
func framesAStep() int { return max(5, 2*runtime.GOMAXPROCS(0)) }

// NewMeshStage starts from the source views: pictures and cameras; masks, weights and
// source marks are set here.
func NewMeshStage(views []field.View, net distill.Denoiser, set MeshSettings) (*MeshStage, error) {
	if err := set.Check(); err != nil {
		return nil, err
	}
	d, err := distill.NewDraft(views, net, set.Draft)
	if err != nil {
		return nil, err
	}
	return &MeshStage{set: set, draft: d}, nil
}

// Use hands the fits and the drawing of the field to an engine, before the first Step.
func (s *MeshStage) Use(e field.Engine) { s.draft.Use(e) }

// meshState is the form on disk.
type meshState struct {
	Settings MeshSettings
	Draft    []byte
}

// MarshalBinary writes a state from which ResumeMeshStage goes on: the views and the
// field after the last finished fit or round, a few megabytes. The surface and what
// follows take about a second and are made again.
func (s *MeshStage) MarshalBinary() ([]byte, error) {
	d, err := s.draft.MarshalBinary()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(meshState{s.set, d}); err != nil {
		return nil, fmt.Errorf("saving a mesh stage: %w", err)
	}
	return b.Bytes(), nil
}

// ResumeMeshStage goes on from a saved state. The result equals that of a stage that
// was never stopped, up to the order of sums if the number of cores differs.
func ResumeMeshStage(data []byte, net distill.Denoiser) (*MeshStage, error) {
	var st meshState
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&st); err != nil {
		return nil, fmt.Errorf("resuming a mesh stage: %w", err)
	}
	if err := st.Settings.Check(); err != nil {
		return nil, fmt.Errorf("resuming a mesh stage: %w", err)
	}
	d, err := distill.Resume(st.Draft, net)
	if err != nil {
		return nil, err
	}
	return &MeshStage{set: st.Settings, draft: d}, nil
}

// Steps after the draft: surface, atlas, paint, then turntable frames, then files, beside
// which the last frames are drawn.
const (
	stepSurface = iota
	stepAtlas
	stepPaint
	stepDraw
)

func (s *MeshStage) drawSteps() int {
	return (s.set.Turntable.Frames - 1) / framesAStep()
}

// Progress names the stage that the next Step works at, and counts its steps.
func (s *MeshStage) Progress() (stage string, step, total int) {
	if done, total := s.draft.Progress(); s.at == 0 && done < total {
		return StageOptimise, done, total
	}
	switch s.at {
	case stepSurface:
		return StageExtract, 0, 1
	case stepAtlas, stepPaint:
		return StageTexture, s.at - stepAtlas, 2
	}
	return StagePreview, s.at - stepDraw, s.drawSteps() + 1
}

// Step does the next piece of work and reports whether the files are ready.
func (s *MeshStage) Step(ctx context.Context) (done bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	switch {
	case s.files != nil:
		return true, nil
	case s.result.Grid == nil:
		if finished, err := s.draft.Step(ctx); err != nil || !finished {
			return false, err
		}
		s.result, err = s.draft.Result()
		return false, err
	case s.at == stepSurface:
		s.mesh, err = mesh.Surface(s.result.Grid, s.result.Views, s.set.Surface)
	case s.at == stepAtlas:
		s.atlas = s.mesh.Unwrap(s.set.Surface.Texture)
	case s.at == stepPaint:
		s.out = s.mesh.Bake(s.atlas, s.result.Views)
	case s.at < stepDraw+s.drawSteps():
		s.draw()
	default:
		s.files, err = s.write()
	}
	if err != nil {
		return false, err
	}
	s.at++
	return s.files != nil, nil
}

func (s *MeshStage) draw() {
	t := s.set.Turntable
	n := min(framesAStep(), t.Frames-len(s.frames))
	cams := make([]field.Camera, n)
	for i := range cams {
		cams[i] = s.result.Views[0].Camera
		cams[i].Azimuth += 360 * float64(len(s.frames)+i) / float64(t.Frames)
		cams[i].Elevation = t.Elevation
	}
	s.frames = append(s.frames, s.out.DrawAll(cams, t.Size)...)
}

func (s *MeshStage) write() ([]asset.File, error) {
	var files []asset.File
	var sheet, gif []byte
	var g errgroup.Group
	g.Go(func() (err error) {
		s.draw()
		gif, err = asset.Turntable(s.frames, s.set.Turntable.Delay)
		return err
	})
	g.Go(func() (err error) {
		files, err = asset.MeshFiles(s.out, s.set.Formats)
		return err
	})
	g.Go(func() (err error) {
		var cams []field.Camera
		for _, v := range s.result.Views {
			if v.Source {
				cams = append(cams, v.Camera)
			}
		}
		sheet, err = asset.Sheet(s.out.DrawAll(cams, 2*s.result.Views[0].Image.Size), 2)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return append(files,
		asset.File{Role: asset.RoleTurntable, Name: asset.NameTurntable, MediaType: "image/gif", Data: gif},
		asset.File{Role: asset.RolePreview, Name: asset.NamePreview, MediaType: "image/png", Data: sheet}), nil
}

// AtBoundary tells whether the last Step finished a fit or a round: MarshalBinary
// writes the state of the last boundary.
func (s *MeshStage) AtBoundary() bool { return s.result.Grid == nil && s.draft.AtBoundary() }

// Files returns what Step made, once it has reported done.
func (s *MeshStage) Files() ([]asset.File, error) {
	if s.files == nil {
		return nil, errors.New("taking the files of a mesh that is not finished")
	}
	return s.files, nil
}

// Mesh returns the textured mesh and what it was made of, once painted.
func (s *MeshStage) Mesh() (*mesh.Textured, distill.Result, error) {
	if s.out == nil {
		return nil, distill.Result{}, errors.New("taking a mesh that is not finished")
	}
	return s.out, s.result, nil
}
