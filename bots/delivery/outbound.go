package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dreamcad/bots"
)

// Priority orders what waits to be sent: a higher one goes first.
type Priority int

// The priorities.
const (
	Progress Priority = iota
	Pictures          // the four views, as soon as they exist
	Result
	Alert
	priorities
)

// Kind names an operation for the limits that hold for it.
type Kind string

// The kinds of operation.
const (
	PostMessage Kind = "post"
	EditMessage Kind = "edit"
	ShowViews   Kind = "views" // an edit that brings pictures
	OpenDirect  Kind = "direct"
	FindMessage Kind = "find"
)

// Pacer knows the limits of a platform.
type Pacer interface {
	// Buckets names every limit that an operation in a channel counts towards;
	// the first is the route's own, which a refusal without a name blocks.
	Buckets(k Kind, channel string) []string
	// Rate is a bucket's rate as known beforehand; perSecond 0: no limit known.
	Rate(bucket string) (perSecond float64, burst int)
}

// Outbound sends one platform's operations in the order of their priority, no
// faster than every limit allows. A limit that the platform announces only when
// it is hit (429) blocks its bucket for as long as it says, and the operation
// is sent again.
type Outbound struct {
	pacer    Pacer
	parallel int

	mu      sync.Mutex
	waiting [priorities][]*op
	latest  map[string]*op  // by key, those not yet begun
	under   map[string]bool // keys of those under way
	buckets map[string]*bucket
	tidied  int // buckets that were left by the last tidy
	flying  int
	wake    chan struct{}
	limited func() // called for each refusal
}

type op struct {
	key       string
	priority  Priority
	buckets   []string
	notBefore time.Time
	do        func(context.Context) error
	done      func(error)
}

type bucket struct {
	rate    float64
	burst   float64
	tokens  float64
	filled  time.Time
	blocked time.Time
}

// NewOutbound makes a queue that has at most parallel operations under way.
func NewOutbound(p Pacer, parallel int) *Outbound {
	return &Outbound{
		pacer: p, parallel: parallel,
		latest: map[string]*op{}, under: map[string]bool{}, buckets: map[string]*bucket{},
		wake: make(chan struct{}, 1), limited: func() {},
	}
}

// Send performs do in its turn and returns its error, as Ask does.
func (o *Outbound) Send(ctx context.Context, p Priority, buckets []string, do func(context.Context) error) error {
	_, err := Ask(ctx, o, p, buckets, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}

// Ask performs do in its turn and returns what it returns. It returns early
// when ctx ends; do may then still run, with a context that has ended, and
// nobody hears of its result.
func Ask[T any](ctx context.Context, o *Outbound, p Priority, buckets []string, do func(context.Context) (T, error)) (T, error) {
	var value T
	ended := make(chan error, 1)
	o.add(&op{priority: p, buckets: buckets, do: func(run context.Context) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(run, cancel)()
		got, err := do(both)
		if err == nil {
			value = got
		}
		return err
	}, done: func(err error) { ended <- err }})
	select {
	case err := <-ended:
		return value, err
	case <-ctx.Done():
		var none T // value may be written this moment
		return none, ctx.Err()
	}
}

// Latest performs do in its turn, not before the given time, unless a newer one
// with the same key replaces it first. It begins when the one before it with that
// key has ended, so the newest is the last. done may be nil.
func (o *Outbound) Latest(key string, p Priority, buckets []string, notBefore time.Time, do func(context.Context) error, done func(error)) {
	o.mu.Lock()
	if old := o.latest[key]; old != nil {
		old.do, old.done, old.buckets = do, done, buckets
		if notBefore.Before(old.notBefore) {
			old.notBefore = notBefore
		}
	} else {
		w := &op{key: key, priority: p, buckets: buckets, notBefore: notBefore, do: do, done: done}
		o.waiting[p], o.latest[key] = append(o.waiting[p], w), w
	}
	o.mu.Unlock()
	o.poke()
}

// Drop forgets what waits under a key.
func (o *Outbound) Drop(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.latest[key]; old != nil {
		delete(o.latest, key)
		o.waiting[old.priority] = slices.DeleteFunc(o.waiting[old.priority], func(w *op) bool { return w == old })
	}
}

// Block lets nothing of a bucket pass until the given time.
func (o *Outbound) Block(name string, until time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b := o.bucket(name, time.Now()); until.After(b.blocked) {
		b.blocked = until
	}
}

// Waiting is how many operations wait.
func (o *Outbound) Waiting() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, w := range o.waiting {
		n += len(w)
	}
	return n
}

