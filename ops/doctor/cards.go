package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"dreamcad/ops/gpu"
)

// sysPCI is where the kernel lists what is on the bus.
const sysPCI = "/sys/bus/pci/devices"

// nvidiaDevices lists the addresses of NVIDIA's display and compute controllers.
func nvidiaDevices(root string) []string {
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		vendor, _ := os.ReadFile(filepath.Join(root, e.Name(), "vendor"))
		class, _ := os.ReadFile(filepath.Join(root, e.Name(), "class"))
		if strings.HasPrefix(string(vendor), "0x10de") && strings.HasPrefix(string(class), "0x03") {
			out = append(out, e.Name())
		}
	}
	return out
}

// cards looks at driver and sensors; bus holds the addresses of NVIDIA's cards.
func cards(bus []string) []Result {
	s, err := gpu.Open()
	if err != nil {
		r := Result{Code: "gpu", Title: "GPU", Verdict: Unknown, Text: fmt.Sprintf("No card could be looked at: %v. Work runs on the processor.", err),
			Do: fmt.Sprintf("For a card, install NVIDIA's driver (%d or newer) and use the build with CUDA.", kernelDriver)}
		if len(bus) > 0 {
			r.Verdict, r.Text = Warn, fmt.Sprintf("There is an NVIDIA card at %s, but it cannot be looked at: %v. Work runs on the processor.", strings.Join(bus, ", "), err)
		}
		return []Result{r}
	}
	defer s.Close()
	out := []Result{driver(s.Driver())}
	samples := s.Read()
	for i := range samples {
		out = append(out, card(&samples[i]))
	}
	if len(samples) == 0 {
		out = append(out, Result{Code: "gpu", Title: "GPU", Verdict: Warn, Text: "There is a driver but no card.", Do: "See that the card sits in its slot and that this container or machine was given it."})
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
	r.Text = fmt.Sprintf("%s, compute capability %s, memory %s of %s GB used, %s °C, power limit %s W.", c.Name, orUnknown(c.Capability),
		figure(c.MemoryUsed, 1e9), figure(c.MemoryTotal, 1e9), figure(c.Temperature, 1), figure(c.PowerLimit, 1))
	major, _, _ := strings.Cut(c.Capability, ".")
	generation, err := strconv.Atoi(major)
	switch {
	case err == nil && generation < 8:
		r.Verdict, r.Do = Fail, "The kernels need compute capability 8.0 (Ampere) or newer: use --device cpu or another card."
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

// wanted are the libraries that a card is used through. Only the driver's own
// must be there.
var wanted = []struct {
	pattern string // of the file name
	what    string
	driver  bool
}{
	{"libcuda.so.1", "the driver", true},
	{"libnvidia-ml.so.1", "its sensors", true},
	{"libcublasLt.so.*", "cuBLASLt", false},
	{"libcudnn.so.*", "cuDNN", false},
}

// libraries looks for NVIDIA's libraries where the loader looks.
func libraries(folders []string) Result {
	r := Result{Code: "libraries", Title: "CUDA libraries", Verdict: Pass}
	var found, missing []string
	driver, sensors := false, false
	for _, w := range wanted {
		path := ""
		for _, dir := range folders {
			if hits, err := filepath.Glob(filepath.Join(dir, w.pattern)); err == nil && len(hits) > 0 {
				path = hits[0]
				break
			}
		}
		switch {
		case path != "":
			found = append(found, path+" ("+w.what+")")
			driver = driver || w.pattern == "libcuda.so.1"
			sensors = sensors || w.pattern == "libnvidia-ml.so.1"
		case w.driver:
			missing = append(missing, w.pattern)
		default:
			missing = append(missing, w.what+" (not needed)")
		}
	}
	r.Text = fmt.Sprintf("Found: %s. Not found: %s.", orNone(found), orNone(missing))
	switch {
	case sensors && !driver:
		r.Verdict, r.Text = Warn, r.Text+" Cards can be watched but not used."
		r.Do = "Install the whole driver; in a container, ask for the compute capability (NVIDIA_DRIVER_CAPABILITIES=compute,utility)."
	case driver && !sensors:
		r.Verdict, r.Text = Warn, r.Text+" Cards can be used but not watched: nothing protects them from heat."
		r.Do = "In a container, ask for the utility capability (NVIDIA_DRIVER_CAPABILITIES=compute,utility)."
	}
	return r
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// libraryFolders are the places that the loader searches, in its order.
func libraryFolders() []string {
	out := filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))
	files, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf")
	for _, f := range append(files, "/etc/ld.so.conf") {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
				out = append(out, line)
			}
		}
	}
	return append(out, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/wsl/lib", "/usr/local/cuda/lib64")
}
