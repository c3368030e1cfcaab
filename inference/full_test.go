//go:build full

package inference

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/inference/weights"
)

// fullSize is the description of the original model, mvdream-sd21
// (bytedance/MVDream, configs/sd-v2-base.yaml; open_clip ViT-H-14).
const fullSize = `{"name": "full-random", "image_size": 256, "views": 4, "latent_channels": 4, "scale_factor": 0.18215,
 "parameterization": "eps", "timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
 "unet": {"model_channels": 320, "channel_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attention_downsample": [1, 2, 4],
  "num_head_channels": 64, "context_dim": 1024, "camera_dim": 16, "norm_groups": 32},
 "vae": {"ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "z_channels": 4, "norm_groups": 32},
 "text": {"width": 1024, "layers": 24, "layers_used": 23, "heads": 16, "context_length": 77, "vocab": 49408},
 "camera": {"fov_degrees": 40, "distance": 3, "front_azimuth": 90},
 "defaults": {"steps": 50, "guidance_scale": 10, "elevation": 15}}`

// TestFullSizeAgainstPyTorch runs the original model's sizes with random weights
// against the PyTorch functions. It needs python3 with torch (PYTHON names
// another interpreter), 12 GB of memory, 3 GB of disk and ten minutes or so.
func TestFullSizeAgainstPyTorch(t *testing.T) {
	dir := t.TempDir()
	randomBundle(t, dir)
	python := os.Getenv("PYTHON")
	if python == "" {
		python = "python3"
	}
	out := filepath.Join(dir, "golden.safetensors")
	cmd := exec.Command(python, "reference/goldens.py", "--bundle", dir, "--out", out, "--steps", "2")
	cmd.Stderr = os.Stderr
	if text, err := cmd.Output(); err != nil {
		t.Fatalf("run the reference: %v\n%s", err, text)
	}
	b, err := models.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	m, err := Open(b, dev)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	against(t, m, openGoldens(t, out, b), false)
}

// randomBundle writes a bundle of the full size: weights scaled so that
// activations keep their size, norms near the identity, and any merges.
func randomBundle(t *testing.T, dir string) {
	t.Helper()
	d, err := models.ParseDescription([]byte(fullSize))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, models.DescriptionFile), []byte(fullSize), 0o644); err != nil {
		t.Fatal(err)
	}
	var plain []rune
	for c := rune(33); c < 256; c++ {
		if c < 127 || c > 160 && c != 173 {
			plain = append(plain, c)
		}
	}
	var merges strings.Builder
	merges.WriteString("#version: random\n")
	n := 0
	for _, a := range plain {
		for _, b := range plain {
			if n++; n <= d.Text.Vocab-514 {
				fmt.Fprintf(&merges, "%c %c</w>\n", a, b)
			}
		}
	}
	for i := 0; n < d.Text.Vocab-514; n++ { // pairs inside words, to fill the vocabulary
		fmt.Fprintf(&merges, "%c %c\n", plain[i/len(plain)], plain[i%len(plain)])
		i++
	}
	if err := os.WriteFile(filepath.Join(dir, "merges.txt"), []byte(merges.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "weights.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	var entries []weights.Entry
	for i, want := range d.Tensors() {
		entries = append(entries, weights.Entry{Name: want.Name, Info: weights.Info{DType: weights.F16, Shape: want.Shape}, Data: func() ([]byte, error) {
			r := rand.New(rand.NewPCG(11, uint64(i)))
			x := make([]float32, weights.Info{Shape: want.Shape}.Elements())
			scale, shift := 0.02, 0.0
			if len(want.Shape) > 1 {
				scale = 1 / math.Sqrt(float64(len(x)/want.Shape[0]))
			} else if strings.HasSuffix(want.Name, ".weight") {
				scale, shift = 0.1, 1
			}
			if strings.Contains(want.Name, "embedding") {
				scale = 0.5
			}
			for k := range x {
				x[k] = float32(shift + scale*(2*r.Float64()-1)*math.Sqrt(3))
			}
			return weights.EncodeF16(x), nil
		}})
	}
	if err := weights.Write(w, map[string]string{"format": "pt"}, entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}
