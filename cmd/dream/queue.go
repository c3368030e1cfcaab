package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dreamcad/queue"
)

type queueCmd struct {
	Stats      queueStatsCmd      `cmd:"" help:"Show lengths, ages, workers, switches and counters."`
	Pause      queuePauseCmd      `cmd:"" help:"Start no more jobs, of all or of a class, user or batch; running jobs go on."`
	Resume     queueResumeCmd     `cmd:"" help:"Lift a pause."`
	Drain      queueDrainCmd      `cmd:"" help:"Let a worker finish or hand back its jobs and take no more."`
	Dead       queueDeadCmd       `cmd:"" help:"List jobs that failed for good."`
	Quarantine queueQuarantineCmd `cmd:"" help:"List, show or release jobs that crashed workers."`
}

type queueStatsCmd struct {
	JSON  bool `name:"json" help:"Print JSON."`
	Audit bool `help:"Check the invariants over all jobs as well."`
}

// Run prints a picture of the queue.
func (c *queueStatsCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		s, err := q.Stats(a.ctx)
		if err != nil {
			return err
		}
		var broken []string
		if c.Audit {
			if broken, err = queue.Violations(a.ctx, q); err != nil {
				return err
			}
		}
		if c.JSON {
			s.Workers, s.Switches = orEmpty(s.Workers), orEmpty(s.Switches)
			err = printJSON(a.stdout, struct {
				queue.Stats
				Violations []string `json:"violations,omitempty"`
			}{s, broken})
		} else {
			err = printStats(a, &s)
		}
		if err == nil && len(broken) > 0 {
			for _, v := range broken {
				fmt.Fprintln(a.stderr, "violation:", v)
			}
			return fmt.Errorf("%d invariants are violated", len(broken))
		}
		return err
	})
}

func printStats(a *app, s *queue.Stats) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "queue\t%s\n", s.Backend)
	for _, c := range queue.Classes {
		fmt.Fprintf(w, "%s\t%d queued by %d users, the oldest for %v\n", c, s.Queued[c], s.Users[c], time.Duration(float64(s.Oldest[c])*float64(time.Second)).Round(time.Second))
	}
	fmt.Fprintf(w, "running\t%d (%d past their deadline), %d wait for a retry\n", s.Leased, s.Overdue, s.Scheduled)
	fmt.Fprintf(w, "kept\t%d done, %d failed, %d cancelled, %d quarantined\n", s.Ended[queue.Done], s.Ended[queue.Failed], s.Ended[queue.Cancelled], s.Ended[queue.Quarantined])
	for _, x := range s.Workers {
		drain := ""
		if x.Drain {
			drain = ", draining"
		}
		fmt.Fprintf(w, "worker\t%s on %s, seen %s ago%s\n", x.Name, x.Device, s.Now.Sub(x.Seen).Round(time.Second), drain)
	}
	for _, x := range s.Switches {
		fmt.Fprintln(w, switchLine(x))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Durations)) {
		d := s.Durations[k]
		fmt.Fprintf(w, "run time\t%s: %.1f s (p90 %.1f s) of %d\n", strings.Trim(k, "/ "), d.P50, d.P90, d.Samples)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Outbox)) {
		fmt.Fprintf(w, "outbox\t%s has %d events to read\n", k, s.Outbox[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.Counters)) {
		fmt.Fprintf(w, "count\t%s %d\n", k, s.Counters[k])
	}
	return w.Flush()
}

// scopeFlags say what a switch is about; none means the whole queue.
type scopeFlags struct {
	Class string `help:"Only this class: interactive or bulk." placeholder:"CLASS" xor:"scope"`
	User  string `help:"Only this user's (platform:id)." placeholder:"USER" xor:"scope"`
	Batch string `help:"Only this batch's." placeholder:"ID" xor:"scope"`
}

// Validate is called when the command line was read.
func (f scopeFlags) Validate() error {
	if f.Class != "" && !slices.Contains(queue.Classes, queue.Class(f.Class)) {
		return fmt.Errorf("there is no class %q, only interactive and bulk", f.Class)
	}
	return nil
}

func (f *scopeFlags) scope() (queue.Scope, string) {
	switch {
	case f.Class != "":
		return queue.OfClass, f.Class
	case f.User != "":
		return queue.OfUser, f.User
	case f.Batch != "":
		return queue.OfBatch, f.Batch
	}
	return queue.AllJobs, ""
}

type queuePauseCmd struct {
	scopeFlags
	Why  string `help:"Reason, shown to operators." placeholder:"TEXT" default:"dream queue pause"`
	JSON bool   `name:"json" help:"Print all switches as JSON."`
}

// Run pauses; it lasts through restarts.
func (c *queuePauseCmd) Run(a *app) error {
	s, name := c.scope()
	return withQueue(a, func(q queue.Queue) error {
		return printSwitches(a, q, c.JSON, q.Pause(a.ctx, s, name, c.Why))
	})
}

