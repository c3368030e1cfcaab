package main

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"dreamcad/bots/web"
	"dreamcad/bots/web/assets"
	"dreamcad/inference/worker"
	"dreamcad/ops/metrics"
	"dreamcad/queue"
	"dreamcad/queue/ingest"
	"dreamcad/storage/links"
)

type upCmd struct {
	Listen string `help:"Address of the web console (default: web.listen, 127.0.0.1:7860)." placeholder:"HOST:PORT"`
	Data   string `help:"Folder for everything that is kept on this machine." type:"path" placeholder:"DIR"`
	engineFlags
}

// Help is shown below the usage.
func (*upCmd) Help() string {
	return "Everything in one process: queue, storage, one worker and the web console. " +
		"An interrupt lets running work reach a good place and ends; started again, it goes on.\n\n" +
		"Example: dream up --listen 127.0.0.1:8080 --data ./dreams"
}

// Run starts queue, storage, worker and console and ends at the first interrupt.
func (c *upCmd) Run(a *app) error { return startAgain(a, c.serve(a)) }

func (c *upCmd) serve(a *app) (err error) {
	if c.Listen != "" {
		a.config.Web.Listen = c.Listen
	}
	if c.Data != "" {
		a.config.Data = c.Data
	}
	if err := a.config.check(); err != nil {
		return usageError{err}
	}
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
	keys, err := linkKeys(a)
	if err != nil {
		return err
	}
	service, err := newService(a, q, store)
	if err != nil {
		return err
	}
	files, built := assets.FS()
	console, err := web.New(web.Config{
		Listen: a.config.Web.Listen, PublicURL: a.config.Web.PublicURL, Token: string(a.config.Web.Token), LinkLife: a.config.Storage.Keep,
	}, web.Deps{Jobs: q, Commands: service, Store: store, Keys: keys, Assets: files, Built: built, Log: a.log, Monitor: monitorPage(q)})
	if err != nil {
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

	cfg := workerConfig(a)
	watch, err := newWatch(a, q, store, watched{role: "up", name: cfg.Name, own: ownCard(model.Device().Info(), a.deviceOf(c.engineFlags))})
	if err != nil {
		return err
	}
	registry := metrics.NewRegistry(version(), watch.view)
	w, err := worker.New(cfg, worker.Deps{Queue: q, Store: store, Maker: pipeline, Governor: watch.governor, Meter: metrics.NewStages(registry), Log: a.log})
	if err != nil {
		return err
	}
	chats := newChats(a, q, store, service, links.Signer{Base: console.URL(), Keys: keys}, registry)
	watch.part.worker, watch.part.chats = w, chats.sessions
	group, ctx := errgroup.WithContext(a.ctx)
	group.Go(func() error { return console.Run(ctx) })
	group.Go(func() error { return chats.run(ctx, a.config.Chat.Listen) })
	group.Go(func() error { return queue.RunMaintenance(ctx, q, queue.DefaultConfig().TickEvery, a.log) })
	group.Go(func() error { return runSweeper(ctx, a, store, q) })
	group.Go(func() error { return (&ingest.Feeder{Queue: q, Blobs: store, Log: a.log}).Run(ctx) })
	group.Go(func() error { return w.Run(ctx) })
	group.Go(func() error { return serveMetrics(ctx, a, metrics.Handler(registry, watch.ready)) })
	group.Go(func() error { return notifySystemd(ctx) })
	group.Go(func() error { return watch.run(ctx) })
	fmt.Fprintf(a.stdout, "dreamcad is ready at %s (model %s on %s)\nStop it with Ctrl-C.\n", console.URL(), model.Bundle.Name, pipeline.Device())
	return group.Wait() // nil after an interrupt: everything has drained
}

// workerConfig is the worker's part of the settings.
func workerConfig(a *app) worker.Config {
	return worker.Config{Name: hostName(), Dir: filepath.Join(a.config.Data, "work"), Version: version()}
}
