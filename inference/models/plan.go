package models

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// plan decides where each file of a bundle comes from and which digest it must
// have, and returns the description that the bundle will get.
func (s *Store) plan(name string, trusted trust, o PullOptions) (*Description, []*wanted, error) {
	registered, err := s.registered(name)
	if err != nil {
		return nil, nil, err
	}
	d := *registered
	var files []*wanted
	switch {
	case o.From == "":
		if b := s.fromBackup(name, trusted); b != nil {
			o.Note(fmt.Sprintf("Using the copy in %q.", b.dir))
			d = b.Description
			files = bundleFiles(b)
			for _, f := range files {
				f.remedy = fmt.Sprintf("; the backup is damaged: delete %q and pull again", b.dir)
			}
			break
		}
		for _, src := range d.Sources {
			files = append(files, home(src, o))
		}
	case strings.HasPrefix(o.From, "http://"), strings.HasPrefix(o.From, "https://"):
		files, err = fromURL(&d, o)
	default:
		files, err = fromDisk(&d, o)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, f := range files {
		expectDigest(registered, &d, f, trusted)
	}
	return &d, files, nil
}

// home is a file at its public home.
func home(src Source, o PullOptions) *wanted {
	f := &wanted{name: src.Name, remote: src.URL, bytes: src.Bytes}
	if src.Repo != "" {
		revision := src.Revision
		if revision == "" {
			revision = "main"
		}
		f.remote = strings.TrimSuffix(o.Endpoint, "/") + "/" + src.Repo + "/resolve/" + url.PathEscape(revision) + "/" + url.PathEscape(src.Name)
		if o.Token != "" {
			f.header = http.Header{"Authorization": {"Bearer " + o.Token}}
		}
	}
	return f
}

// mergesHome is where the merges come from when --from does not hold them.
func mergesHome(d *Description, o PullOptions) (*wanted, error) {
	for _, src := range d.Sources {
		if src.Name == d.Files.Merges.Name {
			return home(src, o), nil
		}
	}
	return nil, fmt.Errorf("nothing says where %s comes from", d.Files.Merges.Name)
}

func isWeights(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".pt", ".pth", ".ckpt", ".safetensors":
		return true
	}
	return false
}

// nameWeights sets the name of the weights in the bundle: a checkpoint keeps
// the registry's, whatever it was called where it came from.
func nameWeights(d *Description, source string) string {
	if strings.EqualFold(path.Ext(source), ".safetensors") {
		d.Files.Weights = File{Name: "weights.safetensors"}
	}
	return d.Files.Weights.Name
}

// fromURL: the address of the weights, or of the folder of all files.
func fromURL(d *Description, o PullOptions) ([]*wanted, error) {
	u, err := url.Parse(o.From)
	if err != nil {
		return nil, fmt.Errorf("%q is not an address: %w", o.From, err)
	}
	if u.Host == "" {
		return nil, fmt.Errorf("the address %q names no server", o.From)
	}
	if isWeights(u.Path) {
		merges, err := mergesHome(d, o)
		if err != nil {
			return nil, err
		}
		return []*wanted{{name: nameWeights(d, u.Path), remote: o.From}, merges}, nil
	}
	var files []*wanted
	for _, f := range []File{d.Files.Weights, d.Files.Merges} {
		files = append(files, &wanted{name: f.Name, remote: u.JoinPath(f.Name).String(), bytes: f.Bytes})
	}
	return files, nil
}

// fromDisk: a file of weights, a folder that is a bundle, or a folder with the
// files as they were downloaded.
func fromDisk(d *Description, o PullOptions) ([]*wanted, error) {
	info, err := os.Stat(o.From)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if !isWeights(o.From) {
			return nil, fmt.Errorf("%q is neither a checkpoint (.pt, .ckpt) nor a .safetensors file", o.From)
		}
		return withMerges(d, o, filepath.Dir(o.From), o.From)
	}
	b, err := OpenDir(o.From)
	if err == nil {
		if b.Name != d.Name {
			return nil, fmt.Errorf("%q holds the model %q", o.From, b.Name)
		}
		*d = b.Description
		return bundleFiles(b), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	entries, err := os.ReadDir(o.From)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.Name() == d.Files.Weights.Name {
			found = []string{e.Name()}
			break
		}
		if isWeights(e.Name()) {
			found = append(found, e.Name())
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%q holds no %s and no other weights", o.From, d.Files.Weights.Name)
	case 1:
		return withMerges(d, o, o.From, filepath.Join(o.From, found[0]))
	}
	return nil, fmt.Errorf("%q holds several files of weights (%s): name one of them", o.From, strings.Join(found, ", "))
}

// withMerges takes the weights from a file and the merges from dir, or from
// their home when dir does not hold them.
func withMerges(d *Description, o PullOptions, dir, weights string) ([]*wanted, error) {
	files := []*wanted{{name: nameWeights(d, weights), path: weights}}
	local := filepath.Join(dir, d.Files.Merges.Name)
	if _, err := os.Stat(local); err == nil {
		return append(files, &wanted{name: d.Files.Merges.Name, path: local}), nil
	}
	merges, err := mergesHome(d, o)
	if err != nil {
		return nil, err
	}
	return append(files, merges), nil
}

func bundleFiles(b *Bundle) []*wanted {
	var files []*wanted
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		files = append(files, &wanted{name: f.Name, path: filepath.Join(b.dir, f.Name)})
	}
	return files
}

// fromBackup is the bundle in Backup when it is whole and its recorded digests
// are the trusted ones.
func (s *Store) fromBackup(name string, trusted trust) *Bundle {
	if s.Backup == "" {
		return nil
	}
	b, err := OpenDir(filepath.Join(s.Backup, name))
	if err != nil || b.Name != name || !b.complete() {
		return nil
	}
	for _, f := range []File{b.Files.Weights, b.Files.Merges} {
		if t, ok := trusted[name+"/"+f.Name]; ok && t.SHA256 != f.SHA256 {
			return nil
		}
	}
	return b
}

// expectDigest finds out which digest a file must have: what this program
// knows, then what an earlier pull found, then what the bundle it is copied
// from says.
func expectDigest(registered, d *Description, f *wanted, trusted trust) {
	for _, src := range registered.Sources {
		if src.Name == f.name && src.SHA256 != "" {
			f.expect, f.by, f.because = src.SHA256, "registry", "the one that this program knows"
			return
		}
	}
	if t, ok := trusted[d.Name+"/"+f.name]; ok {
		f.expect, f.by = t.SHA256, t.By
		f.because = fmt.Sprintf("the one that it had when it was pulled on %s", t.At.Format("2006-01-02"))
		return
	}
	for _, own := range []File{d.Files.Weights, d.Files.Merges} {
		if own.Name == f.name && own.SHA256 != "" {
			f.expect, f.by, f.because = own.SHA256, "first", "the one that its "+DescriptionFile+" names"
		}
	}
}
