package redisq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
)

// Check implements [queue.Checker].
func (q *Queue) Check(ctx context.Context) []queue.Finding {
	info, err := q.info(ctx)
	if err != nil {
		return []queue.Finding{{Code: "queue", Title: "Redis cannot be reached", Severity: queue.Critical,
			Text: fmt.Sprintf("%s does not answer: %v. Check the address, the password and the firewall.", strings.Join(q.o.Addrs, ","), err)}}
	}
	version := info["redis_version"]
	if v := info["valkey_version"]; v != "" {
		version = "Valkey " + v
	}
	out := []queue.Finding{{Code: "queue", Title: "Redis", Severity: queue.Info, Text: fmt.Sprintf("version %s, role %s, %s replicas", version, info["role"], info["connected_slaves"])}}
	add := func(code, title string, s queue.Severity, text string) {
		out = append(out, queue.Finding{Code: code, Title: title, Severity: s, Text: text})
	}
	if major, err := strconv.Atoi(strings.SplitN(info["redis_version"], ".", 2)[0]); err == nil && major < 7 {
		add("version", "Redis is too old", queue.Critical, fmt.Sprintf("Redis %s is older than 7.0, which the scripts need: update it.", info["redis_version"]))
	}
	if info["role"] != "" && info["role"] != "master" {
		add("role", "not the primary", queue.Critical, "This Redis is a replica and takes no writes: point queue.url at the primary, or use the Sentinel form.")
	}
	if info["loading"] == "1" {
		add("loading", "Redis is loading", queue.Warning, "Redis is reading its data from disk; it answers when that is done.")
	}
	if info["aof_last_write_status"] == "err" || info["rdb_last_bgsave_status"] == "err" {
		add("disk", "Redis cannot write its data", queue.Critical, "The last write of the append-only file or the snapshot failed: check the space and the owner of Redis's data folder.")
	}
	out = append(out, q.config(ctx, info)...)
	if n, _ := strconv.Atoi(info["connected_slaves"]); n < q.o.WaitReplicas {
		add("replicas", "too few replicas", queue.Critical, fmt.Sprintf("wait_replicas is %d, but %d replicas are connected: every submit will be refused.", q.o.WaitReplicas, n))
	}
	return out
}

// Time is the server's clock: leases and times of events follow it.
func (q *Queue) Time(ctx context.Context) (time.Time, error) { return q.c.Time(ctx).Result() }

// config judges the settings that decide about lost jobs. Managed servers may
// forbid CONFIG; INFO knows two of them, and the finding says what is not known.
func (q *Queue) config(ctx context.Context, info map[string]string) []queue.Finding {
	told := map[string]string{"appendonly": map[string]string{"0": "no", "1": "yes"}[info["aof_enabled"]], "maxmemory-policy": info["maxmemory_policy"]}
	get := func(name string) (string, bool) {
		v, err := q.c.ConfigGet(ctx, name).Result()
		if err != nil || v[name] == "" {
			return told[name], told[name] != ""
		}
		return v[name], true
	}
	var out []queue.Finding
	for _, c := range []struct{ name, want, title, bad string }{
		{"appendonly", "yes", "no append-only file", "appendonly is %s: a crash of Redis loses all jobs since the last snapshot. Set `appendonly yes`."},
		{"appendfsync", "always", "acknowledged jobs can be lost", "appendfsync is %s: a crash of Redis can lose the jobs of the last seconds. Set `appendfsync always`; this service needs few writes a second."},
		{"maxmemory-policy", "noeviction", "Redis may evict jobs", "maxmemory-policy is %s: a full Redis would silently drop jobs and leases. Set `maxmemory-policy noeviction`."},
	} {
		switch v, ok := get(c.name); {
		case !ok:
			out = append(out, queue.Finding{Code: c.name, Title: c.name, Severity: queue.Info, Unknown: true,
				Text: fmt.Sprintf("Could not check %s, because the server does not allow CONFIG; it should be %s.", c.name, c.want)})
		case v != c.want:
			out = append(out, queue.Finding{Code: c.name, Title: c.title, Severity: queue.Warning, Text: fmt.Sprintf(c.bad, v)})
		default:
			out = append(out, queue.Finding{Code: c.name, Title: c.name, Severity: queue.Info, Text: c.name + " is " + v})
		}
	}
	return out
}

func (q *Queue) info(ctx context.Context) (map[string]string, error) {
	s, err := q.c.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for line := range strings.SplitSeq(s, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[k] = v
		}
	}
	return m, nil
}

// Audit implements [queue.Auditor]. It walks over all keys of the queue in
// small steps, so it may run beside the service.
func (q *Queue) Audit(ctx context.Context) ([]string, error) {
	a := &audit{q: q, ctx: ctx, inLine: map[string]int{}, lined: map[string]int{}, pools: map[string]bool{}, userQ: map[string]int{}, userR: map[string]int{}, batch: map[string]int{}}
	return a.run()
}

