package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// What a worker and a bot need of the system's limits.
const (
	wantFiles   = 4096 // open files and connections
	needMemory  = 2 << 30
	unlimited   = "infinity"
	cgroupMount = "/sys/fs/cgroup"
)

// limits looks at what this process may take and at systemd's units for dream.
func limits(ctx context.Context) []Result {
	own, _ := os.ReadFile("/proc/self/cgroup")
	return append([]Result{openFiles(maxFiles()), memoryLimit(cgroupMemory(cgroupMount, string(own)))}, units(ctx)...)
}

func openFiles(soft uint64, err error) Result {
	r := Result{Code: "limits", Title: "Open files", Verdict: Pass}
	switch {
	case err != nil:
		r.Verdict, r.Text = Unknown, fmt.Sprintf("The limit could not be read: %v.", err)
	case soft < wantFiles:
		r.Verdict, r.Text = Warn, fmt.Sprintf("%d may be open at once; a busy service needs up to %d.", soft, wantFiles)
		r.Do = fmt.Sprintf("ulimit -n %d, or LimitNOFILE=%d in the unit.", wantFiles, wantFiles)
	default:
		r.Text = fmt.Sprintf("%d may be open at once.", soft)
	}
	return r
}

// cgroupMemory is the least memory limit of the control groups that the process
// is in (version 2), in bytes; 0: none.
func cgroupMemory(mount, own string) (int64, error) {
	path := ""
	for line := range strings.Lines(own) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			path = p
		}
	}
	if path == "" {
		return 0, fmt.Errorf("this system has no control groups of version 2")
	}
	var least int64
	for p := filepath.Join(mount, path); strings.HasPrefix(p, mount); p = filepath.Dir(p) {
		text, err := os.ReadFile(filepath.Join(p, "memory.max"))
		if err != nil {
			continue // the root has none
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && (least == 0 || n < least) {
			least = n
		}
	}
	return least, nil
}

func memoryLimit(bytes int64, err error) Result {
	r := Result{Code: "limits", Title: "Memory limit", Verdict: Pass}
	switch {
	case err != nil:
		r.Verdict, r.Text = Unknown, fmt.Sprintf("It could not be read: %v.", err)
	case bytes == 0:
		r.Text = "No control group limits the memory here."
	case bytes < needMemory:
		r.Verdict, r.Text = Warn, fmt.Sprintf("This control group may take %.1f GB; a worker needs %.1f GB, with the big model more.", float64(bytes)/1e9, float64(needMemory)/1e9)
		r.Do = "Raise MemoryMax of the unit, or the memory limit of the container."
	default:
		r.Text = fmt.Sprintf("This control group may take %.1f GB.", float64(bytes)/1e9)
	}
	return r
}

// units asks systemd about the units that are called dream-….
func units(ctx context.Context) []Result {
	r := Result{Code: "systemd", Title: "systemd", Verdict: Unknown}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := exec.CommandContext(limited, "systemctl", "show", "dream*.service", "--property=Id,ActiveState,Type,LimitNOFILE,MemoryMax,WatchdogUSec").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			line, _, _ := strings.Cut(string(exit.Stderr), "\n")
			err = errors.New(line)
		}
		r.Text = fmt.Sprintf("Its units could not be looked at: %s.", strings.TrimSuffix(err.Error(), "."))
		return []Result{r}
	}
	var out []Result
	for block := range strings.SplitSeq(string(text), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(block) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				fields[k] = v
			}
		}
		if fields["Id"] != "" {
			out = append(out, unit(fields))
		}
	}
	if out == nil {
		r.Text = "No unit called dream-… is loaded; docs/deploy has some."
		return []Result{r}
	}
	return out
}

// unit judges the limits of one unit.
func unit(f map[string]string) Result {
	r := Result{Code: "systemd", Title: "Unit " + f["Id"], Verdict: Pass}
	r.Text = fmt.Sprintf("%s; LimitNOFILE %s, MemoryMax %s, watchdog %s.", f["ActiveState"], orUnknown(f["LimitNOFILE"]), orUnknown(f["MemoryMax"]), orUnknown(f["WatchdogUSec"]))
	var do []string
	if n, err := strconv.ParseUint(f["LimitNOFILE"], 10, 64); err == nil && n < wantFiles {
		do = append(do, fmt.Sprintf("LimitNOFILE=%d", wantFiles))
	}
	if n, err := strconv.ParseUint(f["MemoryMax"], 10, 64); err == nil && n < needMemory {
		do = append(do, fmt.Sprintf("MemoryMax=%dG or more", needMemory>>30))
	}
	if f["Type"] != "notify" {
		do = append(do, "Type=notify")
	}
	if f["WatchdogUSec"] == "0" || f["WatchdogUSec"] == unlimited {
		do = append(do, "WatchdogSec=60")
	}
	if f["ActiveState"] == "failed" {
		r.Verdict, r.Do = Fail, fmt.Sprintf("systemctl status %s and journalctl -u %s say why it ended.", f["Id"], f["Id"])
		return r
	}
	if do != nil {
		r.Verdict, r.Do = Warn, "Set in the unit: "+strings.Join(do, ", ")+" (docs/deploy has an example)."
	}
	return r
}
