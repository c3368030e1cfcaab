package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"dreamcad/inference/models/download"
	"dreamcad/inference/weights"
)

// Hub is the default address of the Hugging Face hub.
const Hub = "https://huggingface.co"

// PullOptions say where a model comes from.
type PullOptions struct {
	// From is a file of weights, a folder or a URL (of the weights, or of a
	// folder with the files of the bundle) to use in place of the public homes.
	From     string
	Endpoint string // of the hub, "" for Hub
	Token    string // for the hub
	Again    bool   // even when the model is here already
	Download download.Options
	// Progress is called from several goroutines.
	Progress func(Progress)
	// Note is called with sentences for the person who waits.
	Note func(string)
}

// Progress of one file.
type Progress struct {
	File  string
	Phase string // "download", "copy", "check" or "convert"
	Done  int64  // bytes
	Total int64  // bytes, -1 when not known
}

func (o PullOptions) filled() PullOptions {
	if o.Endpoint == "" {
		o.Endpoint = Hub
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	return o
}

// ErrHere is returned by Pull, beside the bundle, when there was nothing to do.
var ErrHere = errors.New("the model is here already")

// Pull brings a model of the registry into Dir: every file is fetched into a
// folder of its own, its digest is compared with what the registry, an earlier
// pull or the hub says, the weights are compared tensor by tensor with the
// description, and then the folder takes its place in one step. What a
// cancelled or failed pull has fetched is used by the next one.
//
// Files come from o.From, or else from Backup when it holds them with trusted
// digests, or else from the public homes. A new model is then copied to Backup.
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (*Bundle, error) {
	o = o.filled()
	b, err := s.pull(ctx, name, o)
	if err != nil && !errors.Is(err, ErrHere) {
		return nil, fmt.Errorf("pull model %q: %w", name, err)
	}
	return b, err
}

func (s *Store) pull(ctx context.Context, name string, o PullOptions) (*Bundle, error) {
	if _, err := s.registered(name); err != nil {
		return nil, err
	}
	if s.Dir == "" {
		return nil, errors.New("no folder for models is configured (models.dir)")
	}
	unlock, err := s.lock(name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !o.Again {
		if b, err := OpenDir(filepath.Join(s.Dir, name)); err == nil && b.complete() {
			return b, ErrHere
		}
	}
	trusted, err := s.readTrust()
	if err != nil {
		return nil, err
	}
	d, files, err := s.plan(name, trusted, o)
	if err != nil {
		return nil, err
	}
	stage := filepath.Join(s.Dir, pullPrefix+name)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return nil, err
	}
	if err := probe(ctx, files, o); err != nil {
		return nil, err
	}
	if err := checkRoom(stage, files); err != nil {
		return nil, err
	}
	records := map[string]Trusted{}
	for _, f := range files {
		if records[f.name], err = f.bring(ctx, stage, o); err != nil {
			return nil, err
		}
	}
	d.Files.Weights.SHA256, d.Files.Weights.Bytes = records[d.Files.Weights.Name].SHA256, records[d.Files.Weights.Name].Bytes
	d.Files.Merges.SHA256, d.Files.Merges.Bytes = records[d.Files.Merges.Name].SHA256, records[d.Files.Merges.Name].Bytes
	if err := tidy(stage, files); err != nil {
		return nil, err
	}
	if err := writeDescription(stage, d); err != nil {
		return nil, err
	}
	if err := examine(stage, files, o); err != nil {
		// What does not hold the model's tensors is not worth resuming.
		return nil, errors.Join(err, os.RemoveAll(stage))
	}
	if err := s.addTrust(name, records); err != nil {
		return nil, err
	}
	if err := s.install(stage, name); err != nil {
		return nil, err
	}
	b, err := OpenDir(filepath.Join(s.Dir, name))
	if err != nil {
		return nil, err
	}
	if err := s.backup(ctx, b, o); err != nil {
		o.Note(fmt.Sprintf("The model is here, but it could not be copied to the backup folder: %v.", err))
	}
	return b, nil
}

// tidy removes what pulls from elsewhere left in the stage.
func tidy(stage string, files []*wanted) error {
	entries, err := os.ReadDir(stage)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.ContainsFunc(files, func(f *wanted) bool { return f.name == e.Name() }) {
			if err := os.RemoveAll(filepath.Join(stage, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// complete says whether all files are there with their recorded sizes.
func (b *Bundle) complete() bool {
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		info, err := os.Stat(filepath.Join(b.dir, f.Name))
		if err != nil || f.SHA256 == "" || info.Size() != f.Bytes {
			return false
		}
	}
	return true
}

// examine opens a staged bundle and compares its tensors. Errors name the weights
// by where they came from: the copy is deleted.
func examine(dir string, files []*wanted, o PullOptions) error {
	b, err := OpenDir(dir)
	if err != nil {
		return err
	}
	if _, err := b.OpenTokenizer(); err != nil {
		return err
	}
	name := b.Files.Weights.Name
	from := files[slices.IndexFunc(files, func(f *wanted) bool { return f.name == name })].origin()
	src, err := weights.OpenAs(filepath.Join(dir, name), from)
	if err != nil {
		return err
	}
	defer src.Close()
	diff := b.Account(src)
	if err := diff.Err(); err != nil {
		return fmt.Errorf("%q: %w", from, err)
	}
	if n := len(diff.Extra); n > 0 {
		o.Note(fmt.Sprintf("The weights hold %d tensors that this model does not need, such as %s.", n, diff.Extra[0]))
	}
	return nil
}

// wanted is a file of the bundle that is being pulled, and where it comes from.
type wanted struct {
	name   string      // in the bundle
	path   string      // local file, or
	remote string      // URL
	header http.Header // for remote
	expect string      // SHA-256 that it must have, "" when nothing says
	because,
	by string // why that digest: for the error and for the record
	remedy string // the end of the sentence when it has another digest
	bytes  int64  // known size, 0 when unknown
	found  download.Remote
}

// origin is the file or address, for people.
func (f *wanted) origin() string {
	if f.path != "" {
		return f.path
	}
	return download.Redact(f.remote)
}

// probe learns sizes and declared digests before anything is fetched.
func probe(ctx context.Context, files []*wanted, o PullOptions) error {
	for _, f := range files {
		if f.path != "" {
			info, err := os.Stat(f.path)
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%q is not a file", f.path)
			}
			f.bytes = info.Size()
			continue
		}
		o.Note(fmt.Sprintf("Fetching %s from %s.", f.name, host(f.remote)))
		var err error
		if f.found, err = download.Probe(ctx, f.remote, f.options(o)); err != nil {
			return err
		}
		if sum := f.found.SHA256; sum != "" {
			if f.expect == "" {
				f.expect, f.by, f.because = sum, "hub", "the one that the hub declares"
			} else if f.expect != sum {
				return fmt.Errorf("the server has %s with the digest %s, not %s, %s", f.name, sum, f.expect, f.because)
			}
		}
		if f.bytes > 0 && f.found.Bytes >= 0 && f.found.Bytes != f.bytes {
			return fmt.Errorf("the server has %s with %d bytes, not %d", f.name, f.found.Bytes, f.bytes)
		}
		if f.bytes = max(f.bytes, f.found.Bytes); f.bytes > 0 {
			f.found.Bytes = f.bytes // a server that does not say it is held to what is known
		}
	}
	return nil
}

// host is where an address leads, for people.
func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}

func (f *wanted) options(o PullOptions) download.Options {
	d := o.Download
	d.Grown = func(path string, n int64) error {
		if free, ok := freeBytes(filepath.Dir(path)); ok && free < margin {
			return fmt.Errorf("the server does not say how large the file is, and after %s the disk of %q has only %s free; make room, or download the file elsewhere and name it with --from", Size(n), filepath.Dir(path), Size(free))
		}
		return nil
	}
	d.Header = maps.Clone(d.Header)
	if d.Header == nil {
		d.Header = http.Header{}
	}
	maps.Copy(d.Header, f.header)
	return d
}

// margin is what a file system should still have when everything is fetched.
const margin = 256 << 20

// checkRoom fails when the disk cannot take what is still missing.
func checkRoom(stage string, files []*wanted) error {
	need := int64(margin)
	for _, f := range files {
		if f.remote != "" && f.found.Bytes >= 0 {
			need += download.Left(f.found, filepath.Join(stage, f.name))
		} else {
			need += f.bytes
		}
		// A file that an earlier run has finished is only checked again.
		if info, err := os.Stat(filepath.Join(stage, f.name)); err == nil && info.Size() == f.bytes {
			need -= f.bytes
		}
	}
	return room(stage, need)
}

func room(dir string, need int64) error {
	if free, ok := freeBytes(dir); ok && free < need {
		return fmt.Errorf("the disk of %q has %s free, and %s are needed", dir, Size(free), Size(need))
	}
	return nil
}

// bring fetches or copies one file into stage and checks its digest.
func (f *wanted) bring(ctx context.Context, stage string, o PullOptions) (Trusted, error) {
	dest := filepath.Join(stage, f.name)
	from := download.Redact(f.remote)
	info, err := os.Stat(dest)
	switch {
	case err == nil && info.Size() == f.bytes && (f.expect != "" || f.remote != ""):
		// Here from an earlier run; its digest decides, if one is known.
	case f.path != "":
		from = "file"
		if err := copyFile(ctx, f.path, dest, func(n int64) { o.Progress(Progress{f.name, "copy", n, f.bytes}) }); err != nil {
			return Trusted{}, err
		}
	default:
		d := f.options(o)
		d.Progress = func(n int64) { o.Progress(Progress{f.name, "download", n, f.found.Bytes}) }
		if err := download.Fetch(ctx, f.found, dest, d); err != nil {
			return Trusted{}, err
		}
	}
	sum, n, err := sumFile(ctx, dest, func(n int64) { o.Progress(Progress{f.name, "check", n, max(f.bytes, n)}) })
	if err != nil {
		return Trusted{}, err
	}
	if f.expect != "" && sum != f.expect {
		what, end := f.name, "; it was deleted"
		if f.path != "" {
			what, end = strconv.Quote(f.path), f.remedy
		}
		err := fmt.Errorf("%s has the digest %s, not %s, %s%s", what, sum, f.expect, f.because, end)
		return Trusted{}, errors.Join(err, os.Remove(dest))
	}
	by := f.by
	if f.expect == "" {
		by = "first"
		o.Note(fmt.Sprintf("Nothing says which digest %s should have; from now on it must have %s.", f.name, sum))
	}
	return Trusted{SHA256: sum, Bytes: n, From: from, At: now(), By: by}, nil
}

// sumFile computes the SHA-256 of a file.
func sumFile(ctx context.Context, path string, progress func(int64)) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	return digest(ctx, f, progress)
}

// digest computes the SHA-256, in hexadecimal, and the length of what r holds.
func digest(ctx context.Context, r io.Reader, progress func(int64)) (string, int64, error) {
	h := sha256.New()
	n, err := copyAll(ctx, h, r, progress)
	if err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), n, nil
}

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// copyFile copies to a new file that appears under its name when it is whole.
func copyFile(ctx context.Context, from, to string, progress func(int64)) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = copyAll(ctx, out, in, progress)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return os.Rename(out.Name(), to)
}