type audit struct {
	q                                  *Queue
	ctx                                context.Context
	out                                []string
	inLine, lined, userQ, userR, batch map[string]int
	pools                              map[string]bool
	queued, leased                     int
}

func (a *audit) say(format string, args ...any) {
	if len(a.out) < 100 {
		a.out = append(a.out, fmt.Sprintf(format, args...))
	}
}

// scan calls f with the queue's keys that fit a pattern, some perhaps twice. It
// goes in small steps and holds nobody up.
func (q *Queue) scan(ctx context.Context, pattern string, f func(keys []string) error) error {
	each := func(ctx context.Context, c redis.Cmdable) error {
		var cur uint64
		for {
			ks, next, err := c.Scan(ctx, cur, escape(q.p)+pattern, 1000).Result()
			if err != nil {
				return err
			}
			if err := f(ks); err != nil {
				return err
			}
			if cur = next; cur == 0 {
				return nil
			}
		}
	}
	if cc, ok := q.c.(*redis.ClusterClient); ok {
		m, err := cc.MasterForKey(ctx, q.key("c"))
		if err != nil {
			return err
		}
		return each(ctx, m)
	}
	return each(ctx, q.c)
}

// escape keeps the prefix from being read as a pattern.
func escape(s string) string {
	return strings.NewReplacer("[", `\[`, "]", `\]`, "*", `\*`, "?", `\?`).Replace(s)
}

func (a *audit) run() ([]string, error) {
	for _, part := range []struct {
		sort string
		look func(keys []string) error
	}{{"j", a.jobs}, {"l", a.lines}, {"u", a.users}, {"b", a.batches}} {
		if err := a.q.scan(a.ctx, part.sort+":*", part.look); err != nil {
			return nil, wrap("audit", err)
		}
	}
	return a.out, a.sets()
}

func (a *audit) jobs(keys []string) error {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = strings.TrimPrefix(k, a.q.key("j", ""))
	}
	hs, err := a.q.jobs(a.ctx, ids)
	if err != nil {
		return err
	}
	if len(hs) != len(ids) {
		a.say("a job without a status among %v", ids)
		return nil
	}
	p := a.q.c.Pipeline()
	type place struct {
		line  *redis.IntCmd
		lease *redis.StringCmd
		sets  map[queue.Status]*redis.FloatCmd
		held  *redis.FloatCmd
	}
	ps := make([]place, len(ids))
	for i, h := range hs {
		z := func(parts ...string) *redis.FloatCmd { return p.ZScore(a.ctx, a.q.key(parts...), ids[i]) }
		f, s := h.fixed(), h.state()
		ps[i] = place{line: p.LPos(a.ctx, a.q.key("l", f.class, f.pool, f.user), ids[i], redis.LPosArgs{}), lease: p.HGet(a.ctx, a.q.key("leases"), s.lease),
			held: z("held"), sets: map[queue.Status]*redis.FloatCmd{queue.Scheduled: z("later")}}
		for _, st := range statusCode {
			if st.Terminal() {
				ps[i].sets[st] = z("t", string(st))
			}
		}
	}
	if _, err := p.Exec(a.ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	for i, h := range hs {
		pl, f, s := ps[i], h.fixed(), h.state()
		var in []queue.Status
		if pl.line.Err() == nil {
			in = append(in, queue.Queued)
			a.inLine[f.class]++
		}
		if pl.held.Err() == nil {
			in = append(in, queue.Queued)
		}
		if pl.lease.Err() == nil && leaseOf(pl.lease.Val()) == ids[i] {
			in = append(in, queue.Leased)
			a.leased++
		}
		for st, z := range pl.sets {
			if z.Err() == nil {
				in = append(in, st)
			}
		}
		if len(in) != 1 || in[0] != s.status || (pl.held.Err() == nil) != s.held {
			a.say("job %s is %s (held: %v) but stands in %v", ids[i], s.status, s.held, in)
		}
		live := !s.status.Terminal()
		switch {
		case s.status == queue.Leased:
			a.userR[f.user]++
		case live && f.batch == "":
			a.userQ[f.user]++
			a.queued++
		}
		if s.status != queue.Leased && s.charged != 0 {
			a.say("job %s is %s with a charge left", ids[i], s.status)
		}
		if f.batch != "" && live {
			a.batch[f.batch]++
		}
	}
	return nil
}

// setBack is said of what looks the same, and does no harm, when the server's
// clock went back between a line's first job and a later one.
const setBack = " (unless the server's clock was set back meanwhile)"

