package models

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"dreamcad/inference/weights"
)

// toy is a model of a few kilobytes with all the parts of a large one. Its
// weights are a PyTorch checkpoint, its merges a list of one.
func toy(t testing.TB) (*Description, map[string][]byte) {
	t.Helper()
	merges := []byte("#version: toy\na b</w>\n")
	sum := sha256.Sum256(merges)
	d, err := ParseDescription(fmt.Appendf(nil, `{
		"name": "toy", "licence": {"name": "none"},
		"image_size": 16, "views": 2, "latent_channels": 2, "scale_factor": 1,
		"parameterization": "eps", "timesteps": 100, "beta_start": 0.001, "beta_end": 0.02,
		"unet": {"model_channels": 4, "channel_mult": [1, 2], "num_res_blocks": 1, "attention_downsample": [1],
			"num_head_channels": 4, "context_dim": 4, "camera_dim": 16, "norm_groups": 2},
		"vae": {"ch": 4, "ch_mult": [1, 1], "num_res_blocks": 1, "z_channels": 2, "norm_groups": 2},
		"text": {"width": 4, "layers": 2, "layers_used": 1, "heads": 2, "context_length": 8, "vocab": 515},
		"camera": {"fov_degrees": 40, "distance": 3, "front_azimuth": 90},
		"defaults": {"steps": 5, "guidance_scale": 3, "elevation": 15, "prompt_suffix": "", "negative_prompt": "", "distill_prompt_suffix": "", "distill_negative_prompt": "", "azimuths": [0, 180]},
		"files": {"weights": {"name": "toy.pt"}, "merges": {"name": "merges.txt"}},
		"sources": [{"name": "toy.pt", "repo": "owner/toy"}, {"name": "merges.txt", "url": "http://merges.invalid/merges.txt", "sha256": %q, "bytes": %d}],
		"check": {"tokens": [{"prompt": "ab AB", "ids": [512, 512]}], "alphas_bar": [{"t": 0, "value": 0.999}]}
	}`, hex.EncodeToString(sum[:]), len(merges)))
	if err != nil {
		t.Fatal(err)
	}
	return d, map[string][]byte{"toy.pt": checkpoint(t, d.Tensors()), "merges.txt": merges}
}

// checkpoint writes tensors of random values as PyTorch would.
func checkpoint(t testing.TB, tensors []weights.Wanted) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	pickle := []byte("\x80\x02}")
	text := func(s string) {
		pickle = append(pickle, 'X')
		pickle = binary.LittleEndian.AppendUint32(pickle, uint32(len(s)))
		pickle = append(pickle, s...)
	}
	integer := func(n int) {
		pickle = append(pickle, 'J')
		pickle = binary.LittleEndian.AppendUint32(pickle, uint32(n))
	}
	tuple := func(v []int) {
		pickle = append(pickle, '(')
		for _, n := range v {
			integer(n)
		}
		pickle = append(pickle, 't')
	}
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	store := func(name string, data []byte) {
		n := uint64(len(data))
		w, err := z.CreateRaw(&zip.FileHeader{Name: name, CRC32: crc32.ChecksumIEEE(data), CompressedSize64: n, UncompressedSize64: n})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, w := range tensors {
		info := weights.Info{DType: weights.F32, Shape: w.Shape}
		v := make([]float32, info.Elements())
		for j := range v {
			v[j] = float32(random.NormFloat64())
		}
		strides, next := make([]int, len(w.Shape)), 1
		for j := len(w.Shape) - 1; j >= 0; j-- {
			strides[j] = next
			next *= w.Shape[j]
		}
		key := fmt.Sprint(i)
		store("toy/data/"+key, weights.EncodeF32(v))
		text(w.Name)
		pickle = append(pickle, "ctorch._utils\n_rebuild_tensor_v2\n(("...)
		text("storage")
		pickle = append(pickle, "ctorch\nFloatStorage\n"...)
		text(key)
		text("cuda:0")
		integer(len(v))
		pickle = append(pickle, "tQ"...)
		integer(0)
		tuple(w.Shape)
		tuple(strides)
		pickle = append(pickle, "\x89ccollections\nOrderedDict\n)RtRs"...)
	}
	store("toy/data.pkl", append(pickle, '.'))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
