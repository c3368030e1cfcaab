package ingest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/queue/queuetest"
	"dreamcad/queue/sqliteq"
	"dreamcad/storage/dir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type bench struct {
	q  *sqliteq.Queue
	in *ingest.Ingester
}

func setup(t testing.TB) *bench {
	t.Helper()
	cfg := queuetest.Config()
	cfg.MaxFailures = 1
	q, err := sqliteq.Open(t.Context(), filepath.Join(t.TempDir(), "q.db"), cfg, sqliteq.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	st, err := dir.Open(dir.Config{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{q: q, in: &ingest.Ingester{Queue: q, Blobs: st, TempDir: t.TempDir()}}
}

func options(name string) ingest.Options {
	return ingest.Options{Name: name, Defaults: queue.Request{Kind: queue.Views, Model: "mini", Quality: queue.Draft,
		Requester: queue.Requester{Platform: "cli", ID: "me"}, Origin: queue.Origin{Platform: "cli"}}}
}

func zip(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s) // a buffer takes everything
	_ = z.Close()
	return b.String()
}

// results reads all lines of a batch.
func (b *bench) results(t testing.TB, id string) []ingest.Result {
	t.Helper()
	var out []ingest.Result
	if err := ingest.Results(t.Context(), b.q, b.in.Blobs, id, func(r ingest.Result) error {
		out = append(out, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestFormats(t *testing.T) {
	long := strings.Repeat("x", 20<<10)
	for _, c := range []struct {
		name, file, in string
		prompts        []string // accepted
		rejects        string   // "line reason-part, …"
	}{
		{"text", "a.txt", "a mug\n# no\n\n  a chair  \nlast", []string{"a mug", "a chair", "last"}, ""},
		{"bom and crlf", "a.txt", "\xef\xbb\xbfa mug\r\na chair\r\n", []string{"a mug", "a chair"}, ""},
		{"gzip", "a.txt.gz", zip("a mug\na chair\n"), []string{"a mug", "a chair"}, ""},
		{"stdin csv", "-", "prompt,seed\na mug,1\n", []string{"a mug"}, ""},
		{"stdin jsonl", "-", " \n{\"prompt\":\"a mug\"}\n", []string{"a mug"}, ""},
		{"stdin text", "-", "prompt, with a comma\n", []string{"prompt, with a comma"}, ""},
		{"bad utf-8", "a.txt", "a mug\n\xff\xfe\xfd\na chair\n", []string{"a mug", "a chair"}, "2 UTF-8"},
		{"nul", "a.txt", "a\x00b\nok\n", []string{"ok"}, "1 NUL"},
		{"too long", "a.txt", "ok\n" + long + "\nok2\n", []string{"ok", "ok2"}, "2 longer than 16384"},
		{"501 characters", "a.txt", strings.Repeat("é", 501) + "\n", nil, "1 501 characters"},
		{"csv", "a.csv", "Prompt, negative,seed,kind,quality,formats,model,tag\n\"a \"\"red\"\" mug\",ugly,7,mesh,high,\"glb,obj\",mini,t1\nplain,,,,,,,\n",
			[]string{`a "red" mug`, "plain"}, ""},
		{"csv newline", "a.csv", "prompt\n\"a mug\nwith two lines\"\nb\n", []string{"a mug\nwith two lines", "b"}, ""},
		{"csv faults", "a.csv", "prompt,seed\na,x\nb,1,2\nc,-1\n\"d,5\ne,6\n", []string{"e"}, "2 whole number,3 3 columns,4 seed,5 quote"},
		{"jsonl", "a.jsonl", `{"prompt":"a mug","seed":5,"kind":"mesh"}` + "\n" + `{"prompt":"b","promt":1}` + "\n[]\n{\n" + `{"prompt":"c"} x` + "\n",
			[]string{"a mug"}, "2 unknown,3 object,4 object,5 more than one"},
		{"kind", "a.jsonl", `{"prompt":"a","kind":"statue"}`, nil, "1 kind"},
		{"cut gzip", "a.txt.gz", zip("a mug\n" + strings.Repeat("a chair of many words and no end\n", 10000))[:60], nil, "1 reading stopped"},
		{"binary", "x.bin", "\x7fELF\x00\x01\x02\n\xff\xff\n", nil, "1 NUL,2 UTF-8"},
		{"cut to nothing", "a.txt.gz", zip("a mug\n")[:12], nil, "1 cut off"},
		{"objects", "a.jsonl", "{\"prompt\":5}\n{\"promt\":\"x\"}\n{\"prompt\":\"a\",\"seed\":\"1\"}\n{\"prompt\":\"a\",\"formats\":\"glb\"}\n[1]\nnot json\n{\"prompt\":\"a mug\",\"seed\":1.5}\n", nil,
			"1 \"prompt\" must be a text,2 the name \"promt\" is unknown,3 must be a whole number,4 must be a list of texts,5 not a JSON object,6 not a JSON object,7 must be a whole number"},
		{"empty", "a.txt", "", nil, ""},
		{"formula", "a.txt", "=HYPERLINK(1)\n", []string{"=HYPERLINK(1)"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := setup(t)
			rep, err := b.in.Ingest(t.Context(), strings.NewReader(c.in), options(c.file))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			if rep.Batch != "" {
				for _, r := range b.results(t, rep.Batch) {
					got = append(got, r.Prompt)
				}
			}
			if c.name == "cut gzip" { // how much survives depends on the compressor
				got = nil
			}
			if !slices.Equal(got, c.prompts) && c.name != "cut gzip" || int(rep.Rejected) != len(rep.Rejects) {
				t.Errorf("accepted %q, want %q; report %+v", got, c.prompts, rep)
			}
			var want []string
			if c.rejects != "" {
				want = strings.Split(c.rejects, ",")
			}
			if len(want) != len(rep.Rejects) {
				t.Fatalf("rejects %+v, want %q", rep.Rejects, want)
			}
			for i, w := range want {
				var n int64
				part := w[strings.IndexByte(w, ' ')+1:]
				_, _ = fmt.Sscan(w, &n)
				if r := rep.Rejects[i]; !strings.Contains(r.Reason, part) || r.Line != n && c.name != "cut gzip" {
					t.Errorf("reject %+v, want line %d with %q", r, n, part)
				}
			}
		})
	}
	for in, want := range map[string]string{"\xff\xfea\x00": "UTF-16", "": "must name", "promt\nx": "must name", "prompt,colour\nx,y": "colour"} {
		b := setup(t)
		name := "a.csv"
		if strings.HasPrefix(in, "\xff") {
			name = "a.txt"
		}
		if _, err := b.in.Ingest(t.Context(), strings.NewReader(in), options(name)); err == nil || !strings.Contains(queue.SentenceOf(err), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestFields(t *testing.T) {
	b := setup(t)
	rep, err := b.in.Ingest(t.Context(), strings.NewReader("prompt,negative,seed,kind,quality,formats,model,tag\na,ugly,7,mesh,high,\"glb, obj\",other,t1\nb,,,,,,,\n"), options("a.csv"))
	if err != nil {
		t.Fatal(err)
	}
	f := &ingest.Feeder{Queue: b.q, Blobs: b.in.Blobs}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.Run(ctx) })
	defer wg.Wait()
	defer stop()
	var js []queue.Job
	for len(js) < 2 {
		time.Sleep(5 * time.Millisecond)
		if js, err = b.q.List(ctx, queue.Filter{Batch: rep.Batch}); err != nil {
			t.Fatal(err)
		}
	}
	a, other := js[1], js[0]
	if a.Negative != "ugly" || *a.Seed != 7 || a.Kind != queue.Mesh || a.Quality != queue.High || !slices.Equal(a.Formats, []string{"glb", "obj"}) || a.Model != "other" || a.Tag != "t1" || a.Class != queue.Bulk {
		t.Errorf("first line: %+v", a.Request)
	}
	if other.Kind != queue.Views || other.Model != "mini" || other.Quality != queue.Draft || other.ID != queue.LineID(rep.Batch, 1) {
		t.Errorf("second line: %+v", other.Request)
	}
}

func TestSameFileSameBatch(t *testing.T) {
	b := setup(t)
	file := "a mug\na chair\na mug\n"
	do := func(change func(*ingest.Options)) ingest.Report {
		t.Helper()
		o := options("a.txt")
		if change != nil {
			change(&o)
		}
		rep, err := b.in.Ingest(t.Context(), strings.NewReader(file), o)
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	first := do(nil)
	if !first.New || first.Accepted != 3 {
		t.Fatalf("%+v", first)
	}
	if again := do(func(o *ingest.Options) { o.Name = "renamed.txt" }); again.New || again.Batch != first.Batch {
		t.Errorf("the same file again: %+v", again)
	}
	if again := do(func(o *ingest.Options) { o.Force = true }); !again.New || again.Batch == first.Batch {
		t.Errorf("forced: %+v", again)
	}
	seed := int64(100)
	if x := do(func(o *ingest.Options) { o.SeedFrom = &seed }); !x.New || b.results(t, x.Batch)[2].Seed != 102 {
		t.Errorf("other seeds are another batch: %+v", x)
	}
	if x := do(func(o *ingest.Options) { o.Defaults.Requester.ID = "you" }); !x.New {
		t.Error("another owner's file is another batch")
	}
	if x := do(func(o *ingest.Options) { o.Dedupe = true }); x.Accepted != 2 || x.Duplicates != 1 {
		t.Errorf("dedupe: %+v", x)
	}
	if x := do(func(o *ingest.Options) { o.DryRun = true }); x.Batch != "" || x.Accepted != 3 {
		t.Errorf("dry run: %+v", x)
	}
	// Interrupted: no batch, and the next try works.
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := b.in.Ingest(ctx, strings.NewReader("z\n"), options("z.txt")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if rep, err := b.in.Ingest(t.Context(), strings.NewReader("z\n"), options("z.txt")); err != nil || !rep.New {
		t.Errorf("after the interrupt: %+v %v", rep, err)
	}
}

// endless yields n bytes of one line.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	k := min(len(p), e.n)
	for i := range k {
		p[i] = 'x'
	}
	e.n -= k
	return k, nil
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestBoundedMemory is row 19 of the fault matrix: whatever the input, memory
// stays small and the report names the line.
func TestBoundedMemory(t *testing.T) {
	size, zeros, rows := 1<<30, 200<<20, 100_000
	if testing.Short() {
		size, zeros, rows = 64<<20, 32<<20, 5000
	}
	b := setup(t)
	before := heap()
	rep, err := b.in.Ingest(t.Context(), io.MultiReader(strings.NewReader("ok\n"), &endless{size}, strings.NewReader("\nok2\n")), options("a.txt"))
	if err != nil || rep.Accepted != 2 || rep.Rejected != 1 || rep.Rejects[0].Line != 2 {
		t.Fatalf("%+v %v", rep, err)
	}
	// A zip bomb: up to 200 MB in 200 kB, allowed 1 MB.
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = io.Copy(z, &endless{zeros}) // a buffer takes everything
	_ = z.Close()
	o := options("bomb.gz")
	o.MaxBytes = 1 << 20
	rep, err = b.in.Ingest(t.Context(), &bomb, o)
	if err != nil || rep.Accepted != 0 || rep.Rejected != 1 || !strings.Contains(rep.Rejects[0].Reason, "larger than allowed") {
		t.Fatalf("%+v %v", rep, err)
	}
	// An open quote before very much text.
	rep, err = b.in.Ingest(t.Context(), io.MultiReader(strings.NewReader("prompt\n\"open\n"), strings.NewReader(strings.Repeat("row\n", rows))), options("a.csv"))
	if err != nil || rep.Rejected != 1 || rep.Accepted != int64(rows) || rep.Rejects[0].Line != 2 {
		t.Fatalf("%d accepted, %+v %v", rep.Accepted, rep.Rejects, err)
	}
	if after := heap(); after > before+40<<20 {
		t.Errorf("heap grew from %d to %d bytes", before, after)
	}
}

// TestBatchToTheEnd feeds, works off, fails some, runs those again.
func TestBatchToTheEnd(t *testing.T) {
	b := setup(t)
	var in strings.Builder
	n := 1500
	if testing.Short() {
		n = 300
	}
	bad := n / 100 // lines that fail
	for i := range n {
		fmt.Fprintf(&in, "thing %d\n", i)
	}
	rep, err := b.in.Ingest(t.Context(), strings.NewReader(in.String()), options("things.txt"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 { // two feeders: one works at a time
		f := &ingest.Feeder{Queue: b.q, Blobs: b.in.Blobs, Poll: 20 * time.Millisecond}
		wg.Go(func() {
			if err := f.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	defer wg.Wait()
	defer stop()
	work := func(fail bool) (done int) {
		seen := map[string]bool{}
		c := queuetest.Caps("w")
		c.Wait = time.Minute
		for {
			x, err := b.q.Batch(ctx, rep.Batch)
			if err != nil {
				t.Fatal(err)
			}
			if x.Out > 2*2048 {
				t.Fatalf("%d jobs of the batch are queued at once", x.Out)
			}
			if x.State == queue.BatchEnded {
				return done
			}
			for range 50 {
				if x, err := b.q.Batch(ctx, rep.Batch); err != nil || x.State == queue.BatchEnded {
					break
				}
				l, err := b.q.Lease(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				if seen[l.Job.ID] {
					t.Fatalf("line %d ran twice", l.Job.Line)
				}
				seen[l.Job.ID] = true
				done++
				if fail && l.Job.Line%100 == 3 {
					_, err = b.q.Fail(ctx, l.Ref(), queue.Failure{Kind: queue.FailError, Sentence: "No."})
				} else {
					err = b.q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if got := work(true); got != n {
		t.Fatalf("%d jobs ran, want %d", got, n)
	}
	x, _ := b.q.Batch(ctx, rep.Batch)
	if x.Done+x.Failed != int64(n) || x.Failed != int64(bad) {
		t.Fatalf("%+v", x)
	}
	if r := b.results(t, rep.Batch); r[3].Status != queue.Failed || r[3].Reason != "No." || r[4].Status != queue.Done || r[3].Line != 4 {
		t.Fatalf("results %+v", r[3:5])
	}
	if k, err := b.q.RetryBatch(ctx, rep.Batch); err != nil || k != int64(bad) {
		t.Fatal(k, err)
	}
	if got := work(false); got != bad {
		t.Fatalf("%d jobs ran again, want %d", got, bad)
	}
	if vs, err := b.q.Audit(ctx); err != nil || len(vs) > 0 {
		t.Fatal(vs, err)
	}
}

func FuzzIngest(f *testing.F) {
	for _, s := range []string{"a\nb", "prompt\n\"x\n", `{"prompt":"x"}`, zip("a\n"), "prompt,seed\n\"a\"\"b\",1\n\"\n"} {
		for _, name := range []string{"a.txt", "a.csv", "a.jsonl", "-"} {
			f.Add([]byte(s), name)
		}
	}
	b := setup(f)
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		o := options(name)
		o.DryRun, o.MaxBytes, o.MaxLine = true, 1<<20, 256
		rep, err := b.in.Ingest(t.Context(), bytes.NewReader(data), o)
		if err != nil {
			return
		}
		last := int64(0)
		for _, r := range rep.Rejects {
			if r.Line <= last && rep.Rejected <= 100 {
				t.Fatalf("rejects out of order: %+v", rep.Rejects)
			}
			last = r.Line
		}
		if rep.Accepted+rep.Rejected > rep.Lines+1 {
			t.Fatalf("more records than lines: %+v", rep)
		}
	})
}
