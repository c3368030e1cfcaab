package queuetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dreamcad/queue"
)

func capabilities(b *bench) {
	m := b.submit(Request("anna", "mesh"))
	r := Request("anna", "views")
	r.Kind = queue.Views
	v := b.submit(r)
	r = Request("anna", "big")
	r.Model = "mvdream-sd21"
	big := b.submit(r)
	r = Request("anna", "any")
	r.Model = ""
	whatever := b.submit(r)
	c := Caps("w")
	c.Kinds, c.Beside = []queue.Kind{queue.Views}, true
	l, err := b.q.Lease(b.ctx, c)
	b.ok(err)
	if l.Job.ID != v {
		b.t.Fatalf("views worker got %q", l.Job.Prompt)
	}
	b.empty(c)
	got := []string{b.lease("w").Job.ID, b.lease("w").Job.ID}
	if !slices.Equal(got, []string{m, whatever}) {
		b.t.Fatalf("mini worker got %v", got)
	}
	b.empty(Caps("w"))
	c = Caps("w")
	c.Models = []string{"mvdream-sd21"}
	l, err = b.q.Lease(b.ctx, c)
	b.ok(err)
	if l.Job.ID != big {
		b.t.Fatalf("sd21 worker got %q", l.Job.Prompt)
	}
}

func classes(b *bench) {
	b.submit(bulk("anna", "bulk"))
	b.submit(Request("ben", "chat"))
	if l := b.lease("w"); l.Job.Prompt != "chat" {
		b.t.Fatalf("first lease: %q", l.Job.Prompt)
	}
	c := Caps("w")
	c.Classes = []queue.Class{queue.Interactive}
	b.empty(c)
	if l := b.lease("w"); l.Job.Prompt != "bulk" {
		b.t.Fatalf("second lease: %q", l.Job.Prompt)
	}
}

// served runs n jobs to their end, each taking sec GPU-seconds, and tells whose they were.
func (b *bench) served(n int, sec float64) string {
	b.t.Helper()
	s := ""
	for range n {
		l := b.lease("w")
		s += l.Job.Requester.ID
		b.complete(l, sec)
	}
	return s
}

func fairOrder(b *bench) {
	for i := range 4 {
		b.submit(Request("a", fmt.Sprint(i)))
	}
	if s := b.served(1, 100); s != "a" {
		b.t.Fatal(s)
	}
	for i := range 3 { // b comes later and still gets every other turn
		b.submit(Request("b", fmt.Sprint(i)))
	}
	if s := b.served(6, 100); s != "bababa" && s != "ababab" && s != "baabab" && s != "babaab" {
		b.t.Fatalf("order %q", s)
	}
	// Long jobs count more: c's take 300 s, d's 100 s.
	for i := range 12 {
		b.submit(Request("c", fmt.Sprint(i)))
		b.submit(Request("d", fmt.Sprint(i)))
	}
	n := map[string]int{}
	for range 12 {
		l := b.lease("w")
		n[l.Job.Requester.ID]++
		sec := 100.0
		if l.Job.Requester.ID == "c" {
			sec = 300
		}
		b.complete(l, sec)
	}
	if n["d"] < 7 || n["c"] < 2 {
		b.t.Fatalf("shares %v, want d about three times c", n)
	}
	// The estimate is charged at the lease: no flood before the first ends.
	for i := range 3 {
		b.submit(Request("e", fmt.Sprint(i)))
		b.submit(Request("f", fmt.Sprint(i)))
	}
	_, err := b.q.Cancel(b.ctx, b.lease("w").Job.ID)
	b.ok(err)
}

func weights(b *bench) {
	b.ok(b.q.SetWeight(b.ctx, "test:b", 3))
	b.code(b.q.SetWeight(b.ctx, "test:b", 0), queue.CodeInvalid)
	for i := range 16 {
		b.submit(Request("a", fmt.Sprint(i)))
		b.submit(Request("b", fmt.Sprint(i)))
	}
	s := b.served(16, 60)
	if n := strings.Count(s, "b"); n < 11 || n > 13 {
		b.t.Fatalf("b with weight 3 got %d of 16: %s", n, s)
	}
}

func noCredit(b *bench) {
	b.submit(Request("a", "0")) // a was here, long ago
	b.served(1, 10)
	for i := range 20 {
		b.submit(Request("b", fmt.Sprint(i)))
	}
	b.served(10, 100)
	for i := range 8 {
		b.submit(Request("a", fmt.Sprint(i)))
	}
	if s := b.served(8, 100); strings.Count(s, "a") > 5 {
		b.t.Fatalf("a used up credit from absence: %s", s)
	}
}

// A clock that goes back must not make the decay of debt a growth.
func debtAndClock(b *bench) {
	b.submit(Request("a", "0"))
	b.served(1, 100)
	b.Advance(-12 * time.Hour)
	b.submit(Request("a", "1"))
	b.submit(Request("c", "0"))
	if s := b.served(1, 200); s != "c" {
		b.t.Fatalf("order %q, c owes nothing", s)
	}
	b.submit(Request("c", "1"))
	if s := b.served(2, 1); s != "ac" {
		b.t.Fatalf("order %q, a owes 100 s and c 200 s", s)
	}
}

func bulkAges(b *bench) {
	for i := range 3 {
		b.submit(bulk("a", fmt.Sprint("bulk", i)))
	}
	for i := range 12 {
		b.submit(Request("b", fmt.Sprint("chat", i)))
	}
	if s := b.served(3, 1); s != "bbb" {
		b.t.Fatalf("order %q", s)
	}
	b.Advance(31 * time.Minute)
	if s := b.served(9, 1); strings.Count(s, "a") != 3 {
		b.t.Fatalf("order after 31 minutes: %q, want every third for bulk", s)
	}
}

func place(b *bench) {
	for range 6 { // six samples of 100 s
		b.submit(Request("s", "x"))
		b.complete(b.lease("w"), 100)
	}
	ids := map[string]string{}
	for _, u := range []string{"a", "b", "c"} {
		for i := range 2 {
			ids[fmt.Sprint(u, i)] = b.submit(Request(u, fmt.Sprint(i)))
		}
	}
	order := map[string]int{}
	for n, id := range ids {
		p, err := b.q.Place(b.ctx, id)
		b.ok(err)
		order[n] = p.Position
		if !p.Known || p.Slots != 1 || p.StartHigh < p.StartLow || p.RunLow != 100*time.Second {
			b.t.Fatalf("%s: %+v", n, p)
		}
	}
	// First jobs of all before second ones of any.
	for _, u := range []string{"a", "b", "c"} {
		if order[u+"0"] > 3 || order[u+"1"] < 4 {
			b.t.Fatalf("positions %v", order)
		}
	}
	bid := b.submit(bulk("z", "bulk"))
	p, err := b.q.Place(b.ctx, bid)
	b.ok(err)
	if p.Position != 7 || p.Status != queue.Queued {
		b.t.Fatalf("bulk behind six: %+v", p)
	}
	l := b.lease("w")
	p, err = b.q.Place(b.ctx, l.Job.ID)
	b.ok(err)
	if p.Position != 0 || p.Status != queue.Leased {
		b.t.Fatalf("running: %+v", p)
	}
	b.ok(b.q.Pause(b.ctx, queue.AllJobs, "", ""))
	p, err = b.q.Place(b.ctx, bid)
	b.ok(err)
	if p.Paused == "" || p.StartLow < 50*time.Second {
		b.t.Fatalf("paused: %+v", p)
	}
	_, err = b.q.Place(b.ctx, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
	b.code(err, queue.CodeNotFound)
}
