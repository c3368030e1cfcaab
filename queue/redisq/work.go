package redisq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/internal/crash"
	"dreamcad/queue/internal/order"
	"dreamcad/queue/internal/refuse"
)

func submitArgs(r *queue.Request, quotas []queue.Quota) ([]any, error) {
	req, f, err := split(r)
	if err != nil {
		return nil, err
	}
	var refund strings.Builder
	for _, q := range quotas {
		if q.Live {
			refund.WriteByte('*')
		}
		fmt.Fprintf(&refund, "%d %s\n", q.Cost, q.Key)
	}
	args := []any{r.ID, req, f.pack(), r.Key, refund.String()}
	switch {
	case len(quotas) > 0:
	case r.Key != "":
		args = args[:4]
	default:
		args = args[:3]
	}
	for _, q := range quotas {
		args = append(args, q.Key, q.Cost, q.Limit, q.Life.Milliseconds())
	}
	return args, nil
}

func (q *Queue) receipt(id string, answer any, quotas []queue.Quota) (queue.Receipt, error) {
	v, _ := answer.([]any)
	if len(v) == 0 {
		return queue.Receipt{ID: id, New: true, Status: queue.Queued}, nil
	}
	if n, ok := v[0].(int64); ok {
		code, _ := v[2].(int64)
		return queue.Receipt{ID: text(v[1]), New: n == 1, Status: statusOf(code)}, nil
	}
	switch what := text(v[0]); what {
	case "poison":
		return queue.Receipt{}, refuse.Poisoned(text(v[1]))
	case "limit":
		return queue.Receipt{}, refuse.TooManyQueued(q.cfg.QueuedPerUser)
	case "full":
		return queue.Receipt{}, refuse.QueueFull()
	case "quota":
		i, _ := strconv.Atoi(text(v[1]))
		return queue.Receipt{}, refuse.OverQuota(quotas[i])
	default: // pools
		return queue.Receipt{}, queue.NewError(queue.CodeLimit, "Too many different models are queued; use one of the installed models.")
	}
}

// Submit implements [queue.Submitter].
func (q *Queue) Submit(ctx context.Context, r queue.Request, quotas ...queue.Quota) (queue.Receipt, error) {
	if err := r.Normalise(); err != nil {
		return queue.Receipt{}, err
	}
	args, err := submitArgs(&r, quotas)
	if err != nil {
		return queue.Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, q.cfg.SubmitBudget)
	defer cancel()
	v, err := q.run(ctx, q.s.submit, args...).Result()
	if err != nil {
		return queue.Receipt{}, wrap("submit", err)
	}
	rc, err := q.receipt(r.ID, v, quotas)
	if err != nil {
		return rc, err
	}
	return rc, q.durable(ctx, "submit")
}

// SubmitMany implements [queue.Submitter]: groups of 200 in one pipeline.
func (q *Queue) SubmitMany(ctx context.Context, rs []queue.Request) ([]queue.Receipt, []error) {
	out, errs := make([]queue.Receipt, len(rs)), make([]error, len(rs))
	const group = 200
	for lo := 0; lo < len(rs); lo += group {
		hi := min(lo+group, len(rs))
		args := make([][]any, hi-lo)
		for i := lo; i < hi; i++ {
			r := rs[i]
			if errs[i] = r.Normalise(); errs[i] == nil {
				args[i-lo], errs[i] = submitArgs(&r, nil)
			}
		}
		cmds, err := q.pipeline(ctx, q.s.submit, args)
		for i := lo; i < hi; i++ {
			if errs[i] != nil {
				continue
			}
			if err != nil {
				errs[i] = err
				continue
			}
			v, cerr := cmds[i-lo].Result()
			if cerr != nil {
				errs[i] = wrap("submit many", cerr)
				continue
			}
			out[i], errs[i] = q.receipt(text(args[i-lo][0]), v, nil)
		}
	}
	return out, errs
}

