// Package doctor looks at this machine and its set-up and says what is wrong
// with them. A check that could not look says "unknown"; none guesses.
package doctor

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"time"

	hostinfo "github.com/shirou/gopsutil/v4/host"

	"dreamcad/ops/gpu"
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

// Deps are what the checks look at. A nil part is unknown.
type Deps struct {
	Directories []string // where dream keeps things
	Queue       queue.Checker
	QueueError  error // why Queue is nil
	Store       storage.Store
	StoreError  error // why Store is nil
}

// Run does all checks, one after the other.
func Run(ctx context.Context, d Deps) []Result {
	local := host.Sensors{Directories: d.Directories}
	sample := local.Read(ctx)
	out := []Result{system(ctx), memory(sample.Memory)}
	for _, dir := range d.Directories {
		out = append(out, disk(dir, sample.Disks[dir]))
	}
	out = append(out, cards()...)
	out = append(out, queueChecks(ctx, d)...)
	return append(out, store(ctx, d))
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

func system(ctx context.Context) Result {
	r := Result{Code: "system", Title: "Operating system", Verdict: Pass}
	i, err := hostinfo.InfoWithContext(ctx)
	if err != nil {
		r.Verdict, r.Text = Unknown, fmt.Sprintf("It could not be read: %v.", err)
		return r
	}
	r.Text = fmt.Sprintf("%s %s, kernel %s, %s, %d processors.", i.Platform, i.PlatformVersion, i.KernelVersion, i.KernelArch, runtime.NumCPU())
	if runtime.GOOS != "linux" {
		r.Verdict, r.Do = Warn, "dream is tested on Linux; use it for the service."
	}
	return r
}

// Recommendations of the project that dream follows.
const (
	wantMemory = 32e9
	wantDisk   = 50e9
)

func memory(m host.Share) Result {
	r := Result{Code: "memory", Title: "Memory", Verdict: Pass}
	switch {
	case !m.Known:
		r.Verdict, r.Text = Unknown, "It could not be read."
		return r
	case float64(m.Total) < 0.95*wantMemory: // the kernel keeps some of the 32 GB to itself
		r.Verdict, r.Do = Warn, "32 GB are recommended for the big model; the built-in one needs far less."
	}
	r.Text = fmt.Sprintf("%.1f GB, of which %.1f GB are free for programs.", float64(m.Total)/1e9, float64(m.Total-m.Used)/1e9)
	return r
}

func disk(dir string, s host.Share) Result {
	r := Result{Code: "disk", Title: "Disk of " + dir, Verdict: Pass}
	if !s.Known {
		r.Verdict, r.Text = Unknown, "It could not be read: the folder may not exist yet."
		return r
	}
	free := float64(s.Total - s.Used)
	r.Text = fmt.Sprintf("%.1f GB of %.1f GB are free.", free/1e9, float64(s.Total)/1e9)
	switch {
	case free < 1e9:
		r.Verdict, r.Do = Fail, "Make room: workers take no work below storage.min_free."
	case free < wantDisk:
		r.Verdict, r.Do = Warn, "50 GB are recommended for models, results and checkpoints."
	}
	return r
}

func cards() []Result {
	s, err := gpu.Open()
	if err != nil {
		return []Result{{Code: "gpu", Title: "GPU", Verdict: Unknown, Text: fmt.Sprintf("No card could be looked at: %v. Work runs on the processor.", err),
			Do: "For a card, install NVIDIA's driver (525 or newer) and use the build with CUDA."}}
	}
	defer s.Close()
	out := []Result{driver(s.Driver())}
	samples := s.Read()
	for i := range samples {
		out = append(out, card(&samples[i]))
	}
	if len(samples) == 0 {
		out = append(out, Result{Code: "gpu", Title: "GPU", Verdict: Warn, Text: "There is a driver but no card."})
	}
	return out
}

// The driver that the original Python set-up asks for, and the one that the
// embedded kernels need.
const (
	originalDriver = 470
	kernelDriver   = 525
)

func driver(d gpu.Driver) Result {
	r := Result{Code: "driver", Title: "NVIDIA driver", Verdict: Pass}
	major, _, _ := strings.Cut(d.Version, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		r.Verdict, r.Text = Unknown, "Its version could not be read."
		return r
	}
	r.Text = fmt.Sprintf("Version %s, serves CUDA %s. The original Python set-up asks for %d, the kernels here need %d.", d.Version, orUnknown(d.CUDA), originalDriver, kernelDriver)
	if n < kernelDriver {
		r.Verdict, r.Do = Fail, fmt.Sprintf("Install driver %d or newer; until then use --device cpu.", kernelDriver)
	}
	return r
}

func card(c *gpu.Sample) Result {
	r := Result{Code: "gpu", Title: fmt.Sprintf("GPU %d", c.Index), Verdict: Pass}
	if c.Lost != "" {
		r.Verdict, r.Text, r.Do = Fail, "It cannot be reached: "+c.Lost+".", "Look for Xid lines in dmesg, then restart the machine."
		return r
	}
	r.Text = fmt.Sprintf("%s, memory %s of %s GB used, %s °C, power limit %s W.", c.Name, figure(c.MemoryUsed, 1e9), figure(c.MemoryTotal, 1e9), figure(c.Temperature, 1), figure(c.PowerLimit, 1))
	switch {
	case c.ECCErrors.Known && c.ECCErrors.V > 0:
		r.Verdict, r.Do = Fail, "Its memory has uncorrected errors: restart the machine, and replace the card if they come back."
	case c.SlowdownMargin.Known && c.SlowdownMargin.V <= 5:
		r.Verdict, r.Do = Warn, "It is about to slow itself down: look at its cooling."
	case c.PowerLimit.Known && c.PowerLimit.V > 300:
		r.Do = "Above 300 W: see that the power supply and its cables are made for it."
	}
	return r
}

func figure(v gpu.Value, unit float64) string {
	if !v.Known {
		return "unknown"
	}
	return strconv.FormatFloat(v.V/unit, 'f', 0, 64)
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

func queueChecks(ctx context.Context, d Deps) []Result {
	const title = "Queue"
	if d.Queue == nil {
		if d.QueueError == nil {
			return []Result{{Code: "queue", Title: title, Verdict: Unknown, Text: "It was not looked at."}}
		}
		return []Result{{Code: "queue", Title: title, Verdict: Fail, Text: fmt.Sprintf("It cannot be used: %v.", d.QueueError), Do: "Check queue.url and that the server runs."}}
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out []Result
	for _, f := range d.Queue.Check(limited) {
		v := map[queue.Severity]Verdict{queue.Info: Pass, queue.Warning: Warn, queue.Critical: Fail}[f.Severity]
		out = append(out, Result{Code: "queue/" + f.Code, Title: title + ": " + f.Title, Verdict: v, Text: f.Text})
	}
	if len(out) == 0 {
		out = append(out, Result{Code: "queue", Title: title, Verdict: Pass, Text: "It answers, and nothing is wrong with its settings."})
	}
	return out
}

func store(ctx context.Context, d Deps) Result {
	r := Result{Code: "storage", Title: "Storage", Verdict: Pass}
	if d.Store == nil {
		r.Verdict, r.Text = Unknown, "It was not looked at."
		if d.StoreError != nil {
			r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("It cannot be used: %v.", d.StoreError), "Check storage.url."
		}
		return r
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	f, err := d.Store.Check(limited)
	switch {
	case err != nil:
		r.Verdict, r.Text, r.Do = Fail, fmt.Sprintf("Writing, reading and deleting a probe failed: %v.", err), "Check storage.url, the keys and the server."
	case !f.Conditional:
		r.Verdict, r.Text = Warn, f.Backend+": a second writer is let through, so only the queue keeps results from being published twice."
		r.Do = "Use a server with conditional PUT (If-None-Match)."
	default:
		r.Text = f.Backend + ": writes, reads and deletes; a second writer is refused."
	}
	return r
}

var colours = map[Verdict]string{Pass: "\x1b[32m", Warn: "\x1b[33m", Fail: "\x1b[31m", Unknown: "\x1b[36m"}

// Print writes the results for people.
func Print(w io.Writer, rs []Result, colour bool) error {
	for i := range rs {
		r := &rs[i]
		verdict := fmt.Sprintf("%-7s", r.Verdict)
		if colour {
			verdict = colours[r.Verdict] + verdict + "\x1b[0m"
		}
		text := fmt.Sprintf("%s  %s: %s\n", verdict, r.Title, r.Text)
		if r.Do != "" {
			text += "         → " + r.Do + "\n"
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
