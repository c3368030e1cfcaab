package main

import (
	"fmt"
	"os"

	"dreamcad/inference"
	"dreamcad/queue"

	"github.com/goccy/go-yaml"
)

type meshCmd struct {
	makeFlags
	Quality  string   `help:"draft, standard or high (default: the best that there is)." placeholder:"QUALITY"`
	Formats  []string `help:"Mesh formats: glb, obj, stl (default: glb,obj)." placeholder:"LIST"`
	Settings string   `help:"File with settings of the 3D stage (YAML or JSON)." type:"existingfile" placeholder:"FILE"`
}

// Help is the long help.
func (c *meshCmd) Help() string {
	return `Writes the four views, the mesh (model.glb; model.obj with model.mtl and texture.png),
turntable.gif, preview.png and the manifest result.json.
Meshes of the model mvdream-sd21 are experimental.`
}

// Run makes four views and a mesh of them.
func (c *meshCmd) Run(a *app) error {
	set, err := c.settings()
	if err != nil {
		return usageError{err}
	}
	if c.Quality == "standard" || c.Quality == "high" {
		return c.make(a, queue.Mesh, set, fmt.Sprintf("Quality %s is not available here; the mesh was made in draft quality.", c.Quality))
	}
	return c.make(a, queue.Mesh, set)
}

// settings are the defaults, changed by a file and by flags.
func (c *meshCmd) settings() (*inference.MeshSettings, error) {
	switch c.Quality {
	case "", "draft", "standard", "high":
	default:
		return nil, fmt.Errorf("the quality %q is unknown; use draft, standard or high", c.Quality)
	}
	set := inference.DefaultMeshSettings()
	if c.Settings != "" {
		data, err := os.ReadFile(c.Settings)
		if err != nil {
			return nil, fmt.Errorf("read the settings: %w", err)
		}
		if err := yaml.UnmarshalWithOptions(data, &set, yaml.Strict(), yaml.UseJSONUnmarshaler()); err != nil {
			return nil, fmt.Errorf("read the settings %q: %s", c.Settings, yaml.FormatError(err, false, false))
		}
	}
	if len(c.Formats) > 0 {
		set.Formats = c.Formats
	}
	return &set, set.Check()
}
