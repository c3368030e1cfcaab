package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"dreamcad/inference"
	"dreamcad/inference/diffusion"
	"dreamcad/inference/models"
	"dreamcad/inference/models/download"
	"dreamcad/inference/models/mini"
)

type modelsCmd struct {
	List     modelsListCmd     `cmd:"" help:"List the models that are here and those that can be pulled."`
	Pull     modelsPullCmd     `cmd:"" help:"Download a model; a broken download goes on where it stopped."`
	Verify   modelsVerifyCmd   `cmd:"" help:"Check digests and tensors of a model."`
	Selftest modelsSelftestCmd `cmd:"" help:"Check a model from its digest to a sampling run."`
	Convert  modelsConvertCmd  `cmd:"" help:"Write the weights of a pulled model as fp16 safetensors: half the size, and quick to load."`
	Rm       modelsRmCmd       `cmd:"" help:"Remove a pulled model."`
}

// modelStore is where this program finds models.
func (a *app) modelStore() *models.Store {
	dir := a.config.Models.Dir
	if dir == "" {
		dir = filepath.Join(a.config.Data, "models")
	}
	return &models.Store{Dir: dir, Backup: a.config.Models.BackupDir, Embedded: []fs.FS{mini.FS}}
}

type modelsListCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints a line a model.
func (c *modelsListCmd) Run(a *app) error {
	list, err := a.modelStore().List()
	if err != nil {
		return err
	}
	type row struct {
		Name    string `json:"name"`
		Title   string `json:"title"`
		Where   string `json:"where,omitempty"`
		Bytes   int64  `json:"bytes"`
		Digest  string `json:"sha256,omitempty"`
		Licence string `json:"licence"`
		Error   string `json:"error,omitempty"`
	}
	rows := []row{}
	for _, l := range list {
		r := row{l.Name, l.Title, l.Where, l.Bytes, l.Files.Weights.SHA256, l.Licence.Name, ""}
		if l.Err != nil {
			r.Error = l.Err.Error()
		}
		rows = append(rows, r)
	}
	if c.JSON {
		return printJSON(a.stdout, rows)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSIZE\tLICENCE\tWHERE\tWHAT")
	for _, r := range rows {
		size, where := "", r.Where
		if r.Bytes > 0 {
			size = models.Size(r.Bytes)
		}
		switch {
		case r.Error != "":
			where = "damaged: " + r.Error
		case where == "":
			where = "not here (dream models pull " + r.Name + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, size, r.Licence, where, r.Title)
	}
	return w.Flush()
}

type modelsPullCmd struct {
	Name     string `arg:"" help:"Model, as dream models list shows it."`
	From     string `help:"File of weights, folder or URL to use in place of the public homes." placeholder:"FILE|DIR|URL"`
	Endpoint string `help:"Address of the Hugging Face hub or a mirror." env:"HF_ENDPOINT" placeholder:"URL"`
	Parallel int    `help:"Connections at once." default:"4"`
	Again    bool   `help:"Even when the model is here."`
	Quiet    bool   `short:"q" help:"No progress."`
}

// Help is the long help.
func (c *modelsPullCmd) Help() string {
	return `The token for files that need one comes from the environment, HF_TOKEN.`
}

// Run downloads, checks and installs.
func (c *modelsPullCmd) Run(a *app) error {
	if c.Parallel < 1 || c.Parallel > 32 {
		return usagef("--parallel must be 1 to 32")
	}
	bars := newFileProgress(a.stderr, c.Quiet)
	defer bars.close()
	b, err := a.modelStore().Pull(a.ctx, c.Name, models.PullOptions{
		From: c.From, Endpoint: c.Endpoint, Token: os.Getenv("HF_TOKEN"), Again: c.Again,
		Download: download.Options{Parallel: c.Parallel},
		Progress: bars.show, Note: bars.note,
	})
	bars.close()
	var absent *models.AbsentError
	switch {
	case errors.Is(err, models.ErrHere):
		_, err = fmt.Fprintf(a.stdout, "The model %s is here already, in %s.\n", b.Name, b.Dir())
		return err
	case errors.As(err, &absent):
		return usageError{err}
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The model %s is in %s. Its licence: %s, %s.\n", b.Name, b.Dir(), b.Licence.Name, b.Licence.URL)
	return err
}

type modelsVerifyCmd struct {
	Name  string `arg:"" help:"Model."`
	JSON  bool   `name:"json" help:"Print JSON."`
	Quiet bool   `short:"q" help:"No progress."`
}

// Run prints a line a check; one that fails makes the command fail.
func (c *modelsVerifyCmd) Run(a *app) error {
	b, err := a.openBundle(c.Name)
	if err != nil {
		return err
	}
	bars := newFileProgress(a.stderr, c.Quiet)
	defer bars.close()
	findings, err := a.modelStore().Verify(a.ctx, b, bars.show)
	bars.close()
	return printFindings(a.stdout, c.JSON, c.Name, findings, err)
}

type modelsSelftestCmd struct {
	Name   string `arg:"" help:"Model."`
	Device string `help:"auto, cpu or cuda:N (default: worker.device)." placeholder:"DEVICE"`
	Steps  int    `help:"Denoising steps of the sampling run." default:"4"`
	JSON   bool   `name:"json" help:"Print JSON."`
	Quiet  bool   `short:"q" help:"No progress."`
}

// Run prints a line a check; one that fails makes the command fail.
func (c *modelsSelftestCmd) Run(a *app) error {
	if c.Steps < 2 || c.Steps > 500 {
		return usagef("--steps must be 2 to 500")
	}
	b, err := a.openBundle(c.Name)
	if err != nil {
		return err
	}
	bars := newFileProgress(a.stderr, c.Quiet)
	defer bars.close()
	findings, err := a.modelStore().Selftest(a.ctx, b, &testEngine{a, engineFlags{Model: c.Name, Device: c.Device}, c.Steps}, bars.show)
	bars.close()
	return printFindings(a.stdout, c.JSON, c.Name, findings, err)
}

// testEngine runs the self-test's sampling with the engine that jobs use.
type testEngine struct {
	app   *app
	flags engineFlags
	steps int
}

// AlphasBar implements models.Engine.
func (e *testEngine) AlphasBar(d *models.Description) ([]float64, error) {
	s := diffusion.NewSchedule(d.Timesteps, d.BetaStart, d.BetaEnd)
	bar := make([]float64, s.Len())
	for t := range bar {
		bar[t] = s.Alpha(t)
	}
	return bar, nil
}

// Sample implements models.Engine.
func (e *testEngine) Sample(ctx context.Context, _ *models.Bundle, prompt string) (latents, images []float32, err error) {
	m, closeModel, err := e.app.openModel(e.flags)
	if err != nil {
		return nil, nil, err
	}
	defer closeModel()
	job, err := m.NewViews(inference.Request{Prompt: prompt, Seed: 1, Steps: e.steps})
	if err != nil {
		return nil, nil, err
	}
	for !job.Done() {
		if err := job.Step(ctx); err != nil {
			return nil, nil, err
		}
	}
	latents = job.Result().Latents
	images, err = m.DecodeWhole(latents, len(job.Result().Images))
	return latents, images, err
}

func printFindings(w io.Writer, asJSON bool, name string, findings []models.Finding, err error) error {
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w, findings)
	} else {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		for _, f := range findings {
			mark := "ok"
			if !f.OK {
				mark = "FAILED"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", mark, f.Check, f.Text)
		}
		err = t.Flush()
	}
	if err != nil {
		return err
	}
	if !models.Healthy(findings) {
		return fmt.Errorf("the model %q failed its checks", name)
	}
	return nil
}

type modelsConvertCmd struct {
	Name    string `arg:"" help:"Model that was pulled."`
	Replace bool   `help:"Delete the file that was converted, now or earlier."`
	Quiet   bool   `short:"q" help:"No progress."`
}

// Run converts and says what that changed.
func (c *modelsConvertCmd) Run(a *app) error {
	bars := newFileProgress(a.stderr, c.Quiet)
	defer bars.close()
	b, err := a.modelStore().Convert(a.ctx, c.Name, models.ConvertOptions{Replace: c.Replace, Progress: bars.show})
	bars.close()
	var absent *models.AbsentError
	if errors.As(err, &absent) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "The weights are now %s, %s.\n", filepath.Join(b.Dir(), b.Files.Weights.Name), models.Size(b.Files.Weights.Bytes))
	return err
}

