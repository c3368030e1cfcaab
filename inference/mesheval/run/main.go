// Command run measures meshes: of prompts made with the built-in model, or with
// -shapes of shapes whose true surface is known. It prints a JSON line for each and a
// summary; meshes and the renders for a judge go to the output folder.
//
//	go run ./inference/mesheval/run -out /tmp/eval
//	go run ./inference/mesheval/run -shapes inference/field/shapes/shapes.json
package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"dreamcad/inference"
	"dreamcad/inference/camera"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/field/shapes"
	"dreamcad/inference/mesheval"
	"dreamcad/inference/models"
	"dreamcad/inference/models/mini"
)

// prompts are one of every thing that the first models knew, in colours that their
// training left out where there were such.
//
//go:embed prompts.txt
var prompts string

func main() {
	out := flag.String("out", "", "folder for meshes and renders (default: a temporary one)")
	file := flag.String("prompts", "", "file with a prompt a line (default: a built-in list)")
	known := flag.String("shapes", "", "file of shapes with a known surface, instead of prompts")
	seeds := flag.Int("seeds", 1, "seeds a prompt")
	seed := flag.Uint64("seed", 1, "first seed")
	only := flag.String("only", "", "prompts or shapes that contain this")
	settings := flag.String("settings", "", "JSON file with settings of the 3D stage")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	set := inference.DefaultMeshSettings()
	err := func() error {
		if *settings != "" {
			data, err := os.ReadFile(*settings)
			if err != nil {
				return err
			}
			if err := json.Unmarshal(data, &set); err != nil {
				return fmt.Errorf("reading %q: %w", *settings, err)
			}
		}
		if *known != "" {
			return runShapes(ctx, *known, *only, set)
		}
		text := prompts
		if *file != "" {
			data, err := os.ReadFile(*file)
			if err != nil {
				return err
			}
			text = string(data)
		}
		return runPrompts(ctx, cases(text, *only, *seed, *seeds), *out, set)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesheval:", err)
		os.Exit(1)
	}
}

func cases(text, only string, seed uint64, seeds int) []mesheval.Case {
	var list []mesheval.Case
	r := bufio.NewScanner(strings.NewReader(text))
	for r.Scan() {
		p := strings.TrimSpace(r.Text())
		if p == "" || strings.HasPrefix(p, "#") || !strings.Contains(p, only) {
			continue
		}
		for k := range seeds {
			list = append(list, mesheval.Case{Prompt: p, Seed: seed + uint64(k)})
		}
	}
	return list
}

func runPrompts(ctx context.Context, list []mesheval.Case, dir string, set inference.MeshSettings) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "mesheval-*"); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "files in", dir)
	}
	b, err := models.Open(mini.FS)
	if err != nil {
		return err
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		return err
	}
	defer dev.Close()
	m, err := inference.Open(b, dev)
	if err != nil {
		return err
	}
	defer m.Close()
	print := json.NewEncoder(os.Stdout)
	var all []mesheval.Figures
	if err := mesheval.Run(ctx, m, list, dir, mesheval.Options{Mesh: set}, func(f mesheval.Figures) error {
		all = append(all, f)
		return print.Encode(f)
	}); err != nil {
		return err
	}
	return print.Encode(mesheval.Summarise(all))
}

func runShapes(ctx context.Context, file, only string, set inference.MeshSettings) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	list, err := shapes.Read(f)
	if err != nil {
		return err
	}
	print := json.NewEncoder(os.Stdout)
	var distance, normals, iou, n float64
	for _, s := range list {
		if !strings.Contains(s.Name, only) {
			continue
		}
		k, err := mesheval.Reconstruct(ctx, s, camera.Lens{FOV: 40, Distance: 2.8}, 128, 25, set)
		if err != nil {
			return fmt.Errorf("reconstructing %q: %w", s.Name, err)
		}
		if err := print.Encode(k); err != nil {
			return err
		}
		distance, normals, iou, n = distance+k.Distance, normals+k.Normals, iou+k.IoU, n+1
	}
	n = max(n, 1)
	return print.Encode(map[string]float64{"shapes": n, "distance": distance / n, "normals_degrees": normals / n, "iou": iou / n})
}
