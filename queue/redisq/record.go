package redisq

import (
	"encoding/binary"
	"math"
	"strings"

	"dreamcad/queue"
)

// What every script reads and writes is packed into one text each, as Lua's
// struct library does it: reading ten numbers that stand in one text costs the
// server a fraction of ten fields. The lists here are the only places that
// know the order; in a script `@name` stands for the fields as variables,
// `@name.f` for the format, `@name.w` for what is packed of the variables,
// `@name.0` for the fields of a record that is not there yet, `@name.t` for
// the fields of a table made of the variables, `@name.x` for what is packed of
// a table x.
//
//	total  key k            numbers of the whole queue
//	user   key u:<user>     a user's place in the order
//	state  field s of j:…   what changes of every job
//	fixed  field m of j:…   what never changes of a job
//	lease  field of leases  a lease
var records = map[string]record{
	// seq: last sequence number; waiting: queued and scheduled jobs without those of
	// batches; leases: handed out so far; fli, flb: virtual time that a class has
	// reached; sw, poison: entries of those hashes; ini, inb: jobs in lines; done: jobs done.
	"total": numbers("seq waiting leases fli flb sw poison ini inb done"),
	// w: weight (0: not set); qd, rn: queued and running; pz: paused; for the two
	// classes vt.: virtual time (-1: none yet), va.: when it changed, ln.: lines.
	"user": numbers("w qd rn pz vti vai lni vtb vab lnb", "vti", "-1", "vtb", "-1"),
	// st: status (statusCode); hd: held; as: asked to yield in this attempt; sm: its
	// run time is a sample; sq: sequence number; sb: submitted; qs: in the line
	// since; at: attempt; sa: started; du: due (deadline, or not before); es:
	// estimate; ch: charged; ud: used; ev: last event; en: ended; li: lease; qt: quotas.
	"state": {f: "<BBBBdddddddddddBc0Hc0", names: "st, hd, as, sm, sq, sb, qs, at, sa, du, es, ch, ud, ev, en, li, qt",
		write: "st, hd, as, sm, sq, sb, qs, at, sa, du, es, ch, ud, ev, en, #li, li, #qt, qt", none: "0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', ''"},
	// nonce of the submit, class, pool, sort, batch, line, user, fingerprint; behind
	// them what events take over: private, user, origin, a line each.
	"fixed": {f: "<Bc0Bc0Bc0Bc0Bc0Bc0Bc0Bc0", names: "nonce, cl, po, so, ba, ln, us, fp, pos"},
	// bulk: 1 or 0; dl: deadline; eta: expected end, 0 if it holds no slot; then the job's id.
	"lease": {f: "<Bdd", names: "bulk, dl, eta, pos"},
}

type record struct{ f, names, write, none string }

// in gives what `@name.form` stands for.
func (r *record) in(form string) string {
	switch form {
	case "f":
		return r.f
	case "w":
		return r.write
	case "0":
		return r.none
	case "t":
		return word.ReplaceAllString(strings.TrimSuffix(r.names, ", pos"), "$0=$0")
	case "x":
		return word.ReplaceAllString(r.write, "x.$0")
	}
	return r.names
}

// numbers is a record of numbers, all 0 at first but those that defaults name.
func numbers(names string, defaults ...string) record {
	fs := strings.Fields(names)
	none := make([]string, len(fs))
	for i, f := range fs {
		none[i] = "0"
		for d := 0; d < len(defaults); d += 2 {
			if defaults[d] == f {
				none[i] = defaults[d+1]
			}
		}
	}
	r := record{f: "<" + strings.Repeat("d", len(fs)), names: strings.Join(fs, ", "), none: strings.Join(none, ", ")}
	r.write = r.names
	return r
}

// statusCode is a status's number in a record, from 1 on.
var statusCode = []queue.Status{"", queue.Queued, queue.Scheduled, queue.Leased, queue.Done, queue.Failed, queue.Cancelled, queue.Quarantined}

func statusOf(code int64) queue.Status {
	if code < 0 || code >= int64(len(statusCode)) {
		return ""
	}
	return statusCode[code]
}

// unpack reads a record that a script packed; what is missing reads as "" or 0.
type unpack string

func (u *unpack) byte() int {
	if len(*u) < 1 {
		return 0
	}
	b := (*u)[0]
	*u = (*u)[1:]
	return int(b)
}

func (u *unpack) float() float64 {
	if len(*u) < 8 {
		return 0
	}
	x := math.Float64frombits(binary.LittleEndian.Uint64([]byte((*u)[:8])))
	*u = (*u)[8:]
	return x
}

func (u *unpack) text(n int) string {
	n = min(n, len(*u))
	s := string((*u)[:n])
	*u = (*u)[n:]
	return s
}

func (u *unpack) floats(to ...*float64) {
	for _, x := range to {
		*x = u.float()
	}
}

// state is the record of what changes of every job; times are in milliseconds.
type state struct {
	status                                                                                  queue.Status
	held                                                                                    bool
	seq, submitted, since, attempt, started, due, estimate, charged, used, lastEvent, ended float64
	lease                                                                                   string
}

func stateOf(s string) state {
	u := unpack(s)
	x := state{status: statusOf(int64(u.byte())), held: u.byte() == 1}
	u.text(2)
	u.floats(&x.seq, &x.submitted, &x.since, &x.attempt, &x.started, &x.due, &x.estimate, &x.charged, &x.used, &x.lastEvent, &x.ended)
	x.lease = u.text(u.byte())
	return x
}

// fixed are the parts of a job that the scripts need and that never change.
type fixed struct{ nonce, class, pool, sort, batch, line, user, fingerprint, private, origin string }

// pack is the record that goes into the job's hash. No part but the origin can
// be longer than 255 bytes: requests are checked before.
func (f *fixed) pack() string {
	var b strings.Builder
	for _, s := range []string{f.nonce, f.class, f.pool, f.sort, f.batch, f.line, f.user, f.fingerprint} {
		b.WriteByte(byte(len(s)))
		b.WriteString(s)
	}
	b.WriteString(f.private + "\n" + f.user + "\n" + f.origin)
	return b.String()
}

func fixedOf(m string) (f fixed) {
	u := unpack(m)
	for _, p := range []*string{&f.nonce, &f.class, &f.pool, &f.sort, &f.batch, &f.line, &f.user, &f.fingerprint} {
		*p = u.text(u.byte())
	}
	return f
}

// userRecord is what the audit looks at of a user's record.
type userRecord struct {
	weight, queued, running, paused float64
	vt                              map[string]float64
}

func userOf(s string) userRecord {
	u := unpack(s)
	var x userRecord
	var at, lines, i, b float64
	u.floats(&x.weight, &x.queued, &x.running, &x.paused, &i, &at, &lines, &b)
	x.vt = map[string]float64{string(queue.Interactive): i, string(queue.Bulk): b}
	return x
}

// totalOf gives the numbers of the whole queue by name.
func totalOf(s string) map[string]float64 {
	u, r := unpack(s), records["total"]
	x := map[string]float64{}
	for _, name := range strings.Split(r.names, ", ") {
		x[name] = u.float()
	}
	return x
}

// leaseOf is the job of a lease.
func leaseOf(s string) string {
	const numbers = 1 + 2*8
	return s[min(numbers, len(s)):]
}
