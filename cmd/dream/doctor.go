package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/device/cuda"
	"dreamcad/ops/doctor"
	"dreamcad/queue"
)

type doctorCmd struct {
	JSON   bool   `name:"json" help:"Print JSON."`
	Quick  bool   `help:"Measure nothing and compute no digests of models."`
	Fix    bool   `help:"Mend what is safe to mend: make missing folders, take rights on files with secrets away from strangers."`
	Report string `help:"Write the results to this file too, as Markdown." type:"path" placeholder:"FILE"`
}

// Help tells what the exit code means.
func (*doctorCmd) Help() string {
	return `Looks at machine, folders, cards, models, queue, storage, clocks, chat, ports and limits. What could
not be looked at is "unknown". The tests of a card take up to 20 GB of its free memory for a moment;
--quick leaves them out.

Exit code: 0 when no check failed (warnings included), 1 otherwise.`
}

// Run prints what is right and wrong here.
func (c *doctorCmd) Run(a *app) error {
	d := doctor.Deps{Directories: a.doctorFolders(), Secrets: a.secretFiles(), Models: a.modelStore(), Quick: c.Quick, Fix: c.Fix,
		Processor: doctor.Device{Name: "the processor", Open: func() (device.Device, error) { return cpu.New(cpu.Options{}) }}}
	d.Cards, d.CardsError = measurableCards()
	for _, l := range []doctor.Listen{{Setting: "web.listen", Address: a.config.Web.Listen}, {Setting: "metrics.listen", Address: a.config.Metrics.Listen}, {Setting: "chat.listen", Address: a.config.Chat.Listen}} {
		if l.Address != "" {
			d.Listen = append(d.Listen, l)
		}
	}
	// What is not there yet is not made by looking: it would be the looker's, perhaps root's.
	queueFile, storeFolder := a.localQueue(), a.localStore()
	var q queue.Queue
	var err error
	if absent(queueFile) {
		d.QueueAbsent = queueFile
	} else if q, err = openQueue(a.ctx, a); err != nil {
		d.QueueError = err
	} else {
		defer q.Close()
		d.Queue = q
		if s, ok := q.(interface {
			Time(context.Context) (time.Time, error)
		}); ok {
			d.QueueClock = s.Time
		}
	}
	if absent(storeFolder) {
		d.StoreAbsent = storeFolder
	} else if d.Store, err = openStore(a); err != nil {
		d.Store, d.StoreError = nil, err
	}
	ctx, cancel := context.WithTimeout(a.ctx, time.Minute)
	found := checkChats(ctx, a)
	for _, platform := range []string{"discord", "slack", "links"} {
		for _, f := range found[platform] {
			d.Chat = append(d.Chat, doctor.Finding{Platform: platform, OK: f.OK, Text: f.Text})
		}
	}
	cancel()
	rs := doctor.Run(a.ctx, d)
	if c.JSON {
		err = printJSON(a.stdout, rs)
	} else {
		err = doctor.Print(a.stdout, rs, isTerminal(a.stdout))
	}
	if err == nil && c.Report != "" {
		err = writeDoctorReport(c.Report, rs)
	}
	if err == nil && doctor.Worst(rs) == doctor.Fail {
		err = errors.New("at least one check failed")
	}
	return err
}

func writeDoctorReport(path string, rs []doctor.Result) error {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	var b bytes.Buffer
	if err := doctor.Markdown(&b, rs, host, "dream "+version(), time.Now()); err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// doctorFolders are the places that the settings name, with what they may grow to.
func (a *app) doctorFolders() []doctor.Directory {
	const gb = 1e9
	c := a.config
	data := doctor.Directory{Path: c.Data, Holds: "work in progress", Needs: 5 * gb}
	if c.Queue.URL == "" {
		data.Holds = "queue and " + data.Holds
	}
	if c.Storage.URL == "" {
		data.Holds, data.Needs = "results, "+data.Holds, 20*gb
	}
	// The published weights are 5.2 GB, and half of that again when converted.
	out := []doctor.Directory{data, {Path: a.modelStore().Dir, Holds: "models", Needs: 8 * gb}}
	if path := a.localQueue(); path != "" && c.Queue.URL != "" {
		out = append(out, doctor.Directory{Path: filepath.Dir(path), Holds: "the queue", Needs: 1 * gb})
	}
	if path := a.localStore(); path != "" && c.Storage.URL != "" {
		out = append(out, doctor.Directory{Path: path, Holds: "results", Needs: 20 * gb})
	}
	if c.Log.File != "" {
		out = append(out, doctor.Directory{Path: filepath.Dir(c.Log.File), Holds: "logs", Needs: 0.2 * gb})
	}
	return out
}

// secretFiles are the files that hold secrets: those that the settings name,
// the key of links, and the configuration itself if it holds one.
func (a *app) secretFiles() []string {
	out := []string{filepath.Join(a.config.Data, "link-keys")}
	inFile := false
	walkSettings(reflect.ValueOf(a.config.settings), "", func(path string, _ reflect.StructField, v reflect.Value) {
		if s, ok := v.Interface().(string); ok && strings.HasSuffix(path, "_file") && s != "" && path != "chat.block_file" {
			out = append(out, s)
		}
		if s, ok := v.Interface().(secret); ok && s != "" && strings.HasPrefix(a.config.source[path], "file ") {
			inFile = true
		}
	})
	if inFile {
		out = append(out, a.config.path)
	}
	return out
}

// measurableCards are the cards that the CUDA driver shows to this process.
func measurableCards() ([]doctor.Device, error) {
	open := func(n int) func() (device.Device, error) {
		return func() (device.Device, error) { return cuda.Open(n, cuda.Options{}) }
	}
	var out []doctor.Device
	for n := range cuda.Count() {
		out = append(out, doctor.Device{Name: fmt.Sprintf("cuda:%d", n), Open: open(n)})
	}
	if out != nil {
		return out, nil
	}
	dev, err := cuda.Open(0, cuda.Options{})
	if err == nil {
		err = dev.Close()
	}
	return nil, err
}