// Cancel implements [queue.Submitter].
func (q *Queue) Cancel(ctx context.Context, id string) (queue.Status, error) {
	v, err := q.list(ctx, "cancel "+id, q.s.cancel, id)
	switch {
	case err != nil:
		return "", err
	case v[0] == "none":
		return "", queue.NotFound("job", id)
	case v[0] == "over":
		return queue.Status(v[1]), refuse.AlreadyOver(queue.Status(v[1]))
	}
	return queue.Cancelled, nil
}

// blockFor bounds blocking commands, which a cancelled context does not end.
const blockFor = time.Second

// callFor bounds a script whose answer must not be dropped with the context.
const callFor = 5 * time.Second

// Lease implements [queue.Leaser].
func (q *Queue) Lease(ctx context.Context, c queue.Capabilities) (*queue.Lease, error) {
	end := time.Now().Add(c.Wait)
	pools := c.Pools()
	for woken := false; ; woken = true {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := q.leaseOnce(ctx, &c, pools, woken)
		if l != nil || err != nil {
			return l, err
		}
		left := min(time.Until(end), blockFor)
		if left <= 0 {
			return nil, &queue.Error{Code: queue.CodeEmpty, Doing: "lease"}
		}
		wait := []any{"BZPOPMIN"}
		for _, p := range pools {
			wait = append(wait, q.key("w", p))
		}
		// A lost marker costs one round of blockFor: the loop asks again anyway.
		// The client's own method would round the time up to whole seconds.
		err = q.c.Do(ctx, append(wait, strconv.FormatFloat(max(left, 10*time.Millisecond).Seconds(), 'f', 3, 64))...).Err()
		if err != nil && !errors.Is(err, redis.Nil) && ctx.Err() == nil {
			return nil, wrap("wait for work", err)
		}
	}
}

// leaseOnce asks once. woken tells that the marker of waiting work was
// taken before: the script then puts it back if there is more.
func (q *Queue) leaseOnce(ctx context.Context, c *queue.Capabilities, pools []string, woken bool) (*queue.Lease, error) {
	id := queue.NewFence()
	flags := []byte("a--")
	if len(c.Classes) > 0 {
		i, b := slices.Contains(c.Classes, queue.Interactive), slices.Contains(c.Classes, queue.Bulk)
		switch {
		case i && !b:
			flags[0] = 'i'
		case b && !i:
			flags[0] = 'b'
		}
	}
	if c.Beside {
		flags[1] = 's'
	}
	if woken {
		flags[2] = 'w'
	}
	args := []any{id, c.Worker + "\n" + c.Name, flags, q.registration(c, pools)}
	for _, p := range pools {
		args = append(args, "\n"+p+"\n")
	}
	// The answer is awaited even if ctx ends: a job in it must be given back.
	call, stop := context.WithTimeout(context.WithoutCancel(ctx), callFor)
	defer stop()
	v, err := q.run(call, q.s.lease, args...).Result()
	if errors.Is(err, redis.Nil) {
		return nil, ctx.Err()
	}
	back := func() error {
		return q.GiveBack(call, queue.Ref{Lease: id}, queue.GiveBackOptions{Reason: queue.Returned})
	}
	if err != nil {
		if ctx.Err() == nil {
			_ = back() // if the server is away the lease runs out by itself
		}
		return nil, wrap("lease", err)
	}
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), back())
	}
	if text(v) == "again" {
		return q.leaseOnce(ctx, c, pools, true)
	}
	job, h := leased(v)
	j, err := h.job()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("decode job %q: %w", job, err), back())
	}
	return &queue.Lease{Job: j, ID: id, Deadline: j.Deadline, TTL: q.cfg.Lease, Heartbeat: q.cfg.Heartbeat}, nil
}

// registration is what the list of workers keeps, once a second for a name.
func (q *Queue) registration(c *queue.Capabilities, pools []string) string {
	if c.Name == "" || c.Beside {
		return ""
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.seen[c.Name]) < time.Second {
		return ""
	}
	q.seen[c.Name] = time.Now()
	return encode(queue.WorkerInfo{Name: c.Name, Worker: c.Worker, Pools: pools, Device: c.Device})
}

