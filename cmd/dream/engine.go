package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"dreamcad/inference"
	"dreamcad/inference/device"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/device/cuda"
	"dreamcad/inference/models"
	"dreamcad/queue"
)

// engineFlags choose model and device, for every command that generates.
type engineFlags struct {
	Model         string `help:"Model bundle; the built-in one is called mini." placeholder:"NAME"`
	Device        string `help:"auto, cpu or cuda:N (default: worker.device)." placeholder:"DEVICE"`
	Deterministic bool   `help:"Fixed algorithms: the same device gives the same bytes."`
}

// builtin is the name by which the embedded model is asked for.
const builtin = "mini"

// bigModel is the default where it was pulled and a card serves it.
const bigModel = "mvdream-sd21"

// openCard is a variable so that tests can put a card that fails in its place.
var openCard = cuda.Open

// openDevice takes the device that spec names: auto prefers the first card.
func openDevice(spec string, deterministic bool) (device.Device, error) {
	card := func(n int) (device.Device, error) { return openCard(n, cuda.Options{Deterministic: deterministic}) }
	switch {
	case spec == "cpu":
		return cpu.New(cpu.Options{})
	case spec == "" || spec == "auto":
		d, err := card(0)
		var none *cuda.Unavailable
		if errors.As(err, &none) {
			if cuda.Built {
				fmt.Fprintf(os.Stderr, "Using the processor: %v.\n", withHolders(none))
			}
			return cpu.New(cpu.Options{})
		}
		return d, err
	case strings.HasPrefix(spec, "cuda:"):
		n, err := strconv.Atoi(spec[len("cuda:"):])
		if err != nil || n < 0 {
			return nil, usagef("the device %q is unknown; use auto, cpu or cuda:N", spec)
		}
		d, err := card(n)
		if err != nil {
			return nil, fmt.Errorf("use card %d: %w", n, err)
		}
		return d, nil
	}
	return nil, usagef("the device %q is unknown; use auto, cpu or cuda:N", spec)
}

// openBundle finds a model: a folder of models.dir, or the embedded one.
func (a *app) openBundle(name string) (*models.Bundle, error) {
	b, err := a.modelStore().Open(name)
	var absent *models.AbsentError
	if errors.As(err, &absent) {
		return nil, usageError{err}
	}
	return b, err
}

// deviceOf is the device that flags or settings ask for.
func (a *app) deviceOf(f engineFlags) string {
	if f.Device != "" {
		return f.Device
	}
	return a.config.Worker.Device
}

// openModel opens device and model; closing both is the caller's. Without a name
// it is the big model where that was pulled and a card serves it, else the small
// one. Of the devices, auto takes the first card if that has room for the model.
func (a *app) openModel(f engineFlags) (*inference.Model, func(), error) {
	spec := a.deviceOf(f)
	dev, err := openDevice(spec, f.Deterministic)
	if err != nil {
		return nil, nil, err
	}
	m, err := a.openOn(dev, f.Model)
	var room *noRoom
	if errors.As(err, &room) && f.Model == "" && (spec == "" || spec == "auto") {
		dev.Close()
		fmt.Fprintf(a.stderr, "Using the processor: %v.\n", err)
		if dev, err = openDevice("cpu", f.Deterministic); err != nil {
			return nil, nil, err
		}
		m, err = a.openOn(dev, builtin)
	}
	if err != nil {
		dev.Close()
		return nil, nil, err
	}
	return m, func() {
		m.Close()
		dev.Close()
	}, nil
}

// openOn opens a model, the default one for an empty name, on a device that has
// room for it.
func (a *app) openOn(dev device.Device, name string) (*inference.Model, error) {
	if name == "" && dev.Info().Kind == "cuda" && a.modelStore().Has(bigModel) {
		m, err := a.openOn(dev, bigModel)
		var room *noRoom
		if !errors.As(err, &room) {
			return m, err
		}
		fmt.Fprintf(a.stderr, "Using the small model: %v.\n", err)
	}
	if name == "" {
		name = builtin
	}
	b, err := a.openBundle(name)
	if err != nil {
		return nil, err
	}
	m, err := inference.Open(b, dev)
	if err != nil {
		return nil, err
	}
	if err := checkRoom(m); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// localRequest checks what was asked on the command line by the rules of the service.
func localRequest(kind queue.Kind, prompt, negative string, seed *int64) (*queue.Request, error) {
	for _, s := range []string{prompt, negative} {
		// The argument parser replaces bytes that are no text.
		if strings.ContainsRune(s, utf8.RuneError) {
			return nil, usagef("The prompt is not valid UTF-8 text.")
		}
		if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\n\r", r) }) {
			return nil, usagef("The prompt holds control characters.")
		}
	}
	r := &queue.Request{Prompt: prompt, Negative: negative, Kind: kind, Seed: seed, Requester: queue.Requester{Platform: "cli", ID: "local"}}
	if err := r.Normalise(); err != nil {
		var q *queue.Error
		if errors.As(err, &q) && q.Sentence != "" {
			return nil, usageError{errors.New(q.Sentence)}
		}
		return nil, usageError{err}
	}
	return r, nil
}
