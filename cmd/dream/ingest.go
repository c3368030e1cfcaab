package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"dreamcad/bots/parse"
	"dreamcad/queue"
	"dreamcad/queue/ingest"
)

type ingestCmd struct {
	Files    []string `arg:"" name:"file" help:"Prompt files (txt, CSV, JSON Lines, each also gzipped); - is standard input."`
	Batch    string   `help:"Name of the batch (default: the file's name)." placeholder:"NAME"`
	Format   string   `enum:"auto,txt,csv,jsonl" default:"auto" help:"Form of the files: auto, txt, csv or jsonl (default: auto)." placeholder:"FORMAT"`
	Kind     string   `enum:"views,mesh" default:"mesh" help:"What lines without a kind ask for: views or mesh (default: mesh)." placeholder:"KIND"`
	Quality  string   `enum:",draft,standard,high" default:"" help:"Quality of lines without one: draft, standard or high." placeholder:"QUALITY"`
	Model    string   `help:"Model of lines without one." placeholder:"NAME"`
	Formats  []string `help:"Mesh formats of lines without any: glb, obj, stl." placeholder:"LIST"`
	Negative string   `help:"What lines without a negative prompt avoid." placeholder:"TEXT"`
	Private  bool     `help:"Keep the results out of the gallery."`
	SeedFrom *int64   `name:"seed-from" help:"Give the n-th prompt the seed N+n." placeholder:"N"`
	Dedupe   bool     `help:"Leave out prompts that occurred before in the file."`
	DryRun   bool     `name:"dry-run" help:"Only check the files."`
	Force    bool     `help:"Make a new batch even if the same file was sent before."`
	Rejects  string   `help:"Write the rejected lines with their reasons to FILE (JSON Lines)." type:"path" placeholder:"FILE"`
	Wait     bool     `help:"Wait until the batches have ended; exit code 1 if a prompt failed."`
	JSON     bool     `name:"json" help:"Print JSON."`
}

// Help is the long help.
func (*ingestCmd) Help() string {
	return "A text file has a prompt a line (with flags as in chat; # begins a comment), " +
		"a CSV file a header with the column prompt and any of negative, seed, kind, quality, formats, model, tag; " +
		"JSON Lines have objects with the same names. The same file is the same batch, so an interrupted command can be run again. " +
		"Exit code 1 also tells that a file holds no usable prompt, or could not be read to its end."
}

// cliRequester is who asks on the command line: the user of this machine.
func cliRequester() queue.Requester {
	name := "local"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	return queue.Requester{Platform: "cli", ID: name, Name: name}
}

// Run reads the files and, with --wait, feeds and watches their batches.
func (c *ingestCmd) Run(a *app) error {
	settings := c.defaults()
	settings.Prompt = "x"
	if err := settings.Normalise(); err != nil {
		return usageError{errors.New(queue.SentenceOf(err))}
	}
	q, err := openQueue(a.ctx, a)
	if err != nil {
		return err
	}
	defer q.Close()
	store, err := openStore(a)
	if err != nil {
		return err
	}
	in := &ingest.Ingester{Queue: q, Blobs: store}
	var reports []ingest.Report
	for _, file := range c.Files {
		rep, err := c.one(a, in, file)
		if err != nil {
			return fmt.Errorf("ingest %q: %w", file, err)
		}
		reports = append(reports, rep)
		if !c.JSON {
			fmt.Fprintln(a.stdout, rep.Sentence())
			for _, r := range rep.Rejects {
				fmt.Fprintf(a.stderr, "  line %d: %s: %s\n", r.Line, r.Reason, r.Text)
			}
		}
	}
	if c.JSON {
		if err := printJSON(a.stdout, reports); err != nil {
			return err
		}
	}
	if err := c.writeRejects(a.ctx, store, reports); err != nil {
		return err
	}
	var bad []error
	for _, r := range reports {
		switch {
		case r.Incomplete != "":
			bad = append(bad, fmt.Errorf("%q was not read to its end: %s", r.Name, r.Incomplete))
		case r.Accepted == 0:
			bad = append(bad, fmt.Errorf("%q holds no usable prompt", r.Name))
		}
	}
	if c.Wait && !c.DryRun {
		bad = append(bad, c.wait(a, q, store, reports))
	}
	return errors.Join(bad...)
}

// defaults are what lines leave open.
func (c *ingestCmd) defaults() queue.Request {
	return queue.Request{Kind: queue.Kind(c.Kind), Quality: queue.Quality(c.Quality), Model: c.Model, Formats: c.Formats, Negative: c.Negative,
		Private: c.Private, Requester: cliRequester(), Origin: queue.Origin{Platform: "cli"}}
}

func (c *ingestCmd) one(a *app, in *ingest.Ingester, file string) (ingest.Report, error) {
	var r io.Reader
	name := "standard input"
	if file == "-" {
		r = untilDone(a.ctx, a.stdin)
	} else {
		f, err := os.Open(file)
		if err != nil {
			return ingest.Report{}, err
		}
		defer f.Close()
		if fi, err := f.Stat(); err == nil && fi.IsDir() {
			return ingest.Report{}, errors.New("it is a folder, not a prompt file")
		}
		r, name = f, filepath.Base(file)
	}
	p := newProgress(a.stderr, c.JSON)
	defer p.close()
	format := ingest.Format(c.Format)
	if c.Format == "auto" {
		format = ingest.Auto
	}
	return in.Ingest(a.ctx, r, ingest.Options{
		Name: name, Batch: c.Batch, Format: format, SeedFrom: c.SeedFrom, Dedupe: c.Dedupe, DryRun: c.DryRun, Force: c.Force,
		ParseLine: parseLine, Check: cleanRequest,
		Progress: func(r ingest.Report) { p.show("reading", int(r.Lines), 0) },
		Defaults: c.defaults(),
	})
}

