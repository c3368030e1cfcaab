package main

import (
	"fmt"
	"os/user"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"dreamcad/ops/rules"
	"dreamcad/queue"
)

type opsSilenceCmd struct {
	List   opsSilenceListCmd   `cmd:"" help:"List the silences in force."`
	Add    opsSilenceAddCmd    `cmd:"" help:"Keep matching alerts from people for a while."`
	Remove opsSilenceRemoveCmd `cmd:"" help:"End a silence."`
}

// Help is the long help.
func (*opsSilenceCmd) Help() string {
	return `A silence matches alerts by CODE or CODE/KEY, as messages and dream ops rules show them; * stands for
any text. Silenced alerts go to the log only. What still holds when the silence ends is told then.`
}

type opsSilenceListCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints a line a silence.
func (c *opsSilenceListCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		list, err := queue.Silences(a.ctx, q)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(a.stdout, orEmpty(list))
		}
		if len(list) == 0 {
			_, err := fmt.Fprintln(a.stdout, "Nothing is silenced.")
			return err
		}
		w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "ALERT\tUNTIL\tBY\tREASON")
		for i := range list {
			s := &list[i]
			fmt.Fprintf(w, "%s/%s\t%s\t%s\t%s\n", s.Code, s.Key, s.Until.Local().Format("2006-01-02 15:04:05"), s.By, s.Reason)
		}
		return w.Flush()
	})
}

type opsSilenceAddCmd struct {
	Alert  string        `arg:"" help:"CODE or CODE/KEY; * stands for any text."`
	For    time.Duration `help:"How long, at most 30 days." default:"1h"`
	Reason string        `help:"Why; others see it in the list." placeholder:"TEXT" required:""`
}

// Run begins a silence.
func (c *opsSilenceAddCmd) Run(a *app) error {
	if c.For <= 0 || c.For > 30*24*time.Hour {
		return usagef("--for %v must be a positive time of at most 720h", c.For)
	}
	now := time.Now().UTC()
	s := queue.Silence{By: "cli", Reason: c.Reason, At: now, Until: now.Add(c.For)}
	s.Code, s.Key = silencePattern(c.Alert)
	if u, err := user.Current(); err == nil {
		s.By = "cli:" + u.Username
	}
	rs, err := a.config.Ops.rules()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(rs, func(r rules.Rule) bool { return s.Matches(r.Code, s.Key) }) {
		return usagef("no rule is called %q; dream ops rules lists them", s.Code)
	}
	return withQueue(a, func(q queue.Queue) error {
		if err := queue.AddSilence(a.ctx, q, &s); err != nil {
			return err
		}
		_, err := fmt.Fprintf(a.stdout, "%s/%s is silenced until %s.\n", s.Code, s.Key, s.Until.Local().Format("2006-01-02 15:04:05"))
		return err
	})
}

type opsSilenceRemoveCmd struct {
	Alert string `arg:"" help:"CODE or CODE/KEY, as the list shows it."`
}

// Run ends a silence.
func (c *opsSilenceRemoveCmd) Run(a *app) error {
	code, key := silencePattern(c.Alert)
	return withQueue(a, func(q queue.Queue) error {
		err := queue.RemoveSilence(a.ctx, q, code, key)
		if queue.CodeOf(err) == queue.CodeNotFound {
			return fmt.Errorf("%s/%s is not silenced; dream ops silence list shows what is", code, key)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s/%s is not silenced any more.\n", code, key)
		return err
	})
}

// silencePattern splits CODE/KEY; a missing key means any.
func silencePattern(s string) (code, key string) {
	code, key, _ = strings.Cut(s, "/")
	if key == "" {
		key = "*"
	}
	return code, key
}
