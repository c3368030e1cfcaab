package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// joinWords lets a prompt be given with or without quotes.
func joinWords(words []string) string { return strings.Join(words, " ") }

// progress shows the stages of a one-shot command: a bar on a terminal, a line a
// stage elsewhere.
type progress struct {
	w     io.Writer
	bars  *mpb.Progress
	bar   *mpb.Bar
	stage string
}

func newProgress(w io.Writer, quiet bool) *progress {
	p := &progress{w: w}
	if quiet {
		p.w = io.Discard
	} else {
		p.bars = newBars(w)
	}
	return p
}

// newBars draws on a terminal. It is nil when w is none, or one that tells no width,
// where bars would be blank lines.
func newBars(w io.Writer) *mpb.Progress {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			return mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
		}
	}
	return nil
}

// show tells how many of a stage's steps are done.
func (p *progress) show(stage string, step, total int) {
	if p.bars == nil {
		if stage != p.stage {
			fmt.Fprintln(p.w, stage)
		}
		p.stage = stage
		return
	}
	if stage != p.stage {
		p.fill() // the next stage says that this one is done
		p.stage = stage
		p.bar = p.bars.AddBar(int64(total), mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-10s", stage))), mpb.AppendDecorators(decor.CountersNoUnit("%d/%d"), decor.Elapsed(decor.ET_STYLE_GO, decor.WCSyncSpace)))
	}
	p.bar.SetTotal(int64(total), false)
	p.bar.SetCurrent(int64(step))
}

// fill ends the bar of a stage that is done.
func (p *progress) fill() {
	if p.bar == nil {
		return
	}
	if p.bar.Current() == 0 { // it told no steps
		p.bar.SetCurrent(1)
	}
	p.bar.SetTotal(-1, true)
	p.bar = nil
}

// done is close after everything went well.
func (p *progress) done() {
	p.fill()
	p.close()
}

// close leaves the last state on the screen, and a bar that was interrupted where it
// stood. Closing twice is harmless.
func (p *progress) close() {
	if p.bars != nil {
		if p.bar != nil {
			p.bar.Abort(false) // does nothing to a full one
			p.bar = nil
		}
		p.bars.Wait()
		p.bars = nil
		p.w = io.Discard
	}
}

// peakMemory is the largest resident size of this process so far, in bytes.
func peakMemory() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss * 1024
}
