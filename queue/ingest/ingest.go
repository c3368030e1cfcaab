// Package ingest turns prompt files into batches and feeds their lines to the
// queue through a window, so that a million prompts cost the queue no more
// than a few hundred.
//
// [Ingester.Ingest] reads a file once, in bounded memory: it checks each line,
// spools the accepted ones to disk, and stores them as parts under
// batches/<id>/. The id is a hash of the accepted lines, the settings and the
// owner, so the same file is the same batch however often it is sent.
// [Feeder] enqueues the lines; any process may run one.
package ingest

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"os"
	"strings"

	"dreamcad/queue"
)

// Blobs keeps the parts; package storage's stores fulfil it.
type Blobs interface {
	Put(ctx context.Context, key string, body io.ReadSeeker, size int64) error
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
}

// Batches is the part of the queue that ingest needs.
type Batches interface {
	CreateBatch(ctx context.Context, b queue.Batch) (queue.Batch, bool, error)
	Batch(ctx context.Context, id string) (queue.Batch, error)
}

// Options say how to read a file.
type Options struct {
	// Name is the file's name, for its format and for people.
	Name string
	// Batch is the batch's name; empty: Name.
	Batch  string
	Format Format
	// Defaults fills what lines leave open: kind, quality, formats, model,
	// requester, origin, private.
	Defaults queue.Request
	// SeedFrom, when set, gives the n-th accepted line (from 0) the seed SeedFrom+n.
	SeedFrom *int64
	// Dedupe drops lines whose prompt and settings occurred before.
	Dedupe bool
	// DryRun only reports.
	DryRun bool
	// Force makes a new batch even if the same file was sent before.
	Force bool
	// MaxLine bounds a line (default 16 kB), MaxBytes the unpacked file
	// (default 4 GiB), MaxLines the accepted lines (default 10 million).
	MaxLine  int
	MaxBytes int64
	MaxLines int64
	// ParseLine, when set, reads flags out of a line of text.
	ParseLine func(line string, r *queue.Request) error
	// Check, when set, looks at each request and may change it; its error
	// rejects the line.
	Check func(*queue.Request) error
	// Progress is called now and then with the report so far.
	Progress func(Report)
}

// Report tells what became of a file.
type Report struct {
	Batch      string   `json:"batch,omitempty"`
	Name       string   `json:"name"`
	New        bool     `json:"new"` // false: the same file was sent before
	Accepted   int64    `json:"accepted"`
	Rejected   int64    `json:"rejected"`
	Duplicates int64    `json:"duplicates"`
	Lines      int64    `json:"lines"` // physical lines read
	DryRun     bool     `json:"dry_run,omitempty"`
	Rejects    []Reject `json:"rejects,omitempty"`     // the first 100
	RejectsKey string   `json:"rejects_key,omitempty"` // storage key of all of them
	// Incomplete says why reading stopped before the file's end.
	Incomplete string `json:"incomplete,omitempty"`
}

