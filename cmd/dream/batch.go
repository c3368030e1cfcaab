package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/storage"
	"dreamcad/storage/links"
)

type batchCmd struct {
	List    batchListCmd    `cmd:"" help:"List batches, newest first."`
	Status  batchStatusCmd  `cmd:"" help:"Show one batch."`
	Watch   batchWatchCmd   `cmd:"" help:"Show a batch until it ends."`
	Results batchResultsCmd `cmd:"" help:"Write prompt, status and links of each line as JSON Lines or CSV."`
	Pause   batchPauseCmd   `cmd:"" help:"Hold a batch back; running jobs go on."`
	Resume  batchResumeCmd  `cmd:"" help:"Let a paused batch go on where it was."`
	Cancel  batchCancelCmd  `cmd:"" help:"Cancel a batch with its queued and running jobs."`
	Retry   batchRetryCmd   `cmd:"" help:"Run the failed lines of a batch again."`
}

// batchToShow names a batch for commands that change nothing.
type batchToShow struct {
	Batch string `arg:"" optional:"" help:"Id of the batch, a unique beginning of it, or its name (default: the newest)."`
}

// batchToChange names a batch for commands that change it; nothing is the default here.
type batchToChange struct {
	Batch string `arg:"" help:"Id of the batch, a unique beginning of it, or its name."`
}

// findBatch finds a batch by its id, a unique beginning of it or its name; an empty
// name is the newest.
func findBatch(ctx context.Context, q queue.Batches, name string) (queue.Batch, error) {
	if name != "" {
		if x, err := q.Batch(ctx, name); err == nil || !errors.Is(err, queue.ErrNotFound) {
			return x, err
		}
	}
	all, err := q.Batches(ctx, "")
	if err != nil {
		return queue.Batch{}, err
	}
	if name == "" {
		if len(all) == 0 {
			return queue.Batch{}, errors.New("there is no batch yet; dream ingest makes one")
		}
		return all[0], nil
	}
	var found []queue.Batch
	for _, x := range all {
		if strings.HasPrefix(x.ID, name) || x.Name == name {
			found = append(found, x)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return queue.Batch{}, queue.NotFound("batch", name)
	}
	return queue.Batch{}, usagef("%d batches are called %q; give the beginning of an id", len(found), name)
}

// withBatch opens the queue, finds the batch and calls f.
func withBatch(a *app, name string, f func(q queue.Queue, x queue.Batch) error) error {
	return withQueue(a, func(q queue.Queue) error {
		x, err := findBatch(a.ctx, q, name)
		if err != nil {
			return err
		}
		return f(q, x)
	})
}

// withQueue opens the queue for one command.
func withQueue(a *app, f func(q queue.Queue) error) error {
	q, err := openQueue(a.ctx, a)
	if err != nil {
		return err
	}
	return errors.Join(f(q), q.Close())
}

type batchListCmd struct {
	User string `help:"Only this owner's (platform:id)." placeholder:"USER"`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run prints a line a batch.
func (c *batchListCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		bs, err := q.Batches(a.ctx, c.User)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, orEmpty(bs))
		}
		w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "BATCH\tSTATE\tDONE\tFAILED\tLEFT\tTOTAL\tCREATED\tNAME")
		for _, b := range bs {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", b.ID, b.State, b.Done, b.Failed, b.Left(), b.Total, b.Created.Local().Format(time.DateTime), b.Name)
		}
		return w.Flush()
	})
}

type batchStatusCmd struct {
	batchToShow
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints the batch's record.
func (c *batchStatusCmd) Run(a *app) error {
	return withBatch(a, c.Batch, func(_ queue.Queue, b queue.Batch) error { return printBatch(a, b, c.JSON) })
}

func printBatch(a *app, b queue.Batch, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, b)
	}
	fmt.Fprintf(a.stdout, "batch      %s (%s)\nstate      %s\nowner      %s\nlines      %d accepted, %d rejected\nfinished   %d done, %d failed, %d cancelled\nqueued     %d now, %d not yet\n",
		b.ID, b.Name, b.State, b.Owner.User(), b.Total, b.Rejected, b.Done, b.Failed, b.Cancelled, b.Out, b.Left()-b.Out)
	return nil
}

type batchWatchCmd struct {
	batchToShow
	JSON bool `name:"json" help:"Print JSON at the end."`
}

// Run waits for the batch's end.
func (c *batchWatchCmd) Run(a *app) error {
	return withBatch(a, c.Batch, func(q queue.Queue, b queue.Batch) error {
		b, err := watchBatch(a, q, b.ID, c.JSON)
		if err != nil {
			return err
		}
		return printBatch(a, b, c.JSON)
	})
}

// changeArg is for commands that change a batch and then show it.
type changeArg struct {
	batchToChange
	JSON bool `name:"json" help:"Print JSON."`
}

func (c changeArg) change(a *app, f func(q queue.Queue, id string) error) error {
	return withBatch(a, c.Batch, func(q queue.Queue, b queue.Batch) error {
		if err := f(q, b.ID); err != nil {
			return err
		}
		b, err := q.Batch(a.ctx, b.ID)
		if err != nil {
			return err
		}
		return printBatch(a, b, c.JSON)
	})
}

type batchPauseCmd struct{ changeArg }

