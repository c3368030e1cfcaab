package bots

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/queue"
	"dreamcad/storage"
)

var (
	liveStatuses = []queue.Status{queue.Leased, queue.Queued, queue.Scheduled}
	overStatuses = []queue.Status{queue.Done, queue.Failed, queue.Cancelled, queue.Quarantined}
)

// find resolves the job of c. With own, only its owner or an administrator
// gets it; private jobs are shown to nobody else in any case, and as if they
// did not exist.
func (s *Service) find(ctx context.Context, c Command, own bool) (queue.Job, error) {
	id, err := s.jobs.Resolve(ctx, c.Job)
	if queue.CodeOf(err) == queue.CodeAmbiguous { // one's own jobs come first
		mine, listErr := s.jobs.List(ctx, queue.Filter{User: c.From.User(), Limit: 1000})
		if listErr != nil {
			return queue.Job{}, listErr
		}
		n := 0
		for _, j := range mine {
			if strings.HasSuffix(j.ID, c.Job) {
				id, n = j.ID, n+1
			}
		}
		if n == 1 {
			err = nil
		}
	}
	if err != nil {
		return queue.Job{}, err
	}
	job, err := s.jobs.Job(ctx, id)
	if err != nil {
		return queue.Job{}, err
	}
	owner := job.Requester.User() == c.From.User() || s.isAdmin(c)
	switch {
	case !owner && job.Private:
		return queue.Job{}, refusal(c.lang().Say("error.not-found"))
	case !owner && own:
		return queue.Job{}, refusal(c.lang().Say("error.not-yours"))
	}
	return job, nil
}

func (s *Service) isAdmin(c Command) bool { return s.config.Limits.Admin(c.From.User(), c.Roles) }

func (s *Service) list(ctx context.Context, c Command) (Reply, error) {
	jobs, err := s.jobs.List(ctx, queue.Filter{User: c.From.User(), Status: liveStatuses, Limit: 10})
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	if len(jobs) == 0 {
		return s.private(l.Say("jobs.none")), nil
	}
	reply := s.private(l.Say("jobs.head"))
	for _, j := range jobs {
		state := l.Say("status." + string(j.Status))
		switch {
		case j.Status == queue.Queued:
			state = l.place(s.place(ctx, j.ID), j.Model)
		case j.Status == queue.Leased && j.Progress != nil:
			state = l.progress(j.Progress.Stage, j.Progress.Step, j.Progress.Total)
		}
		reply.Text += "\n" + l.Say("job.line", parse.Short(j.ID), User(Cut(j.Prompt, 80)), state)
		reply.Jobs = append(reply.Jobs, j.ID)
	}
	return reply, nil
}

func (s *Service) show(ctx context.Context, c Command) (Reply, error) {
	job, err := s.find(ctx, c, false)
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	state := l.Say("status." + string(job.Status))
	var buttons []Button
	switch {
	case job.Status == queue.Leased && job.Progress != nil:
		state = l.progress(job.Progress.Stage, job.Progress.Step, job.Progress.Total)
	case job.Status == queue.Queued:
		state = l.place(s.place(ctx, job.ID), job.Model)
	case job.Failure != nil && job.Failure.Sentence != "" && job.Status != queue.Done:
		state += ": " + User(job.Failure.Sentence)
	}
	if !job.Status.Terminal() {
		buttons = []Button{cancelButton(l, job.ID)}
	}
	reply := s.private(l.Say("job.show", parse.Short(job.ID), settingsLine(l, &job.Request), state))
	reply.Job, reply.Jobs, reply.Buttons = job.ID, []string{job.ID}, buttons
	if s.render != nil && job.Status.Terminal() && (job.Requester.User() == c.From.User() || s.isAdmin(c)) {
		s.render.Again(ctx, l, &reply.Message, &job)
	}
	return reply, nil
}

