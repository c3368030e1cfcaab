package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"dreamcad/queue"
)

// FeedQueue is the part of the queue that the feeder needs.
type FeedQueue interface {
	queue.Batches
	queue.Locks
	Stats(ctx context.Context) (queue.Stats, error)
}

// Feeder keeps a window of each running batch's lines in the queue. Several
// may run; a lock per batch lets one of them work, and the cursor moves in the
// step that enqueues, so a feeder that dies loses and doubles nothing.
type Feeder struct {
	Queue FeedQueue
	Blobs Blobs
	// Window is the least number of lines kept queued (default 64; four a slot).
	Window int64
	// Poll is the longest time between looks at the batches (default 500 ms).
	Poll time.Duration
	Log  *slog.Logger
}

const (
	lockLife   = 30 * time.Second
	feedChunk  = 64
	maxWindow  = 2048
	minWindow  = 64
	lockPrefix = "feeder/"
)

// feeding is one batch that this feeder holds.
type feeding struct {
	lock    queue.Lock
	renewed time.Time
	window  int64
	part    int64 // loaded part, -1: none
	lines   [][]byte
}

// Run feeds until ctx ends. Trouble with the queue or storage is logged and
// tried again.
func (f *Feeder) Run(ctx context.Context) error {
	log := f.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	poll := f.Poll
	if poll <= 0 {
		poll = 500 * time.Millisecond
	}
	held := map[string]*feeding{}
	defer func() {
		bg, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		for _, h := range held {
			_ = f.Queue.Unlock(bg, h.lock) // it runs out by itself
		}
	}()
	trouble := ""
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		fed, err := f.round(ctx, held)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && err.Error() != trouble:
			trouble = err.Error()
			log.Warn("feeding batches failed; it will be tried again", "err", err)
		case err == nil:
			trouble = ""
		}
		// As long as workers eat quickly, look again at once.
		if wait = min(max(2*wait, 2*time.Millisecond), poll); fed {
			wait = time.Millisecond
		}
		if err != nil {
			wait = poll
		}
	}
}

// round looks at all batches once and reports whether it enqueued anything.
func (f *Feeder) round(ctx context.Context, held map[string]*feeding) (bool, error) {
	bs, err := f.Queue.Batches(ctx, "")
	if err != nil {
		return false, err
	}
	running := map[string]bool{}
	fed := false
	var errs []error
	for i := range bs {
		b := &bs[i]
		if b.State != queue.BatchRunning || b.Cursor >= b.Total && b.RedoLeft == 0 {
			continue
		}
		running[b.ID] = true
		h, err := f.hold(ctx, b.ID, held)
		if err != nil {
			if !errors.Is(err, queue.ErrConflict) {
				errs = append(errs, err)
			}
			continue
		}
		n, err := f.topUp(ctx, b, h)
		fed = fed || n
		if err != nil && !errors.Is(err, queue.ErrConflict) {
			errs = append(errs, fmt.Errorf("feed batch %s: %w", b.ID, err))
		}
	}
	for id, h := range held {
		if !running[id] {
			_ = f.Queue.Unlock(ctx, h.lock) // it runs out by itself
			delete(held, id)
		}
	}
	return fed, errors.Join(errs...)
}

func (f *Feeder) hold(ctx context.Context, id string, held map[string]*feeding) (*feeding, error) {
	h := held[id]
	if h != nil && time.Since(h.renewed) < lockLife/3 {
		return h, nil
	}
	if h != nil {
		err := f.Queue.Renew(ctx, h.lock, lockLife)
		if err == nil {
			h.renewed = time.Now()
			return h, nil
		}
		if !errors.Is(err, queue.ErrLost) {
			return nil, err
		}
		delete(held, id)
	}
	l, err := f.Queue.Lock(ctx, lockPrefix+id, lockLife)
	if err != nil {
		return nil, err
	}
	h = &feeding{lock: l, renewed: time.Now(), window: f.least(ctx), part: -1}
	held[id] = h
	return h, nil
}

// least is the smallest window: four lines a live slot, and at least 64.
func (f *Feeder) least(ctx context.Context) int64 {
	n := max(f.Window, minWindow)
	if s, err := f.Queue.Stats(ctx); err == nil {
		n = max(n, int64(4*len(s.Workers)))
	}
	return n
}

func (f *Feeder) topUp(ctx context.Context, b *queue.Batch, h *feeding) (bool, error) {
	// The window follows the workers: it grows when they emptied it and
	// shrinks when most of it is still there.
	switch {
	case b.Out == 0 && b.Cursor > 0:
		h.window = min(2*h.window, maxWindow)
	case b.Out > h.window*3/4 && h.window > max(f.Window, minWindow):
		h.window = max(h.window*3/4, f.Window, minWindow)
	}
	fed := false
	for out := b.Out; out+feedChunk/2 <= h.window; out += feedChunk {
		x, err := f.chunk(ctx, b, h)
		if err != nil || x == nil {
			return fed, err
		}
		if err := f.Queue.Feed(ctx, *x); err != nil {
			return fed, err
		}
		fed = true
		if x.Redo {
			b.Redo, b.RedoLeft = x.To, b.RedoLeft-int64(len(x.Requests))
		} else {
			b.Cursor = x.To
		}
	}
	return fed, nil
}

