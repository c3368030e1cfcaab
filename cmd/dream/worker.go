package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
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

// Help shows examples.
func (*workerCmd) Help() string {
	return `Takes jobs from queue.url, makes them on one device and publishes results to storage.url;
start one for each card. The first interrupt drains: work is finished or saved and given back.
The second one ends the process at once; its jobs are taken over when their leases expire.

Examples:
  dream worker
  dream worker --device cuda:1
  DREAM_QUEUE_URL=redis://queue:6379 DREAM_STORAGE_URL='s3://dreams?endpoint=http://s3:7070' dream worker`
}

// Run works until the first interrupt.
func (c *workerCmd) Run(a *app) error { return startAgain(a, c.work(a)) }

func (c *workerCmd) work(a *app) (err error) {
	// The second signal finds the default action again.
	defer context.AfterFunc(a.ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })()
	q, err := openQueue(a.ctx, a)
	if err != nil {
		return err
	}
	defer q.Close()
	store, err := openStore(a)
	if err != nil {
		return err
	}
	if err := checkStore(a, store); err != nil {
		return err
	}
	model, closeModel, err := a.openModel(c.engineFlags)
	if err != nil {
		return err
	}
	defer func() {
		if !spent(err) { // a step that hangs holds the model
			closeModel()
		}
	}()
	pipeline, err := worker.NewPipeline(model)
	if err != nil {
		return err
	}
	pipeline.Together, pipeline.Explain = a.together(model, c.engineFlags), withHolders
	cfg := worker.Config{Name: c.Name, Dir: filepath.Join(a.config.Data, "work"), Version: version(), Grace: c.Grace,
		MinFree: uint64(a.config.Storage.MinFree) << 20}
	if cfg.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		cfg.Name = host + "/" + model.Device().Info().Kind
	}
	watch, err := newWatch(a, q, store, watched{role: "worker", name: cfg.Name, own: ownCard(model.Device().Info(), a.deviceOf(c.engineFlags))})
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(version(), watch.view)
	w, err := worker.New(cfg, worker.Deps{Queue: q, Store: store, Maker: pipeline, Governor: watch.governor, Meter: metrics.NewStages(registry), Log: a.log})
	if err != nil {
		return err
	}
	watch.part.worker = w
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return queue.RunMaintenance(ctx, q, queue.DefaultConfig().TickEvery, a.log) })
	group.Go(func() error { return (&ingest.Feeder{Queue: q, Blobs: store, Log: a.log}).Run(ctx) })
	group.Go(func() error { return runSweeper(ctx, a, store, q) })
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