func (a *audit) lines(keys []string) error {
	for _, k := range keys {
		f := strings.SplitN(strings.TrimPrefix(k, a.q.key("l", "")), ":", 3)
		if len(f) != 3 {
			continue
		}
		p := a.q.c.Pipeline()
		v, vp := p.ZScore(a.ctx, a.q.key("v", f[0], f[1]), f[2]), p.ZScore(a.ctx, a.q.key("vp", f[0], f[1]), f[2])
		u, bound, ids := p.Get(a.ctx, a.q.key("u", f[2])), p.ZScore(a.ctx, a.q.key("wt", f[0]), f[1]+":"+f[2]), p.LRange(a.ctx, k, 0, 999)
		if _, err := p.Exec(a.ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if (v.Err() == nil) == (vp.Err() == nil) {
			a.say("user %s has a line in %s %s and is not in its order exactly once", f[2], f[0], f[1])
		}
		if x := userOf(u.Val()).vt[f[0]]; v.Err() == nil && v.Val() != x {
			a.say("virtual time of %s in %s is %v and in the order %v", f[2], f[0], x, v.Val())
		}
		a.lined[f[0]]++
		a.pools[f[1]] = true
		hs, err := a.q.jobs(a.ctx, ids.Val())
		if err != nil {
			return err
		}
		last := 0.0
		for _, h := range hs {
			s := h.state()
			if s.seq <= last {
				a.say("a line of %s in %s %s is out of order at number %v", f[2], f[0], f[1], s.seq)
			}
			if bound.Err() != nil || bound.Val() > s.since {
				a.say("a job of %s in %s %s waits since %v, its line since %v%s", f[2], f[0], f[1], s.since, bound.Val(), setBack)
			}
			last = s.seq
		}
	}
	return nil
}

func (a *audit) users(keys []string) error {
	for _, k := range keys {
		u := strings.TrimPrefix(k, a.q.key("u", ""))
		v, err := a.q.c.Get(a.ctx, k).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		x := userOf(v)
		if int(x.queued) != a.userQ[u] || int(x.running) != a.userR[u] {
			a.say("user %s counts %v waiting and %v running, there are %d and %d", u, x.queued, x.running, a.userQ[u], a.userR[u])
		}
		delete(a.userQ, u)
		delete(a.userR, u)
	}
	return nil
}

func (a *audit) batches(keys []string) error {
	for _, k := range keys {
		id := strings.TrimPrefix(k, a.q.key("b", ""))
		n, err := a.q.c.HGet(a.ctx, k, "out").Int()
		if err != nil {
			return err
		}
		if n != a.batch[id] {
			a.say("batch %s counts %d live jobs, there are %d", id, n, a.batch[id])
		}
	}
	return nil
}

// sets compares the sizes of the indexes with what the jobs say.
func (a *audit) sets() error {
	for u, n := range a.userQ {
		a.say("user %s has %d waiting jobs and no record", u, n)
	}
	for u, n := range a.userR {
		a.say("user %s has %d running jobs and no record", u, n)
	}
	p := a.q.c.Pipeline()
	total, leases := p.Get(a.ctx, a.q.key("k")), p.HLen(a.ctx, a.q.key("leases"))
	sw, poison := p.HLen(a.ctx, a.q.key("sw")), p.HLen(a.ctx, a.q.key("poison"))
	lines := map[string]*redis.IntCmd{}
	for _, c := range queue.Classes {
		lines[string(c)] = p.ZCard(a.ctx, a.q.key("wt", string(c)))
	}
	if _, err := p.Exec(a.ctx); err != nil && !errors.Is(err, redis.Nil) {
		return wrap("audit", err)
	}
	t, pools := totalOf(total.Val())
	for p := range a.pools {
		if !strings.Contains(pools, "\n"+p+"\n") {
			a.say("pool %s has lines and is not listed", p)
		}
	}
	for _, x := range []struct {
		what       string
		counted, n int64
	}{
		{"waiting jobs", int64(t["waiting"]), int64(a.queued)}, {"leases", leases.Val(), int64(a.leased)},
		{"jobs in interactive lines", int64(t["ini"]), int64(a.inLine[string(queue.Interactive)])}, {"jobs in bulk lines", int64(t["inb"]), int64(a.inLine[string(queue.Bulk)])},
		{"interactive lines", lines[string(queue.Interactive)].Val(), int64(a.lined[string(queue.Interactive)])},
		{"bulk lines", lines[string(queue.Bulk)].Val(), int64(a.lined[string(queue.Bulk)])},
		{"switches", int64(t["sw"]), sw.Val()}, {"kinds of poison", int64(t["poison"]), poison.Val()},
	} {
		if x.counted != x.n {
			a.say("%d %s are counted, there are %d", x.counted, x.what, x.n)
		}
	}
	return nil
}