// Sentence is the answer to the person who sent the file.
func (r *Report) Sentence() string {
	s := fmt.Sprintf("%s of %q queued as batch %s", plural(r.Accepted, "prompt"), r.Name, r.Batch)
	switch {
	case r.DryRun:
		s = fmt.Sprintf("%s of %q can be queued", plural(r.Accepted, "prompt"), r.Name)
	case r.Accepted == 0:
		s = fmt.Sprintf("Nothing of %q was queued", r.Name)
	case !r.New:
		s = fmt.Sprintf("%q was sent before: it is batch %s", r.Name, r.Batch)
	}
	if r.Duplicates > 0 {
		s += "; " + plural(r.Duplicates, "duplicate") + " left out"
	}
	if r.Rejected > 0 {
		s += "; " + plural(r.Rejected, "line") + " rejected"
		if len(r.Rejects) > 0 {
			s += fmt.Sprintf(" (line %d: %s)", r.Rejects[0].Line, r.Rejects[0].Reason)
		}
	}
	return s + "."
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// line is an accepted line as the parts keep it.
type line struct {
	Source   int64         `json:"l"` // line number in the file
	Prompt   string        `json:"p"`
	Negative string        `json:"n,omitempty"`
	Seed     int64         `json:"s"`
	Kind     queue.Kind    `json:"k"`
	Quality  queue.Quality `json:"q,omitempty"`
	Formats  []string      `json:"f,omitempty"`
	Model    string        `json:"m,omitempty"`
	Tag      string        `json:"t,omitempty"`
}

const (
	partLines   = 5000
	maxRejects  = 100
	rejectsName = "rejects.jsonl.gz"
)

// Prefix is where a batch's parts lie in storage.
func Prefix(batch string) string { return "batches/" + batch + "/" }

func partKey(prefix string, i int64) string { return fmt.Sprintf("%spart-%06d.jsonl.gz", prefix, i) }

// Ingester takes prompt files.
type Ingester struct {
	Queue Batches
	Blobs Blobs
	// TempDir holds the spool; empty: the system's.
	TempDir string
}

func (o *Options) fill() {
	if o.MaxLine <= 0 {
		o.MaxLine = 16 << 10
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 4 << 30
	}
	if o.MaxLines <= 0 {
		o.MaxLines = 10_000_000
	}
	if o.Batch == "" {
		o.Batch = o.Name
	}
	o.Defaults.Class = queue.Bulk
	if o.Defaults.Kind == "" {
		o.Defaults.Kind = queue.Mesh
	}
}

// Ingest reads the file and creates its batch. An interrupted call leaves no
// batch behind and may be repeated.
func (in *Ingester) Ingest(ctx context.Context, file io.Reader, o Options) (Report, error) {
	o.fill()
	rep := Report{Name: o.Name, DryRun: o.DryRun}
	src, err := newSource(file, &o)
	if err != nil {
		return rep, err
	}
	sp, err := newSpool(in.TempDir)
	if err != nil {
		return rep, err
	}
	defer sp.close()
	if err := in.read(ctx, src, sp, &o, &rep); err != nil {
		return rep, err
	}
	if err := sp.flush(); err != nil {
		return rep, err
	}
	if o.DryRun || rep.Accepted == 0 {
		return rep, nil
	}
	rep.Batch = sp.id(&o)
	if b, err := in.Queue.Batch(ctx, rep.Batch); err == nil {
		rep.Batch = b.ID
		return rep, nil
	} else if !errors.Is(err, queue.ErrNotFound) {
		return rep, err
	}
	prefix := Prefix(rep.Batch)
	if err := sp.upload(ctx, in.Blobs, prefix); err != nil {
		return rep, err
	}
	if rep.Rejected > 0 {
		rep.RejectsKey = prefix + rejectsName
	}
	_, rep.New, err = in.Queue.CreateBatch(ctx, queue.Batch{
		ID: rep.Batch, Name: o.Batch, Owner: o.Defaults.Requester, Origin: o.Defaults.Origin, Private: o.Defaults.Private,
		Total: rep.Accepted, Rejected: rep.Rejected, Parts: len(sp.parts), PartLines: partLines, Prefix: prefix})
	return rep, err
}

func (in *Ingester) read(ctx context.Context, src *source, sp *spool, o *Options, rep *Report) error {
	seen := map[uint64]struct{}{}
	seed := maphash.MakeSeed()
	reject := func(x *record, why string) error {
		rep.Rejected++
		r := Reject{Line: x.line, Reason: why, Text: strings.ToValidUTF8(cut(x.text), "�")}
		if len(rep.Rejects) < maxRejects {
			rep.Rejects = append(rep.Rejects, r)
		}
		return sp.reject(r)
	}
	for n := 0; ; n++ {
		if n%1000 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if o.Progress != nil {
				o.Progress(*rep)
			}
		}
		x, err := src.next()
		rep.Lines = src.line
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil { // a damaged gzip, the size limit: what came before counts
			if cerr := ctx.Err(); cerr != nil {
				return cerr
			}
			rep.Incomplete = readError(err)
			return reject(&record{line: src.line + 1}, "reading stopped here: "+rep.Incomplete)
		}
		why := x.err
		seeded := x.req.Seed != nil // by the line or the settings
		if o.SeedFrom != nil {
			s := *o.SeedFrom + rep.Accepted
			x.req.Seed, seeded = &s, true
		}
		if why == nil {
			why = x.req.Normalise()
		}
		if why == nil && rep.Accepted >= o.MaxLines {
			rep.Incomplete = fmt.Sprintf("more than %d prompts", o.MaxLines)
			return reject(x, "reading stopped here: "+rep.Incomplete)
		}
		if why != nil {
			text := why.Error()
			if queue.CodeOf(why) != "" {
				text = queue.SentenceOf(why)
			}
			if err := reject(x, text); err != nil {
				return err
			}
			continue
		}
		l := line{Source: x.line, Prompt: x.req.Prompt, Negative: x.req.Negative, Kind: x.req.Kind, Quality: x.req.Quality, Formats: x.req.Formats, Model: x.req.Model, Tag: x.req.Tag}
		b, err := json.Marshal(dedupeKey(l))
		if err != nil {
			return err
		}
		if o.Dedupe {
			h := maphash.Bytes(seed, b)
			if _, ok := seen[h]; ok {
				rep.Duplicates++
				continue
			}
			seen[h] = struct{}{}
		}
		// Where the file gives no seed, it follows from the line and the
		// content, so that sending the file again means the same.
		if seeded {
			l.Seed = *x.req.Seed
		} else {
			h := sha256.Sum256(fmt.Appendf(b, "%d", rep.Accepted))
			l.Seed = int64(h[0]) | int64(h[1])<<8 | int64(h[2])<<16 | int64(h[3]&0x7f)<<24
		}
		if err := sp.add(&l); err != nil {
			return err
		}
		rep.Accepted++
	}
}

