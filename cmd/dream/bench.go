package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"dreamcad/inference/camera"
	"dreamcad/inference/field"
	"dreamcad/inference/field/shapes"
	"dreamcad/inference/mesheval"
)

type benchCmd struct {
	Mesh   benchMeshCmd   `cmd:"" help:"Make and measure a mesh of every prompt of a list."`
	Jobs   benchJobsCmd   `cmd:"" help:"Measure jobs a minute and the latency of a lone job, made alone and together."`
	Shapes benchShapesCmd `cmd:"" help:"Reconstruct shapes whose true surface is known."`
}

type benchMeshCmd struct {
	Out      string `short:"o" required:"" help:"Folder for meshes, renders for a judge and figures.json of each, and sheet.jpg of all." type:"path" placeholder:"DIR"`
	Prompts  string `help:"File with a prompt a line (default: one of every thing)." type:"existingfile" placeholder:"FILE"`
	Only     string `help:"Only prompts that contain this." placeholder:"TEXT"`
	Seed     uint64 `help:"First seed." default:"1"`
	Seeds    int    `help:"Seeds a prompt." default:"1"`
	Settings string `help:"File with settings of the 3D stage (YAML or JSON)." type:"existingfile" placeholder:"FILE"`
	engineFlags
}

// Run prints a JSON line for each mesh and one with the means.
func (c *benchMeshCmd) Run(a *app) error {
	set, err := (&meshCmd{Settings: c.Settings}).settings()
	if err != nil {
		return usageError{err}
	}
	text := mesheval.Prompts
	if c.Prompts != "" {
		data, err := os.ReadFile(c.Prompts)
		if err != nil {
			return fmt.Errorf("read the prompts: %w", err)
		}
		text = string(data)
	}
	cases := mesheval.Cases(text, c.Only, c.Seed, c.Seeds)
	if len(cases) == 0 {
		return usagef("there is no such prompt")
	}
	m, closeModel, err := a.openModel(c.engineFlags)
	if err != nil {
		return err
	}
	defer closeModel()
	lines := json.NewEncoder(a.stdout)
	var all []mesheval.Figures
	err = mesheval.Run(a.ctx, m, cases, c.Out, mesheval.Options{Mesh: *set}, func(f mesheval.Figures) error {
		all = append(all, f)
		return lines.Encode(f)
	})
	if err != nil {
		return err
	}
	if err := mesheval.Sheet(filepath.Join(c.Out, "sheet.jpg"), all); err != nil {
		return err
	}
	return lines.Encode(mesheval.Summarise(all))
}

type benchShapesCmd struct {
	File     string `arg:"" help:"Shapes (JSON), for example inference/field/shapes/shapes.json." type:"existingfile"`
	Only     string `help:"Only shapes whose name contains this." placeholder:"TEXT"`
	Settings string `help:"File with settings of the 3D stage (YAML or JSON)." type:"existingfile" placeholder:"FILE"`
}

// Run prints a JSON line for each shape and one with the means.
func (c *benchShapesCmd) Run(a *app) error {
	set, err := (&meshCmd{Settings: c.Settings}).settings()
	if err != nil {
		return usageError{err}
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("read the shapes: %w", err)
	}
	defer f.Close()
	list, err := shapes.Read(f)
	if err != nil {
		return err
	}
	b, err := a.openBundle(builtin)
	if err != nil {
		return err
	}
	lines := json.NewEncoder(a.stdout)
	var mean mesheval.Known
	n := 0.0
	for _, s := range list {
		if !strings.Contains(s.Name, c.Only) {
			continue
		}
		k, err := mesheval.Reconstruct(a.ctx, s, camera.Lens{FOV: b.Camera.FOV, Distance: b.Camera.Distance}, b.ImageSize, b.Defaults.Elevation, *set, field.CPU{})
		if err != nil {
			return fmt.Errorf("reconstruct %q: %w", s.Name, err)
		}
		if err := lines.Encode(k); err != nil {
			return err
		}
		mean.Distance, mean.Tail, mean.Normals, mean.IoU, mean.Seconds = mean.Distance+k.Distance, mean.Tail+k.Tail, mean.Normals+k.Normals, mean.IoU+k.IoU, mean.Seconds+k.Seconds
		n++
	}
	if n == 0 {
		return usagef("there is no such shape")
	}
	return lines.Encode(map[string]float64{"shapes": n, "distance": mean.Distance / n, "distance_p95": mean.Tail / n, "normals_degrees": mean.Normals / n, "iou": mean.IoU / n, "seconds": mean.Seconds / n})
}
