package models

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dreamcad/inference/weights"
)

func pulledToy(t *testing.T) (*Store, *Bundle) {
	t.Helper()
	_, files := toy(t)
	s, o := toyStore(t, startHub(t, files))
	return s, mustPull(t, s, o)
}

// Converted weights are the same numbers, rounded to fp16 but for vectors; the
// bundle verifies and the original can be kept or deleted.
func TestConvert(t *testing.T) {
	for _, replace := range []bool{false, true} {
		s, before := pulledToy(t)
		old, err := before.OpenWeights()
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		var last Progress
		b, err := s.Convert(context.Background(), "toy", ConvertOptions{Replace: replace, Progress: func(p Progress) { last = p }})
		if err != nil {
			t.Fatal(err)
		}
		if last.Done < last.Total || last.Phase != "convert" {
			t.Errorf("progress ended at %+v", last)
		}
		findings, err := s.Verify(context.Background(), b, nil)
		if err != nil || !Healthy(findings) {
			t.Fatalf("%+v, %v", findings, err)
		}
		src, err := b.OpenWeights()
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for _, w := range b.Tensors() {
			i, _ := src.Lookup(w.Name)
			if want := map[bool]weights.DType{true: weights.F32, false: weights.F16}[len(w.Shape) < 2]; i.DType != want {
				t.Errorf("%s is %v", w.Name, i)
			}
			x, err := old.Float32(w.Name, nil)
			if err != nil {
				t.Fatal(err)
			}
			y, err := src.Float32(w.Name, nil)
			if err != nil {
				t.Fatal(err)
			}
			for j := range x {
				if i.DType == weights.F32 && x[j] != y[j] || math.Abs(float64(x[j]-y[j])) > 1e-3*math.Abs(float64(x[j]))+1e-7 {
					t.Fatalf("%s element %d: %v became %v", w.Name, j, x[j], y[j])
				}
			}
		}
		if _, err := os.Stat(filepath.Join(b.Dir(), "toy.pt")); errors.Is(err, os.ErrNotExist) != replace {
			t.Errorf("the original: %v", err)
		}
		if _, err := s.Convert(context.Background(), "toy", ConvertOptions{}); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second conversion: %v", err)
		}
		// What was kept can be deleted later, once.
		_, err = s.Convert(context.Background(), "toy", ConvertOptions{Replace: true})
		if replace != (err != nil && strings.Contains(err.Error(), "already")) {
			t.Errorf("replacing what was converted before: %v", err)
		}
		if _, err := os.Stat(filepath.Join(b.Dir(), "toy.pt")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the original: %v", err)
		}
		if findings, err := s.Verify(context.Background(), b, nil); err != nil || !Healthy(findings) {
			t.Errorf("afterwards: %+v, %v", findings, err)
		}
	}
}

func TestConvertRefuses(t *testing.T) {
	if err := checkRange([]float32{1, 70000}, weights.F16); err == nil || !strings.Contains(err.Error(), "element 1 is 70000") {
		t.Errorf("got %v", err)
	}
	if err := checkRange([]float32{70000}, weights.F32); err != nil {
		t.Error(err)
	}
	if err := checkRange([]float32{float32(math.NaN())}, weights.F32); err == nil {
		t.Error("NaN passed")
	}
	s, _ := pulledToy(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Convert(ctx, "toy", ConvertOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantClean(t, s)
	if _, err := os.Stat(filepath.Join(s.Dir, "toy", "weights.safetensors.part")); err == nil {
		t.Error("half a file is left")
	}
}

// Verify names what is wrong.
func TestVerifyFinds(t *testing.T) {
	s, b := pulledToy(t)
	path := filepath.Join(b.Dir(), "toy.pt")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	findings, err := s.Verify(context.Background(), b, nil)
	if err != nil || Healthy(findings) || findings[0].OK || !strings.Contains(findings[0].Text, "dream models pull toy --again") {
		t.Errorf("a flipped bit: %+v, %v", findings, err)
	}
	// Somebody also edits the description: the trusted digest still tells.
	b.Files.Weights.SHA256 = ""
	findings, err = s.Verify(context.Background(), b, nil)
	if err != nil || findings[0].OK || !strings.Contains(findings[0].Text, "when it was pulled on") {
		t.Errorf("an edited description: %+v, %v", findings, err)
	}
	if err := os.Truncate(path, int64(len(data)/2)); err != nil {
		t.Fatal(err)
	}
	if findings, err = s.Verify(context.Background(), b, nil); err != nil || findings[2].OK || !strings.Contains(findings[2].Text, "truncated") {
		t.Errorf("half a file: %+v, %v", findings, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Verify(ctx, b, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// engine is what a program gives Selftest, with results to choose.
type engine struct {
	alphas          []float64
	latents, images []float32
	err             error
}

func (e engine) AlphasBar(*Description) ([]float64, error) { return e.alphas, nil }
func (e engine) Sample(context.Context, *Bundle, string) (latents, images []float32, err error) {
	return e.latents, e.images, e.err
}

func TestSelftest(t *testing.T) {
	s, b := pulledToy(t)
	alphas := make([]float64, 100)
	alphas[0] = 0.999
	good := engine{alphas: alphas, latents: []float32{1, -1, 0.5}, images: []float32{0.2, -1.01, 0.9}}
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		e    engine
		want string
	}{
		"good":     {good, ""},
		"schedule": {engine{make([]float64, 100), good.latents, good.images, nil}, "cumulative alpha of step 0"},
		"steps":    {engine{alphas[:50], good.latents, good.images, nil}, "50 steps, not 100"},
		"nan":      {engine{alphas, []float32{nan, 1}, good.images, nil}, "1 latents"},
		"blank":    {engine{alphas, good.latents, []float32{0.5, 0.5}, nil}, "blank"},
		"explodes": {engine{alphas, good.latents, []float32{0.5, 50}, nil}, "far outside"},
		"latents":  {engine{alphas, []float32{100, -100}, good.images, nil}, "deviation"},
		"error":    {engine{alphas, nil, nil, errors.New("no device")}, "no device"},
	} {
		t.Run(name, func(t *testing.T) {
			findings, err := s.Selftest(context.Background(), b, c.e, nil)
			if err != nil || Healthy(findings) != (c.want == "") {
				t.Fatalf("%+v, %v", findings, err)
			}
			for _, f := range findings {
				if !f.OK && !strings.Contains(f.Text, c.want) {
					t.Errorf("%+v, want %q", f, c.want)
				}
			}
			if len(findings) != 8 {
				t.Errorf("%d findings", len(findings))
			}
		})
	}
	b.Check.Tokens[0].IDs = []int32{1}
	if findings, err := s.Selftest(context.Background(), b, good, nil); err != nil || Healthy(findings) {
		t.Errorf("wrong ids: %+v, %v", findings, err)
	}
}
