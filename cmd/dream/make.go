package main

import (
	"encoding/json"
	"time"

	"dreamcad/inference"
	"dreamcad/queue"
	"dreamcad/storage"
)

// makeFlags are those of the commands that make something of a prompt at once.
type makeFlags struct {
	Prompt   []string `arg:"" help:"What to make."`
	Out      string   `short:"o" help:"Folder for the files (default: out/ and the job's id)." type:"path" placeholder:"DIR"`
	Seed     *int64   `help:"Number that picks one of many results (default: random)." placeholder:"N"`
	Steps    int      `help:"Denoising steps of the views (default: the model's)." placeholder:"N"`
	Guidance float64  `help:"How closely to follow the prompt; 1 switches guidance off (default: the model's)." placeholder:"X"`
	Negative string   `help:"What to avoid." placeholder:"TEXT"`
	Report   bool     `help:"Write report.md and report.json too."`
	JSON     bool     `name:"json" help:"Print the manifest on standard output."`
	Quiet    bool     `short:"q" help:"No progress."`
	engineFlags
}

// make does the work without a queue and writes what the service would: pictures, and
// a mesh unless its settings are nil. notices are told after those of the work.
func (c *makeFlags) make(a *app, kind queue.Kind, mesh *inference.MeshSettings, notices ...string) error {
	start := time.Now()
	if c.Steps < 0 || c.Guidance < 0 {
		return usagef("steps and guidance must not be negative")
	}
	req, err := localRequest(kind, joinWords(c.Prompt), c.Negative, c.Seed)
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
	work, err := m.NewMaking(inference.Order{
		Request: inference.Request{Prompt: req.Prompt, Negative: req.Negative, Seed: *req.Seed, Steps: c.Steps, Guidance: c.Guidance},
		Mesh:    mesh,
	})
	if err != nil {
		return usageError{err}
	}
	loaded := time.Since(start).Seconds()
	if err := c.finish(a, m, work); err != nil {
		return err
	}
	for _, f := range work.Take() {
		if err := out.write(f); err != nil {
			return err
		}
	}
	man, err := manifest(m, req, work)
	if err != nil {
		return err
	}
	man.Notices = append(man.Notices, notices...)
	man.Timings["load"], man.Timings["total"] = loaded, time.Since(start).Seconds()
	man.PeakMemory = peakMemory()
	if c.Report {
		if err := out.report(man, inference.Consistency(work.Images(), work.Cameras())); err != nil {
			return err
		}
	}
	return out.publish(a, man, c.JSON)
}

// finish takes the steps of the work, shows them, and rests where a card needs it.
func (c *makeFlags) finish(a *app, m *inference.Model, work *inference.Making) error {
	card, err := a.spare(m.Device().Info(), c.engineFlags)
	if err != nil {
		return err
	}
	defer card.close()
	bar := newProgress(a.stderr, c.Quiet)
	defer bar.close()
	for !work.Done() {
		if err := card.rest(a.ctx); err != nil {
			return err
		}
		if _, err := work.Step(a.ctx); err != nil {
			return err
		}
		if !work.Done() {
			bar.show(work.Progress())
		}
	}
	bar.done()
	return nil
}

// manifest describes finished work as the service would.
func manifest(m *inference.Model, req *queue.Request, work *inference.Making) (*storage.Manifest, error) {
	digest, err := m.Bundle.Digest()
	if err != nil {
		return nil, err
	}
	settings, err := json.Marshal(work.Settings())
	if err != nil {
		return nil, err
	}
	man := &storage.Manifest{Schema: storage.ManifestSchema, Job: req.ID, Attempt: queue.NewFence(), Kind: string(req.Kind), Quality: string(queue.Draft),
		Class: string(req.Class), Prompt: req.Prompt, Negative: req.Negative, Seed: *req.Seed, Model: storage.ModelRef{Name: m.Bundle.Name, Digest: digest},
		Settings: settings, Device: m.Device().Info().String(), Version: version(), Published: time.Now().UTC(), Timings: work.Timings(), Notices: work.Notices()}
	for _, c := range work.Cameras() {
		man.Cameras = append(man.Cameras, storage.Camera{Azimuth: c.FrontAzimuth(), Elevation: c.Elevation, FOV: c.FOV, Distance: c.Distance})
	}
	return man, nil
}
