package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"dreamcad/bots"
	"dreamcad/queue"
)

// dueRecord is one outcome on its way to a person.
type dueRecord struct {
	Event queue.Event `json:"event"`
	// Sending is set before the message is posted, with the place and the time.
	Sending bool      `json:"sending,omitempty"`
	Spot    bots.Spot `json:"spot,omitzero"`
	Since   time.Time `json:"since,omitzero"`
	// What had to be given up on the way.
	Rung    int  `json:"rung,omitempty"` // of the ladder of places
	NoFiles bool `json:"no_files,omitempty"`
	Bare    bool `json:"bare,omitempty"` // without the prompt and links
}

// duePrefix begins the records of outcomes that are not yet sent, of all platforms.
const duePrefix = "bots/due/"

func (d *Delivery) duePrefix() string          { return duePrefix + d.platform + "/" }
func (d *Delivery) dueKey(name string) string  { return d.duePrefix() + name }
func (d *Delivery) sentKey(name string) string { return "bots/sent/" + d.platform + "/" + name }

// eventName identifies the outcome: a job can have several over time, when an
// operator puts it back into the queue, and a batch whose failed lines ran again.
func eventName(e *queue.Event) string {
	if e.Kind == queue.EventBatch {
		return fmt.Sprintf("%s.batch.%d", e.Batch, e.At.UnixMilli())
	}
	return fmt.Sprintf("%s.%s.%d", e.Job, e.Kind, e.Seq)
}

// noteDue writes an outcome down, once.
func (d *Delivery) noteDue(ctx context.Context, e *queue.Event) error {
	name := eventName(e)
	switch _, err := d.q.Get(ctx, d.sentKey(name)); queue.CodeOf(err) {
	case queue.CodeNotFound:
	default:
		return err // nil: it was sent
	}
	text, err := json.Marshal(dueRecord{Event: *e})
	if err != nil {
		return err
	}
	d.step("before due")
	_, err = d.q.Put(ctx, d.dueKey(name), text, "", 0)
	if err != nil && queue.CodeOf(err) != queue.CodeConflict {
		return err
	}
	d.step("after due")
	select {
	case d.due <- name:
	default: // the regular look finds it
	}
	return nil
}

// lookEvery is how often the records are listed for some that were missed.
const lookEvery = 5 * time.Second

// maxWorking bounds the outcomes worked on at once.
const maxWorking = 64

// workDues sends what is due: at once when it is written down, and from the
// records after a restart.
func (d *Delivery) workDues(ctx context.Context) {
	done := make(chan string, maxWorking)
	working := 0
	finish := func() {
		for ; working > 0; working-- {
			delete(d.running, <-done)
		}
	}
	defer finish()
	start := func(name string) {
		if d.running[name] || working >= maxWorking || ctx.Err() != nil {
			return
		}
		d.running[name] = true
		working++
		go func() {
			defer func() { done <- name }()
			d.work(ctx, name)
		}()
	}
	look := func() {
		keys, err := d.q.Keys(ctx, d.duePrefix(), "")
		if err != nil {
			return
		}
		d.metrics.Due.WithLabelValues(d.platform).Set(float64(len(keys)))
		d.metrics.Oldest.WithLabelValues(d.platform).Set(d.oldest(time.Now()).Seconds())
		for _, k := range keys {
			start(k[len(d.duePrefix()):])
		}
	}
	look()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-d.due:
			start(name)
		case name := <-done:
			delete(d.running, name)
			d.noteAge(name, time.Time{})
			working--
		case <-tick.C:
			look()
		}
	}
}

// noteAge remembers when the event of an outcome under way was; zero forgets it.
func (d *Delivery) noteAge(name string, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at.IsZero() {
		delete(d.ages, name)
	} else {
		d.ages[name] = at
	}
}

// oldest is the age of the oldest outcome under way. Older ones are begun
// first: job ids rise with time.
func (d *Delivery) oldest(now time.Time) (age time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.ages {
		age = max(age, now.Sub(at))
	}
	return age
}

// work sends one outcome, as often as it takes.
func (d *Delivery) work(ctx context.Context, name string) {
	for try := 0; ctx.Err() == nil; try++ {
		over, err := d.deliver(ctx, name)
		if over {
			return
		}
		if err != nil && ctx.Err() == nil {
			d.log.Warn("an outcome could not be sent yet", "event", name, "try", try, "err", err)
		}
		sleep(ctx, d.backoff(try))
	}
}