func (s *Service) cancel(ctx context.Context, c Command) (Reply, error) {
	job, err := s.find(ctx, c, true)
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	if job.Status == queue.Cancelled {
		return s.about(job.ID, l.Say("cancel.twice", parse.Short(job.ID))), nil
	}
	status, err := s.jobs.Cancel(ctx, job.ID)
	if queue.CodeOf(err) == queue.CodeConflict {
		return Reply{}, refusal(l.Say("error.over", l.Say("status."+string(status))))
	}
	if err != nil {
		return Reply{}, err
	}
	return s.about(job.ID, l.Say("cancel.done", parse.Short(job.ID))), nil
}

func (s *Service) about(job, text string) Reply {
	r := s.private(text)
	r.Job = job
	return r
}

// delete takes back a result: its links die first, then its files go.
func (s *Service) delete(ctx context.Context, c Command) (Reply, error) {
	job, err := s.find(ctx, c, true)
	if err != nil {
		return Reply{}, err
	}
	if !job.Status.Terminal() {
		if _, err := s.jobs.Cancel(ctx, job.ID); err != nil && queue.CodeOf(err) != queue.CodeConflict {
			return Reply{}, err
		}
	}
	if err := s.erase(ctx, job.ID); err != nil {
		return Reply{}, err
	}
	return s.about(job.ID, c.lang().Say("delete.done", parse.Short(job.ID))), nil
}

func (s *Service) erase(ctx context.Context, job string) error {
	if s.store == nil {
		return errors.New("delete a result: no storage is configured")
	}
	// The mark goes with the files and is set again after them, so that an
	// attempt that ends late does not bring the links back.
	if err := storage.Unpublish(ctx, s.store, job); err != nil {
		return err
	}
	if _, err := storage.DeletePrefix(ctx, s.store, storage.JobPrefix(job)); err != nil {
		return err
	}
	return storage.Unpublish(ctx, s.store, job)
}

const pageLength = 8

func (s *Service) history(ctx context.Context, c Command) (Reply, error) {
	page := max(c.Page, 1)
	jobs, err := s.jobs.List(ctx, queue.Filter{User: c.From.User(), Status: overStatuses, Limit: pageLength + 1, Offset: (page - 1) * pageLength})
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	if len(jobs) == 0 {
		return s.private(l.Say("history.none")), nil
	}
	reply := s.private(l.Say("history.head", page))
	for i, j := range jobs {
		if i == pageLength {
			reply.Buttons = append(reply.Buttons, Button{ID: ButtonID(parse.History, strconv.Itoa(page+1)), Label: l.Say("button.history")})
			break
		}
		reply.Text += "\n" + l.Say("job.line", parse.Short(j.ID), User(Cut(j.Prompt, 80)), l.Say("status."+string(j.Status))) + " · " + When(j.Ended)
		reply.Jobs = append(reply.Jobs, j.ID)
		if reply.Menu == nil {
			reply.Menu = &Menu{Label: l.Say("history.pick")}
		}
		label := Cut(parse.Short(j.ID)+" · "+parse.Clean(j.Prompt), 75)
		reply.Menu.Options = append(reply.Menu.Options, Option{ID: ButtonID(parse.Show, j.ID), Label: label})
	}
	return reply, nil
}

func (s *Service) queue(ctx context.Context, c Command) (Reply, error) {
	st, err := s.jobs.Stats(ctx)
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	text := l.Say("queue", st.Queued[queue.Interactive], st.Leased, len(st.Workers))
	if n := st.Queued[queue.Bulk]; n > 0 {
		text += " " + l.Say("queue.bulk", n)
	}
	if paused(st.Switches) {
		text += " " + l.Say("queue.paused")
	}
	return s.private(text), nil
}

func paused(switches []queue.Switch) bool {
	return slices.ContainsFunc(switches, func(w queue.Switch) bool {
		return w.Scope == queue.AllJobs || w.Scope == queue.OfClass && w.Name == string(queue.Interactive)
	})
}

