// Package models knows the model bundles: what a bundle's description says and
// whether it makes sense, which tensors its networks need, which things it can
// draw, and where bundles live, come from and how they are checked.
//
// A bundle is a folder or an embedded tree: model.json (the description),
// weights and the tokenizer's merges.
package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// DescriptionFile is the name of a bundle's description.
const DescriptionFile = "model.json"

// Description is model.json. Every size that the engine needs is here, and
// nothing about a model is known elsewhere. Unknown fields are errors.
type Description struct {
	Name    string  `json:"name"`  // what --model takes: lower-case letters, digits, "-", "."
	Title   string  `json:"title"` // for people, one line
	Licence Licence `json:"licence,omitzero"`

	ImageSize      int     `json:"image_size"` // pixels of a side
	Views          int     `json:"views"`
	LatentChannels int     `json:"latent_channels"`
	ScaleFactor    float64 `json:"scale_factor"` // latent = ScaleFactor · VAE's z

	Parameterization string  `json:"parameterization"` // "eps"
	Timesteps        int     `json:"timesteps"`
	BetaStart        float64 `json:"beta_start"` // linear in the square root
	BetaEnd          float64 `json:"beta_end"`

	UNet UNet `json:"unet"`
	VAE  VAE  `json:"vae"`
	Text Text `json:"text"`

	Camera   Camera   `json:"camera"`
	Defaults Defaults `json:"defaults"`

	Files   Files    `json:"files"`
	Sources []Source `json:"sources,omitempty"`
	Check   Check    `json:"check,omitzero"`

	Vocabulary *Vocabulary `json:"vocabulary,omitempty"` // nil: any word

	// ExperimentalMesh says that meshes from this model were not yet judged
	// on its real weights; help and notices say so.
	ExperimentalMesh bool `json:"experimental_mesh,omitempty"`
}

// Licence of the weights.
type Licence struct {
	Name string `json:"name"`
	URL  string `json:"url,omitempty"`
}

// UNet is the multi-view denoiser. Level l works at 1/2^l of the latent size
// with ModelChannels · ChannelMult[l] channels.
type UNet struct {
	ModelChannels       int   `json:"model_channels"`
	ChannelMult         []int `json:"channel_mult"`
	NumResBlocks        int   `json:"num_res_blocks"`
	AttentionDownsample []int `json:"attention_downsample"` // down-sampling factors with attention; the middle always has it
	NumHeadChannels     int   `json:"num_head_channels"`
	ContextDim          int   `json:"context_dim"`
	CameraDim           int   `json:"camera_dim"`
	NormGroups          int   `json:"norm_groups"`
}

// TimeDim is the width of the time and camera embedding.
func (u UNet) TimeDim() int { return 4 * u.ModelChannels }

// Attention says whether blocks of level l have attention.
func (u UNet) Attention(l int) bool { return slices.Contains(u.AttentionDownsample, 1<<l) }

// VAE is the image coder.
type VAE struct {
	Ch           int   `json:"ch"`
	ChMult       []int `json:"ch_mult"`
	NumResBlocks int   `json:"num_res_blocks"` // of the encoder; the decoder has one more
	ZChannels    int   `json:"z_channels"`
	NormGroups   int   `json:"norm_groups"`
}

// Factor is the ratio of image to latent size.
func (v VAE) Factor() int { return 1 << (len(v.ChMult) - 1) }

// Text is the text transformer.
type Text struct {
	Width         int `json:"width"`
	Layers        int `json:"layers"`      // in the file
	LayersUsed    int `json:"layers_used"` // applied, from the first
	Heads         int `json:"heads"`
	ContextLength int `json:"context_length"`
	Vocab         int `json:"vocab"`
}

// Camera is what the pictures of the model show, which its network is not
// told.
type Camera struct {
	FOV          float64     `json:"fov_degrees"`
	Distance     float64     `json:"distance"`      // from the origin; objects fit the unit sphere
	FrontAzimuth float64     `json:"front_azimuth"` // of the network's azimuth when it looks at the front, degrees
	Elevations   *[2]float64 `json:"elevations,omitempty"`
}

