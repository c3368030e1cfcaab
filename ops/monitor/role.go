package monitor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"dreamcad/queue"
)

// Role says what a process tells for all others. One of them, the owner, judges
// what every process sees alike. While the queue is away, so that they cannot
// agree, the teller, who was the owner when it went, tells at once; after
// DeputyAfter one deputy tells too, in case the teller went with the queue; the
// others wait until it is back.
type Role struct {
	state queue.State
	self  holder
	life  time.Duration

	taking  sync.Mutex // held while the queue is asked
	version string     // of the owner's record, when that is ours

	mu     sync.Mutex
	known  bool // the queue has answered once
	owner  bool // as of the last answer
	deputy bool // the same
	away   bool
	since  time.Time // since when it is away, or answers

	// What this process was when the outage began, whoever owns the role since.
	teller, standIn bool
}

type holder struct {
	Name  string `json:"name"`
	Host  string `json:"host"`
	Token string `json:"token"` // tells processes of one name apart
}

const (
	ownerKey = "ops/owner"
	// DeputyAfter is how long the queue is away before a second process tells.
	DeputyAfter = time.Minute
	// settle is how long the queue must answer again before every process tells
	// for itself: what the owner told meanwhile is noted by then.
	settle = 20 * time.Second
)

// NewRole makes the role of the process with that name. life is how long the
// owner may be silent before another process takes over.
func NewRole(state queue.State, name, host string, life time.Duration) *Role {
	return &Role{state: state, self: holder{name, host, rand.Text()}, life: life}
}

// Take claims or renews the ownership, or looks whose it is; fleet are the
// processes that there are. Call it each time the queue has answered. It tells
// whether the ownership was gained or lost.
func (r *Role) Take(ctx context.Context, now time.Time, fleet []Live) (gained, lost bool, err error) {
	owner, other, err := r.claim(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	first := !r.known
	if first || r.away {
		r.since = now
	}
	r.away, r.known = false, true
	if err != nil {
		return false, false, err
	}
	was := r.owner
	r.owner, r.deputy = owner, !owner && deputy(fleet, other) == r.self.Name
	if first {
		r.teller, r.standIn = r.owner, r.deputy
	}
	return owner && !was, was && !owner, nil
}

// claim asks for the ownership; other is who has it instead.
func (r *Role) claim(ctx context.Context) (owner bool, other holder, err error) {
	r.taking.Lock()
	defer r.taking.Unlock()
	text, err := json.Marshal(r.self)
	if err != nil {
		return false, other, fmt.Errorf("encode the owner: %w", err)
	}
	// Without the ownership version is "": the record must not be there.
	rec, err := r.state.Put(ctx, ownerKey, text, r.version, r.life)
	if queue.CodeOf(err) == queue.CodeConflict && r.version != "" { // it ended meanwhile, or another has it
		r.version = ""
		rec, err = r.state.Put(ctx, ownerKey, text, "", r.life)
	}
	if err == nil {
		r.version = rec.Version
		return true, other, nil
	}
	if queue.CodeOf(err) != queue.CodeConflict {
		return false, other, err
	}
	rec, err = r.state.Get(ctx, ownerKey)
	if err == nil {
		err = json.Unmarshal(rec.Value, &other)
	}
	if queue.CodeOf(err) == queue.CodeNotFound { // it has just left
		err = nil
	}
	return false, other, err
}

// deputy is the name of the process that tells when the owner cannot: one of
// another host if there is any.
func deputy(fleet []Live, owner holder) string {
	name := ""
	for i := range fleet { // sorted by name
		l := &fleet[i]
		switch {
		case l.Name == owner.Name:
		case l.Host != owner.Host:
			return l.Name
		case name == "":
			name = l.Name
		}
	}
	return name
}

// Away notes that the queue does not answer.
func (r *Role) Away(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		return
	}
	if r.known && now.Sub(r.since) >= settle { // otherwise the outage before goes on
		r.teller, r.standIn = r.owner, r.deputy
	}
	r.away, r.since = true, now
}

// Owner tells whether this process judges the shared rules.
func (r *Role) Owner() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owner
}

// Defers tells whether another process tells now what many see at once.
func (r *Role) Defers(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.known || r.teller:
		return false
	case !r.away: // an owner of this moment too: the teller's word may not be noted yet
		return now.Sub(r.since) < settle
	default:
		return !r.standIn || now.Sub(r.since) < DeputyAfter
	}
}

// Leave gives up the ownership: the process ends.
func (r *Role) Leave(ctx context.Context) error {
	r.taking.Lock()
	defer r.taking.Unlock()
	r.mu.Lock()
	r.owner = false
	r.mu.Unlock()
	if r.version == "" {
		return nil
	}
	err := r.state.Delete(ctx, ownerKey, r.version)
	r.version = ""
	if queue.CodeOf(err) == queue.CodeConflict {
		return nil
	}
	return err
}
