package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"dreamcad/inference/worker"
	"dreamcad/ops/metrics"
	"dreamcad/queue"
	"dreamcad/queue/ingest"
)

type workerCmd struct {
	Name  string        `help:"Name that operators see; unique on this host (default: host name and device)." placeholder:"NAME"`
	Grace time.Duration `help:"What ends within this time after an interrupt is finished, the rest is saved and given back." default:"20s"`
	engineFlags
}

// Help is the long help.
func (*workerCmd) Help() string {
	return `Takes jobs from queue.url, makes them on one device and publishes results to storage.url;
start one for each card. The first interrupt drains: work is finished or saved and given back.
The second one ends the process at once; its jobs are taken over when their leases expire.`
}

// Run works until the first interrupt.
func (c *workerCmd) Run(a *app) error { return startAgain(a, c.work(a)) }

func (c *workerCmd) work(a *app) (err error) {
	if a.child == nil { // else that is the other process's affair
		// The second signal finds the default action again.
		defer context.AfterFunc(a.ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
	}
	g, err := openGround(a)
	if err != nil {
		return err
	}
	defer g.queue.Close()
	m, err := newMaker(a, c.engineFlags)
	if err != nil {
		return err
	}
	defer func() { m.end(err) }()
	cfg := worker.Config{Name: c.Name, Grace: c.Grace}
	if cfg.Name == "" {
		cfg.Name = hostName() + "/" + m.model.Device().Info().Kind
	}
	watch, err := newWatch(a, g, watched{role: "worker", name: cfg.Name, own: m.own})
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(version(), watch.view)
	w, err := m.worker(a, g, cfg, watch, registry)
	if err != nil {
		return err
	}
	watch.part.worker = w
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return queue.RunMaintenance(ctx, g.queue, queue.DefaultConfig().TickEvery, a.log) })
	group.Go(func() error { return (&ingest.Feeder{Queue: g.queue, Blobs: g.store, Log: a.log}).Run(ctx) })
	group.Go(func() error { return runSweeper(ctx, a, g.store, g.queue) })
	group.Go(func() error { return serveMetrics(ctx, a, metrics.Handler(registry, watch.ready)) })
	group.Go(func() error { return notifySystemd(ctx) })
	group.Go(func() error { return watch.run(ctx) })
	group.Go(func() error { return w.Run(ctx) })
	return group.Wait()
}

// serveMetrics answers /metrics, /healthz and /readyz on metrics.listen until ctx
// ends; without an address it does nothing.
func serveMetrics(ctx context.Context, a *app, h http.Handler) error {
	if a.config.Metrics.Listen == "" {
		return nil
	}
	return serveUntil(ctx, a.config.Metrics.Listen, h, func(at net.Addr) { a.log.Info("metrics are served", "address", at.String()) })
}
