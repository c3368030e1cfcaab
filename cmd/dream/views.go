package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"time"

	"dreamcad/inference"
	"dreamcad/queue"
	"dreamcad/storage"
)

type viewsCmd struct {
	Prompt   []string `arg:"" help:"What to draw."`
	Out      string   `short:"o" help:"Folder for the files (default: out/ and the job's id)." type:"path" placeholder:"DIR"`
	Seed     *int64   `help:"Number that picks one of many results (default: random)." placeholder:"N"`
	Steps    int      `help:"Denoising steps (default: the model's)." placeholder:"N"`
	Guidance float64  `help:"How closely to follow the prompt; 1 switches guidance off (default: the model's)." placeholder:"X"`
	Negative string   `help:"What to avoid." placeholder:"TEXT"`
	Report   bool     `help:"Write report.md and report.json too."`
	JSON     bool     `name:"json" help:"Print the manifest on standard output."`
	Quiet    bool     `short:"q" help:"No progress."`
	engineFlags
}

// Help is the long help.
func (c *viewsCmd) Help() string {
	return `Writes view-0.png … view-3.png, the sheet views.png and the manifest result.json.`
}

// Run makes four pictures.
func (c *viewsCmd) Run(a *app) error {
	start := time.Now()
	if c.Steps < 0 || c.Guidance < 0 {
		return usagef("steps and guidance must not be negative")
	}
	req, err := localRequest(queue.Views, joinWords(c.Prompt), c.Negative, c.Seed)
	if err != nil {
		return err
	}
	out, err := newOutput(c.Out, req.ID)
	if err != nil {
		return err
	}
	defer out.discard()
	m, closeModel, err := a.openModel(c.engineFlags)
	if err != nil {
		return err
	}
	defer closeModel()
	job, err := m.NewViews(inference.Request{Prompt: req.Prompt, Negative: req.Negative, Seed: *req.Seed, Steps: c.Steps, Guidance: c.Guidance})
	if err != nil {
		return usageError{err}
	}
	loaded := time.Since(start).Seconds()
	card, err := a.spare(m.Device().Info(), c.engineFlags)
	if err != nil {
		return err
	}
	defer card.close()
	bar := newProgress(a.stderr, c.Quiet)
	defer bar.close()
	for !job.Done() {
		if err := card.rest(a.ctx); err != nil {
			return err
		}
		if err := job.Step(a.ctx); err != nil {
			return err
		}
		bar.show(job.Progress())
	}
	bar.done()
	r := job.Result()
	r.Timings["load"] = loaded

	pictures := map[string]image.Image{}
	for i, im := range r.Images {
		name := fmt.Sprintf("view-%d.png", i)
		pictures[name] = inference.Picture(im)
		out.add(storage.RoleView, name)
	}
	pictures["views.png"] = inference.Sheet(r.Images)
	out.add(storage.RoleSheet, "views.png")
	for name, im := range pictures {
		if err := out.png(name, im); err != nil {
			return err
		}
	}
	man, err := manifest(a, m, req, r)
	if err != nil {
		return err
	}
	man.Timings["total"] = time.Since(start).Seconds()
	man.PeakMemory = peakMemory()
	if c.Report {
		if err := out.report(man, inference.Consistency(r.Images, r.Cameras)); err != nil {
			return err
		}
	}
	return out.publish(a, man, c.JSON)
}

// manifest describes views as the service would.
func manifest(a *app, m *inference.Model, req *queue.Request, r *inference.ViewsResult) (*storage.Manifest, error) {
	digest, err := m.Bundle.Digest()
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(r.Settings)
	if err != nil {
		return nil, err
	}
	man := &storage.Manifest{Schema: storage.ManifestSchema, Job: req.ID, Attempt: queue.NewFence(), Kind: string(req.Kind), Class: string(req.Class),
		Prompt: req.Prompt, Negative: req.Negative, Seed: *req.Seed, Model: storage.ModelRef{Name: m.Bundle.Name, Digest: digest}, Settings: settings,
		Device: deviceName(m.Device().Info()), Version: version(), Published: time.Now().UTC(), Timings: r.Timings, Notices: r.Notices}
	for _, c := range r.Cameras {
		man.Cameras = append(man.Cameras, storage.Camera{Azimuth: c.FrontAzimuth(), Elevation: c.Elevation, FOV: c.FOV, Distance: c.Distance})
	}
	return man, nil
}

// output is a folder that appears whole or not at all: files are written beside
// it and moved when everything is there.
type output struct {
	dir, temp string
	files     []storage.File
}

// newOutput prepares dir, or out/ID when empty, and fails early when it cannot be
// written.
func newOutput(dir, id string) (*output, error) {
	if dir == "" {
		dir = filepath.Join("out", id)
	}
	if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
		return nil, usagef("%s is a file, not a folder", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("create the folder for the files: %w", err)
	}
	temp, err := os.MkdirTemp(parent, ".dream-*")
	if err != nil {
		return nil, fmt.Errorf("write to %q: %w", parent, err)
	}
	return &output{dir: dir, temp: temp}, os.Chmod(temp, 0o755)
}

func (o *output) discard() { os.RemoveAll(o.temp) }

// add announces a file; its record is completed by finish.
func (o *output) add(role, name string) {
	o.files = append(o.files, storage.File{Role: role, Name: name})
}

func (o *output) png(name string, im image.Image) error {
	f, err := os.Create(filepath.Join(o.temp, name))
	if err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	defer f.Close()
	if err := png.Encode(f, im); err != nil {
		return fmt.Errorf("write %q: %w", name, err)
	}
	return f.Close()
}

// publish finishes the folder and says so: notices on standard error, the
// manifest or the folder's name on standard output.
func (o *output) publish(a *app, man *storage.Manifest, asJSON bool) error {
	if err := o.finish(man); err != nil {
		return err
	}
	for _, n := range man.Notices {
		fmt.Fprintln(a.stderr, n)
	}
	if asJSON {
		return printJSON(a.stdout, man)
	}
	_, err := fmt.Fprintln(a.stdout, o.dir)
	return err
}

// finish writes the manifest and moves everything to its place.
func (o *output) finish(man *storage.Manifest) error {
	for _, f := range o.files {
		d, err := storage.DescribeFile(f.Role, f.Name, filepath.Join(o.temp, f.Name))
		if err != nil {
			return err
		}
		man.Files = append(man.Files, d)
	}
	data, err := json.MarshalIndent(man, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.temp, "result.json"), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := os.Rename(o.temp, o.dir); err == nil {
		return nil // the folder did not exist, or was empty
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("create the folder for the files: %w", err)
	}
	entries, err := os.ReadDir(o.temp)
	if err != nil {
		return fmt.Errorf("move the files: %w", err)
	}
	// The manifest comes last: where it is, everything is.
	names := []string{}
	for _, e := range entries {
		if e.Name() != "result.json" {
			names = append(names, e.Name())
		}
	}
	for _, n := range append(names, "result.json") {
		if err := os.Rename(filepath.Join(o.temp, n), filepath.Join(o.dir, n)); err != nil {
			return fmt.Errorf("move the files: %w", err)
		}
	}
	return nil
}