// dedupeKey leaves out where the line stood and its label.
func dedupeKey(l line) line {
	l.Source, l.Tag = 0, ""
	return l
}

// spool holds the parts on disk until the batch's id is known.
type spool struct {
	dir     string
	parts   []string
	n       int64
	f       *os.File
	z       *gzip.Writer
	w       *bufio.Writer
	sum     hash.Hash
	rejects *gzip.Writer
	rf      *os.File
}

func newSpool(dir string) (*spool, error) {
	d, err := os.MkdirTemp(dir, "dream-ingest-")
	if err != nil {
		return nil, fmt.Errorf("make room for the file's lines: %w", err)
	}
	return &spool{dir: d, sum: sha256.New()}, nil
}

func (s *spool) close() {
	for _, f := range []*os.File{s.f, s.rf} {
		if f != nil {
			_ = f.Close() // it is removed
		}
	}
	_ = os.RemoveAll(s.dir) // a temporary folder
}

func (s *spool) create(name string) (*os.File, *gzip.Writer, error) {
	f, err := os.Create(s.dir + "/" + name)
	if err != nil {
		return nil, nil, fmt.Errorf("spool lines: %w", err)
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	return f, z, err
}

func (s *spool) add(l *line) error {
	if s.n%partLines == 0 {
		if err := s.endPart(); err != nil {
			return err
		}
		f, z, err := s.create(fmt.Sprintf("part-%06d", len(s.parts)))
		if err != nil {
			return err
		}
		s.f, s.z, s.w = f, z, bufio.NewWriter(z)
		s.parts = append(s.parts, f.Name())
	}
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	s.n++
	_, _ = s.sum.Write(b) // a hash takes everything
	_, err = s.w.Write(b)
	return err
}

func (s *spool) endPart() error {
	if s.f == nil {
		return nil
	}
	err := errors.Join(s.w.Flush(), s.z.Close(), s.f.Close())
	s.f = nil
	if err != nil {
		return fmt.Errorf("spool lines: %w", err)
	}
	return nil
}

func (s *spool) reject(r Reject) error {
	if s.rf == nil {
		var err error
		if s.rf, s.rejects, err = s.create(rejectsName); err != nil {
			return err
		}
	}
	b, err := json.Marshal(r)
	if err == nil {
		_, err = s.rejects.Write(append(b, '\n'))
	}
	return err
}

func (s *spool) flush() error {
	err := s.endPart()
	if s.rejects != nil {
		err = errors.Join(err, s.rejects.Close())
	}
	return err
}

// id is a hash of the accepted lines, the settings and the owner.
func (s *spool) id(o *Options) string {
	h := sha256.New()
	fmt.Fprintf(h, "%x\n%s\n%v\n", s.sum.Sum(nil), o.Defaults.Requester.User(), o.Defaults.Private)
	if o.Force {
		fmt.Fprint(h, rand.Text())
	}
	return strings.ToLower(base32.HexEncoding.EncodeToString(h.Sum(nil)))[:20]
}

func (s *spool) upload(ctx context.Context, b Blobs, prefix string) error {
	put := func(key, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return b.Put(ctx, key, f, st.Size())
	}
	for i, p := range s.parts {
		if err := put(partKey(prefix, int64(i)), p); err != nil {
			return fmt.Errorf("store the batch's lines: %w", err)
		}
	}
	if s.rf != nil {
		if err := put(prefix+rejectsName, s.rf.Name()); err != nil {
			return fmt.Errorf("store the rejected lines: %w", err)
		}
	}
	return nil
}

// WriteRejects writes all rejected lines of a report as JSON Lines: from
// storage if they were stored, else the first hundred that the report holds.
func WriteRejects(ctx context.Context, b Blobs, rep Report, w io.Writer) error {
	if rep.RejectsKey == "" {
		e := json.NewEncoder(w)
		for _, r := range rep.Rejects {
			if err := e.Encode(r); err != nil {
				return err
			}
		}
		return nil
	}
	r, err := b.Get(ctx, rep.RejectsKey, 0, -1)
	if err != nil {
		return fmt.Errorf("read %q: %w", rep.RejectsKey, err)
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err == nil {
		_, err = io.Copy(w, z)
	}
	if err != nil {
		return fmt.Errorf("unpack %q: %w", rep.RejectsKey, err)
	}
	return nil
}