// Defaults of a request. Azimuths are the manifest's: 0 looks at the front.
type Defaults struct {
	Steps           int       `json:"steps"`
	Guidance        float64   `json:"guidance_scale"`
	Elevation       float64   `json:"elevation"`
	Azimuths        []float64 `json:"azimuths"` // one a view
	PromptSuffix    string    `json:"prompt_suffix"`
	Negative        string    `json:"negative_prompt"`
	DistillSuffix   string    `json:"distill_prompt_suffix"`
	DistillNegative string    `json:"distill_negative_prompt"`
}

// Files of a bundle. Empty names mean weights.safetensors and merges.txt.
type Files struct {
	Weights File `json:"weights"`
	Merges  File `json:"merges"`
}

// File is one file of a bundle; SHA256 and Bytes are empty when not yet known.
type File struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
}

// Source says where a file of the bundle comes from: a URL, or a file of a
// Hugging Face repository.
type Source struct {
	File
	Repo     string `json:"repo,omitempty"` // "owner/name" on the Hugging Face hub
	Revision string `json:"revision,omitempty"`
	URL      string `json:"url,omitempty"`
}

// Check holds values that Selftest compares with what this build computes.
type Check struct {
	Tokens    []TokenCheck `json:"tokens,omitempty"`
	AlphasBar []AlphaCheck `json:"alphas_bar,omitempty"`
}

// TokenCheck is a prompt and its ids, without start and end.
type TokenCheck struct {
	Prompt string  `json:"prompt"`
	IDs    []int32 `json:"ids"`
}

// AlphaCheck is a value of the noise schedule.
type AlphaCheck struct {
	T     int     `json:"t"`
	Value float64 `json:"value"`
}

// Vocabulary lists what a model that was trained on a closed set of words
// knows; see Notice. All words are in singular.
type Vocabulary struct {
	Things    map[string][]string `json:"things"`              // kind of object → nouns for it: "mug": ["mug", "coffee mug", "cup"]
	Related   map[string][]string `json:"related,omitempty"`   // nouns that it does not know → the nearest kinds; see also hints.go
	Parts     map[string][]string `json:"parts,omitempty"`     // kind of object → parts that can have a colour
	Colours   map[string][]string `json:"colours,omitempty"`   // colour → other words for it
	Materials map[string][]string `json:"materials,omitempty"` // material → words for it
	Patterns  map[string][]string `json:"patterns,omitempty"`  // pattern → words for it
	Fillers   []string            `json:"fillers,omitempty"`   // words without effect: "cute"
}

// LatentSize is the side of a latent image.
func (d *Description) LatentSize() int { return d.ImageSize / d.VAE.Factor() }

// ParseDescription reads and checks a model.json.
func ParseDescription(b []byte) (*Description, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	d := &Description{Defaults: Defaults{Steps: 20, Guidance: 5}}
	if err := dec.Decode(d); err != nil {
		return nil, fmt.Errorf("read %s: %w", DescriptionFile, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: something follows its end", DescriptionFile)
	}
	d.fill()
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", DescriptionFile, err)
	}
	return d, nil
}

// fill sets what may be left out.
func (d *Description) fill() {
	if d.Title == "" {
		d.Title = d.Name
	}
	if d.Files.Weights.Name == "" {
		d.Files.Weights.Name = "weights.safetensors"
	}
	if d.Files.Merges.Name == "" {
		d.Files.Merges.Name = "merges.txt"
	}
	if d.Defaults.Azimuths == nil && d.Views > 0 && d.Views <= maxViews {
		for k := range d.Views {
			d.Defaults.Azimuths = append(d.Defaults.Azimuths, float64(k)*360/float64(d.Views))
		}
	}
}

// readDescription reads the description of the bundle in fsys.
func readDescription(fsys fs.FS) (*Description, error) {
	b, err := fs.ReadFile(fsys, DescriptionFile)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", DescriptionFile, err)
	}
	return ParseDescription(b)
}
