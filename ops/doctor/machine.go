package doctor

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"

	cpuinfo "github.com/shirou/gopsutil/v4/cpu"
	hostinfo "github.com/shirou/gopsutil/v4/host"
	"golang.org/x/sys/cpu"

	"dreamcad/ops/host"
)

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

// cpuFeatures lists what the kernels of the processor device can use; nil on
// processors for which there are only portable ones.
func cpuFeatures() []string {
	var out []string
	for _, f := range []struct {
		name string
		has  bool
	}{
		{"avx2", cpu.X86.HasAVX2}, {"fma", cpu.X86.HasFMA}, {"avx512f", cpu.X86.HasAVX512F}, {"avx512bw", cpu.X86.HasAVX512BW},
		{"avx512dq", cpu.X86.HasAVX512DQ}, {"avx512vl", cpu.X86.HasAVX512VL},
	} {
		if f.has {
			out = append(out, f.name)
		}
	}
	return out
}

func processor(ctx context.Context, features []string) Result {
	r := Result{Code: "cpu", Title: "Processor", Verdict: Pass}
	name := runtime.GOARCH + ", model unknown"
	if infos, err := cpuinfo.InfoWithContext(ctx); err == nil && len(infos) > 0 && infos[0].ModelName != "" {
		name = infos[0].ModelName
	}
	has := map[string]bool{}
	for _, f := range features {
		has[f] = true
	}
	if !has["avx2"] || !has["fma"] {
		r.Verdict, r.Text = Warn, name+": no AVX2 with FMA, so the portable kernels are used, several times slower."
		r.Do = "Use an x86-64 processor made after 2015, or a card."
		return r
	}
	r.Text = fmt.Sprintf("%s; of use here: %s.", name, strings.Join(features, ", "))
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

// directory looks at the room and at who may write. Fix makes a missing one.
func directory(ctx context.Context, d *Directory, fix bool) []Result {
	w := Result{Code: "folder", Title: fmt.Sprintf("Folder %s (%s)", d.Path, d.Holds), Verdict: Pass}
	made := ""
	if _, err := os.Stat(d.Path); os.IsNotExist(err) && fix {
		if os.MkdirAll(d.Path, 0o700) == nil {
			made = "It was missing and has been made, for " + whom() + " alone. "
		}
	}
	at := d.Path
	switch info, err := os.Stat(d.Path); {
	case os.IsNotExist(err):
		at = existing(d.Path)
		w.Text = "It does not exist yet; it can and will be made at first use."
		if err := writable(at); err != nil {
			w.Verdict, w.Text, w.Do = Fail, fmt.Sprintf("It does not exist and cannot be made: %v.", err), "Give the folder above it to the user that runs dream, or set another path."
		}
	case err != nil:
		w.Verdict, w.Text, w.Do = Fail, fmt.Sprintf("It cannot be used: %v.", err), "Set another path, or mend its rights."
		return []Result{w}
	case !info.IsDir():
		w.Verdict, w.Text, w.Do = Fail, "It is a file.", "Move the file away, or set another path."
		return []Result{w}
	default:
		if err := writable(d.Path); err != nil {
			w.Verdict, w.Text, w.Do = Fail, fmt.Sprintf("It cannot be written: %v.", err), "Give it to the user that runs dream, or mount the disk for writing."
		} else {
			w.Text = made + "It can be written."
		}
	}
	local := host.Sensors{Directories: []string{at}}
	return []Result{w, disk(d, local.Read(ctx).Disks[at])}
}

// whom is the user that this process runs as.
func whom() string {
	u, err := user.Current()
	if err != nil {
		return "this user"
	}
	return u.Username
}

// existing is the nearest folder above path that is there.
func existing(path string) string {
	for {
		up := filepath.Dir(path)
		if _, err := os.Stat(up); err == nil || up == path {
			return up
		}
		path = up
	}
}

// writable writes and removes a file.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("dream doctor\n")
	if e := f.Close(); err == nil {
		err = e
	}
	if e := os.Remove(f.Name()); err == nil {
		err = e
	}
	return err
}

func disk(d *Directory, s host.Share) Result {
	r := Result{Code: "disk", Title: "Disk of " + d.Path, Verdict: Pass}
	if !s.Known {
		r.Verdict, r.Text = Unknown, "Its room could not be read."
		return r
	}
	free := float64(s.Total - s.Used)
	r.Text = fmt.Sprintf("%.1f GB of %.1f GB are free; %s may come to need %.1f GB.", free/1e9, float64(s.Total)/1e9, d.Holds, float64(d.Needs)/1e9)
	switch {
	case free < min(float64(d.Needs), 1e9):
		r.Verdict, r.Do = Fail, "Make room: dream storage du and dream models list show what is kept. Workers take no work below storage.min_free."
	case free < float64(d.Needs):
		r.Verdict, r.Do = Warn, "Make room, or put it on another disk."
	case free < wantDisk:
		r.Verdict, r.Do = Warn, "50 GB are recommended for models, results and checkpoints together."
	}
	return r
}

// secrets tells of files with secrets that strangers can read. Fix takes that right away.
func secrets(paths []string, fix bool) []Result {
	var out []Result
	for _, p := range paths {
		r := Result{Code: "secrets", Title: "Secrets in " + p, Verdict: Pass, Text: "Only its owner and group can read it."}
		info, err := os.Stat(p)
		switch {
		case os.IsNotExist(err):
			continue
		case err != nil:
			r.Verdict, r.Text = Unknown, fmt.Sprintf("It could not be looked at: %v.", err)
		case info.Mode().Perm()&0o007 == 0:
		case fix && os.Chmod(p, info.Mode().Perm()&^0o007) == nil:
			r.Text = "Everybody on this machine could read it; that right has been taken away."
		default:
			r.Verdict, r.Text, r.Do = Warn, "Everybody on this machine can read it.", fmt.Sprintf("chmod o= %s, or run dream doctor --fix.", p)
		}
		out = append(out, r)
	}
	return out
}
