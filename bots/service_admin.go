package bots

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"dreamcad/bots/limits"
	"dreamcad/bots/parse"
	"dreamcad/queue"
)

// admin runs the service. Platforms have permissions of their own, but any
// administrator of any server could grant them: only the service's list counts.
func (s *Service) admin(ctx context.Context, c Command) (Reply, error) {
	l := c.lang()
	if !s.isAdmin(c) {
		s.log.Warn("refused an admin command", "user", c.From.User(), "action", c.Action)
		return Reply{}, refusal(l.Say("error.not-admin"))
	}
	s.log.Info("admin command", "user", c.From.User(), "action", c.Action, "job", c.Job, "about", c.User)
	switch c.Action {
	case parse.AdminPause:
		if err := s.jobs.Pause(ctx, queue.AllJobs, "", "by "+c.From.User()); err != nil {
			return Reply{}, err
		}
		return s.private(l.Say("admin.paused")), nil
	case parse.AdminResume:
		return s.resume(ctx, l)
	case parse.AdminDrain:
		return s.drain(ctx, c)
	case parse.AdminStatus:
		return s.status(ctx, l)
	case parse.AdminCancel:
		return s.cancel(ctx, c)
	}
	user := c.User
	if !strings.Contains(user, ":") {
		user = c.From.Platform + ":" + user
	}
	var text string
	err := s.change(ctx, user, func(u *settings) bool {
		switch c.Action {
		case parse.AdminBlock:
			u.Blocked = true
			text = l.Say("admin.blocked", User(user))
		case parse.AdminUnblock:
			u.Blocked = false
			text = l.Say("admin.unblocked", User(user))
		case parse.AdminQuota:
			if c.Limit >= 0 {
				u.Daily = &c.Limit
			}
			daily := s.config.Limits.UserDay
			if u.Daily != nil {
				daily = *u.Daily
			}
			if daily <= 0 && (u.Daily == nil || *u.Daily == limits.Unlimited) {
				text = l.Say("admin.unlimited", User(user))
			} else {
				text = l.Say("admin.quota", User(user), daily)
			}
			return c.Limit >= 0
		}
		return true
	})
	if err != nil {
		return Reply{}, err
	}
	return s.private(text), nil
}

// change edits a user's settings, again if somebody else was faster. edit
// returns whether there is something to write.
func (s *Service) change(ctx context.Context, user string, edit func(*settings) bool) error {
	for {
		var u settings
		r, err := s.jobs.Get(ctx, settingsKey(user))
		if err == nil {
			err = json.Unmarshal(r.Value, &u)
		} else if queue.CodeOf(err) == queue.CodeNotFound {
			err = nil
		}
		if err != nil {
			return err
		}
		if !edit(&u) {
			return nil
		}
		text, err := json.Marshal(u)
		if err != nil {
			return err
		}
		if _, err = s.jobs.Put(ctx, settingsKey(user), text, r.Version, 0); queue.CodeOf(err) != queue.CodeConflict {
			return err
		}
	}
}

// resume lifts the pause of the queue and of every drained worker.
func (s *Service) resume(ctx context.Context, l Lang) (Reply, error) {
	st, err := s.jobs.Stats(ctx)
	if err != nil {
		return Reply{}, err
	}
	for _, w := range st.Switches {
		if w.Scope == queue.AllJobs || w.Scope == queue.OfWorker || w.Scope == queue.OfClass {
			if err := s.jobs.Resume(ctx, w.Scope, w.Name); err != nil {
				return Reply{}, err
			}
		}
	}
	return s.private(l.Say("admin.resumed")), nil
}

func (s *Service) drain(ctx context.Context, c Command) (Reply, error) {
	st, err := s.jobs.Stats(ctx)
	if err != nil {
		return Reply{}, err
	}
	for _, w := range st.Workers {
		if err := s.jobs.Pause(ctx, queue.OfWorker, w.Name, "drained by "+c.From.User()); err != nil {
			return Reply{}, err
		}
	}
	return s.private(c.lang().Say("admin.drained", len(st.Workers))), nil
}

func (s *Service) status(ctx context.Context, l Lang) (Reply, error) {
	st, err := s.jobs.Stats(ctx)
	if err != nil {
		return Reply{}, err
	}
	var workers, switches []string
	for _, w := range st.Workers {
		workers = append(workers, w.Name+" ("+w.Device+")")
	}
	for _, w := range st.Switches {
		switches = append(switches, strings.TrimSpace(string(w.Scope)+" "+w.Name))
	}
	if workers == nil {
		workers = []string{l.Say("admin.none")}
	}
	if switches == nil {
		switches = []string{l.Say("admin.none")}
	}
	return s.private(l.Say("admin.status", st.Queued[queue.Interactive], st.Queued[queue.Bulk], st.Leased,
		st.Ended[queue.Done], st.Ended[queue.Failed], User(strings.Join(workers, ", ")), User(strings.Join(switches, ", ")))), nil
}

// SilenceFor is how long a silenced alert stays quiet.
const SilenceFor = time.Hour

// SilenceKey and AckKey are the records of State that hold what an operator
// decided about an alert; the value is a JSON Decision.
func SilenceKey(code, key string) string { return "alert/silence/" + code + "/" + key }

// AckKey is the record of an acknowledgement.
func AckKey(code, key string) string { return "alert/ack/" + code + "/" + key }

// Decision is what an operator decided about an alert.
type Decision struct {
	By    string    `json:"by"` // platform:id
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"` // Silence
}

// alert answers the buttons under an alert.
func (s *Service) alert(ctx context.Context, c Command) (Reply, error) {
	l := c.lang()
	if !s.isAdmin(c) {
		return Reply{}, refusal(l.Say("error.not-admin"))
	}
	d := Decision{By: c.From.User(), At: s.now()}
	key, life := AckKey(c.Alert[0], c.Alert[1]), 30*24*time.Hour
	text := l.Say("alert.acked", Person(c.From.ID))
	if c.Verb == parse.Silence {
		d.Until = d.At.Add(SilenceFor)
		key, life = SilenceKey(c.Alert[0], c.Alert[1]), SilenceFor
		text = l.Say("alert.silenced", Person(c.From.ID), When(d.Until))
	}
	value, err := json.Marshal(d)
	if err != nil {
		return Reply{}, err
	}
	if _, err := s.jobs.Put(ctx, key, value, queue.AnyVersion, life); err != nil {
		return Reply{}, err
	}
	s.log.Info("an operator answered an alert", "user", d.By, "code", c.Alert[0], "key", c.Alert[1], "verb", c.Verb)
	return Reply{Message: Message{Text: text}}, nil
}
