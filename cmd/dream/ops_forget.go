package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dreamcad/bots/delivery"
	"dreamcad/ops/monitor"
	"dreamcad/queue"
)

type opsForgetCmd struct {
	Name string `arg:"" help:"The worker as dream monitor shows it, or the chat platform (discord, slack)."`
}

// Help is the long help.
func (*opsForgetCmd) Help() string {
	return `A worker that was removed without being stopped in order is missed until ops.worker_gone has passed; forgetting
it ends its alert at once. Of a chat platform whose token was taken away, what its bot has not read and not sent is
dropped. Both begin anew when they come back.`
}

// Run forgets a worker or a consumer of the outbox that is not at work.
func (c *opsForgetCmd) Run(a *app) error {
	return withQueue(a, func(q queue.Queue) error {
		fleet, marks, err := monitor.Fleet(a.ctx, q)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(fleet, func(l monitor.Live) bool { return l.Name == c.Name }); i >= 0 {
			if age := time.Since(fleet[i].At); age < max(monitor.Quiet, 3*a.config.Ops.ServersEvery) {
				return fmt.Errorf("%s gave a sign of life %v ago; stop it first, then it needs no forgetting", c.Name, age.Round(time.Second))
			}
			if err := monitor.Forget(a.ctx, q, c.Name, marks[c.Name]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(a.stdout, "%s is no longer expected; its alert ends within %v.\n", c.Name, 2*a.config.Ops.ServersEvery)
			return err
		}
		return c.consumer(a.ctx, a, q, marks)
	})
}

func (c *opsForgetCmd) consumer(ctx context.Context, a *app, q queue.Queue, marks map[string]string) error {
	platform := strings.TrimPrefix(c.Name, "bots/")
	name := "bots/" + platform
	st, err := q.Stats(ctx)
	if err != nil {
		return err
	}
	if _, known := st.Outbox[name]; !known {
		names := slices.Sorted(maps.Keys(marks))
		for _, x := range slices.Sorted(maps.Keys(st.Outbox)) {
			if !strings.HasPrefix(x, "alerts/") {
				names = append(names, strings.TrimPrefix(x, "bots/"))
			}
		}
		if names == nil {
			return fmt.Errorf("nothing is called %q; no worker or chat platform is known", c.Name)
		}
		return fmt.Errorf("nothing is called %q; known are %s", c.Name, strings.Join(names, ", "))
	}
	at, err := monitor.LastServed(ctx, q, name)
	if err != nil {
		return err
	}
	if age := time.Since(at); age < max(monitor.Quiet, 3*a.config.Ops.ServersEvery) {
		return fmt.Errorf("a bot served %s %v ago; take its token away or stop it first", platform, age.Round(time.Second))
	}
	dropped, err := delivery.Abandon(ctx, q, platform)
	if err := errors.Join(err, q.Retire(ctx, name), q.Retire(ctx, "alerts/"+name), monitor.Unserve(ctx, q, name)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Nothing is kept for %s any more; %d outcomes that it had not sent were dropped.\n", platform, dropped)
	return err
}