// chunk makes the next step of the batch, nil when there is none.
func (f *Feeder) chunk(ctx context.Context, b *queue.Batch, h *feeding) (*queue.Feeding, error) {
	x := &queue.Feeding{Batch: b.ID, From: b.Cursor, To: min(b.Cursor+feedChunk, b.Total)}
	var idx []int64
	switch {
	case b.Cursor < b.Total:
		for i := x.From; i < x.To; i++ {
			idx = append(idx, i)
		}
	case b.RedoLeft > 0:
		var err error
		if idx, err = f.Queue.NextRedo(ctx, b.ID, b.Redo, feedChunk); err != nil {
			return nil, err
		}
		if len(idx) == 0 {
			return nil, fmt.Errorf("%d lines are to run again, but none is marked from line %d on", b.RedoLeft, b.Redo)
		}
		x.Redo, x.From, x.To = true, b.Redo, idx[len(idx)-1]+1
	default:
		return nil, nil
	}
	for _, i := range idx {
		l, err := h.line(ctx, f.Blobs, b, i)
		if err != nil {
			return nil, err
		}
		x.Requests = append(x.Requests, l.request(b, i))
	}
	return x, nil
}

func (l *line) request(b *queue.Batch, i int64) queue.Request {
	return queue.Request{
		ID: queue.LineID(b.ID, i), Prompt: l.Prompt, Negative: l.Negative, Seed: &l.Seed, Kind: l.Kind, Quality: l.Quality, Formats: l.Formats, Model: l.Model,
		Private: b.Private, Class: queue.Bulk, Requester: b.Owner, Origin: queue.Origin{Platform: b.Origin.Platform}, Tag: l.Tag, Batch: b.ID, Line: i,
	}
}

// line reads line i, keeping its part in memory (about a megabyte).
func (h *feeding) line(ctx context.Context, blobs Blobs, b *queue.Batch, i int64) (*line, error) {
	per := max(b.PartLines, 1)
	if p := i / per; p != h.part {
		lines, err := loadPart(ctx, blobs, b, p)
		if err != nil {
			return nil, err
		}
		h.part, h.lines = p, lines
	}
	k := i % per
	if k >= int64(len(h.lines)) {
		return nil, fmt.Errorf("part %d of batch %s has %d lines, line %d is missing", h.part, b.ID, len(h.lines), k)
	}
	var l line
	if err := json.Unmarshal(h.lines[k], &l); err != nil {
		return nil, fmt.Errorf("line %d of batch %s: %w", i, b.ID, err)
	}
	return &l, nil
}

// maxPart bounds what a part may unpack to: its lines with their overhead.
const maxPart = partLines * (8 << 10)

func loadPart(ctx context.Context, blobs Blobs, b *queue.Batch, p int64) ([][]byte, error) {
	key := partKey(b.Prefix, p)
	r, err := blobs.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", key, err)
	}
	defer r.Close()
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("unpack %q: %w", key, err)
	}
	data, err := io.ReadAll(io.LimitReader(z, maxPart))
	if err != nil {
		return nil, fmt.Errorf("unpack %q: %w", key, err)
	}
	return bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")), nil
}

// Result is what became of one line.
type Result struct {
	Line   int64        `json:"line"` // in the file, from 1
	Job    string       `json:"job"`
	Prompt string       `json:"prompt"`
	Seed   int64        `json:"seed"`
	Tag    string       `json:"tag,omitempty"`
	Status queue.Status `json:"status"`
	Reason string       `json:"reason,omitempty"`
	Links  []string     `json:"links,omitempty"`
}

// Results calls f for each accepted line in order, in bounded memory.
func Results(ctx context.Context, q queue.Batches, blobs Blobs, id string, f func(Result) error) error {
	b, err := q.Batch(ctx, id)
	if err != nil {
		return err
	}
	h := feeding{part: -1}
	const step = 1000
	for lo := int64(0); lo < b.Total; lo += step {
		os, err := q.Outcomes(ctx, id, lo, step)
		if err != nil {
			return err
		}
		for _, o := range os {
			l, err := h.line(ctx, blobs, &b, o.Line)
			if err != nil {
				return err
			}
			if err := f(Result{Line: l.Source, Job: queue.LineID(b.ID, o.Line), Prompt: l.Prompt, Seed: l.Seed, Tag: l.Tag, Status: o.Status, Reason: o.Reason}); err != nil {
				return err
			}
		}
	}
	return nil
}
