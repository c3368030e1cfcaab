package main

import (
	"fmt"

	"golang.org/x/sync/errgroup"

	"dreamcad/inference/worker"
	"dreamcad/ops/metrics"
	"dreamcad/queue"
	"dreamcad/queue/ingest"
)

type upCmd struct {
	Listen string `help:"Address of the web console (default: web.listen, 127.0.0.1:7860)." placeholder:"HOST:PORT"`
	Data   string `help:"Folder for everything that is kept on this machine." type:"path" placeholder:"DIR"`
	engineFlags
}

// Help is shown below the usage.
func (*upCmd) Help() string {
	return "An interrupt lets running work reach a good place and ends; started again, it goes on."
}

// Run starts queue, storage, worker and console and ends at the first interrupt.
func (c *upCmd) Run(a *app) error { return startAgain(a, c.serve(a)) }

// override puts the flags that were given in the settings' place, for this process and
// for the one that looks after it.
func (c *upCmd) override(config *loadedConfig) {
	if c.Listen != "" {
		config.Web.Listen = c.Listen
	}
	if c.Data != "" {
		config.Data = c.Data
	}
}

func (c *upCmd) serve(a *app) (err error) {
	if err := a.config.check(); err != nil {
		return usageError{err}
	}
	g, err := openGround(a)
	if err != nil {
		return err
	}
	defer g.queue.Close()
	front, err := newFront(a, g)
	if err != nil {
		return err
	}
	m, err := newMaker(a, c.engineFlags)
	if err != nil {
		return err
	}
	defer func() { m.end(err) }()
	cfg := worker.Config{Name: hostName()}
	watch, err := newWatch(a, g, watched{role: "up", name: cfg.Name, own: m.own})
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(version(), watch.view)
	w, err := m.worker(a, g, cfg, watch, registry)
	if err != nil {
		return err
	}
	chats := front.chats(a, g, registry)
	watch.part.worker, watch.part.chats, watch.part.serves = w, chats.sessions, chats.consumers()
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return front.console.Run(ctx) })
	group.Go(func() error { return chats.run(ctx, a.config.Chat.Listen) })
	group.Go(func() error { return queue.RunMaintenance(ctx, g.queue, queue.DefaultConfig().TickEvery, a.log) })
	group.Go(func() error { return runSweeper(ctx, a, g.store, g.queue) })
	group.Go(func() error { return (&ingest.Feeder{Queue: g.queue, Blobs: g.store, Log: a.log}).Run(ctx) })
	group.Go(func() error { return w.Run(ctx) })
	group.Go(func() error { return serveMetrics(ctx, a, metrics.Handler(registry, watch.ready)) })
	group.Go(func() error { return notifySystemd(ctx) })
	group.Go(func() error { return watch.run(ctx) })
	fmt.Fprintf(a.stdout, "dreamcad is ready at %s (model %s on %s)\nStop it with Ctrl-C.\n", front.console.URL(), m.model.Bundle.Name, m.pipeline.Device())
	return group.Wait() // nil after an interrupt: everything has drained
}
