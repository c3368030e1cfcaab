package redisq

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"dreamcad/queue"
)

// What every script reads and writes is packed into texts, as Lua's struct
// library does it: reading ten numbers that stand in one text costs the server
// a fraction of ten fields of a hash. The lists here are the only places that
// know the order; a field is name:form, with the form d for a number, B for a
// small one, and Bs, Hs, Is for a text behind its length of 1, 2 or 4 bytes. In
// a script `@name` stands for the fields as variables, `@name.f` for the format,
// `@name.w` for what is packed of the variables, `@name.z` for the text of a new
// record, `@name.t` for a table's fields made of the variables, `@name.x` for
// what is packed of a table x.
//
//	head, total     key k                    numbers of the whole queue
//	user            key u:<user>             a user's place in the order
//	state, fixed    key j:<id>               a job: what changes, what never does
//	born, grown     both together are state  as a submit leaves it, what follows
//	who             the first of fixed       what the steps need of it
//	lined           the first of who         what a submit needs of it
//	rest            the last of who          what is left of it for who knows class, pool and user
//	lease           a field of leases        a lease, before the job's id
var records = map[string]record{
	// done: jobs done (the scripts count on its being the first); seq: last sequence
	// number; waiting: queued and scheduled jobs without those of batches; poison:
	// entries of that hash; ini, inb: jobs in lines of the two classes.
	"head": fields("done:d seq:d waiting:d poison:d ini:d inb:d"),
	// fli, flb: virtual time that a class has reached; leases: handed out so far;
	// sw: switches; pools: those that have lines, each between line breaks.
	"total": fields("fli:d flb:d leases:d sw:d pools:Is=\n"),
	// qd, rn: queued and running (qd is counted on to be the first); w: weight, 0 if
	// not set; pz: paused; of the two classes vt.: virtual time in ns, -1 if none yet,
	// va.: when it changed, ln.: lines.
	"user":  fields("qd:d rn:d w:d pz:d vti:d=-1 vai:d lni:d vtb:d=-1 vab:d lnb:d"),
	"state": fields(born + grown),
	"born":  fields(born),
	"grown": fields(grown),
	"fixed": fields(who + " ln:Bs fp:Bs nonce:Bs"),
	"who":   fields(who),
	"lined": fields(line + batch),
	"rest":  fields(batch + rest),
	// bulk: 1 or 0; dl: deadline; eta: expected end, 0 if it holds no slot. The
	// padding makes it longer than 64 bytes: a hash of shorter texts would be kept
	// as a list and searched from the front.
	"lease": {f: "<Bdd" + strings.Repeat("x", leasePadding), names: "bulk, dl, eta", write: "bulk, dl, eta"},
}

const (
	// st: status (statusCode); hd: held; as: asked to yield in this attempt; sm: its
	// run time is a sample; sq: sequence number; sb: submitted; qs: in the line
	// since; ev: last event.
	born = "st:B hd:B as:B sm:B sq:d sb:d qs:d ev:d"
	// at: attempt; sa: started; du: due (deadline, or not before); es: estimate; ch:
	// charged; ud: used; en: ended; li: lease; wo: worker and its name; qt: quotas.
	grown = " at:d sa:d du:d es:d ch:d ud:d en:d li:Bs wo:Hs qt:Hs"
	// cl: class; po: pool; us: user; ba: batch; so: sort; tail: what events take over,
	// private, user and origin a line each. Then ln: line, fp: fingerprint, nonce of the submit.
	who   = line + batch + rest
	line  = "cl:Bs po:Bs us:Bs"
	batch = " ba:Bs"
	rest  = " so:Bs tail:Is"
)

const leasePadding = 48

// record is what stands in a script for `@name` and its forms.
type record struct{ f, names, write, empty string }

func fields(spec string) record {
	var names, write []string
	var empty []byte
	r := record{f: "<"}
	for s := range strings.FieldsFuncSeq(spec, func(c rune) bool { return c == ' ' }) {
		s, first, _ := strings.Cut(s, "=")
		name, form, _ := strings.Cut(s, ":")
		names = append(names, name)
		if form == "d" {
			x := 0.0
			if first == "-1" {
				x = -1
			}
			r.f, write, empty = r.f+"d", append(write, name), binary.LittleEndian.AppendUint64(empty, math.Float64bits(x))
			continue
		}
		if form[1:] == "s" {
			r.f, write = r.f+form[:1]+"c0", append(write, "#"+name, name)
		} else {
			r.f, write = r.f+form, append(write, name)
		}
		size := map[byte]int{'B': 1, 'H': 2, 'I': 4}[form[0]]
		empty = append(append(empty, binary.LittleEndian.AppendUint32(nil, uint32(len(first)))[:size]...), first...)
	}
	r.names, r.write = strings.Join(names, ", "), strings.Join(write, ", ")
	var b strings.Builder
	for _, c := range empty {
		fmt.Fprintf(&b, "\\%03d", c)
	}
	r.empty = "'" + b.String() + "'"
	return r
}

