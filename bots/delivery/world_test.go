package delivery

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"dreamcad/bots"
	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// platform is a chat that remembers what was posted. It can be blind (Find is
// refused), which is where a duplicate is allowed.
type platform struct {
	mu     sync.Mutex
	posts  map[string]int // by nonce
	edits  int
	shown  string // by the last edit
	blind  bool
	refuse func(bots.Spot) error
}

func (p *platform) Platform() string { return "test" }

func (p *platform) Post(_ context.Context, to bots.Spot, _ bots.Message, nonce string) (bots.Posted, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		if err := p.refuse(to); err != nil {
			return bots.Posted{}, err
		}
	}
	p.posts[nonce]++
	return bots.Posted{Spot: to, ID: nonce}, nil
}

func (p *platform) Edit(_ context.Context, _ bots.Posted, m bots.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.edits++
	p.shown = m.Text
	return nil
}

func (p *platform) Direct(_ context.Context, user string) (bots.Spot, error) {
	return bots.Spot{Channel: "dm-" + user}, nil
}

func (p *platform) Find(_ context.Context, in bots.Spot, nonce string, _ time.Time) (bots.Posted, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blind {
		return bots.Posted{}, false, &bots.ChatError{Trouble: bots.TroubleLook, Err: errors.New("not allowed")}
	}
	return bots.Posted{Spot: in, ID: nonce}, p.posts[nonce] > 0, nil
}

// shows waits until the status message ends in the words.
func (p *platform) shows(t *testing.T, words string) {
	t.Helper()
	shown := ""
	if !until(func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		shown = p.shown
		return strings.HasSuffix(shown, words)
	}) {
		t.Fatalf("the status message is %q, want %q at its end", shown, words)
	}
}

func (p *platform) edited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.edits
}

func (p *platform) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.posts {
		n += k
	}
	return n
}

// free has no limits.
type free struct{}

func (free) Buckets(k Kind, channel string) []string { return []string{string(k) + "/" + channel} }

func (free) Rate(string) (float64, int) { return 0, 0 }

func open(t *testing.T) *sqliteq.Queue {
	t.Helper()
	config := queue.DefaultConfig()
	config.SubmitBudget = patience
	q, err := sqliteq.Open(context.Background(), filepath.Join(t.TempDir(), "queue.db"), config, sqliteq.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func quick() Config {
	c := Defaults()
	c.EditEvery, c.Poll, c.RetryBase, c.LockLife = 20*time.Millisecond, 30*time.Millisecond, 5*time.Millisecond, 3*time.Second
	return c
}

func deliverer(q Queue, p *platform, m *Metrics) *Delivery {
	return New(quick(), q, p, free{}, &bots.Renderer{}, m, slog.New(slog.DiscardHandler))
}

// outcome submits a job and completes it.
func outcome(t *testing.T, q *sqliteq.Queue, user string) string {
	t.Helper()
	ctx := context.Background()
	r, err := q.Submit(ctx, queue.Request{Prompt: "a mug", Requester: queue.Requester{Platform: "test", ID: user}, Origin: queue.Origin{Platform: "test", Channel: "c1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := q.Lease(ctx, queue.Capabilities{Worker: "w", Name: "w", Models: []string{"mini"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID}); err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func settled(t *testing.T, q queue.State) bool {
	t.Helper()
	due, err := q.Keys(context.Background(), "bots/due/test/", "")
	if err != nil {
		t.Fatal(err)
	}
	sent, err := q.Keys(context.Background(), "bots/sent/test/", "")
	if err != nil {
		t.Fatal(err)
	}
	return len(due) == 0 && len(sent) == 1
}

func until(cond func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if cond() {
			return true
		}
	}
	return cond()
}
