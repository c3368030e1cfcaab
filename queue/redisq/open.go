// Package redisq keeps the queue in Redis (7.0 or newer, Valkey, managed
// servers; single, Sentinel or Cluster). Every change is one Lua script.
package redisq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"dreamcad/queue"
	"dreamcad/queue/internal/order"
	"dreamcad/queue/internal/refuse"
)

// schemaVersion is the layout of the keys.
const schemaVersion = 4

// Queue is the Redis backend; it fulfils [queue.Queue].
type Queue struct {
	cfg   queue.Config
	o     Options
	c     redis.UniversalClient
	calls collector
	p     string   // prefix with the hash tag
	slot  []string // the key that routes to it
	s     scripts
	mu    sync.Mutex
	seen  map[string]time.Time // worker name → when it was registered last
}

var _ queue.Queue = (*Queue)(nil)

// Options say where the server is.
type Options struct {
	redis.UniversalOptions
	// Prefix names the queue on the server (default "dream"); it becomes the hash tag.
	Prefix string
	// WaitReplicas makes submit and complete wait for that many replicas.
	WaitReplicas int
	// TestClock lets a test move the server's clock with ShiftClock.
	TestClock bool
}

// ParseURL reads
//
//	redis://[user:password@]host:6379[/db]                 one server (rediss: TLS)
//	redis+sentinel://[user:password@]h1:26379,h2:26379/MASTER[/db]
//	redis+cluster://[user:password@]h1:6379,h2:6379
//
// with the options ?prefix=…&wait_replicas=N&sentinel_password=…
func ParseURL(raw string) (Options, error) {
	var o Options
	bad := func(why string) (Options, error) {
		return Options{}, fmt.Errorf("queue URL (redis): %s; want redis://host:6379/0, redis+sentinel://h1,h2/MASTER or redis+cluster://h1,h2", why)
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return bad("no scheme")
	}
	// url.Parse refuses several hosts with ports; they are taken apart by hand.
	auth, hosts := "", rest
	path := ""
	if i := strings.IndexAny(hosts, "/?"); i >= 0 {
		hosts, path = hosts[:i], hosts[i:]
	}
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		auth, hosts = hosts[:i+1], hosts[i+1:]
	}
	u, err := url.Parse("redis://" + auth + "h" + path)
	if err != nil {
		return bad("cannot be parsed") // without the cause: it could show the password
	}
	o.Username = u.User.Username()
	o.Password, _ = u.User.Password()
	base, mode, _ := strings.Cut(scheme, "+")
	switch base {
	case "rediss":
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	case "redis":
	default:
		return bad("unknown scheme " + strconv.Quote(scheme))
	}
	port := "6379"
	parts := strings.FieldsFunc(u.Path, func(r rune) bool { return r == '/' })
	switch mode {
	case "":
	case "sentinel":
		port = "26379"
		if len(parts) == 0 {
			return bad("Sentinel needs the master's name")
		}
		o.MasterName, parts = parts[0], parts[1:]
	case "cluster":
		o.IsClusterMode = true
	default:
		return bad("unknown scheme " + strconv.Quote(scheme))
	}
	if len(parts) > 0 {
		if o.DB, err = strconv.Atoi(parts[0]); err != nil || len(parts) > 1 {
			return bad("the path is not a database number")
		}
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if h == "" {
			return bad("no host")
		}
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), port)
		}
		o.Addrs = append(o.Addrs, h)
	}
	if o.TLSConfig != nil {
		o.TLSConfig.ServerName, _, _ = net.SplitHostPort(o.Addrs[0])
	}
	for k, v := range u.Query() {
		switch k {
		case "prefix":
			o.Prefix = v[0]
		case "sentinel_password":
			o.SentinelPassword = v[0]
		case "wait_replicas":
			if o.WaitReplicas, err = strconv.Atoi(v[0]); err != nil || o.WaitReplicas < 0 {
				return bad("wait_replicas is not a number")
			}
		default:
			return bad("unknown option " + strconv.Quote(k))
		}
	}
	return o, nil
}