// untilDone reads r until ctx ends, also while a read waits: a pipe that is
// silent must not hold up an interrupt.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		_, err := io.Copy(pw, r)
		_ = pw.CloseWithError(err) // never fails
	}()
	context.AfterFunc(ctx, func() { _ = pr.CloseWithError(ctx.Err()) })
	return pr
}

// cleanRequest brings the texts of a request into the form in which chat keeps
// them: without characters that cannot be seen.
func cleanRequest(r *queue.Request) error {
	for _, text := range []*string{&r.Prompt, &r.Negative} {
		if strings.ContainsFunc(*text, func(c rune) bool { return c < ' ' || c > '~' }) {
			*text = parse.Clean(*text)
		}
	}
	return nil
}

// parseLine reads a line of text with the grammar of chat; what the line does
// not say keeps its default.
func parseLine(line string, r *queue.Request) error {
	if !strings.Contains(line, "--") && !strings.HasPrefix(line, "/") {
		return nil // plain text needs no parser
	}
	cmd, err := parse.Line(line)
	if err != nil {
		return err
	}
	if cmd.Verb != parse.Dream {
		return fmt.Errorf("a prompt file holds prompts, not the command %q", cmd.Verb)
	}
	r.Prompt = cmd.Prompt
	for _, f := range []struct {
		v    string
		into *string
	}{{cmd.Negative, &r.Negative}, {cmd.Kind, (*string)(&r.Kind)}, {cmd.Quality, (*string)(&r.Quality)}, {cmd.Model, &r.Model}} {
		if f.v != "" {
			*f.into = f.v
		}
	}
	if cmd.Seed != nil {
		r.Seed = cmd.Seed
	}
	if len(cmd.Formats) > 0 {
		r.Formats = cmd.Formats
	}
	r.Private = r.Private || cmd.Private
	return nil
}

// writeRejects writes all rejected lines, also those beyond the report's hundred.
func (c *ingestCmd) writeRejects(ctx context.Context, store ingest.Blobs, reports []ingest.Report) error {
	if c.Rejects == "" {
		return nil
	}
	f, err := os.Create(c.Rejects)
	if err != nil {
		return fmt.Errorf("write rejected lines: %w", err)
	}
	w := bufio.NewWriter(f)
	for _, rep := range reports {
		if err == nil {
			err = ingest.WriteRejects(ctx, store, rep, w)
		}
	}
	if err == nil {
		err = w.Flush()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write rejected lines: %w", err)
	}
	return nil
}

// wait feeds the batches from here (others may too) and shows them until they end.
func (c *ingestCmd) wait(a *app, q queue.Queue, store ingest.Blobs, reports []ingest.Report) error {
	ctx, stop := context.WithCancel(a.ctx)
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		_ = (&ingest.Feeder{Queue: q, Blobs: store, Log: a.log}).Run(ctx) // ends with ctx, never with an error
	}()
	defer func() { stop(); <-fed }()
	failed := int64(0)
	for _, r := range reports {
		if r.Batch == "" {
			continue
		}
		b, err := watchBatch(a, q, r.Batch, c.JSON)
		if err != nil {
			return err
		}
		failed += b.Failed + b.Cancelled
	}
	if failed > 0 {
		return fmt.Errorf("%d prompts failed; see dream batch results", failed)
	}
	return nil
}

// watchBatch shows a batch until it ends.
func watchBatch(a *app, q queue.Batches, id string, quiet bool) (queue.Batch, error) {
	p := newProgress(a.stderr, quiet)
	defer p.close()
	for {
		b, err := q.Batch(a.ctx, id)
		if err != nil {
			return b, err
		}
		p.show(shorten(b.Name, 30), int(b.Total-b.Left()), int(b.Total))
		if b.State == queue.BatchEnded || b.State == queue.BatchCancelled {
			return b, nil
		}
		select {
		case <-a.ctx.Done():
			return b, a.ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// chatIngester takes prompt files that people send in chat.
type chatIngester struct{ in *ingest.Ingester }

// Ingest implements bots.Ingester.
func (c chatIngester) Ingest(ctx context.Context, name string, file io.Reader, who queue.Requester, where queue.Origin, check func(string) error) (string, error) {
	text := bufio.NewReader(file)
	if head, _ := text.Peek(512); bytes.IndexByte(head, 0) >= 0 { // UTF-16 has its own sentence
		if !bytes.HasPrefix(head, []byte("\xff\xfe")) && !bytes.HasPrefix(head, []byte("\xfe\xff")) {
			return "", queue.NewError(queue.CodeInvalid, "This is no text file; prompts come as text, CSV or JSON lines in UTF-8.")
		}
	}
	rep, err := c.in.Ingest(ctx, text, ingest.Options{Name: name, ParseLine: parseLine, Check: func(r *queue.Request) error {
		return errors.Join(cleanRequest(r), check(r.Prompt), check(r.Negative))
	}, Defaults: queue.Request{Requester: who, Origin: where}})
	if err != nil {
		return "", err
	}
	return rep.Sentence(), nil
}
