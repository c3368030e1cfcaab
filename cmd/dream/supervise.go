package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"dreamcad/inference/worker"
	"dreamcad/ops/supervise"
)

// reportFor is how long the death of a child is told to a queue that does not answer.
// Later its leases have run out, and the tick counts crashes that nobody saw.
const reportFor = 20 * time.Second

// superviseSelf runs this command line as a child and ends as it ends. If the child
// dies, the queue learns how. impatient: a second interrupt ends both.
func superviseSelf(config *loadedConfig, impatient bool, stderr io.Writer) int {
	mark := rand.Text()[:8]
	var end supervise.End
	own, err := config.dataFile("work", "supervisor") // where a worker must be able to write anyway
	if err == nil {
		end, err = supervise.Run(supervise.Config{Mark: mark, Dir: filepath.Dir(own), Clean: config.hidden().Clean, Impatient: impatient})
	}
	if err != nil {
		fmt.Fprintln(stderr, "dream:", err)
		return exitFailed
	}
	if end.Died {
		log, closeLog, err := newLogger(config, stderr, nil)
		if err != nil { // of the log's file
			quiet := *config
			quiet.Log.File = ""
			log, closeLog, err = newLogger(&quiet, stderr, nil)
		}
		if err == nil {
			reportDeath(&app{config: config, log: log}, worker.Death{PID: end.PID, Mark: mark, Exit: end.Exit, Log: end.Log})
			closeLog()
		}
	}
	end.Pass()
	return exitFailed
}

func reportDeath(a *app, d worker.Death) {
	ctx, cancel := context.WithTimeout(context.Background(), reportFor)
	defer cancel()
	a.log.Error("the worker's process died", "pid", d.PID, "exit", d.Exit)
	q, err := openQueue(ctx, a)
	for err != nil && ctx.Err() == nil {
		time.Sleep(500 * time.Millisecond)
		q, err = openQueue(ctx, a)
	}
	if err != nil {
		a.log.Warn("the queue was not told of the death; the leases run out", "err", err)
		return
	}
	defer q.Close()
	jobs, err := worker.ReportDeath(ctx, q, d)
	for id, status := range jobs {
		a.log.Warn("a job lost its worker", "job", id, "exit", d.Exit, "status", status)
	}
	if err != nil {
		a.log.Warn("the queue was not told of all; the leases run out", "err", err)
	}
}