// deliver makes one attempt. over: nothing is left to do here.
func (d *Delivery) deliver(ctx context.Context, name string) (over bool, err error) {
	r, err := d.q.Get(ctx, d.dueKey(name))
	if queue.CodeOf(err) == queue.CodeNotFound {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	var due dueRecord
	if err := json.Unmarshal(r.Value, &due); err != nil {
		d.log.Error("a record of a due message cannot be read; it is dropped", "event", name, "err", err)
		return true, d.q.Delete(ctx, d.dueKey(name), r.Version)
	}
	d.noteAge(name, due.Event.At)
	job, m, err := d.compose(ctx, &due)
	if queue.CodeOf(err) == queue.CodeNotFound { // forgotten on request: nothing to tell
		return true, d.q.Delete(ctx, d.dueKey(name), queue.AnyVersion)
	}
	if err != nil {
		return false, err
	}
	a := attempt{d: d, name: name, due: due, version: r.Version, m: m}
	place, posted, err := a.climb(ctx, job)
	if err != nil {
		return queue.CodeOf(err) == queue.CodeConflict, err // another process has it
	}
	d.step("after post")
	if err := d.markSent(ctx, name, place, posted); err != nil {
		return false, err
	}
	if place == "" {
		d.metrics.Waiting.WithLabelValues(d.platform).Inc()
		d.log.Warn("nobody takes this outcome; it waits in /history", "event", name)
	} else {
		d.metrics.Sent.WithLabelValues(d.platform, place).Inc()
		d.metrics.Delivered.WithLabelValues(d.platform).Observe(time.Since(due.Event.At).Seconds())
	}
	if job.ID != "" {
		d.closeStatus(ctx, job, &due.Event)
	}
	return true, nil
}

func (d *Delivery) markSent(ctx context.Context, name, place string, p bots.Posted) error {
	text, err := json.Marshal(struct {
		bots.Posted
		Place string `json:"place"`
	}{p, place})
	if err != nil {
		return err
	}
	if _, err := d.q.Put(ctx, d.sentKey(name), text, queue.AnyVersion, d.config.SentLife); err != nil {
		return err
	}
	d.step("after sent")
	return d.q.Delete(ctx, d.dueKey(name), queue.AnyVersion)
}

// compose words the message, reduced by what the platform did not take.
func (d *Delivery) compose(ctx context.Context, due *dueRecord) (*queue.Job, bots.Message, error) {
	var m bots.Message
	job := &queue.Job{}
	if due.Event.Kind == queue.EventBatch {
		b, err := d.q.Batch(ctx, due.Event.Batch)
		if err != nil {
			return job, m, err
		}
		m = d.render.Batch(&b)
		job.Requester, job.Origin, job.Private = b.Owner, b.Origin, b.Private
	} else {
		j, err := d.q.Job(ctx, due.Event.Job)
		if err != nil {
			return job, m, err
		}
		job = &j
		if due.Bare { // the filter of the server objects to something: say only that it is over
			plain := j
			plain.Prompt, plain.Negative = "…", ""
			m = d.render.Outcome(ctx, &plain, &due.Event)
		} else {
			m = d.render.Outcome(ctx, job, &due.Event)
		}
	}
	if due.NoFiles || due.Bare {
		m.Files = nil
	}
	if due.Bare { // links may be what was objected to
		m.Buttons = slices.DeleteFunc(m.Buttons, func(b bots.Button) bool { return b.URL != "" })
	}
	return job, m, nil
}

// attempt carries one outcome along its ladder of places.
type attempt struct {
	d       *Delivery
	name    string
	due     dueRecord
	version string
	m       bots.Message
}

// The rungs of the ladder: where it was asked, that place's channel, a direct
// message, and /history, where every job is found anyway.
const (
	rungOrigin = iota
	rungChannel
	rungDirect
	rungHistory
)

// climb posts the message at the first rung that takes it. place is "" when it
// is left in /history.
func (a *attempt) climb(ctx context.Context, job *queue.Job) (place string, p bots.Posted, err error) {
	d := a.d
	for {
		o := job.Origin
		if a.due.Rung == rungOrigin && o.Thread == "" && job.ID != "" { // the job's own thread, where there are threads
			status, found, err := d.statusMessage(ctx, job.ID)
			if err != nil {
				return "", p, err
			}
			if found {
				o.Thread = status.Thread
			}
		}
		if a.due.Rung < rungDirect && (job.Private || o.Extra["dm"] != "" || o.Channel == "" || d.closed(o.Channel)) {
			a.due.Rung = rungDirect
		}
		var spot bots.Spot
		switch a.due.Rung {
		case rungOrigin:
			spot, place = bots.Spot{Channel: o.Channel, Thread: o.Thread}, "origin"
		case rungChannel:
			spot, place = bots.Spot{Channel: o.Channel}, "channel"
		case rungDirect:
			place = "direct"
			spot, err = d.direct(ctx, job.Requester.ID)
		default:
			return "", p, nil
		}
		if err == nil {
			p, err = a.post(ctx, spot)
		}
		if err == nil {
			return place, p, nil
		}
		if !a.giveWay(err) {
			return "", p, err
		}
		if err := a.save(ctx); err != nil {
			return "", p, err
		}
		if _, a.m, err = d.compose(ctx, &a.due); err != nil {
			return "", p, err
		}
	}
}

// closedFor is how long a channel that refused us is not tried again: refused
// requests count, and too many of them get a bot banned.
const closedFor = 10 * time.Minute

func (d *Delivery) close(channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.shut, func(_ string, until time.Time) bool { return time.Now().After(until) })
	d.shut[channel] = time.Now().Add(closedFor)
}

