package models

import (
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
)

// Bounds of the sizes that a description may name: far above any model that
// this engine will run, low enough that no product of them overflows.
const (
	maxChannels = 1 << 14
	maxLevels   = 8
	maxBlocks   = 64
	maxImage    = 4096
	maxViews    = 64
	maxVocab    = 1 << 20
)

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,63}$`)
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check returns the first thing that does not make sense.
func (d *Description) check() error {
	if !namePattern.MatchString(d.Name) {
		return fmt.Errorf(`name %q is not 1 to 64 lower-case letters, digits, "-" and "."`, d.Name)
	}
	for _, f := range []func() error{d.checkImages, d.checkSchedule, d.UNet.check, d.VAE.check, d.Text.check, d.checkTogether, d.checkDefaults, d.checkFiles} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// sizes are checked in order; the first one out of its bounds is the error.
type size struct {
	name      string
	value     int
	low, high int
}

func checkSizes(list ...size) error {
	for _, s := range list {
		if s.value < s.low || s.value > s.high {
			return fmt.Errorf("%s is %d, not %d to %d", s.name, s.value, s.low, s.high)
		}
	}
	return nil
}

func checkMult(name string, mult []int) error {
	if len(mult) < 1 || len(mult) > maxLevels {
		return fmt.Errorf("%s has %d levels, not 1 to %d", name, len(mult), maxLevels)
	}
	for _, m := range mult {
		if m < 1 || m > 64 {
			return fmt.Errorf("%s holds %d, not 1 to 64", name, m)
		}
	}
	return nil
}

func checkDivides(name string, value, by int, byName string) error {
	if value%by != 0 {
		return fmt.Errorf("%s, %d, is not a multiple of %s, %d", name, value, byName, by)
	}
	return nil
}

func (d *Description) checkImages() error {
	if err := checkSizes(
		size{"image_size", d.ImageSize, 8, maxImage},
		size{"views", d.Views, 1, maxViews},
		size{"latent_channels", d.LatentChannels, 1, 64},
	); err != nil {
		return err
	}
	if !(d.ScaleFactor > 0 && d.ScaleFactor < 1e6) {
		return fmt.Errorf("scale_factor is %v, not a positive number", d.ScaleFactor)
	}
	return nil
}

func (d *Description) checkSchedule() error {
	if d.Parameterization != "eps" {
		return fmt.Errorf(`parameterization is %q; this engine predicts "eps"`, d.Parameterization)
	}
	if err := checkSizes(size{"timesteps", d.Timesteps, 2, 100_000}); err != nil {
		return err
	}
	if !(0 < d.BetaStart && d.BetaStart <= d.BetaEnd && d.BetaEnd < 1) {
		return fmt.Errorf("beta_start %v and beta_end %v are not 0 < start <= end < 1", d.BetaStart, d.BetaEnd)
	}
	return nil
}

func (u UNet) check() error {
	if err := checkSizes(
		size{"unet.model_channels", u.ModelChannels, 2, maxChannels},
		size{"unet.num_res_blocks", u.NumResBlocks, 1, maxBlocks},
		size{"unet.num_head_channels", u.NumHeadChannels, 1, maxChannels},
		size{"unet.context_dim", u.ContextDim, 1, maxChannels},
		size{"unet.norm_groups", u.NormGroups, 1, maxChannels},
		size{"unet.camera_dim", u.CameraDim, 16, 16},
	); err != nil {
		return err
	}
	if err := checkMult("unet.channel_mult", u.ChannelMult); err != nil {
		return err
	}
	if u.ChannelMult[0] != 1 {
		return fmt.Errorf("unet.channel_mult begins with %d, not 1: the last convolution takes model_channels", u.ChannelMult[0])
	}
	if u.ModelChannels%2 != 0 {
		return fmt.Errorf("unet.model_channels, %d, is odd: the time embedding has as many cosines as sines", u.ModelChannels)
	}
	for l, m := range u.ChannelMult {
		c := u.ModelChannels * m
		if err := checkDivides(fmt.Sprintf("the number of channels of UNet level %d", l), c, u.NormGroups, "unet.norm_groups"); err != nil {
			return err
		}
		if u.Attention(l) || l == len(u.ChannelMult)-1 {
			if err := checkDivides(fmt.Sprintf("the number of channels of UNet level %d", l), c, u.NumHeadChannels, "unet.num_head_channels"); err != nil {
				return err
			}
		}
	}
	for _, a := range u.AttentionDownsample {
		if a < 1 || a&(a-1) != 0 || a > 1<<(len(u.ChannelMult)-1) {
			return fmt.Errorf("unet.attention_downsample holds %d, which no level has", a)
		}
	}
	return nil
}

func (v VAE) check() error {
	if err := checkSizes(
		size{"vae.ch", v.Ch, 1, maxChannels},
		size{"vae.num_res_blocks", v.NumResBlocks, 1, maxBlocks},
		size{"vae.z_channels", v.ZChannels, 1, 64},
		size{"vae.norm_groups", v.NormGroups, 1, maxChannels},
	); err != nil {
		return err
	}
	if err := checkMult("vae.ch_mult", v.ChMult); err != nil {
		return err
	}
	// conv_in has ch channels whatever the first multiplier is.
	for _, m := range append([]int{1}, v.ChMult...) {
		if err := checkDivides("a number of channels of the VAE", v.Ch*m, v.NormGroups, "vae.norm_groups"); err != nil {
			return err
		}
	}
	return nil
}

func (t Text) check() error {
	if err := checkSizes(
		size{"text.width", t.Width, 1, maxChannels},
		size{"text.layers", t.Layers, 1, maxBlocks},
		size{"text.layers_used", t.LayersUsed, 1, t.Layers},
		size{"text.heads", t.Heads, 1, maxChannels},
		size{"text.context_length", t.ContextLength, 3, 4096},
		size{"text.vocab", t.Vocab, 514, maxVocab},
	); err != nil {
		return err
	}
	return checkDivides("text.width", t.Width, t.Heads, "text.heads")
}

func (d *Description) checkTogether() error {
	if d.UNet.ContextDim != d.Text.Width {
		return fmt.Errorf("unet.context_dim is %d, but text.width is %d", d.UNet.ContextDim, d.Text.Width)
	}
	if d.VAE.ZChannels != d.LatentChannels {
		return fmt.Errorf("vae.z_channels is %d, but latent_channels is %d", d.VAE.ZChannels, d.LatentChannels)
	}
	down := 1 << (len(d.UNet.ChannelMult) - 1)
	return checkDivides("image_size", d.ImageSize, d.VAE.Factor()*down, "what the VAE and the UNet shrink together")
}

func (d *Description) checkDefaults() error {
	c, f := d.Camera, d.Defaults
	within := func(v, low, high float64) bool { return v >= low && v <= high } // false for NaN
	switch {
	case !within(c.FOV, 1, 170):
		return fmt.Errorf("camera.fov_degrees is %v, not 1 to 170", c.FOV)
	case !within(c.Distance, 0.1, 1000):
		return fmt.Errorf("camera.distance is %v, not 0.1 to 1000", c.Distance)
	case !within(c.FrontAzimuth, -360, 360):
		return fmt.Errorf("camera.front_azimuth is %v, not -360 to 360", c.FrontAzimuth)
	case c.Elevations != nil && !(within(c.Elevations[0], -90, 90) && within(c.Elevations[1], c.Elevations[0], 90)):
		return fmt.Errorf("camera.elevations is %v, not two rising angles within -90 and 90", *c.Elevations)
	case f.Steps < 1 || f.Steps > d.Timesteps/2:
		return fmt.Errorf("defaults.steps is %d, not 1 to %d", f.Steps, d.Timesteps/2)
	case !within(f.Guidance, 0, 1000):
		return fmt.Errorf("defaults.guidance_scale is %v, not 0 to 1000", f.Guidance)
	case !within(f.Elevation, -90, 90):
		return fmt.Errorf("defaults.elevation is %v, not -90 to 90", f.Elevation)
	case len(f.Azimuths) != d.Views:
		return fmt.Errorf("defaults.azimuths has %d angles for %d views", len(f.Azimuths), d.Views)
	}
	for _, a := range f.Azimuths {
		if math.IsNaN(a) || math.Abs(a) > 720 {
			return fmt.Errorf("defaults.azimuths holds %v", a)
		}
	}
	return nil
}

func (d *Description) checkFiles() error {
	files := []File{d.Files.Weights, d.Files.Merges}
	for _, s := range d.Sources {
		if (s.Repo == "") == (s.URL == "") {
			return fmt.Errorf("source %q names not exactly one of repo and url", s.Name)
		}
		files = append(files, s.File)
	}
	for _, f := range files {
		switch {
		case f.Name == "" || path.Base(f.Name) != f.Name || f.Name[0] == '.' || f.Name == DescriptionFile:
			return fmt.Errorf("%q cannot be the name of a file of a bundle", f.Name)
		case f.SHA256 != "" && !sha256Pattern.MatchString(f.SHA256):
			return fmt.Errorf("sha256 of %q is %q, not 64 hexadecimal digits", f.Name, f.SHA256)
		case f.Bytes < 0:
			return fmt.Errorf("bytes of %q is negative", f.Name)
		}
	}
	if d.Vocabulary != nil {
		return d.Vocabulary.check()
	}
	return nil
}

func (v *Vocabulary) check() error {
	if len(v.Things) == 0 {
		return errors.New("vocabulary.things is empty")
	}
	for word, list := range v.Related {
		for _, t := range list {
			if _, ok := v.Things[t]; !ok {
				return fmt.Errorf("vocabulary.related: %q points to %q, which is not in vocabulary.things", word, t)
			}
		}
	}
	return nil
}
