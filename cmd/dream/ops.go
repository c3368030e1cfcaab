package main

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"dreamcad/ops/alert"
	"dreamcad/queue"
)

type opsCmd struct {
	Rules     opsRulesCmd     `cmd:"" help:"List the rules of the watch with their thresholds."`
	Silence   opsSilenceCmd   `cmd:"" help:"Silence alerts for a while; list and end silences."`
	Forget    opsForgetCmd    `cmd:"" help:"Forget a worker or a chat platform that was removed for good."`
	TestAlert opsTestAlertCmd `cmd:"" name:"test-alert" help:"Send an alert and its end the way real ones go."`
}

type opsRulesCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints the rules as configured.
func (c *opsRulesCmd) Run(a *app) error {
	rs, err := a.config.Ops.rules()
	if err != nil {
		return usageError{err}
	}
	if c.JSON {
		return printJSON(a.stdout, rs)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CODE\tSEVERITY\tFIRES\tACTION\tTITLE")
	for i := range rs {
		r := &rs[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Code, r.Severity, r.Condition(), r.Action, r.Title)
	}
	return w.Flush()
}

type opsTestAlertCmd struct {
	After time.Duration `help:"Time until the test is over, at most 10 minutes." default:"5s"`
}

// Run sends both messages, waiting in between so that people see the first.
func (c *opsTestAlertCmd) Run(a *app) error {
	if c.After < 0 || c.After > 10*time.Minute {
		return usagef("--after %v must be a time of at most 10m", c.After)
	}
	host := hostName()
	return withQueue(a, func(q queue.Queue) error {
		t := queue.Alert{Code: "test", Key: host, Severity: queue.Info, State: queue.Firing, Since: time.Now().UTC(), Source: host,
			Text: "This is a test of the alerts, sent by dream ops test-alert. Nothing is wrong."}
		err := alert.Send(a.ctx, a.config.Ops.alertConfig(), q, t)
		if err == nil {
			if s := &a.config.settings; s.Discord.OpsChannel == "" && s.Slack.OpsChannel == "" && s.Ops.Webhook == "" && s.Ops.Alertmanager == "" {
				fmt.Fprintln(a.stdout, "This configuration names nobody to tell (discord.ops_channel, slack.ops_channel, ops.webhook, ops.alertmanager); a bot with other settings tells its own channel.")
			}
			fmt.Fprintf(a.stdout, "The test alert is on its way to the ops channels; it resolves in %v.\n", c.After)
			select {
			case <-time.After(c.After):
			case <-a.ctx.Done():
			}
		}
		t.State = queue.Resolved
		t.Text = "The test of the alerts is over."
		// Also after a failure, and when interrupted: where the first arrived, the end must too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 10*time.Second)
		defer cancel()
		end := alert.Send(ctx, a.config.Ops.alertConfig(), q, t)
		return cmp.Or(err, end)
	})
}