// Open connects, loads the scripts and checks the layout's version.
func Open(ctx context.Context, cfg queue.Config, o Options) (*Queue, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if o.Prefix == "" {
		o.Prefix = "dream"
	}
	if strings.ContainsAny(o.Prefix, "{}'\\\n") {
		return nil, fmt.Errorf("queue prefix %q: braces, quotes and backslashes are not possible", o.Prefix)
	}
	o.ContextTimeoutEnabled = true
	if o.ReadTimeout == 0 {
		o.ReadTimeout = 3 * time.Second
	}
	if o.MinRetryBackoff == 0 {
		o.MinRetryBackoff, o.MaxRetryBackoff = 20*time.Millisecond, 500*time.Millisecond
	}
	q := &Queue{cfg: cfg, o: o, c: redis.NewUniversalClient(&o.UniversalOptions), p: "{" + o.Prefix + "}:", seen: map[string]time.Time{}}
	q.s, q.slot = q.newScripts(), []string{q.key("c")}
	q.calls.c = q.c
	if err := q.begin(ctx); err != nil {
		return nil, errors.Join(err, q.c.Close())
	}
	return q, nil
}

func (q *Queue) begin(ctx context.Context) error {
	v, err := q.c.SetNX(ctx, q.p+"schema", schemaVersion, 0).Result()
	if err != nil {
		return wrap("open queue", err)
	}
	if !v {
		n, err := q.c.Get(ctx, q.p+"schema").Int()
		if err != nil {
			return wrap("open queue", err)
		}
		if n != schemaVersion {
			return &queue.Error{Code: queue.CodeVersion, Doing: "open queue",
				Sentence: fmt.Sprintf("The data on this Redis has schema %d and this program knows %d: run matching versions, or give this one another prefix.", n, schemaVersion)}
		}
	}
	return q.loadScripts(ctx)
}

// Close closes the connections.
func (q *Queue) Close() error { return q.c.Close() }

func (q *Queue) key(parts ...string) string { return q.p + strings.Join(parts, ":") }

// source makes a script of a body: before it the functions of the prelude that
// it needs, behind it what writes the records back.
func (q *Queue) source(body string) string {
	return q.fold(needed(body, "flush") + "local function main()\n" + body + "\nend\nlocal r = main()\nflush()\nreturn r")
}

// hot makes a script of a body that stands on its own: the functions of the
// prelude are made only when it calls `rest`.
func (q *Queue) hot(body string) string {
	if q.cfg.RunningPerUser == 0 {
		body = limited.ReplaceAllString(body, "")
	}
	clock := "local t = call('TIME')\nlocal ms = t[1] * 1000 + t[2] / 1000"
	accept := "tonumber(string.sub(call('XADD', P .. 'ev', '*', 'i', id, 'f', m), 1, 13))"
	if q.o.TestClock {
		clock = "local ms = rest('now')\nlocal t = {string.format('%d', ms / 1000), string.format('%d', ms % 1000 * 1000)}"
		accept = "rest('now')\ncall('XADD', P .. 'ev', '*', 'i', id, 'f', m, 't', string.format('%d', came))"
	}
	body = strings.NewReplacer("CLOCK", clock, "ACCEPT", accept, "FIELDS", "'"+strings.Join(rareFields, "','")+"'").Replace(body)
	var names, table []string
	for _, m := range resting.FindAllStringSubmatch(body, -1) {
		if !slices.Contains(names, m[1]) {
			names, table = append(names, m[1]), append(table, m[1]+"="+m[1])
		}
	}
	if names != nil {
		body = "local function rest(name, ...)\n" + needed(append(names, "flush")...) +
			"local r = ({" + strings.Join(table, ", ") + "})[name](...)\nflush()\nreturn r\nend\n" + body
	}
	return q.fold("local call = redis.call\n" + body)
}

