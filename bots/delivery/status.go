package delivery

import (
	"context"
	"errors"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
)

// track is what is known of a running job's status message.
type track struct {
	job    queue.Job
	posted bots.Posted
	known  bool // posted was found
	looked time.Time
	text   string // shown last
	last   time.Time
	dead   bool // not to be edited any more
}

// status brings an event into the status message of its job: at most one edit
// in EditEvery, only when the text changes, sparse when the job is old and none
// at all before the platform begins to refuse edits of old messages.
func (d *Delivery) status(ctx context.Context, e *queue.Event) error {
	if e.Private || e.Job == "" {
		return nil // an ephemeral message cannot be edited; the outcome comes directly
	}
	t, err := d.track(ctx, e)
	if err != nil || t == nil {
		return err
	}
	age := e.At.Sub(t.job.Submitted)
	every := d.config.EditEvery
	switch {
	case age > d.config.StopAfter:
		return nil
	case age > d.config.SparseAfter:
		every = d.config.SparseEvery
	}
	if e.Kind == queue.EventViews {
		d.edit("views/"+e.Job, Pictures, ShowViews, t, d.render.Views(&t.job, e), 0)
		return nil
	}
	d.edit("status/"+e.Job, Progress, EditMessage, t, d.render.Status(&t.job, e), every)
	return nil
}

// track finds or makes the track of an event's job; nil when there is no
// message to edit (yet).
func (d *Delivery) track(ctx context.Context, e *queue.Event) (*track, error) {
	d.mu.Lock()
	t := d.tracks[e.Job]
	d.mu.Unlock()
	if t == nil || e.Kind == queue.EventWaiting { // for a place or another try, or it runs again by now
		job, err := d.q.Job(ctx, e.Job)
		if queue.CodeOf(err) == queue.CodeNotFound {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if job.Status.Terminal() {
			return nil, nil // its outcome follows in the stream
		}
		if t == nil {
			t = &track{}
			d.mu.Lock()
			d.tracks[e.Job] = t
			d.mu.Unlock()
		}
		t.job = job
	}
	if e.Kind == queue.EventStarted {
		t.job.Status, t.job.Started = queue.Leased, e.At
	}
	if !t.known && time.Since(t.looked) > time.Second {
		t.looked = time.Now()
		p, found, err := d.statusMessage(ctx, e.Job)
		if err != nil {
			return nil, err
		}
		t.posted, t.known = p, found
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.known || t.dead {
		return nil, nil
	}
	return t, nil
}

func (d *Delivery) forgetTrack(job string) {
	d.mu.Lock()
	delete(d.tracks, job)
	d.mu.Unlock()
	d.out.Drop("status/" + job)
	d.out.Drop("views/" + job)
}

// edit queues an edit that comes at least every after the last one.
func (d *Delivery) edit(key string, p Priority, k Kind, t *track, m bots.Message, every time.Duration) {
	job := t.job.ID // what else is in t.job changes beside the edit
	d.mu.Lock()
	same := m.Text == t.text && m.Files == nil
	var notBefore time.Time
	if every > 0 {
		notBefore = t.last.Add(every)
	}
	d.mu.Unlock()
	if same {
		d.out.Drop(key) // what was true in between
		return
	}
	d.out.Latest(key, p, d.out.pacer.Buckets(k, t.posted.Channel), notBefore, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		d.mu.Lock()
		// An edit that was on its way when this one was queued may only now have gone; the next event brings another.
		if t.dead || every > 0 && time.Since(t.last) < every {
			d.mu.Unlock()
			return errNotSent
		}
		t.text, t.last = m.Text, time.Now()
		d.mu.Unlock()
		return d.chat.Edit(ctx, t.posted, m)
	}, func(err error) {
		if errors.Is(err, errNotSent) {
			return
		}
		switch trouble(err) {
		case noTrouble:
			d.metrics.Edits.WithLabelValues(d.platform).Inc()
		case bots.TroubleMessage, bots.TroublePlace, bots.TroubleThread, bots.TroubleRevoked:
			d.mu.Lock()
			t.dead = true
			d.mu.Unlock()
		default:
			d.log.Debug("editing a status message failed", "job", job, "err", err)
		}
	})
}

// errNotSent tells that an edit was left out.
var errNotSent = errors.New("not sent")

const noTrouble bots.Trouble = -1

func trouble(err error) bots.Trouble {
	if err == nil {
		return noTrouble
	}
	if e, ok := errors.AsType[*bots.ChatError](err); ok {
		return e.Trouble
	}
	return bots.TroubleTemporary
}

// closeStatus takes the Cancel button off a job that is over. It is a kindness:
// a click would be refused anyway.
func (d *Delivery) closeStatus(ctx context.Context, job *queue.Job, e *queue.Event) {
	if e.Private || time.Since(job.Submitted) > d.config.StopAfter {
		return
	}
	p, found, err := d.statusMessage(ctx, job.ID)
	if err == nil && !found { // the adapter may be about to write it down
		sleep(ctx, 2*d.config.RetryBase)
		p, found, err = d.statusMessage(ctx, job.ID)
	}
	if err != nil || !found {
		return
	}
	m := d.render.Over(job, e.Kind)
	d.out.Latest("status/"+job.ID, Progress, d.out.pacer.Buckets(EditMessage, p.Channel), time.Time{}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return d.chat.Edit(ctx, p, m)
	}, nil)
}
