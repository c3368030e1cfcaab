package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is the version that `make build` stamps in.
var release = "0.1.0-dev"

// version is the release and, when known, the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return release + "+" + s.Value[:12]
		}
	}
	return release
}

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// Run prints what this binary is.
func (c *versionCmd) Run(a *app) error {
	v := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
		CUDA    bool   `json:"cuda"`
	}{version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, builtWithCUDA}
	if c.JSON {
		return printJSON(a.stdout, v)
	}
	device := "CPU only"
	if v.CUDA {
		device = "CPU and CUDA"
	}
	_, err := fmt.Fprintf(a.stdout, "dream %s (%s, %s/%s, %s)\n", v.Version, v.Go, v.OS, v.Arch, device)
	return err
}
