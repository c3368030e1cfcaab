package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"dreamcad/inference/asset"
	"dreamcad/storage"
)

// output is a folder that appears whole or not at all: files are written beside
// it and moved when everything is there.
type output struct {
	dir, temp string
	files     []storage.File
}

// newOutput prepares dir, or out/ID when empty, and fails early when it cannot be
// written.
func newOutput(dir, id string) (*output, error) {
	if dir == "" {
		dir = filepath.Join("out", id)
	}
	if fi, err := os.Stat(dir); err == nil && !fi.IsDir() {
		return nil, usagef("%s is a file, not a folder", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, fmt.Errorf("create the folder for the files: %w", err)
	}
	temp, err := os.MkdirTemp(parent, ".dream-*")
	if err != nil {
		return nil, fmt.Errorf("write to %q: %w", parent, err)
	}
	return &output{dir: dir, temp: temp}, os.Chmod(temp, 0o755)
}

func (o *output) discard() { os.RemoveAll(o.temp) }

// write puts a finished file into the folder; its record is completed by finish.
func (o *output) write(f asset.File) error {
	if err := os.WriteFile(filepath.Join(o.temp, f.Name), f.Data, 0o644); err != nil {
		return fmt.Errorf("write %q: %w", f.Name, err)
	}
	o.files = append(o.files, storage.File{Role: f.Role, Name: f.Name})
	return nil
}

// publish finishes the folder and says so: notices on standard error, the
// manifest or the folder's name on standard output.
func (o *output) publish(a *app, man *storage.Manifest, asJSON bool) error {
	if err := o.finish(man); err != nil {
		return err
	}
	for _, n := range man.Notices {
		fmt.Fprintln(a.stderr, n)
	}
	if asJSON {
		return printJSON(a.stdout, man)
	}
	_, err := fmt.Fprintln(a.stdout, o.dir)
	return err
}

// finish writes the manifest and moves everything to its place.
func (o *output) finish(man *storage.Manifest) error {
	for _, f := range o.files {
		d, err := storage.DescribeFile(f.Role, f.Name, filepath.Join(o.temp, f.Name))
		if err != nil {
			return err
		}
		man.Files = append(man.Files, d)
	}
	data, err := json.MarshalIndent(man, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.temp, "result.json"), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := os.Rename(o.temp, o.dir); err == nil {
		return nil // the folder did not exist, or was empty
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return fmt.Errorf("create the folder for the files: %w", err)
	}
	entries, err := os.ReadDir(o.temp)
	if err != nil {
		return fmt.Errorf("move the files: %w", err)
	}
	// The manifest comes last: where it is, everything is.
	names := []string{}
	for _, e := range entries {
		if e.Name() != "result.json" {
			names = append(names, e.Name())
		}
	}
	for _, n := range append(names, "result.json") {
		if err := os.Rename(filepath.Join(o.temp, n), filepath.Join(o.dir, n)); err != nil {
			return fmt.Errorf("move the files: %w", err)
		}
	}
	return nil
}
