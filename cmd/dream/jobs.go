package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"dreamcad/inference/models"
	"dreamcad/queue"
	"dreamcad/storage"
)

type jobsCmd struct {
	List      jobsListCmd      `cmd:"" help:"List jobs, newest first."`
	Show      jobsShowCmd      `cmd:"" help:"Show one job."`
	Cancel    jobsCancelCmd    `cmd:"" help:"Cancel jobs that wait or run."`
	Retry     jobsRetryCmd     `cmd:"" help:"Ask for the same again as new jobs."`
	Requeue   jobsRequeueCmd   `cmd:"" help:"Put failed, cancelled or quarantined jobs back into the queue."`
	Unpublish jobsUnpublishCmd `cmd:"" help:"Take back the links to the results of jobs."`
}

// jobArgs name jobs by id or a unique ending of at least six characters.
type jobArgs struct {
	Jobs []string `arg:"" name:"job" help:"Ids of jobs, or unique endings of at least six characters."`
	JSON bool     `name:"json" help:"Print JSON."`
}

// each resolves every name and calls f; all are tried. Of several names each failure is
// told where it happens.
func (j *jobArgs) each(a *app, f func(ctx context.Context, q queue.Queue, id string) (string, error)) error {
	return withQueue(a, func(q queue.Queue) error {
		type line struct {
			Job    string `json:"job"`
			Answer string `json:"answer,omitempty"`
			Error  string `json:"error,omitempty"`
		}
		var lines []line
		var failed error
		failures := 0
		for _, name := range j.Jobs {
			id, err := resolve(a, q, name)
			answer := ""
			if err == nil {
				answer, err = f(a.ctx, q, id)
			}
			l := line{Job: id, Answer: answer}
			if err != nil {
				l = line{Job: name, Error: queue.SentenceOf(err)}
				failed, failures = err, failures+1
				if len(j.Jobs) > 1 {
					fmt.Fprintf(a.stderr, "dream: %s: %s\n", name, sentence(err))
				}
			} else if !j.JSON {
				fmt.Fprintf(a.stdout, "%s  %s\n", id, answer)
			}
			lines = append(lines, l)
		}
		if j.JSON {
			if err := printJSON(a.stdout, lines); err != nil {
				return err
			}
		}
		if failures > 0 && len(j.Jobs) > 1 {
			return fmt.Errorf("%d of %d jobs could not be changed", failures, len(j.Jobs))
		}
		return failed
	})
}

// resolve finds the job that a person names, in either case of letters.
func resolve(a *app, q queue.Queue, name string) (string, error) {
	return q.Resolve(a.ctx, strings.ToUpper(name))
}

// limitFlag bounds a list.
type limitFlag struct {
	Limit int `short:"n" default:"50" help:"How many, at most 1000."`
}

// Validate is called when the command line was read.
func (f limitFlag) Validate() error {
	if f.Limit < 1 || f.Limit > 1000 {
		return fmt.Errorf("--limit is %d, it must be from 1 to 1000", f.Limit)
	}
	return nil
}

type jobsListCmd struct {
	User   string   `help:"Only this user's (platform:id)." placeholder:"USER"`
	Batch  string   `help:"Only this batch's." placeholder:"ID"`
	Status []string `enum:"queued,scheduled,leased,done,failed,cancelled,quarantined" help:"Only these: queued, scheduled, leased, done, failed, cancelled, quarantined."`
	limitFlag
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints a line a job.
func (c *jobsListCmd) Run(a *app) error {
	f := queue.Filter{User: c.User, Batch: c.Batch, Limit: c.Limit}
	for _, s := range c.Status {
		f.Status = append(f.Status, queue.Status(s))
	}
	return withQueue(a, func(q queue.Queue) error {
		js, err := q.List(a.ctx, f)
		if err != nil {
			return err
		}
		return printJobs(a, js, c.JSON)
	})
}

func printJobs(a *app, js []queue.Job, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, orEmpty(js))
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "JOB\tSTATUS\tKIND\tUSER\tAGE\tPROGRESS\tPROMPT")
	for _, j := range js {
		progress := ""
		if p := j.Progress; p != nil {
			progress = string(p.Stage)
			if p.Total > 0 {
				progress += fmt.Sprintf(" %d/%d", p.Step, p.Total)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.ID, j.Status, j.Kind, j.Requester.User(), age(j.Submitted), progress, shorten(j.Prompt, 60))
	}
	return w.Flush()
}

func age(t time.Time) string { return time.Since(t).Round(time.Second).String() }

// shorten cuts a prompt for a table and keeps it on its line.
func shorten(s string, n int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return string(r)
}