func (s *Service) quota(ctx context.Context, c Command) (Reply, error) {
	user := c.From.User()
	own, err := s.settings(ctx, user)
	if err != nil {
		return Reply{}, err
	}
	l := c.lang()
	var lines []string
	for _, lim := range s.config.Limits.Day(user, "", own.Daily, s.now()) {
		if lim.Scope != limits.User {
			continue
		}
		used, err := s.jobs.Used(ctx, lim.Key)
		if err != nil {
			return Reply{}, err
		}
		lines = append(lines, l.Say("quota", used, lim.Limit, When(lim.Until)))
	}
	if len(lines) == 0 {
		lines = []string{l.Say("quota.none")}
	}
	live, err := s.jobs.List(ctx, queue.Filter{User: user, Status: liveStatuses, Limit: 1000})
	if err != nil {
		return Reply{}, err
	}
	lines = append(lines, l.Say("quota.live", len(live)))
	return s.private(strings.Join(lines, " ")), nil
}

// forget deletes what is kept about a person, after asking. Files go before the
// records that lead to them, so that a failure half way leaves nothing unknown.
func (s *Service) forget(ctx context.Context, c Command) (Reply, error) {
	l := c.lang()
	if !c.Confirmed {
		r := s.private(l.Say("forget.ask"))
		r.Buttons = []Button{{ID: ButtonID(parse.ForgetMe, "yes"), Label: l.Say("button.forget"), Style: Danger}}
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	user := c.From.User()
	live, err := s.jobs.List(ctx, queue.Filter{User: user, Status: liveStatuses, Limit: 1000})
	if err != nil {
		return Reply{}, err
	}
	for _, j := range live {
		if _, err := s.jobs.Cancel(ctx, j.ID); err != nil && queue.CodeOf(err) != queue.CodeConflict {
			return Reply{}, err
		}
	}
	n := 0
	for s.store != nil {
		jobs, err := s.jobs.List(ctx, queue.Filter{User: user, Status: overStatuses, Limit: 200, Offset: n})
		if err != nil {
			return Reply{}, err
		}
		for _, j := range jobs {
			if err := s.erase(ctx, j.ID); err != nil {
				s.log.Error("a result could not be deleted", "job", j.ID, "err", err)
				return s.private(l.Say("forget.part", n)), nil
			}
			n++
		}
		if len(jobs) < 200 {
			break
		}
	}
	deleted := 0
	for {
		ids, err := s.jobs.Forget(ctx, user)
		if err != nil {
			return Reply{}, err
		}
		if deleted += len(ids); len(ids) < 1000 {
			break
		}
	}
	// A block stays: it protects others, and would otherwise be lifted by asking.
	if own, err := s.settings(ctx, user); err == nil && !own.Blocked {
		if err := s.jobs.Delete(ctx, settingsKey(user), queue.AnyVersion); err != nil {
			return Reply{}, err
		}
	}
	return s.private(l.Say("forget.done", deleted)), nil
}

func (s *Service) ingestFile(ctx context.Context, c Command) (Reply, error) {
	l := c.lang()
	if s.ingest == nil || !s.config.Limits.MayIngest(c.From.User(), c.Roles) {
		return Reply{}, refusal(l.Say("error.ingest-who"))
	}
	if c.File == nil || c.File.Size > s.config.MaxIngest {
		return Reply{}, refusal(l.Say("error.ingest-file", size(s.config.MaxIngest)))
	}
	own, err := s.settings(ctx, c.From.User())
	if err != nil {
		return Reply{}, err
	}
	if own.Blocked {
		return Reply{}, refusal(l.Say("error.blocked"))
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	file, err := c.File.Open(ctx)
	if err != nil {
		return Reply{}, err
	}
	defer file.Close()
	s.refreshWords()
	sentence, err := s.ingest.Ingest(ctx, c.File.Name, io.LimitReader(file, s.config.MaxIngest), c.From, c.Origin, func(text string) error {
		_, err := s.allowed(c, text)
		return err
	})
	if err != nil {
		return Reply{}, refusal(l.Say("error.ingest", User(queue.SentenceOf(err))))
	}
	return s.private(l.Say("ingest.queued", User(sentence))), nil
}
