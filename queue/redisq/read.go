package redisq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/internal/order"
	"dreamcad/queue/internal/refuse"
)

// Job implements [queue.Reader].
func (q *Queue) Job(ctx context.Context, id string) (queue.Job, error) {
	hs, err := q.jobs(ctx, []string{id})
	if err != nil {
		return queue.Job{}, err
	}
	if len(hs) == 0 {
		return queue.Job{}, queue.NotFound("job", id)
	}
	return hs[0].job()
}

// Resolve implements [queue.Reader].
func (q *Queue) Resolve(ctx context.Context, ending string) (string, error) {
	if n, err := q.c.Exists(ctx, q.key("j", ending)).Result(); err != nil || n == 1 {
		return ending, wrap("resolve", err)
	}
	if len(ending) < queue.MinEnding {
		return refuse.PickID(ending, nil)
	}
	var ids []string
	err := q.scan(ctx, "j:*"+escape(ending), func(keys []string) error {
		for _, k := range keys {
			if id := strings.TrimPrefix(k, q.key("j", "")); !slices.Contains(ids, id) && len(ids) < 2 {
				ids = append(ids, id)
			}
		}
		return nil
	})
	if err != nil {
		return "", wrap("resolve", err)
	}
	return refuse.PickID(ending, ids)
}

// jobs reads many jobs in one round trip; those that are gone are left out.
func (q *Queue) jobs(ctx context.Context, ids []string) ([]hash, error) {
	var out []hash
	for part := range slices.Chunk(ids, 500) {
		p := q.c.TxPipeline()
		texts, rest := make([]*redis.SliceCmd, len(part)), make([]*redis.MapStringStringCmd, len(part))
		for i, id := range part {
			texts[i], rest[i] = p.MGet(ctx, q.key("j", id), q.key("jr", id), q.key("je", id)), p.HGetAll(ctx, q.key("jh", id))
		}
		if _, err := p.Exec(ctx); err != nil {
			return nil, wrap("read jobs", err)
		}
		for i := range part {
			if v := texts[i].Val(); v[0] != nil {
				h := hash(rest[i].Val())
				h["j"], h["r"], h["re"] = text(v[0]), text(v[1]), text(v[2])
				out = append(out, h)
			}
		}
	}
	return out, nil
}

// List implements [queue.Reader].
func (q *Queue) List(ctx context.Context, f queue.Filter) ([]queue.Job, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, 1000)
	want := func(h hash) bool { return len(f.Status) == 0 || slices.Contains(f.Status, h.state().status) }
	var found []hash
	switch {
	case f.User != "" || f.Batch != "":
		k := q.key("x", f.User)
		if f.Batch != "" {
			k = q.key("xb", f.Batch)
		}
		for lo := int64(0); len(found) < f.Offset+limit; lo += 500 {
			ids, err := q.c.LRange(ctx, k, -(lo + 500), -(lo + 1)).Result()
			if err != nil {
				return nil, wrap("list jobs", err)
			}
			slices.Reverse(ids)
			hs, err := q.jobs(ctx, ids)
			if err != nil {
				return nil, err
			}
			for _, h := range hs {
				if want(h) {
					found = append(found, h)
				}
			}
			if len(ids) < 500 {
				break
			}
		}
	default:
		// The newest of each status, merged by the order of arrival.
		for _, st := range queue.Statuses {
			if len(f.Status) > 0 && !slices.Contains(f.Status, st) {
				continue
			}
			ids, err := q.newest(ctx, st, f.Offset+limit)
			if err != nil {
				return nil, err
			}
			hs, err := q.jobs(ctx, ids)
			if err != nil {
				return nil, err
			}
			found = append(found, hs...)
		}
		slices.SortFunc(found, func(a, b hash) int { return cmp.Compare(b.state().seq, a.state().seq) })
	}
	var out []queue.Job
	for i := f.Offset; i < min(len(found), f.Offset+limit); i++ {
		j, err := found[i].job()
		if err != nil {
			return nil, fmt.Errorf("decode job: %w", err)
		}
		out = append(out, j)
	}
	return out, nil
}

// newest gives the ids of the n newest jobs of a status, at least: of leased
// and held ones it may give more or others.
func (q *Queue) newest(ctx context.Context, st queue.Status, n int) ([]string, error) {
	switch st {
	case queue.Queued:
		return q.newestQueued(ctx, n)
	case queue.Leased:
		return q.list(ctx, "list jobs", q.s.leased)
	}
	k := q.key("t", string(st))
	if st == queue.Scheduled {
		k = q.key("later")
	}
	ids, err := q.c.ZRevRange(ctx, k, 0, int64(n)-1).Result()
	return ids, wrap("list jobs", err)
}