// in gives what `@name.form` stands for.
func (r *record) in(form string) string {
	switch form {
	case "f":
		return r.f
	case "w":
		return r.write
	case "z":
		return r.empty
	case "t":
		return word.ReplaceAllString(r.names, "$0=$0")
	case "x":
		return word.ReplaceAllString(r.write, "x.$0")
	}
	return r.names
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

// size reads a whole number of n bytes.
func (u *unpack) size(n int) int {
	var b [8]byte
	copy(b[:], u.text(n))
	return int(binary.LittleEndian.Uint32(b[:]))
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
	seq, submitted, since, lastEvent, attempt, started, due, estimate, charged, used, ended float64
	lease, worker                                                                           string
}

// stateOf reads a job's record; it returns what stands behind the state, too.
func stateOf(s string) (state, string) {
	u := unpack(s)
	x := state{status: statusOf(int64(u.size(1))), held: u.size(1) == 1}
	u.text(2)
	u.floats(&x.seq, &x.submitted, &x.since, &x.lastEvent, &x.attempt, &x.started, &x.due, &x.estimate, &x.charged, &x.used, &x.ended)
	x.lease = u.text(u.size(1))
	x.worker, _, _ = strings.Cut(u.text(u.size(2)), "\n")
	u.text(u.size(2))
	return x, string(u)
}

// fixed are the parts of a job that the scripts need and that never change.
type fixed struct{ private, user, origin, batch, sort, class, pool, line, fingerprint, nonce string }

// pack makes the record. No part but the origin can be longer than 255 bytes:
// requests are checked before.
func (f *fixed) pack() []byte {
	b := make([]byte, 0, len(f.origin)+512)
	for _, s := range [...]string{f.class, f.pool, f.user, f.batch, f.sort} {
		b = append(append(b, byte(len(s))), s...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(f.private)+len(f.user)+len(f.origin)+2))
	b = append(append(b, f.private...), '\n')
	b = append(append(b, f.user...), '\n')
	b = append(b, f.origin...)
	for _, s := range [...]string{f.line, f.fingerprint, f.nonce} {
		b = append(append(b, byte(len(s))), s...)
	}
	return b
}

// fixedOf reads what stands behind a job's state.
func fixedOf(m string) (f fixed) {
	u := unpack(m)
	for _, p := range [...]*string{&f.class, &f.pool, &f.user, &f.batch, &f.sort} {
		*p = u.text(u.size(1))
	}
	tail := u.text(u.size(4))
	f.private, tail, _ = strings.Cut(tail, "\n")
	_, f.origin, _ = strings.Cut(tail, "\n")
	for _, p := range [...]*string{&f.line, &f.fingerprint, &f.nonce} {
		*p = u.text(u.size(1))
	}
	return f
}

// userRecord is what the audit looks at of a user's record.
type userRecord struct {
	queued, running float64
	vt              map[string]float64
}

func userOf(s string) userRecord {
	u := unpack(s)
	var x userRecord
	var w, paused, at, lines, i, b float64
	u.floats(&x.queued, &x.running, &w, &paused, &i, &at, &lines, &b)
	x.vt = map[string]float64{string(queue.Interactive): i, string(queue.Bulk): b}
	return x
}

// totalOf gives the numbers of the whole queue by name, and the pools that have lines.
func totalOf(s string) (map[string]float64, string) {
	u := unpack(s)
	x := map[string]float64{}
	for _, r := range []string{"head", "total"} {
		r := records[r]
		for _, name := range strings.Split(r.names, ", ") {
			if name != "pools" {
				x[name] = u.float()
			}
		}
	}
	return x, u.text(u.size(4))
}

// leaseOf is the job of a lease.
func leaseOf(s string) string {
	const numbers = 1 + 2*8
	return s[min(numbers+leasePadding, len(s)):]
}