type jobsShowCmd struct {
	Job  string `arg:"" help:"Id of the job, or a unique ending."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Run prints a job with its place in the order.
func (c *jobsShowCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		id, err := resolve(a, q, c.Job)
		if err != nil {
			return err
		}
		j, err := q.Job(a.ctx, id)
		if err != nil {
			return err
		}
		p, err := q.Place(a.ctx, id)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, struct {
				queue.Job
				Place *placeView `json:"place,omitempty"`
			}{j, viewPlace(&p)})
		}
		return printJob(a, &j, &p)
	})
}

// placeView is a job's place in JSON; times are seconds.
type placeView struct {
	Position  int     `json:"position"`
	About     bool    `json:"about,omitempty"`
	Known     bool    `json:"known"` // the ranges mean something
	StartLow  float64 `json:"start_low"`
	StartHigh float64 `json:"start_high"`
	RunLow    float64 `json:"run_low"`
	RunHigh   float64 `json:"run_high"`
	Paused    string  `json:"paused,omitempty"`
	Slots     int     `json:"slots"`
}

// viewPlace is nil for a job that is over.
func viewPlace(p *queue.Place) *placeView {
	if p.Status.Terminal() {
		return nil
	}
	return &placeView{Position: p.Position, About: p.About, Known: p.Known, StartLow: p.StartLow.Seconds(), StartHigh: p.StartHigh.Seconds(),
		RunLow: p.RunLow.Seconds(), RunHigh: p.RunHigh.Seconds(), Paused: p.Paused, Slots: p.Slots}
}

func printJob(a *app, j *queue.Job, p *queue.Place) error {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	row := func(k, format string, args ...any) { fmt.Fprintf(w, k+"\t"+format+"\n", args...) }
	row("job", "%s", j.ID)
	row("status", "%s", j.Status)
	row("prompt", "%s", shorten(j.Prompt, 500))
	row("request", "%s, quality %s, model %s, seed %d", j.Kind, or(string(j.Quality), "default"), or(j.Model, "default"), *j.Seed)
	row("user", "%s (%s)", j.Requester.User(), j.Class)
	row("submitted", "%s (%s ago)", j.Submitted.Local().Format(time.DateTime), age(j.Submitted))
	if j.Status == queue.Queued {
		s := fmt.Sprint(p.Position)
		if p.About {
			s = "about " + s
		}
		if p.Paused != "" {
			s += ", held back by a pause of: " + p.Paused
		} else if p.Slots == 0 {
			s += ", no running worker can make it"
		} else if p.Known {
			s += fmt.Sprintf(", starts in %s to %s", p.StartLow.Round(time.Second), p.StartHigh.Round(time.Second))
		} else {
			s += ", start unknown"
		}
		row("position", "%s", s)
	}
	row("attempts", "%d (%d failed, %d crashed), %.0f s of a device", j.Attempt, j.Failures, j.Crashes, j.Used)
	if g := j.Progress; g != nil {
		row("progress", "%s %d/%d %s", g.Stage, g.Step, g.Total, g.Message)
	}
	if j.Worker != "" {
		row("worker", "%s, lease %s", j.Worker, j.LeaseID)
	}
	for _, c := range j.CrashedBy {
		row("crash", "%s", crashLine(&c))
	}
	if f := j.Failure; f != nil {
		row("failure", "%s by %s: %s %s", f.Kind, f.Worker, f.Sentence, f.Detail)
	}
	if r := j.Result; r != nil {
		for _, f := range r.Files {
			row("file", "%s (%s, %s)", f.Name, f.Role, models.Size(f.Bytes))
		}
	}
	if err := w.Flush(); err != nil || j.Failure == nil || j.Failure.Log == "" {
		return err
	}
	fmt.Fprintf(a.stdout, "\nThe end of the log of %s:\n", j.Failure.Worker)
	for line := range strings.Lines(j.Failure.Log) {
		fmt.Fprintln(a.stdout, "  "+strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// crashLine tells of a crash: which attempt, when, who had it and how that ended.
func crashLine(c *queue.Crash) string {
	s := "by " + c.Worker
	if !c.At.IsZero() {
		s = fmt.Sprintf("attempt %d, %s, %s", c.Attempt, c.At.Local().Format(time.DateTime), s)
	}
	return s + ": " + exitOf(c)
}

// exitOf says how a crash went: its kind, and how the process ended if somebody saw it.
func exitOf(c *queue.Crash) string {
	return strings.TrimSpace(or(string(c.Kind), "crash") + " " + c.Exit)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

type jobsCancelCmd struct{ jobArgs }

// Run cancels.
func (c *jobsCancelCmd) Run(a *app) error {
	return c.each(a, func(ctx context.Context, q queue.Queue, id string) (string, error) {
		_, err := q.Cancel(ctx, id)
		return "cancelled", err
	})
}

type jobsRetryCmd struct{ jobArgs }

// Run submits the same request as a new job.
func (c *jobsRetryCmd) Run(a *app) error {
	return c.each(a, func(ctx context.Context, q queue.Queue, id string) (string, error) {
		j, err := q.Job(ctx, id)
		if err != nil {
			return "", err
		}
		r := j.Request
		r.ID, r.Key, r.Parent, r.Batch, r.Line = "", "", id, "", 0
		rc, err := q.Submit(ctx, r)
		return "queued again as " + rc.ID, err
	})
}

type jobsRequeueCmd struct{ jobArgs }

// Run puts the jobs themselves back.
func (c *jobsRequeueCmd) Run(a *app) error {
	return c.each(a, func(ctx context.Context, q queue.Queue, id string) (string, error) {
		return "queued", q.Requeue(ctx, id)
	})
}

type jobsUnpublishCmd struct {
	jobArgs
	Undo bool `help:"Let the links work again."`
}

// Run revokes links, or lets them work again.
func (c *jobsUnpublishCmd) Run(a *app) error {
	store, err := openStore(a)
	if err != nil {
		return err
	}
	return c.each(a, func(ctx context.Context, _ queue.Queue, id string) (string, error) {
		if c.Undo {
			return "published again", storage.Republish(ctx, store, id)
		}
		return "unpublished", storage.Unpublish(ctx, store, id)
	})
}