// newestQueued looks at the ends of all lines.
func (q *Queue) newestQueued(ctx context.Context, n int) ([]string, error) {
	ids, err := q.c.ZRevRange(ctx, q.key("held"), 0, int64(n)-1).Result()
	if err != nil {
		return nil, wrap("list jobs", err)
	}
	for _, c := range queue.Classes {
		lines, err := q.c.ZRange(ctx, q.key("wt", string(c)), 0, -1).Result()
		if err != nil {
			return nil, wrap("list jobs", err)
		}
		for part := range slices.Chunk(lines, 500) {
			p := q.c.Pipeline()
			cmds := make([]*redis.StringSliceCmd, len(part))
			for i, l := range part {
				cmds[i] = p.LRange(ctx, q.key("l", string(c), l), -int64(n), -1)
			}
			if _, err := p.Exec(ctx); err != nil {
				return nil, wrap("list jobs", err)
			}
			for _, cmd := range cmds {
				ids = append(ids, cmd.Val()...)
			}
		}
	}
	if len(ids) <= n {
		return ids, nil
	}
	seq := make(map[string]float64, len(ids))
	for part := range slices.Chunk(ids, 500) {
		keys := make([]string, len(part))
		for i, id := range part {
			keys[i] = q.key("j", id)
		}
		v, err := q.c.MGet(ctx, keys...).Result()
		if err != nil {
			return nil, wrap("list jobs", err)
		}
		for i, id := range part {
			s, _ := stateOf(text(v[i]))
			seq[id] = s.seq
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(seq[b], seq[a]) })
	return ids[:n], nil
}

func floats(v any) []float64 {
	l, _ := v.([]any)
	out := make([]float64, len(l))
	for i, x := range l {
		out[i], _ = strconv.ParseFloat(text(x), 64)
	}
	return out
}

// Place implements [queue.Reader].
func (q *Queue) Place(ctx context.Context, id string) (queue.Place, error) {
	v, err := q.run(ctx, q.s.place, id).Slice()
	if errors.Is(err, redis.Nil) {
		return queue.Place{}, queue.NotFound("job", id)
	}
	if err != nil {
		return queue.Place{}, wrap("place", err)
	}
	s := order.Snapshot{Samples: floats(v[1])}
	if st := queue.Status(text(v[0])); st != queue.Queued {
		p := queue.Place{Status: st}
		p.RunLow, p.RunHigh, p.Known = s.Run()
		return p, nil
	}
	num := func(i int) float64 { x, _ := strconv.ParseFloat(text(v[i]), 64); return x }
	s.VT, s.Weight, s.Ahead, s.Cost = num(2)/1e9, num(3), int64(num(4)), num(5)
	for o := floats(v[6]); len(o) >= 3; o = o[3:] {
		s.Others = append(s.Others, order.User{VT: o[0] / 1e9, Queued: int64(o[1]), Weight: o[2]})
	}
	s.More, s.Prior, s.Slots = num(7) == 1, int64(num(8)), int(num(12))
	for e := floats(v[10]); len(e) >= 2; e = e[2:] {
		s.Running, s.Yielding = append(s.Running, max((e[0]-num(11))/1000, 0)), append(s.Yielding, e[1] == 1)
	}
	s.Yield = q.cfg.YieldWithin().Seconds()
	p := s.Place()
	p.Paused = text(v[9])
	return p, nil
}

// Stats implements [queue.Reader].
func (q *Queue) Stats(ctx context.Context) (queue.Stats, error) {
	s := refuse.NewStats("redis " + strings.Join(q.o.Addrs, ","))
	v, err := q.list(ctx, "stats", q.s.stats)
	if err != nil {
		return s, err
	}
	oldest := map[queue.Class]float64{}
	held := int64(0)
	drained := map[string]bool{}
	for i := 0; i+1 < len(v); i += 2 {
		k, rest, _ := strings.Cut(v[i], ":")
		x, _ := strconv.ParseFloat(v[i+1], 64)
		n := int64(x)
		switch k {
		case "now":
			s.Now = at(x)
		case "queued":
			s.Queued[queue.Class(rest)] = n
		case "oldest":
			oldest[queue.Class(rest)] = x
		case "users":
			s.Users[queue.Class(rest)] = n
		case "held":
			held = n
		case "scheduled":
			s.Scheduled = n
		case "leased":
			s.Leased = n
		case "overdue":
			s.Overdue = n
		case "ended":
			s.Ended[queue.Status(rest)] = n
		case "c":
			s.Counters[rest] = n
		case "o":
			s.Outbox[rest] = n
		case "sw":
			scope, name, _ := strings.Cut(rest, ":")
			var body struct {
				Why   string
				Since float64
			}
			if err := decode(v[i+1], &body); err != nil {
				return s, err
			}
			s.Switches = append(s.Switches, queue.Switch{Scope: queue.Scope(scope), Name: name, Why: body.Why, Since: at(body.Since)})
			drained[name] = drained[name] || scope == string(queue.OfWorker)
		case "w":
			var w queue.WorkerInfo
			if decode(v[i+1], &w) == nil && w.Name != "" {
				ms, _ := strconv.ParseFloat(rest, 64)
				w.Seen = at(ms)
				s.Workers = append(s.Workers, w)
			}
		case "d":
			var d []float64
			for f := range strings.FieldsSeq(v[i+1]) {
				x, _ := strconv.ParseFloat(f, 64)
				d = append(d, x)
			}
			s.Durations[rest] = queue.DurationFit{Samples: len(d), P50: order.Quantile(d, .5), P90: order.Quantile(d, .9)}
		}
	}
	s.Queued[queue.Bulk] += held // only batches are held, and they are bulk
	for c, since := range oldest {
		s.Oldest[c] = queue.Age((float64(s.Now.UnixMilli()) - since) / 1000)
	}
	for i := range s.Workers {
		s.Workers[i].Drain = drained[s.Workers[i].Name]
	}
	slices.SortFunc(s.Workers, func(a, b queue.WorkerInfo) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Switches, func(a, b queue.Switch) int { return a.Since.Compare(b.Since) })
	return s, nil
}
