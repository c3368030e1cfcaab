package queuetest

import (
	"slices"
	"time"

	"dreamcad/queue"
)

func records(b *bench) {
	_, err := b.q.Get(b.ctx, "bot/x")
	b.code(err, queue.CodeNotFound)
	r1, err := b.q.Put(b.ctx, "bot/x", []byte("one\x00\xff"), "", 0)
	b.ok(err)
	_, err = b.q.Put(b.ctx, "bot/x", []byte("two"), "", 0)
	b.code(err, queue.CodeConflict)
	r2, err := b.q.Put(b.ctx, "bot/x", []byte("two"), r1.Version, 0)
	b.ok(err)
	_, err = b.q.Put(b.ctx, "bot/x", []byte("three"), r1.Version, 0)
	b.code(err, queue.CodeConflict)
	got, err := b.q.Get(b.ctx, "bot/x")
	if err != nil || string(got.Value) != "two" || got.Version != r2.Version {
		b.t.Fatalf("%q %v", got.Value, err)
	}
	_, err = b.q.Put(b.ctx, "bot/y", nil, queue.AnyVersion, 0)
	b.ok(err)
	_, err = b.q.Put(b.ctx, "bot/soon", []byte("x"), queue.AnyVersion, 30*time.Millisecond)
	b.ok(err)
	_, err = b.q.Put(b.ctx, "boz", []byte("x"), "", 0)
	b.ok(err)
	time.Sleep(60 * time.Millisecond)
	_, err = b.q.Get(b.ctx, "bot/soon")
	b.code(err, queue.CodeNotFound)
	keys, err := b.q.Keys(b.ctx, "bot/", "")
	if err != nil || !slices.Equal(keys, []string{"bot/x", "bot/y"}) {
		b.t.Fatalf("%v %v", keys, err)
	}
	keys, err = b.q.Keys(b.ctx, "bot/", "bot/x")
	if err != nil || !slices.Equal(keys, []string{"bot/y"}) {
		b.t.Fatalf("%v %v", keys, err)
	}
	_, err = b.q.Put(b.ctx, "bot/soon", []byte("again"), "", 0)
	b.ok(err)
	b.code(b.q.Delete(b.ctx, "bot/x", r1.Version), queue.CodeConflict)
	b.ok(b.q.Delete(b.ctx, "bot/x", r2.Version))
	b.ok(b.q.Delete(b.ctx, "bot/x", r2.Version))
	_, err = b.q.Get(b.ctx, "bot/x")
	b.code(err, queue.CodeNotFound)
	_, err = b.q.Put(b.ctx, "big", make([]byte, queue.MaxRecord+1), "", 0)
	b.code(err, queue.CodeTooLarge)
}

func counters(b *bench) {
	add := func(delta, limit, want int64) {
		b.t.Helper()
		n, err := b.q.Add(b.ctx, "hits", delta, limit, time.Hour)
		if err != nil || n != want {
			b.t.Fatalf("%d %v, want %d", n, err, want)
		}
	}
	add(2, 0, 2)
	add(3, 5, 5)
	_, err := b.q.Add(b.ctx, "hits", 1, 5, time.Hour)
	b.code(err, queue.CodeQuota)
	add(0, 0, 5)
	add(-5, 0, 0)
	_, err = b.q.Add(b.ctx, "soon", 4, 0, 30*time.Millisecond)
	b.ok(err)
	time.Sleep(60 * time.Millisecond)
	if n, err := b.q.Add(b.ctx, "soon", 1, 0, time.Hour); err != nil || n != 1 {
		b.t.Fatal(n, err)
	}
}

func locks(b *bench) {
	l, err := b.q.Lock(b.ctx, "feeder", time.Minute)
	b.ok(err)
	_, err = b.q.Lock(b.ctx, "feeder", time.Minute)
	b.code(err, queue.CodeConflict)
	b.ok(b.q.Renew(b.ctx, l, 40*time.Millisecond))
	time.Sleep(80 * time.Millisecond)
	b.code(b.q.Renew(b.ctx, l, time.Minute), queue.CodeLost)
	l2, err := b.q.Lock(b.ctx, "feeder", time.Minute)
	b.ok(err)
	if l2.Number <= l.Number || l2.Token == l.Token {
		b.t.Fatalf("%+v after %+v", l2, l)
	}
	b.ok(b.q.Unlock(b.ctx, l)) // stale: no effect
	_, err = b.q.Lock(b.ctx, "feeder", time.Minute)
	b.code(err, queue.CodeConflict)
	b.ok(b.q.Unlock(b.ctx, l2))
	_, err = b.q.Lock(b.ctx, "feeder", time.Minute)
	b.ok(err)
}

func alerts(b *bench) {
	a := queue.Alert{Code: "gpu_hot", Key: "gpu0", Severity: queue.Warning, State: queue.Firing, Text: "GPU 0 is at 85 °C.", Since: time.UnixMilli(1700000000000).UTC(), Source: "host1"}
	b.ok(b.q.Raise(b.ctx, a))
	two := a
	two.Key = "gpu1"
	b.ok(b.q.Raise(b.ctx, two))
	fs, err := b.q.FiringAlerts(b.ctx)
	if err != nil || len(fs) != 2 || fs[0] != a {
		b.t.Fatalf("%+v %v", fs, err)
	}
	a.State = queue.Resolved
	b.ok(b.q.Raise(b.ctx, a))
	fs, err = b.q.FiringAlerts(b.ctx)
	if err != nil || len(fs) != 1 || fs[0].Key != "gpu1" {
		b.t.Fatalf("%+v %v", fs, err)
	}
	as, err := b.q.Alerts(b.ctx, "", 10, 0)
	if err != nil || len(as) != 3 || as[2].State != queue.Resolved || as[0].ID == "" {
		b.t.Fatalf("%+v %v", as, err)
	}
	b.ok(b.q.Ack(b.ctx, "alerts/discord", as[1].ID))
	c, err := b.q.Cursor(b.ctx, "alerts/discord")
	b.ok(err)
	if as, err = b.q.Alerts(b.ctx, c, 10, 0); err != nil || len(as) != 1 {
		b.t.Fatalf("%+v %v", as, err)
	}
	if len(b.events("")) != 0 {
		b.t.Fatal("alerts appear among the events")
	}
}
