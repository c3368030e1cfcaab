package models

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"dreamcad/inference/models/mini"
	"dreamcad/inference/weights"
)

func openMini(t testing.TB) *Bundle {
	t.Helper()
	b, err := Open(mini.FS)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The embedded model is complete: digests as described, every tensor there in
// its shape and nothing else, merges of the right number.
func TestMiniBundle(t *testing.T) {
	b := openMini(t)
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		got, err := b.sum(f.Name)
		if err != nil || got != f.SHA256 {
			t.Errorf("%s has the digest %q, model.json says %q (%v)", f.Name, got, f.SHA256, err)
		}
	}
	src, err := b.OpenWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	d := weights.Compare(src, b.Tensors())
	if err := d.Err(); err != nil {
		t.Error(err)
	}
	if len(d.Extra) > 0 {
		t.Errorf("tensors that no network needs: %q", d.Extra)
	}
	if _, err := b.OpenTokenizer(); err != nil {
		t.Error(err)
	}
	if sum, err := b.Digest(); err != nil || sum != "sha256:"+b.Files.Weights.SHA256 {
		t.Errorf("digest %q, %v", sum, err)
	}
	if b.LatentSize() != 16 || b.Dir() != "" {
		t.Errorf("latent %d, dir %q", b.LatentSize(), b.Dir())
	}
}

func TestOpenDir(t *testing.T) {
	b, err := OpenDir("mini")
	if err != nil {
		t.Fatal(err)
	}
	src, err := b.OpenWeights()
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := weights.Compare(src, b.Tensors()).Err(); err != nil {
		t.Error(err)
	}
	if _, err := OpenDir(t.TempDir()); err == nil || !strings.Contains(err.Error(), DescriptionFile) {
		t.Errorf("an empty folder: %v", err)
	}
}

// Without a recorded digest it is computed.
func TestDigestComputed(t *testing.T) {
	b := openMini(t)
	want := "sha256:" + b.Files.Weights.SHA256
	b.Files.Weights.SHA256 = ""
	if got, err := b.Digest(); err != nil || got != want {
		t.Errorf("digest %q, %v", got, err)
	}
}

// Every field that can be wrong is refused with its name.
func TestBadDescriptions(t *testing.T) {
	good, err := mini.FS.ReadFile(DescriptionFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path  string
		value any
		want  string
	}{
		"name":             {"name", "../x", "name"},
		"unknown field":    {"unet.heads", 4, `unknown field "heads"`},
		"type":             {"views", "four", "views"},
		"no image":         {"image_size", 0, "image_size is 0"},
		"odd image":        {"image_size", 136, "not a multiple"},
		"views":            {"views", 1000, "views is 1000"},
		"fewer azimuths":   {"views", 3, "4 angles for 3 views"},
		"scale":            {"scale_factor", 0, "scale_factor"},
		"v prediction":     {"parameterization", "v", "parameterization"},
		"betas":            {"beta_end", 0.0001, "beta_start"},
		"no levels":        {"unet.channel_mult", []int{}, "0 levels"},
		"first multiplier": {"unet.channel_mult", []int{2, 2}, "begins with 2"},
		"zero multiplier":  {"unet.channel_mult", []int{1, 0}, "holds 0"},
		"groups":           {"unet.norm_groups", 7, "norm_groups"},
		"head":             {"unet.num_head_channels", 48, "num_head_channels"},
		"attention":        {"unet.attention_downsample", []int{3}, "which no level has"},
		"attention deep":   {"unet.attention_downsample", []int{8}, "which no level has"},
		"camera":           {"unet.camera_dim", 12, "camera_dim"},
		"context":          {"unet.context_dim", 64, "text.width is 128"},
		"latent":           {"latent_channels", 8, "z_channels"},
		"vae groups":       {"vae.norm_groups", 5, "norm_groups"},
		"layers used":      {"text.layers_used", 4, "layers_used is 4, not 1 to 3"},
		"heads":            {"text.heads", 3, "text.heads"},
		"vocabulary":       {"text.vocab", 100, "text.vocab"},
		"huge":             {"text.width", 1 << 40, "text.width"},
		"fov":              {"camera.fov_degrees", 0, "fov_degrees"},
		"distance":         {"camera.distance", -1, "camera.distance"},
		"steps":            {"defaults.steps", 0, "defaults.steps"},
		"elevation":        {"defaults.elevation", 100, "defaults.elevation"},
		"path":             {"files.weights.name", "../w", "name of a file"},
		"digest":           {"files.weights.sha256", "abc", "64 hexadecimal digits"},
		"related":          {"vocabulary.related", map[string][]string{"a": {"b"}}, `"a" points to "b"`},
		"no things":        {"vocabulary.things", map[string][]string{}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var tree map[string]any
			if err := json.Unmarshal(good, &tree); err != nil {
				t.Fatal(err)
			}
			at, keys := tree, strings.Split(c.path, ".")
			for _, k := range keys[:len(keys)-1] {
				at = at[k].(map[string]any)
			}
			at[keys[len(keys)-1]] = c.value
			bad, err := json.Marshal(tree)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(fstest.MapFS{DescriptionFile: {Data: bad}})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %v, want one line with %q", err, c.want)
			}
		})
	}
	for _, text := range []string{"", "{", "[]", "null", string(good) + "{}"} {
		if _, err := ParseDescription([]byte(text)); err == nil {
			t.Errorf("accepted %.20q", text)
		}
	}
}

// A truncated or foreign weights file gives one sentence.
func TestDamagedBundle(t *testing.T) {
	dir := t.TempDir()
	putFile(t, dir, DescriptionFile, func(b []byte) []byte { return b })
	putFile(t, dir, "merges.txt", func(b []byte) []byte { return b[:len(b)/2] })
	putFile(t, dir, "weights.safetensors", func(b []byte) []byte { return b[:len(b)/2] })
	b, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.OpenWeights(); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("half of the weights: %v", err)
	}
	if _, err := b.OpenTokenizer(); err == nil || !strings.Contains(err.Error(), "merges.txt") {
		t.Errorf("half of the merges: %v", err)
	}
	b.Files.Weights.Name = "merges.txt"
	if _, err := b.OpenWeights(); err == nil || !strings.Contains(err.Error(), "neither a PyTorch checkpoint nor a safetensors file") {
		t.Errorf("a foreign format: %v", err)
	}
}

func putFile(t *testing.T, dir, name string, change func([]byte) []byte) {
	t.Helper()
	b, err := mini.FS.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}
