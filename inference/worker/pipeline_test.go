package worker_test

import (
	"bytes"
	"fmt"
	"image/png"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/inference/models/mini"
	"dreamcad/inference/worker"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/storagetest"
)

// pipeline is the real small model with 3D settings that take seconds.
func pipeline(t testing.TB) *worker.Pipeline {
	t.Helper()
	return pipelineOn(t, processor(t))
}

func processor(t testing.TB) device.Device {
	t.Helper()
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

func pipelineOn(t testing.TB, dev device.Device) *worker.Pipeline {
	t.Helper()
	b, err := models.Open(mini.FS)
	if err != nil {
		t.Fatal(err)
	}
	m, err := inference.Open(b, dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(); dev.Close() })
	set := inference.DefaultMeshSettings()
	set.Draft.Scaffold = set.Draft.Scaffold[:1]
	set.Draft.Scaffold[0].Iterations = 20
	set.Draft.Rounds = set.Draft.Rounds[:1]
	set.Draft.Rounds[0].Timestep, set.Draft.Rounds[0].Stride = 300, 150
	set.Draft.Final = set.Draft.Final[:1]
	set.Draft.Final[0].Iterations = 20
	set.Surface.Faces, set.Surface.Texture = 500, 128
	set.Turntable.Frames, set.Turntable.Size = 4, 32
	p, err := worker.NewPipeline(m)
	if err != nil {
		t.Fatal(err)
	}
	p.Mesh = set
	return p
}

// The real networks, from the queue to files in storage; a second run that is
// drained after its views and resumed elsewhere gives the same files.
func TestMeshOfTheSmallModel(t *testing.T) {
	if testing.Short() {
		t.Skip("computes for minutes under the race detector; the run without -short does it")
	}
	r := newRig(t)
	p := pipeline(t)
	start := func() *running {
		return r.runWith(p, nil)
	}
	run := start()
	whole := r.submit(queue.Mesh, queue.Interactive, "a ceramic coffee mug")
	whole = r.wait(whole.ID, queue.Done)
	m, err := storage.ReadManifest(t.Context(), r.store, whole.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"view-0.png", "view-3.png", "views.png", "model.glb", "model.obj", "model.mtl", "texture.png", "turntable.gif", "preview.png"} {
		if f, ok := m.Find(name); !ok || f.Bytes == 0 {
			t.Errorf("the manifest lacks %s: %+v", name, f)
		}
	}
	if img, err := png.Decode(bytes.NewReader([]byte(storagetest.Read(t, r.store, m.FileKey("view-0.png"))))); err != nil || img.Bounds().Dx() < 32 {
		t.Errorf("view-0.png: %v", err)
	}
	if len(m.Cameras) != 4 || m.Cameras[0].FOV <= 0 || m.Cameras[0].Distance <= 0 || m.Model.Name != "mini" || m.Model.Digest == "" || m.Quality != "draft" || m.PeakMemory == 0 {
		t.Errorf("manifest %+v", m)
	}
	for _, stage := range []string{"text", "views", "optimise", "extract", "texture", "preview"} {
		if m.Timings[stage] <= 0 {
			t.Errorf("no time for stage %s: %v", stage, m.Timings)
		}
	}
	r.wantEvents(whole.ID, queue.EventAccepted, queue.EventStarted, queue.EventViews, queue.EventDone)

	again := r.submit(queue.Mesh, queue.Interactive, "a ceramic coffee mug")
	r.until("a checkpoint in storage", func() bool { c := r.job(again.ID).Check; return c != nil && c.Host == "" })
	run.drain(t)
	interrupted := r.job(again.ID).Status == queue.Queued
	r.cfg.Dir = filepath.Join(t.TempDir(), "work")
	start()
	again = r.wait(again.ID, queue.Done)
	m2, err := storage.ReadManifest(t.Context(), r.store, again.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(m2.Files) != len(m.Files) {
		t.Errorf("the resumed run has %d files, the other %d", len(m2.Files), len(m.Files))
	}
	for _, f := range m.Files {
		if g, _ := m2.Find(f.Name); g.SHA256 != f.SHA256 {
			t.Errorf("%s differs between a whole and an interrupted run (interrupted: %v)", f.Name, interrupted)
		}
	}
}

// Promise 4 with the real networks: views that are asked for while a mesh is
// optimised are done first, and the mesh goes on in the same attempt.
func TestViewsWhileTheSmallModelOptimises(t *testing.T) {
	if testing.Short() {
		t.Skip("computes for minutes under the race detector; the run without -short does it")
	}
	r := newRig(t)
	p := pipeline(t)
	p.Mesh.Draft.Scaffold[0].Iterations, p.Mesh.Draft.Final[0].Iterations = 200, 200
	r.runWith(p, nil)
	mesh := r.submit(queue.Mesh, queue.Interactive, "a ceramic coffee mug")
	optimising := func() bool {
		j := r.job(mesh.ID)
		return j.Status == queue.Leased && j.Progress != nil && j.Progress.Stage == queue.StageOptimise
	}
	r.until("the optimisation", optimising)
	views := r.submit(queue.Views, queue.Interactive, "a red chair")
	views = r.wait(views.ID, queue.Done)
	if j := r.job(mesh.ID); j.Status != queue.Leased {
		t.Fatalf("the mesh is %s when the views are done: they waited for it, or it was given back", j.Status)
	}
	mesh = r.wait(mesh.ID, queue.Done)
	if mesh.Attempt != 1 || !views.Started.After(mesh.Started) || !views.Ended.Before(mesh.Ended) {
		t.Errorf("the mesh ran in attempt %d from %v to %v, the views from %v to %v", mesh.Attempt, mesh.Started, mesh.Ended, views.Started, views.Ended)
	}
	t.Logf("the views took %v of the mesh's %v", views.Ended.Sub(views.Submitted), mesh.Ended.Sub(mesh.Started))
}

// fullCard is a device without memory for any program.
type fullCard struct{ device.Device }

func (fullCard) Compile(p *device.Program) (device.Exec, error) {
	return nil, &device.MemoryError{What: p.Name, Need: 3 << 30, Free: 1 << 30, Total: 8 << 30}
}

// A job that finds no memory fails with how much it needs and who has it.
func TestFullCardIsExplained(t *testing.T) {
	r := newRig(t)
	p := pipelineOn(t, fullCard{processor(t)})
	p.Explain = func(err error) error { return fmt.Errorf("%w; a trainer holds the rest", err) }
	r.runWith(p, nil)
	j := r.wait(r.submit(queue.Views, queue.Interactive, "a mug").ID, queue.Failed)
	if want := "needs 3.00 GiB of device memory, but 1.00 of 8.00 GiB are free (this process holds 0.00); a trainer holds the rest"; !strings.Contains(j.Failure.Detail, want) {
		t.Errorf("the failure says %q, want %q", j.Failure.Detail, want)
	}
}