// fold puts prefix, constants and records in their places.
func (q *Queue) fold(s string) string {
	shift := "local shift\n"
	if q.o.TestClock {
		shift = "local function shift() return tonumber(redis.call('GET', P .. 'shift') or 0) end\n"
	}
	s = strings.ReplaceAll(shift+s, "P .. '", "'"+q.p)
	s = recordForm.ReplaceAllStringFunc(s, func(form string) string {
		name, what, _ := strings.Cut(form[1:], ".")
		r, ok := records[name]
		if !ok {
			panic("no record " + form) // a typing error in a script
		}
		return r.in(what)
	})
	numbers, texts := q.constants()
	return constant.ReplaceAllStringFunc(s, func(name string) string {
		v := numbers[name[2:]]
		if name[0] == 'S' {
			v = texts[name[2:]]
		}
		if v == "" {
			panic("no constant " + name)
		}
		return v
	})
}

var (
	recordForm = regexp.MustCompile(`@[a-z]+(\.[fwztx]\b)?`)
	resting    = regexp.MustCompile(`\brest\('(\w+)'`)
)

var limited = regexp.MustCompile(`(?m)^.*-- limited$`)

var constant = regexp.MustCompile(`\b[CS]\.\w+`)

// constants are what stands for C.… and S.… in the scripts.
func (q *Queue) constants() (numbers, texts map[string]string) {
	c := &q.cfg
	numbers = map[string]string{"estviews": fmt.Sprint(c.EstimateViews), "estmesh": fmt.Sprint(c.EstimateMesh)}
	for name, d := range map[string]time.Duration{"lease": c.Lease, "keylife": c.KeyLife, "halflife": c.HalfLife, "bulkafter": c.BulkAfter,
		"yieldafter": c.YieldAfter, "yieldhorizon": c.YieldHorizon, "yieldgap": c.YieldGap, "base": c.BackoffBase, "max": c.BackoffMax, "keepage": c.KeepAge} {
		numbers[name] = strconv.FormatInt(d.Milliseconds(), 10)
	}
	for name, n := range map[string]int{"running": c.RunningPerUser, "queueduser": c.QueuedPerUser, "queuedall": c.QueuedTotal, "bulkevery": c.BulkEvery,
		"failures": c.MaxFailures, "crashes": c.MaxCrashes, "keepcount": c.KeepCount, "keepbatch": max(c.KeepBatch, 1), "keepevents": c.KeepEvents,
		"samples": order.MaxSamples, "reasons": maxReasons, "others": maxOthers} {
		numbers[name] = strconv.Itoa(n)
	}
	return numbers, map[string]string{"quarantined": lua(encode(extra{Message: refuse.SentenceQuarantined})), "quarantinedText": lua(refuse.SentenceQuarantined),
		"lost": lua(`{"kind":"crash","detail":"the lease ran out without a heartbeat","worker":`)}
}

// lua quotes a constant text.
func lua(s string) string { return "[==[" + s + "]==]" }

const (
	maxReasons = 1000
	maxOthers  = 1000
)

// ShiftClock moves the clock that the scripts see; it needs Options.TestClock.
func (q *Queue) ShiftClock(ctx context.Context, by time.Duration) error {
	if !q.o.TestClock {
		return errors.New("queue: the clock can only be shifted with Options.TestClock")
	}
	return q.c.IncrBy(ctx, q.key("shift"), by.Milliseconds()).Err()
}

type scripts struct {
	submit, cancel, lease, beat, complete, fail, back, tick                        *redis.Script
	weight, sw, requeue, release, forget, place, stats, leased, cursor, ack, raise *redis.Script
	put, del, keys, add, refund, lock, batchCreate, feed, batchCancel, batchRetry  *redis.Script
}

func (q *Queue) newScripts() scripts {
	n := func(body string) *redis.Script { return redis.NewScript(q.source(body)) }
	hot := func(body string) *redis.Script { return redis.NewScript(q.hot(body)) }
	return scripts{
		submit: hot(submitLua), lease: hot(leaseLua), complete: hot(completeLua),
		cancel: n(cancelLua), beat: n(beatLua), fail: n(failLua), back: n(backLua), tick: n(tickLua), weight: n(weightLua),
		sw: n(switchLua), requeue: n(requeueLua), release: n(releaseLua), forget: n(forgetLua), place: n(placeLua), stats: n(statsLua), leased: n(leasedLua),
		cursor: n(cursorLua), ack: n(ackLua), raise: n(raiseLua), put: n(putLua), del: n(deleteLua), keys: n(keysLua), add: n(addLua), refund: n(refundLua),
		lock: n(lockLua), batchCreate: n(batchCreateLua), feed: n(feedLua), batchCancel: n(batchCancelLua), batchRetry: n(batchRetryLua),
	}
}