func copyAll(ctx context.Context, to io.Writer, from io.Reader, progress func(int64)) (int64, error) {
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return total, context.Cause(ctx)
		}
		n, err := io.CopyN(to, from, 8<<20)
		total += n
		progress(total)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// backup copies a bundle to Backup, unless it is there.
func (s *Store) backup(ctx context.Context, b *Bundle, o PullOptions) error {
	if s.Backup == "" {
		return nil
	}
	other := &Store{Dir: s.Backup}
	if have, err := OpenDir(filepath.Join(s.Backup, b.Name)); err == nil && have.complete() && have.Files == b.Files {
		return nil
	}
	unlock, err := other.lock(b.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := room(s.Backup, b.Files.Weights.Bytes+b.Files.Merges.Bytes+margin); err != nil {
		return err
	}
	stage := filepath.Join(s.Backup, pullPrefix+b.Name)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return err
	}
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		progress := func(n int64) { o.Progress(Progress{f.Name + " (backup)", "copy", n, f.Bytes}) }
		if err := copyFile(ctx, filepath.Join(b.dir, f.Name), filepath.Join(stage, f.Name), progress); err != nil {
			return err
		}
	}
	if err := writeDescription(stage, &b.Description); err != nil {
		return err
	}
	return other.install(stage, b.Name)
}

// Size is a number of bytes for people, in powers of ten as disks are sold.
func Size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.0f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}