func (d *Delivery) closed(channel string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.shut[channel])
}

// giveWay reduces the message or goes one rung down. It reports whether to go on at once.
func (a *attempt) giveWay(err error) bool {
	switch trouble(err) {
	case bots.TroubleThread:
		a.due.Rung++ // from the thread to its channel
	case bots.TroublePlace:
		if a.due.Rung < rungDirect {
			a.d.close(a.due.Spot.Channel)
		}
		a.due.Rung = max(rungDirect, a.due.Rung+1)
	case bots.TroublePerson:
		a.due.Rung = rungHistory
	case bots.TroubleSize:
		if a.due.NoFiles {
			a.due.Rung++
		}
		a.due.NoFiles = true
	case bots.TroubleContent:
		if a.due.Bare {
			a.due.Rung++
		}
		a.due.Bare = true
	default:
		return false
	}
	a.due.Sending = false // it was refused, so it is not there
	a.d.log.Info("an outcome goes another way", "event", a.name, "rung", a.due.Rung, "err", err)
	return true
}

func (a *attempt) post(ctx context.Context, spot bots.Spot) (bots.Posted, error) {
	d := a.d
	nonce := bots.Nonce(a.name, fmt.Sprintf("%d", a.due.Rung))
	if a.due.Sending && a.due.Spot == spot {
		p, err := d.find(ctx, Result, spot, nonce, a.due.Since)
		switch {
		case trouble(err) == bots.TroubleLook:
			d.metrics.Perhaps.WithLabelValues(d.platform).Inc()
			d.log.Warn("sending again without being able to look for the first message", "event", a.name)
		case err != nil:
			return bots.Posted{}, err
		case p != nil:
			return *p, nil
		}
	} else {
		a.due.Sending, a.due.Spot, a.due.Since = true, spot, time.Now()
		if err := a.save(ctx); err != nil {
			return bots.Posted{}, err
		}
	}
	d.step("before post")
	m := a.m
	return Ask(ctx, d.out, Result, d.out.pacer.Buckets(PostMessage, spot.Channel), func(ctx context.Context) (bots.Posted, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return d.chat.Post(ctx, spot, m, nonce)
	})
}

// save writes the record if nobody else did meanwhile.
func (a *attempt) save(ctx context.Context) error {
	text, err := json.Marshal(a.due)
	if err != nil {
		return err
	}
	r, err := a.d.q.Put(ctx, a.d.dueKey(a.name), text, a.version, 0)
	if err != nil {
		return err
	}
	a.version = r.Version
	a.d.step("after sending")
	return nil
}

func (d *Delivery) direct(ctx context.Context, user string) (bots.Spot, error) {
	return Ask(ctx, d.out, Result, d.out.pacer.Buckets(OpenDirect, ""), func(ctx context.Context) (bots.Spot, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return d.chat.Direct(ctx, user)
	})
}

// find looks for a message with the nonce; nil: there is none.
func (d *Delivery) find(ctx context.Context, p Priority, spot bots.Spot, nonce string, since time.Time) (*bots.Posted, error) {
	return Ask(ctx, d.out, p, d.out.pacer.Buckets(FindMessage, spot.Channel), func(ctx context.Context) (*bots.Posted, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		p, found, err := d.chat.Find(ctx, spot, nonce, since.Add(-time.Minute)) // their clock is not ours
		if err != nil || !found {
			return nil, err
		}
		return &p, nil
	})
}
