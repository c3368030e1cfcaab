// Package doctor looks at this machine and its set-up and says what is wrong
// with them. A check that could not look says "unknown"; none guesses.
package doctor

import (
	"context"
	"strings"
	"time"

	"dreamcad/inference/device"
	"dreamcad/inference/models"
	"dreamcad/ops/host"
	"dreamcad/queue"
	"dreamcad/storage"
)

// Verdict of a check.
type Verdict string

// The verdicts.
const (
	Pass    Verdict = "pass"
	Warn    Verdict = "warn"
	Fail    Verdict = "fail"
	Unknown Verdict = "unknown" // it could not be looked at
)

// Result is what one check found.
type Result struct {
	Code    string  `json:"code"`
	Title   string  `json:"title"`
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`         // what is so, and what it means
	Do      string  `json:"do,omitempty"` // what to do about it
}

// Deps are what the checks look at. What is nil or empty is unknown.
type Deps struct {
	Directories []Directory
	Secrets     []string // files that hold secrets
	Listen      []Listen
	Chat        []Finding // of the platforms whose tokens are set
	Models      *models.Store
	Processor   Device
	Cards       []Device
	CardsError  error // why Cards is empty

	Queue       queue.Checker
	QueueError  error  // why Queue is nil
	QueueAbsent string // or: the file that will be it
	Store       storage.Store
	StoreError  error  // why Store is nil
	StoreAbsent string // or: the folder that will be it
	// QueueClock asks the queue's server for its time; nil: it has no clock of its own.
	QueueClock func(context.Context) (time.Time, error)

	// Quick leaves out what loads the machine: measuring, digests of models.
	Quick bool
	// Fix mends what is safe to mend: makes folders, takes rights away from strangers.
	Fix bool
}

// Directory is a place where dream keeps things.
type Directory struct {
	Path  string
	Holds string // for people: "models"
	Needs int64  // bytes that it may come to hold
}

// Listen is an address that a setting names.
type Listen struct{ Setting, Address string }

// Finding is what a check of a chat platform said.
type Finding struct {
	Platform string
	OK       bool
	Text     string
}

// Device is a device that can be measured. Open's error says why not.
type Device struct {
	Name string // "cuda:0"
	Open func() (device.Device, error)
}

// Run does all checks, one after the other.
func Run(ctx context.Context, d Deps) []Result {
	var local host.Sensors
	out := []Result{system(ctx), processor(ctx, cpuFeatures()), memory(local.Read(ctx).Memory)}
	for i := range d.Directories {
		out = append(out, directory(ctx, &d.Directories[i], d.Fix)...)
	}
	out = append(out, secrets(d.Secrets, d.Fix)...)
	out = append(out, cards(nvidiaDevices(sysPCI))...)
	out = append(out, libraries(libraryFolders()))
	out = append(out, measureAll(&d)...)
	out = append(out, modelChecks(ctx, d.Models, d.Quick, len(d.Cards) > 0)...)
	out = append(out, queueChecks(ctx, &d)...)
	out = append(out, store(ctx, &d))
	out = append(out, clocks(ctx, &d)...)
	out = append(out, chat(d.Chat)...)
	for _, l := range d.Listen {
		out = append(out, listen(ctx, l))
	}
	out = append(out, limits(ctx)...)
	for i := range out {
		out[i].Text = oneLine(out[i].Text)
	}
	return out
}

// oneLine mends texts that end in what another program said, which may have lines
// and a full stop of its own.
func oneLine(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return strings.TrimSuffix(strings.ReplaceAll(s+" ", ".. ", ". "), " ")
}

// Worst is the verdict that decides the exit code; unknown counts as a pass.
func Worst(rs []Result) Verdict {
	worst := Pass
	for i := range rs {
		switch rs[i].Verdict {
		case Fail:
			return Fail
		case Warn:
			worst = Warn
		}
	}
	return worst
}