type modelsRmCmd struct {
	Name string `arg:"" help:"Model that was pulled."`
}

// Run removes the model's folder.
func (c *modelsRmCmd) Run(a *app) error {
	freed, err := a.modelStore().Remove(c.Name)
	var absent *models.AbsentError
	if errors.As(err, &absent) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Removed; %s are free again.\n", models.Size(freed))
	return err
}

// fileProgress shows how much of each file is done: a bar a file and phase on a
// terminal, a line at each tenth elsewhere.
type fileProgress struct {
	mu     sync.Mutex
	w      io.Writer
	bars   *mpb.Progress
	byFile map[string]*fileBar
	tenth  map[string]int64
}

// pace is how often a bar moves: the speed is the mean of the last moves, and single
// reads of several connections would make it jump.
const pace = 250 * time.Millisecond

type fileBar struct {
	*mpb.Bar
	last time.Time // of the last change, for the speed
}

func newFileProgress(w io.Writer, quiet bool) *fileProgress {
	p := &fileProgress{w: w, byFile: map[string]*fileBar{}, tenth: map[string]int64{}}
	if quiet {
		p.w = io.Discard
	} else {
		p.bars = newBars(w)
	}
	return p
}

// show implements models.PullOptions.Progress.
func (p *fileProgress) show(f models.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	name := f.Phase + " " + f.File
	if p.bars == nil {
		p.line(name, f)
		return
	}
	bar := p.byFile[name]
	if bar == nil {
		bar = &fileBar{Bar: p.bars.AddBar(max(f.Total, 0),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.Counters(decor.SizeB1000(0), "% .2f / % .2f", decor.WCSyncSpace)),
			mpb.AppendDecorators(decor.EwmaSpeed(decor.SizeB1000(0), "% .1f", 60, decor.WCSyncSpace), decor.EwmaETA(decor.ET_STYLE_GO, 60, decor.WCSyncSpace)))}
		p.byFile[name] = bar
		// What an earlier run has fetched does not count for the speed.
		bar.SetCurrent(f.Done)
	} else {
		since := time.Since(bar.last)
		if since < pace && f.Done != f.Total {
			return
		}
		bar.EwmaSetCurrent(f.Done, since)
	}
	bar.last = time.Now()
	bar.SetTotal(f.Total, f.Done == f.Total)
}

// line prints tenths, each once.
func (p *fileProgress) line(name string, f models.Progress) {
	last, begun := p.tenth[name]
	now := int64(0)
	if f.Total > 0 {
		now = min(10*f.Done/f.Total, 10)
	}
	if begun && now <= last {
		return
	}
	p.tenth[name] = now
	total := ""
	if f.Total > 0 {
		total = fmt.Sprintf(" of %s, %d %%", models.Size(f.Total), 10*now)
	}
	fmt.Fprintf(p.w, "%s: %s%s\n", name, models.Size(f.Done), total)
}

// note prints a sentence above the bars.
func (p *fileProgress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars != nil {
		_, _ = p.bars.Write([]byte(strings.TrimSpace(text) + "\n"))
		return
	}
	fmt.Fprintln(p.w, text)
}

// close leaves the last state on the screen. Closing twice is harmless.
func (p *fileProgress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars == nil {
		return
	}
	for _, b := range p.byFile {
		b.Abort(false)
	}
	p.bars.Wait()
	p.bars, p.w = nil, io.Discard
}
