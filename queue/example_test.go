package queue_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"dreamcad/queue"
	"dreamcad/queue/sqliteq"
)

// openExample opens a queue in a temporary folder; a service would use
// redisq.Open or the file of the data folder.
func openExample() (*sqliteq.Queue, func()) {
	dir, err := os.MkdirTemp("", "queue")
	if err != nil {
		panic(err)
	}
	q, err := sqliteq.Open(context.Background(), filepath.Join(dir, "queue.db"), queue.DefaultConfig(), sqliteq.Options{})
	if err != nil {
		panic(err)
	}
	return q, func() {
		_ = q.Close()
		_ = os.RemoveAll(dir)
	}
}

// frontend is a front end of one's own: it needs two parts of the queue.
type frontend struct {
	queue.Submitter
	queue.Outbox
}

// A front end submits under the idempotency key of its platform, so that a
// delivery that comes twice makes one job, and tells people what the outbox
// says. It acknowledges an event after it was told.
func Example_chat() {
	q, done := openExample()
	defer done()
	ctx := context.Background()
	f := frontend{q, q}

	cursor, err := f.Cursor(ctx, "my-chat") // durable: a restart goes on from here
	if err != nil {
		panic(err)
	}
	request := queue.Request{
		Prompt: "a ceramic coffee mug", Kind: queue.Views, Key: "message-17",
		Requester: queue.Requester{Platform: "mychat", ID: "anna"},
		Origin:    queue.Origin{Platform: "mychat", Channel: "general"},
	}
	for range 2 {
		receipt, err := f.Submit(ctx, request)
		if err != nil {
			fmt.Println(queue.SentenceOf(err)) // what the requester may see
			return
		}
		fmt.Println("new:", receipt.New)
	}
	work(ctx, q)

	events, err := f.Events(ctx, cursor, 100, 0)
	if err != nil {
		panic(err)
	}
	for _, e := range events {
		fmt.Println("to", e.Origin.Channel+":", e.Kind, len(e.Files))
		if err := f.Ack(ctx, "my-chat", e.ID); err != nil {
			panic(err)
		}
	}
	// Output:
	// new: true
	// new: false
	// to general: accepted 0
	// to general: started 0
	// to general: done 1
}

// work does one job.
func work(ctx context.Context, q queue.Leaser) {
	l, err := q.Lease(ctx, queue.Capabilities{Worker: "host/1/x", Name: "host/cpu"})
	if err != nil {
		panic(err)
	}
	err = q.Complete(ctx, l.Ref(), queue.Result{Winner: l.ID, Files: []queue.File{{Role: "sheet", Name: "views.png"}}})
	if err != nil {
		panic(err)
	}
}

// A second front end waits for one job: it submits, shows where the job stands
// and cancels it.
func Example_wait() {
	q, done := openExample()
	defer done()
	ctx := context.Background()
	var ids []string
	for _, prompt := range []string{"a chair", "a table"} {
		r, err := q.Submit(ctx, queue.Request{Prompt: prompt, Requester: queue.Requester{Platform: "cli", ID: "ben"}})
		if err != nil {
			panic(err)
		}
		ids = append(ids, r.ID)
	}
	p, err := q.Place(ctx, ids[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("position", p.Position, "known start:", p.Known) // no run times are known yet
	status, err := q.Cancel(ctx, ids[0])
	if err != nil {
		panic(err)
	}
	p, err = q.Place(ctx, ids[1])
	if err != nil {
		panic(err)
	}
	fmt.Println(status, "- now position", p.Position)
	// Output:
	// position 2 known start: false
	// cancelled - now position 1
}
