package main

import (
	"fmt"

	"dreamcad/inference"
	"dreamcad/inference/device/cpu"
	"dreamcad/inference/models"
	"dreamcad/inference/models/mini"
)

// miniName is the model that the binary holds.
const miniName = "mini"

// openModel loads a model onto a device: the embedded one, or one from the
// models folder. The returned function frees model and device.
func openModel(name string) (*inference.Model, func(), error) {
	if name != "" && name != miniName {
		return nil, nil, usagef("model %q is not known here; this build holds %q", name, miniName)
	}
	bundle, err := models.Open(mini.FS)
	if err != nil {
		return nil, nil, err
	}
	dev, err := cpu.New(cpu.Options{})
	if err != nil {
		return nil, nil, err
	}
	model, err := inference.Open(bundle, dev)
	if err != nil {
		_ = dev.Close()
		return nil, nil, fmt.Errorf("load model %q: %w", bundle.Name, err)
	}
	return model, func() {
		_ = model.Close()
		_ = dev.Close()
	}, nil
}
