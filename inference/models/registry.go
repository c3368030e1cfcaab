package models

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
)

//go:embed registry/*.json
var registryFS embed.FS

// Registry lists the models that Pull knows, by name. The descriptions are
// shared: they must not be modified.
var Registry = sync.OnceValues(func() ([]*Description, error) {
	files, err := fs.Glob(registryFS, "registry/*.json")
	if err != nil {
		return nil, err
	}
	var out []*Description
	for _, f := range files {
		b, err := registryFS.ReadFile(f)
		if err != nil {
			return nil, err
		}
		d, err := ParseDescription(b)
		if err != nil {
			return nil, fmt.Errorf("registry %q: %w", f, err)
		}
		if want := strings.TrimSuffix(path.Base(f), ".json"); d.Name != want {
			return nil, fmt.Errorf("registry %q describes %q", f, d.Name)
		}
		out = append(out, d)
	}
	return out, nil
})

// Registered returns the registry's description of a model.
func Registered(name string) (*Description, error) {
	all, err := Registry()
	if err != nil {
		return nil, err
	}
	return find(all, name)
}

func find(all []*Description, name string) (*Description, error) {
	for _, d := range all {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, absent("there is no model %q to pull; dream models list shows which there are", name)
}
