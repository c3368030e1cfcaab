package models

import (
	"context"
	"fmt"
	"math"
	"slices"

	"dreamcad/inference/weights"
)

// Finding is the outcome of one check of a model.
type Finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"` // what was found, one sentence
}

// Healthy says whether every check passed.
func Healthy(findings []Finding) bool {
	return !slices.ContainsFunc(findings, func(f Finding) bool { return !f.OK })
}

func finding(check string, err error, format string, args ...any) Finding {
	if err != nil {
		return Finding{check, false, err.Error()}
	}
	return Finding{check, true, fmt.Sprintf(format, args...)}
}

// Verify checks the files of a model: digests against the description and
// against what was trusted when it was pulled, every tensor against the
// description, and the merges. The error is only about ctx.
func (s *Store) Verify(ctx context.Context, b *Bundle, progress func(Progress)) ([]Finding, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	trusted, err := s.readTrust()
	out := []Finding{}
	if err != nil {
		out = append(out, finding("trust", err, ""))
	}
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		text, err := b.checkDigest(ctx, f, trusted, progress)
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
		out = append(out, finding("digest of "+f.Name, err, "%s", text))
	}
	out = append(out, b.checkTensors())
	t, err := b.OpenTokenizer()
	if err != nil {
		out = append(out, finding("merges", err, ""))
	} else {
		out = append(out, finding("merges", nil, "%d ids, contexts of %d", b.Text.Vocab, t.Length()))
	}
	return out, nil
}

