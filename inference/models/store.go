package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// Store is where bundles live: embedded ones, and a folder with one folder a
// model. The zero value holds nothing.
type Store struct {
	Dir      string         // may not exist yet
	Backup   string         // second place for bundles, "" for none; see Pull
	Embedded []fs.FS        // bundles within the program
	Known    []*Description // what Pull knows; nil for Registry
}

// registered is the description of a model that can be pulled.
func (s *Store) registered(name string) (*Description, error) {
	if s.Known == nil {
		return Registered(name)
	}
	return find(s.Known, name)
}

// Names in Dir that are not models begin with a dot.
const (
	trustFile  = ".trusted.json"
	pullPrefix = ".pull-"
	oldPrefix  = ".old-"
	lockPrefix = ".lock-"

	trustLock = ".trusted" // no model has such a name
)

// AbsentError says that a model is not here, or that there is none of that
// name.
type AbsentError struct{ sentence string }

func (e *AbsentError) Error() string { return e.sentence }

func absent(format string, name string) error {
	return &AbsentError{fmt.Sprintf(format, name)}
}

// Open opens a model by name: one in Dir before an embedded one. It returns an
// AbsentError when there is none.
func (s *Store) Open(name string) (*Bundle, error) {
	if !namePattern.MatchString(name) {
		return nil, absent("the model name %q is not possible", name)
	}
	if s.Dir != "" {
		b, err := OpenDir(filepath.Join(s.Dir, name))
		if err == nil {
			if b.Name != name {
				return nil, fmt.Errorf("open model %q: its %s names %q", name, DescriptionFile, b.Name)
			}
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, e := range s.Embedded {
		b, err := Open(e)
		if err != nil {
			return nil, err
		}
		if b.Name == name {
			return b, nil
		}
	}
	if _, err := s.registered(name); err == nil {
		return nil, absent("the model %q is not here yet; dream models pull fetches it", name)
	}
	return nil, absent("there is no model %q; dream models list shows what is there", name)
}

// Has says whether Open would find the model.
func (s *Store) Has(name string) bool {
	_, err := s.Open(name)
	return err == nil
}

// Listed is a row of List.
type Listed struct {
	*Description
	Where string // "embedded", a folder, or "" when it can be pulled
	Bytes int64  // on disk; 0 when embedded or absent
	Err   error  // why it cannot be opened
}

// List returns the embedded models, those in Dir and those that can be pulled,
// in this order.
func (s *Store) List() ([]Listed, error) {
	var out []Listed
	have := map[string]bool{}
	for _, e := range s.Embedded {
		b, err := Open(e)
		if err != nil {
			return nil, err
		}
		have[b.Name] = true
		out = append(out, Listed{Description: &b.Description, Where: "embedded"})
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && s.Dir != "" {
		return nil, fmt.Errorf("list models: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		dir := filepath.Join(s.Dir, e.Name())
		row := Listed{Where: dir, Bytes: diskBytes(dir)}
		if b, err := s.Open(e.Name()); err != nil {
			row.Description, row.Err = &Description{Name: e.Name(), Title: e.Name()}, err
		} else {
			row.Description = &b.Description
		}
		have[e.Name()] = true
		out = append(out, row)
	}
	known := s.Known
	if known == nil {
		if known, err = Registry(); err != nil {
			return nil, err
		}
	}
	for _, d := range known {
		if !have[d.Name] {
			out = append(out, Listed{Description: d})
		}
	}
	return out, nil
}

// diskBytes sums the sizes of the files in a folder.
func diskBytes(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	var n int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// Remove deletes a pulled model and what an unfinished pull of it left, and
// returns how many bytes that freed. The digests that were trusted stay.
func (s *Store) Remove(name string) (int64, error) {
	if !namePattern.MatchString(name) {
		return 0, absent("the model name %q is not possible", name)
	}
	unlock, err := s.lock(name)
	if err != nil {
		return 0, fmt.Errorf("remove model %q: %w", name, err)
	}
	defer unlock()
	var freed int64
	found := false
	for _, dir := range []string{filepath.Join(s.Dir, name), filepath.Join(s.Dir, pullPrefix+name), filepath.Join(s.Dir, oldPrefix+name)} {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		found = true
		freed += diskBytes(dir)
		if err := os.RemoveAll(dir); err != nil {
			return freed, fmt.Errorf("remove model %q: %w", name, err)
		}
	}
	if !found {
		for _, e := range s.Embedded {
			if b, err := Open(e); err == nil && b.Name == name {
				return 0, fmt.Errorf("remove model %q: it is part of the program", name)
			}
		}
		return 0, fmt.Errorf("remove model %q: it is not here", name)
	}
	return freed, nil
}

// Trusted is the record of a file that was pulled once: every later copy must
// have the same digest.
type Trusted struct {
	SHA256 string    `json:"sha256"`
	Bytes  int64     `json:"bytes"`
	From   string    `json:"from"`
	At     time.Time `json:"at"`
	// By says what made it trusted: "registry" (this program knew the digest),
	// "hub" (the hub declared it) or "first" (nothing to compare with).
	By string `json:"by"`
}

// trust maps "model/file" to its record.
type trust map[string]Trusted

func (s *Store) readTrust() (trust, error) {
	t := trust{}
	b, err := os.ReadFile(filepath.Join(s.Dir, trustFile))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("read %q: %w", filepath.Join(s.Dir, trustFile), err)
	}
	return t, nil
}

// addTrust records files under their model. Another model may be pulled at the
// same time: a lock of its own keeps both records.
func (s *Store) addTrust(name string, files map[string]Trusted) error {
	var unlock func()
	var err error
	for range 100 {
		if unlock, err = s.lock(trustLock); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	defer unlock()
	t, err := s.readTrust()
	if err != nil {
		return err
	}
	for f, r := range files {
		t[name+"/"+f] = r
	}
	b, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(s.Dir, trustFile), append(b, '\n'))
}

// writeFile replaces a file as a whole, or not at all.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// install puts a finished folder in the place of a model. The old one, if any,
// is there until the last moment.
func (s *Store) install(finished, name string) error {
	dest, old := filepath.Join(s.Dir, name), filepath.Join(s.Dir, oldPrefix+name)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dest, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(finished, dest); err != nil {
		// Put the old one back rather than leave nothing.
		return errors.Join(err, ignoreAbsent(os.Rename(old, dest)))
	}
	syncDir(s.Dir)
	return os.RemoveAll(old)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncDir makes a rename durable, where the system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // some file systems refuse; the rename is atomic all the same
		_ = d.Close()
	}
}

// writeDescription writes model.json into a folder.
func writeDescription(dir string, d *Description) error {
	b, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, DescriptionFile), append(b, '\n'))
}

// sortedKeys are the keys of a map in order.
func sortedKeys[M ~map[string]V, V any](m M) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