func (o *Outbound) add(w *op) {
	o.mu.Lock()
	o.waiting[w.priority] = append(o.waiting[w.priority], w)
	o.mu.Unlock()
	o.poke()
}

func (o *Outbound) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run sends until ctx ends and waits for what is under way.
func (o *Outbound) Run(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, wait := o.take(time.Now())
		if next != nil {
			under.Go(func() { o.perform(ctx, next) })
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-o.wake:
		case <-timer.C:
		}
	}
}

func (o *Outbound) perform(ctx context.Context, w *op) {
	err := w.do(ctx)
	o.mu.Lock()
	o.flying--
	delete(o.under, w.key)
	limited, ok := errors.AsType[*bots.ChatError](err)
	again := ok && limited.Trouble == bots.TroubleLimited && ctx.Err() == nil
	if again {
		o.limited()
		name := limited.Bucket
		if name == "" && len(w.buckets) > 0 {
			name = w.buckets[0]
		}
		now := time.Now()
		if b := o.bucket(name, now); now.Add(limited.RetryAfter).After(b.blocked) {
			b.blocked = now.Add(limited.RetryAfter)
		}
		if w.key == "" || o.latest[w.key] == nil { // else a newer one waits already
			o.waiting[w.priority] = slices.Insert(o.waiting[w.priority], 0, w)
			if w.key != "" {
				o.latest[w.key] = w
			}
		}
	}
	o.mu.Unlock()
	if !again && w.done != nil {
		w.done(err)
	}
	o.poke()
}

// alertSlots are operations that alerts may have under way beyond all others:
// slow ones must not hold them up.
const alertSlots = 2

// idleWait is the longest sleep of the loop; events wake it earlier.
const idleWait = time.Minute

// take removes the first operation that may go now, or tells how long none may.
func (o *Outbound) take(now time.Time) (*op, time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := idleWait
	spent := map[string]bool{} // buckets that a higher operation waits for
	for p := priorities - 1; p >= 0; p-- {
		if o.flying >= o.parallel && (p < Alert || o.flying >= o.parallel+alertSlots) {
			break
		}
		for i, w := range o.waiting[p] {
			if o.under[w.key] {
				continue
			}
			if until := w.notBefore.Sub(now); until > 0 {
				wait = min(wait, until)
				continue
			}
			until := o.until(w, now, spent)
			if until > 0 {
				wait = min(wait, until)
				continue
			}
			for _, name := range w.buckets {
				o.bucket(name, now).tokens--
			}
			o.waiting[p] = slices.Delete(o.waiting[p], i, i+1)
			if w.key != "" {
				delete(o.latest, w.key)
				o.under[w.key] = true
			}
			o.flying++
			return w, 0
		}
	}
	o.tidy(now)
	return nil, max(wait, time.Millisecond)
}

// until is how long an operation has to wait for its buckets. A bucket that an
// operation before it waits for is not taken by those after.
func (o *Outbound) until(w *op, now time.Time, spent map[string]bool) time.Duration {
	var until time.Duration
	for _, name := range w.buckets {
		if spent[name] {
			until = max(until, time.Second)
			continue
		}
		b := o.bucket(name, now)
		if d := b.blocked.Sub(now); d > 0 {
			until = max(until, d)
		} else if b.rate > 0 && b.tokens < 1 {
			until = max(until, time.Duration((1-b.tokens)/b.rate*float64(time.Second))+time.Millisecond)
		}
	}
	if until > 0 && w.priority > Progress {
		for _, name := range w.buckets {
			spent[name] = true
		}
	}
	return until
}

// bucket returns the bucket with its tokens filled up to now.
func (o *Outbound) bucket(name string, now time.Time) *bucket {
	b := o.buckets[name]
	if b == nil {
		rate, burst := o.pacer.Rate(name)
		b = &bucket{rate: rate, burst: float64(burst), tokens: float64(burst), filled: now}
		o.buckets[name] = b
	}
	if b.rate > 0 {
		b.tokens = min(b.burst, b.tokens+now.Sub(b.filled).Seconds()*b.rate)
	} else {
		b.tokens = 1
	}
	b.filled = now
	return b
}

// tidy drops the buckets that are full and open, as a new one is: channels come and go.
func (o *Outbound) tidy(now time.Time) {
	if len(o.buckets) < max(2*o.tidied, 1000) {
		return
	}
	for name, b := range o.buckets {
		full := b.rate <= 0 || b.tokens+now.Sub(b.filled).Seconds()*b.rate >= b.burst
		if full && !now.Before(b.blocked) {
			delete(o.buckets, name)
		}
	}
	o.tidied = len(o.buckets)
}