func (b *Bundle) checkDigest(ctx context.Context, f File, trusted trust, progress func(Progress)) (string, error) {
	file, err := b.fsys.Open(f.Name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum, n, err := digest(ctx, file, func(n int64) { progress(Progress{f.Name, "check", n, max(n, f.Bytes)}) })
	if err != nil {
		return "", err
	}
	if f.SHA256 != "" && sum != f.SHA256 {
		return "", fmt.Errorf("%s has the digest %s, but %s says %s: it is damaged; dream models pull %s --again replaces it", f.Name, sum, DescriptionFile, f.SHA256, b.Name)
	}
	t, ok := trusted[b.Name+"/"+f.Name]
	if b.dir != "" && ok && sum != t.SHA256 {
		return "", fmt.Errorf("%s has the digest %s, not %s, the one that it had when it was pulled on %s", f.Name, sum, t.SHA256, t.At.Format("2006-01-02"))
	}
	if f.SHA256 == "" && !ok {
		return fmt.Sprintf("sha256 %s, %s, nothing to compare with", sum, Size(n)), nil
	}
	return fmt.Sprintf("sha256 %s, %s", sum, Size(n)), nil
}

func (b *Bundle) checkTensors() Finding {
	const check = "tensors"
	src, err := b.OpenWeights()
	if err != nil {
		return finding(check, err, "")
	}
	defer src.Close()
	diff := b.Account(src)
	return finding(check, diff.Err(), "%d in the file, %d needed and there, %d unknown", len(src.Keys()), len(b.Tensors()), len(diff.Extra))
}

// Engine is what Selftest needs of the program around it.
type Engine interface {
	// AlphasBar is the noise schedule that sampling uses.
	AlphasBar(d *Description) ([]float64, error)
	// Sample runs a short sampling of a prompt and returns the last latents
	// and the images in [-1, 1] before they are clamped.
	Sample(ctx context.Context, b *Bundle, prompt string) (latents, images []float32, err error)
}

// Selftest checks a model as far as a machine can: what Verify does, the
// tokenizer and the schedule against the values of the description, the
// weights for values that no network has, and one sampling run for NaN and
// range. It cannot tell whether pictures are good.
func (s *Store) Selftest(ctx context.Context, b *Bundle, e Engine, progress func(Progress)) ([]Finding, error) {
	out, err := s.Verify(ctx, b, progress)
	if err != nil {
		return out, err
	}
	for _, check := range []func(context.Context, Engine) Finding{b.checkTokens, b.checkSchedule, b.checkValues, b.checkSample} {
		out = append(out, check(ctx, e))
		if ctx.Err() != nil {
			return out, context.Cause(ctx)
		}
	}
	return out, nil
}

func (b *Bundle) checkTokens(context.Context, Engine) Finding {
	const check = "tokenizer"
	t, err := b.OpenTokenizer()
	if err != nil {
		return finding(check, err, "")
	}
	for _, c := range b.Check.Tokens {
		if got := t.Encode(c.Prompt); !slices.Equal(got, c.IDs) {
			return finding(check, fmt.Errorf("%q became %v, not %v", c.Prompt, got, c.IDs), "")
		}
	}
	return finding(check, nil, "%d prompts have their ids", len(b.Check.Tokens))
}

func (b *Bundle) checkSchedule(_ context.Context, e Engine) Finding {
	const check, tolerance = "schedule", 1e-6
	bar, err := e.AlphasBar(&b.Description)
	if err != nil {
		return finding(check, err, "")
	}
	if len(bar) != b.Timesteps {
		return finding(check, fmt.Errorf("the schedule has %d steps, not %d", len(bar), b.Timesteps), "")
	}
	for _, c := range b.Check.AlphasBar {
		if c.T < 0 || c.T >= len(bar) || !(math.Abs(bar[c.T]-c.Value) <= tolerance*c.Value) {
			return finding(check, fmt.Errorf("the cumulative alpha of step %d is not %v", c.T, c.Value), "")
		}
	}
	return finding(check, nil, "%d values agree", len(b.Check.AlphasBar))
}

// checkValues reads every tensor once.
func (b *Bundle) checkValues(ctx context.Context, _ Engine) Finding {
	const check = "values"
	src, err := b.OpenWeights()
	if err != nil {
		return finding(check, err, "")
	}
	defer src.Close()
	zeros := 0
	for _, w := range b.Tensors() {
		if ctx.Err() != nil {
			return finding(check, context.Cause(ctx), "")
		}
		v, err := src.Float32(w.Name, nil)
		if err == nil {
			err = checkRange(v, weights.F16)
		}
		if err != nil {
			return finding(check, fmt.Errorf("tensor %q: %w", w.Name, err), "")
		}
		if !slices.ContainsFunc(v, func(x float32) bool { return x != 0 }) {
			zeros++
		}
	}
	return finding(check, nil, "all finite and within fp16, %d tensors all zero", zeros)
}

func (b *Bundle) checkSample(ctx context.Context, e Engine) Finding {
	const check, prompt = "sampling", "a red apple"
	latents, images, err := e.Sample(ctx, b, prompt)
	if err != nil {
		return finding(check, err, "")
	}
	// Latents have unit deviation; images leave [-1, 1] a little where the
	// decoder overshoots. Far outside, or without any contrast, something in
	// the chain is broken.
	ls, is := stats(latents), stats(images)
	switch {
	case ls.bad+is.bad > 0:
		err = fmt.Errorf("%d latents and %d pixels are NaN or infinite", ls.bad, is.bad)
	case ls.deviation < 0.05 || ls.deviation > 20:
		err = fmt.Errorf("the latents have a deviation of %.3g, far from 1", ls.deviation)
	case is.largest > 10:
		err = fmt.Errorf("the images reach %.3g, far outside -1 to 1", is.largest)
	case is.deviation < 1e-3:
		err = fmt.Errorf("the images are blank")
	}
	return finding(check, err, "latents %.2f ± %.2f, images %.2f ± %.2f, largest %.2f", ls.mean, ls.deviation, is.mean, is.deviation, is.largest)
}

type spread struct {
	mean, deviation, largest float64
	bad                      int // NaN or infinite
}

func stats(v []float32) spread {
	var s spread
	var sum, squares float64
	for _, x := range v {
		f := float64(x)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			s.bad++
			continue
		}
		sum += f
		squares += f * f
		s.largest = max(s.largest, math.Abs(f))
	}
	if n := float64(len(v) - s.bad); n > 0 {
		s.mean = sum / n
		s.deviation = math.Sqrt(max(0, squares/n-s.mean*s.mean))
	}
	return s
}