// Heartbeat implements [queue.Leaser].
func (q *Queue) Heartbeat(ctx context.Context, ref queue.Ref, b queue.Beat) (queue.Answer, error) {
	var progress, check, views, ev, viewsEv string
	remaining := int64(0)
	if p := b.Progress; p != nil {
		c := *p
		c.Message = order.Cut(c.Message, queue.MaxProgress/2)
		progress, remaining = encode(c), int64(c.Remaining*1000)
		if !b.Quiet {
			ev = encode(extra{Stage: c.Stage, Step: c.Step, Total: c.Total, Message: c.Message, Remaining: c.Remaining})
		}
	}
	if b.Checkpoint != nil {
		check = encode(b.Checkpoint)
	}
	if b.Views != nil {
		views, viewsEv = encode(b.Views), encode(extra{Stage: queue.StageViews, Files: b.Views})
	}
	v, err := q.run(ctx, q.s.beat, ref.Job, ref.Lease, progress, check, views, ev, viewsEv, remaining).Slice()
	if err != nil {
		return queue.Answer{}, wrap("heartbeat", err)
	}
	a := queue.Answer{Directive: queue.Directive(text(v[0]))}
	if ms, _ := v[1].(int64); ms > 0 {
		a.Deadline, a.TTL = at(float64(ms)), q.cfg.Lease
	}
	return a, nil
}

// outcome turns a script's refusal into an error.
func outcome(doing string, v []string, err error) error {
	if err != nil || v[0] == "ok" {
		return err
	}
	return &queue.Error{Code: queue.Code(v[0]), Doing: doing}
}

// Complete implements [queue.Leaser].
func (q *Queue) Complete(ctx context.Context, ref queue.Ref, r queue.Result) error {
	b, err := json.Marshal(r)
	if err != nil || len(b) > queue.MaxResult {
		return &queue.Error{Code: queue.CodeTooLarge, Doing: "complete " + ref.Job, Err: err}
	}
	v, err := q.run(ctx, q.s.complete, ref.Job, ref.Lease, b, encode(extra{Files: r.Files, Notices: r.Notices}), r.Used).Result()
	if err != nil {
		return wrap("complete", err)
	}
	if why, ok := v.([]any); ok {
		return &queue.Error{Code: queue.Code(text(why[0])), Doing: "complete " + ref.Job}
	}
	return q.durable(ctx, "complete")
}

// Fail implements [queue.Leaser].
func (q *Queue) Fail(ctx context.Context, ref queue.Ref, f queue.Failure) (queue.Status, error) {
	crash.Bound(&f)
	s := refuse.EndSentence(queue.Failed, f.Sentence)
	v, err := q.list(ctx, "fail", q.s.fail, ref.Job, ref.Lease, string(f.Kind), f.Worker, f.Used, f.RetryAfter.Milliseconds(), mrand.Float64(), encode(f), encode(extra{Message: s}), s, f.Exit)
	if err := outcome("fail "+ref.Job, v, err); err != nil {
		return "", err
	}
	return queue.Status(v[1]), nil
}

// GiveBack implements [queue.Leaser].
func (q *Queue) GiveBack(ctx context.Context, ref queue.Ref, o queue.GiveBackOptions) error {
	check := ""
	if o.Checkpoint != nil {
		check = encode(o.Checkpoint)
	}
	v, err := q.list(ctx, "give back", q.s.back, ref.Job, ref.Lease, string(o.Reason), o.Used, check)
	return outcome("give back "+ref.Job, v, err)
}

// Tick implements [queue.Maintainer].
func (q *Queue) Tick(ctx context.Context) (queue.Ticked, error) {
	v, err := q.run(ctx, q.s.tick, mrand.Float64()).Int64Slice()
	if err != nil {
		return queue.Ticked{}, wrap("tick", err)
	}
	return queue.Ticked{Rescued: int(v[0]), Promoted: int(v[1]), Dropped: int(v[2]), Repaired: int(v[3])}, nil
}