var (
	preludeParts = regexp.MustCompile(`(?m)^(?:-- .*\n)*local `)
	functionName = regexp.MustCompile(`(?m)^local function (\w+)`)
	word         = regexp.MustCompile(`\w+`)
)

// needed returns the part of the prelude that texts use: a function that is
// not there need not be made at each call.
func needed(texts ...string) string {
	at := preludeParts.FindAllStringIndex(prelude, -1)
	var out []string
	want := map[string]bool{}
	for _, w := range word.FindAllString(strings.Join(texts, " "), -1) {
		want[w] = true
	}
	for i := len(at) - 1; i >= 0; i-- { // a function uses only what stands above it
		end := len(prelude)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		part := prelude[at[i][0]:end]
		if m := functionName.FindStringSubmatch(part); m != nil && !want[m[1]] {
			continue
		}
		for _, w := range word.FindAllString(part, -1) {
			want[w] = true
		}
		out = append(out, part)
	}
	slices.Reverse(out)
	return strings.Join(out, "")
}

// loadScripts brings the scripts of the hot path into the server's cache; the
// others follow at their first call.
func (q *Queue) loadScripts(ctx context.Context) error {
	for _, s := range []*redis.Script{q.s.submit, q.s.lease, q.s.beat, q.s.complete, q.s.back} {
		if err := s.Load(ctx, q.c).Err(); err != nil {
			return wrap("load scripts", err)
		}
	}
	return nil
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// wrap turns driver errors into the contract's.
func wrap(doing string, err error) error {
	if err == nil || queue.CodeOf(err) != "" {
		return err
	}
	s := err.Error()
	if strings.HasPrefix(s, "OOM ") || strings.HasPrefix(s, "MISCONF ") {
		return &queue.Error{Code: queue.CodeFull, Doing: doing, Err: err, Sentence: "The queue's server has no room left, so this was not accepted; the operators have to make room."}
	}
	return queue.Unavailable(doing, err)
}

// Refusal tells people why a Redis could not be used, as the end of a sentence
// that begins with its address.
func Refusal(err error) string {
	var said redis.Error
	if !errors.As(err, &said) {
		return "does not answer (is it running, is queue.url right?)"
	}
	switch word, _, _ := strings.Cut(said.Error(), " "); word {
	case "NOAUTH":
		return "wants a password, which queue.url does not name"
	case "WRONGPASS":
		return "refuses the user or the password of queue.url"
	case "NOPERM":
		return "forbids the user of queue.url what the queue needs"
	case "READONLY":
		return "is a replica and takes no writes (queue.url has to name the primary, or to use the Sentinel form)"
	case "LOADING":
		return "is still reading its data from disk"
	default:
		return "answers with an error"
	}
}

// durable waits for the replicas that Options ask for, after a write.
func (q *Queue) durable(ctx context.Context, doing string) error {
	if q.o.WaitReplicas == 0 {
		return nil
	}
	// A no-op write on the same connection would be needed for a strict
	// guarantee; a later offset on another connection covers the write too,
	// because the script's reply came before.
	conn := q.conn()
	if conn == nil {
		return nil // Cluster: no single connection to wait on
	}
	defer conn.Close()
	pipe := conn.Pipeline()
	pipe.HIncrBy(ctx, q.key("c"), "waited", 1)
	w := pipe.Do(ctx, "WAIT", q.o.WaitReplicas, 1000)
	if _, err := pipe.Exec(ctx); err != nil {
		return wrap(doing, err)
	}
	n, err := w.Int()
	if err == nil && n < q.o.WaitReplicas {
		err = fmt.Errorf("%d of %d replicas confirmed", n, q.o.WaitReplicas)
	}
	return wrap(doing, err)
}

func (q *Queue) conn() *redis.Conn {
	if c, ok := q.c.(*redis.Client); ok {
		return c.Conn()
	}
	return nil
}
