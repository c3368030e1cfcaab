package main

import (
	"path/filepath"

	"dreamcad/bots"
	"dreamcad/bots/web"
	"dreamcad/bots/web/assets"
	"dreamcad/inference"
	"dreamcad/inference/worker"
	"dreamcad/ops/metrics"
	"dreamcad/queue"
	"dreamcad/storage"
	"dreamcad/storage/links"

	"github.com/prometheus/client_golang/prometheus"
)

// ground is what every process of the service stands on.
type ground struct {
	queue queue.Queue
	store storage.Store
}

// openGround opens queue and storage, and checks that the storage works. Close the queue.
func openGround(a *app) (g ground, err error) {
	if g.queue, err = openQueue(a.ctx, a); err != nil {
		return g, err
	}
	if g.store, err = openStore(a); err == nil {
		err = checkStore(a, g.store)
	}
	if err != nil {
		g.queue.Close()
	}
	return g, err
}

// front is what people talk to: the commands' service, the console and the chats.
type front struct {
	service *bots.Service
	console *web.Server
	keys    links.Keys
}

func newFront(a *app, g ground) (*front, error) {
	keys, err := linkKeys(a)
	if err != nil {
		return nil, err
	}
	service, err := newService(a, g.queue, g.store)
	if err != nil {
		return nil, err
	}
	files, built := assets.FS()
	console, err := web.New(web.Config{
		Listen: a.config.Web.Listen, PublicURL: a.config.Web.PublicURL, Token: string(a.config.Web.Token), LinkLife: a.config.Storage.Keep,
	}, web.Deps{Jobs: g.queue, Commands: service, Store: g.store, Keys: keys, Assets: files, Built: built, Log: a.log, Monitor: monitorPage(g.queue)})
	if err != nil {
		return nil, err
	}
	return &front{service: service, console: console, keys: keys}, nil
}

// chats are the platforms whose tokens are set.
func (f *front) chats(a *app, g ground, r prometheus.Registerer) *chats {
	return newChats(a, g.queue, g.store, f.service, links.Signer{Base: f.console.URL(), Keys: f.keys}, r)
}

// maker is the model on its device, and what makes jobs with it.
type maker struct {
	model    *inference.Model
	pipeline *worker.Pipeline
	own      int // the watched card, or rules.NoCard
	close    func()
}

func newMaker(a *app, f engineFlags) (*maker, error) {
	model, closeModel, err := a.openModel(f)
	if err != nil {
		return nil, err
	}
	pipeline, err := worker.NewPipeline(model)
	if err != nil {
		closeModel()
		return nil, err
	}
	pipeline.Together, pipeline.Explain = a.together(model, f), withHolders
	return &maker{model: model, pipeline: pipeline, own: ownCard(model.Device().Info(), a.deviceOf(f)), close: closeModel}, nil
}

// end closes the model, unless a step that hangs holds it.
func (m *maker) end(why error) {
	if !spent(why) {
		m.close()
	}
}

// worker makes jobs of the queue under the watch's governor; cfg names it, the rest comes from the settings.
func (m *maker) worker(a *app, g ground, cfg worker.Config, w *watch, r prometheus.Registerer) (*worker.Worker, error) {
	cfg.Dir, cfg.Version, cfg.MinFree = filepath.Join(a.config.Data, "work"), version(), uint64(a.config.Storage.MinFree)*1e6
	deps := worker.Deps{Queue: g.queue, Store: g.store, Maker: m.pipeline, Governor: w.governor, Meter: metrics.NewStages(r), Log: a.log}
	if a.child != nil {
		cfg.Mark, deps.LastLog = a.child.Mark, a.child.LastLog
	}
	return worker.New(cfg, deps)
}