// Run pauses.
func (c *batchPauseCmd) Run(a *app) error {
	return c.change(a, func(q queue.Queue, id string) error {
		return q.Pause(a.ctx, queue.OfBatch, id, "dream batch pause")
	})
}

type batchResumeCmd struct{ changeArg }

// Run resumes.
func (c *batchResumeCmd) Run(a *app) error {
	return c.change(a, func(q queue.Queue, id string) error { return q.Resume(a.ctx, queue.OfBatch, id) })
}

type batchCancelCmd struct{ changeArg }

// Run cancels.
func (c *batchCancelCmd) Run(a *app) error {
	return c.change(a, func(q queue.Queue, id string) error { return q.CancelBatch(a.ctx, id) })
}

type batchRetryCmd struct {
	batchToChange
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lets failed lines run again.
func (c *batchRetryCmd) Run(a *app) error {
	return withBatch(a, c.Batch, func(q queue.Queue, b queue.Batch) error {
		n, err := q.RetryBatch(a.ctx, b.ID)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, map[string]any{"batch": b.ID, "again": n})
		}
		fmt.Fprintf(a.stdout, "%d lines run again\n", n)
		return nil
	})
}

type batchResultsCmd struct {
	batchToShow
	Format string        `enum:"jsonl,csv" default:"jsonl" help:"jsonl or csv (default: jsonl)." placeholder:"FORMAT"`
	Out    string        `short:"o" type:"path" help:"File to write (default: standard output)." placeholder:"FILE"`
	Links  bool          `default:"true" negatable:"" help:"Add links to the results."`
	Life   time.Duration `default:"168h" help:"How long the links work."`
}

// Run writes a record a line of the batch.
func (c *batchResultsCmd) Run(a *app) (err error) {
	return withBatch(a, c.Batch, func(q queue.Queue, b queue.Batch) error {
		store, err := openStore(a)
		if err != nil {
			return err
		}
		out := a.stdout
		if c.Out != "" {
			f, ferr := os.Create(c.Out)
			if ferr != nil {
				return fmt.Errorf("write results: %w", ferr)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			out = f
		}
		w := bufio.NewWriter(out)
		var link linker
		if c.Links {
			if link, err = newLinker(a, store, c.Life); err != nil {
				return err
			}
		}
		put, end := jsonLines(w)
		if c.Format == "csv" {
			put, end = csvLines(w)
		}
		done, linked := 0, 0
		err = ingest.Results(a.ctx, q, store, b.ID, func(r ingest.Result) error {
			if r.Status == queue.Done && link != nil {
				if r.Links, err = link(a.ctx, r.Job); err != nil {
					return err
				}
				done++
				linked += min(len(r.Links), 1)
			}
			return put(r)
		})
		if err == nil && done > 0 && linked == 0 {
			fmt.Fprintln(a.stderr, "No result has links: they need web.public_url, or results in S3 (storage.url).")
		}
		return errors.Join(err, end(), w.Flush())
	})
}

// linker gives the links of a finished job.
type linker func(ctx context.Context, job string) ([]string, error)

// newLinker signs links under web.public_url if that is set, else lets the
// storage sign them; a folder without a public address has none.
func newLinker(a *app, store storage.Store, life time.Duration) (linker, error) {
	until := time.Now().Add(life)
	sign := func(ctx context.Context, m *storage.Manifest, f storage.File) (string, error) {
		url, err := store.Link(ctx, m.FileKey(f.Name), min(life, storage.MaxLinkLife))
		if errors.Is(err, storage.ErrNoLinks) {
			return "", nil
		}
		return url, err
	}
	if a.config.Web.PublicURL != "" {
		keys, err := linkKeys(a)
		if err != nil {
			return nil, err
		}
		s := links.Signer{Base: a.config.Web.PublicURL, Keys: keys}
		sign = func(_ context.Context, m *storage.Manifest, f storage.File) (string, error) {
			return s.URL(m.Job, f.Name, until), nil
		}
	}
	return func(ctx context.Context, job string) ([]string, error) {
		m, err := storage.ReadManifest(ctx, store, job)
		if errors.Is(err, storage.ErrNotFound) {
			return nil, nil // expired or taken back
		}
		if err != nil {
			return nil, err
		}
		var out []string
		for _, f := range m.Files {
			url, err := sign(ctx, m, f)
			if err != nil {
				return nil, err
			}
			if url != "" {
				out = append(out, url)
			}
		}
		return out, nil
	}, nil
}

func jsonLines(w io.Writer) (func(ingest.Result) error, func() error) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return func(r ingest.Result) error { return e.Encode(r) }, func() error { return nil }
}

func csvLines(w io.Writer) (func(ingest.Result) error, func() error) {
	cw := csv.NewWriter(w)
	err := cw.Write([]string{"line", "job", "prompt", "seed", "tag", "status", "reason", "links"})
	return func(r ingest.Result) error {
			return cw.Write([]string{strconv.FormatInt(r.Line, 10), r.Job, plain(r.Prompt), strconv.FormatInt(r.Seed, 10), plain(r.Tag), string(r.Status), plain(r.Reason), strings.Join(r.Links, " ")})
		}, func() error {
			cw.Flush()
			return errors.Join(err, cw.Error())
		}
}

// plain keeps a spreadsheet from running a cell as a formula.
func plain(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
