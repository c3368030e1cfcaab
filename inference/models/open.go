package models

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dreamcad/inference/tokenizer"
	"dreamcad/inference/weights"
)

// Bundle is a model that is there: its description and the files beside it.
type Bundle struct {
	Description
	fsys fs.FS
	dir  string // "" when embedded
}

// Open reads the description of the bundle in fsys, an embedded tree.
func Open(fsys fs.FS) (*Bundle, error) {
	d, err := readDescription(fsys)
	if err != nil {
		return nil, fmt.Errorf("open embedded model: %w", err)
	}
	return &Bundle{Description: *d, fsys: fsys}, nil
}

// OpenDir reads the description of the bundle in a folder. Its weights are
// mapped, not read.
func OpenDir(dir string) (*Bundle, error) {
	fsys := os.DirFS(dir)
	d, err := readDescription(fsys)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", dir, err)
	}
	return &Bundle{Description: *d, fsys: fsys, dir: dir}, nil
}

// Dir is the bundle's folder, "" when it is embedded.
func (b *Bundle) Dir() string { return b.dir }

// OpenWeights opens the weights: mapped when the bundle is a folder, in memory
// (safetensors only) when it is embedded. The caller closes them.
func (b *Bundle) OpenWeights() (weights.Source, error) {
	name := b.Files.Weights.Name
	if b.dir != "" {
		return weights.Open(filepath.Join(b.dir, name))
	}
	data, err := fs.ReadFile(b.fsys, name)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", b.Name, err)
	}
	return weights.ReadSafetensors(b.Name+"/"+name, data)
}

// OpenTokenizer reads the merges.
func (b *Bundle) OpenTokenizer() (*tokenizer.Tokenizer, error) {
	f, err := b.fsys.Open(b.Files.Merges.Name)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %w", b.Name, err)
	}
	defer f.Close()
	t, err := tokenizer.New(f, b.Text.Vocab, b.Text.ContextLength)
	if err != nil {
		return nil, fmt.Errorf("open model %q: %q: %w", b.Name, b.Files.Merges.Name, err)
	}
	return t, nil
}

// Digest identifies the model in a manifest: "sha256:" and the digest of its
// weights, which is the recorded one, or is computed when none was recorded.
func (b *Bundle) Digest() (string, error) {
	sum := b.Files.Weights.SHA256
	if sum == "" {
		var err error
		if sum, err = b.sum(b.Files.Weights.Name); err != nil {
			return "", fmt.Errorf("digest of model %q: %w", b.Name, err)
		}
	}
	return "sha256:" + strings.ToLower(sum), nil
}

// sum computes the SHA-256 of a file of the bundle, in hexadecimal.
func (b *Bundle) sum(name string) (string, error) {
	f, err := b.fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum, _, err := digest(context.Background(), f, func(int64) {})
	return sum, err
}