type queueResumeCmd struct {
	scopeFlags
	JSON bool `name:"json" help:"Print the switches that are left as JSON."`
}

// Run lifts a pause.
func (c *queueResumeCmd) Run(a *app) error {
	s, name := c.scope()
	return withQueue(a, func(q queue.Queue) error { return printSwitches(a, q, c.JSON, q.Resume(a.ctx, s, name)) })
}

type queueDrainCmd struct {
	Worker string `arg:"" help:"Name of the worker, as dream queue stats shows it."`
	Undo   bool   `help:"Let the worker take jobs again."`
	JSON   bool   `name:"json" help:"Print all switches as JSON."`
}

// Run drains a worker.
func (c *queueDrainCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		if c.Undo {
			return printSwitches(a, q, c.JSON, q.Resume(a.ctx, queue.OfWorker, c.Worker))
		}
		s, err := q.Stats(a.ctx)
		if err != nil {
			return err
		}
		var seen []string
		for _, w := range s.Workers {
			seen = append(seen, w.Name)
		}
		if !slices.Contains(seen, c.Worker) { // a worker that is away may come back
			fmt.Fprintf(a.stderr, "No worker called %q was seen lately; seen were: %s.\n", c.Worker, cmp.Or(strings.Join(seen, ", "), "none"))
		}
		return printSwitches(a, q, c.JSON, q.Pause(a.ctx, queue.OfWorker, c.Worker, "dream queue drain"))
	})
}

// printSwitches shows what is paused or drained after a change that ended with err.
func printSwitches(a *app, q queue.Queue, asJSON bool, err error) error {
	if err != nil {
		return err
	}
	s, err := q.Stats(a.ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(a.stdout, orEmpty(s.Switches))
	}
	for _, x := range s.Switches {
		fmt.Fprintln(a.stdout, switchLine(x))
	}
	if len(s.Switches) == 0 {
		fmt.Fprintln(a.stdout, "nothing is paused")
	}
	return nil
}

func switchLine(x queue.Switch) string {
	what := strings.TrimSpace(string(x.Scope) + " " + x.Name)
	return fmt.Sprintf("paused\t%s since %s: %s", what, x.Since.Local().Format(time.DateTime), x.Why)
}

type queueDeadCmd struct {
	limitFlag
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists failed jobs.
func (c *queueDeadCmd) Run(a *app) error {
	return listStatus(a, queue.Failed, c.Limit, func(js []queue.Job) error { return printJobs(a, js, c.JSON) })
}

type queueQuarantineCmd struct {
	Jobs    []string `arg:"" optional:"" name:"job" help:"Show these with their crashes and the end of the last worker's log."`
	Release []string `help:"Let the input of these jobs be submitted again." placeholder:"JOB"`
	limitFlag
	JSON bool `name:"json" help:"Print JSON."`
}

// Run lists, shows or releases quarantined jobs.
func (c *queueQuarantineCmd) Run(a *app) error {
	switch {
	case len(c.Release) == 0 && len(c.Jobs) == 0:
		return listStatus(a, queue.Quarantined, c.Limit, func(js []queue.Job) error {
			if c.JSON {
				return printJobs(a, js, true)
			}
			return printQuarantine(a, js)
		})
	case len(c.Release) == 0:
		for i, name := range c.Jobs {
			if i > 0 && !c.JSON {
				fmt.Fprintln(a.stdout)
			}
			if err := (&jobsShowCmd{Job: name, JSON: c.JSON}).Run(a); err != nil {
				return err
			}
		}
		return nil
	}
	return withQueue(a, func(q queue.Queue) error {
		var ids []string
		for _, name := range c.Release {
			id, err := resolve(a, q, name)
			if err != nil {
				return err
			}
			if err := q.Release(a.ctx, id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if c.JSON {
			return printJSON(a.stdout, ids)
		}
		for _, id := range ids {
			fmt.Fprintf(a.stdout, "%s  may be asked for again\n", id)
		}
		return nil
	})
}

// printQuarantine prints a line a job with its last crash.
func printQuarantine(a *app, js []queue.Job) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tUSER\tAGE\tCRASHES\tLAST CRASH\tLAST WORKER\tPROMPT")
	for _, j := range js {
		var last queue.Crash
		if n := len(j.CrashedBy); n > 0 {
			last = j.CrashedBy[n-1]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", j.ID, j.Requester.User(), age(j.Submitted), j.Crashes, exitOf(&last), last.Worker, shorten(j.Prompt, 60))
	}
	return w.Flush()
}

func listStatus(a *app, st queue.Status, limit int, show func([]queue.Job) error) error {
	return withQueue(a, func(q queue.Queue) error {
		js, err := q.List(a.ctx, queue.Filter{Status: []queue.Status{st}, Limit: limit})
		if err != nil {
			return err
		}
		return show(js)
	})
}
