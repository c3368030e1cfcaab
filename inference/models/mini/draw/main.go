// Command draw makes the pictures of an evaluation: four views of every line of a prompts file, and meshes on request. The
// model is opened once. train/judge_folder.py judges what it writes.
//
//	draw -prompts FILE.jsonl -out DIR [-steps N] [-guidance X] [-elevation E] [-model DIR] [-mesh]
//
// It writes DIR/<id>/view-0.png … view-3.png; with -mesh also the mesh's files, render-00.png … render-11.png (azimuths 30
// degrees apart) and figures.json, as package mesheval does, and DIR/meshes.json, their summary. Folders that are complete are
// left alone, so a run that was stopped goes on.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"image/png"
	"os"
	"os/signal"
	"path/filepath"

	"dreamcad/inference"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/mesheval"
	"dreamcad/inference/models"
	"dreamcad/inference/models/mini"
)

// line is what draw reads of a prompts file; see train/prompts.py.
type line struct {
	ID     string `json:"id"`
	Prompt string `json:"prompt"`
	Seed   uint32 `json:"seed"`
}

type options struct {
	prompts, out, model string
	steps               int
	guidance, elevation float64
	mesh                bool
}

func main() {
	var o options
	flag.StringVar(&o.prompts, "prompts", "", "prompts file (JSON lines)")
	flag.StringVar(&o.out, "out", "", "folder for the pictures")
	flag.StringVar(&o.model, "model", "", "folder of a model bundle (default: the embedded one)")
	flag.IntVar(&o.steps, "steps", 0, "denoising steps (default: the model's)")
	flag.Float64Var(&o.guidance, "guidance", 0, "guidance (default: the model's)")
	flag.Float64Var(&o.elevation, "elevation", 1000, "elevation of the cameras in degrees (default: the model's)")
	flag.BoolVar(&o.mesh, "mesh", false, "make meshes too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	lines, err := read(o.prompts)
	if err != nil {
		return err
	}
	b, err := models.Open(mini.FS)
	if o.model != "" {
		b, err = models.OpenDir(o.model)
	}
	if err != nil {
		return err
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		return err
	}
	m, err := inference.Open(b, dev)
	if err != nil {
		return err
	}
	var elevation *float64
	if o.elevation <= 90 {
		elevation = &o.elevation
	}
	var figures []mesheval.Figures
	for i, l := range lines {
		dir := filepath.Join(o.out, l.ID)
		if err := views(ctx, m, l, dir, o, elevation); err != nil {
			return fmt.Errorf("drawing %q: %w", l.Prompt, err)
		}
		if o.mesh {
			f, err := meshOf(ctx, m, l, dir, o, elevation)
			if err != nil {
				return fmt.Errorf("meshing %q: %w", l.Prompt, err)
			}
			figures = append(figures, f)
		}
		if (i+1)%20 == 0 || i+1 == len(lines) {
			fmt.Fprintf(os.Stderr, "%d of %d\n", i+1, len(lines))
		}
	}
	if !o.mesh {
		return nil
	}
	return write(filepath.Join(o.out, "meshes.json"), mesheval.Summarise(figures))
}

// views writes the four views into dir, the last one last.
func views(ctx context.Context, m *inference.Model, l line, dir string, o options, elevation *float64) error {
	last := filepath.Join(dir, fmt.Sprintf("view-%d.png", m.Bundle.Views-1))
	if _, err := os.Stat(last); err == nil {
		return nil
	}
	job, err := m.NewViews(inference.Request{Prompt: l.Prompt, Seed: int64(l.Seed), Steps: o.steps, Guidance: o.guidance, Elevation: elevation})
	if err != nil {
		return err
	}
	for !job.Done() {
		if err := job.Step(ctx); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for k, im := range job.Result().Images {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("view-%d.png", k)))
		if err != nil {
			return err
		}
		if err := png.Encode(f, inference.Picture(im)); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// meshOf makes and measures the mesh of a line, or reads the figures of an earlier run.
func meshOf(ctx context.Context, m *inference.Model, l line, dir string, o options, elevation *float64) (mesheval.Figures, error) {
	if b, err := os.ReadFile(filepath.Join(dir, "figures.json")); err == nil {
		var f mesheval.Figures
		return f, json.Unmarshal(b, &f)
	}
	return mesheval.One(ctx, m, mesheval.Case{Prompt: l.Prompt, Seed: uint64(l.Seed)}, dir, mesheval.Options{Steps: o.steps, Elevation: elevation, Mesh: inference.DefaultMeshSettings()})
}

func read(path string) ([]line, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []line
	for s := bufio.NewScanner(f); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("read %s, line %d: %w", path, len(out)+1, err)
		}
		if l.ID == "" || l.ID != filepath.Base(l.ID) {
			return nil, fmt.Errorf("read %s, line %d: %q is no name for a folder", path, len(out)+1, l.ID)
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read %s: no prompts", path)
	}
	return out, nil
}

func write(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
