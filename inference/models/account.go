package models

import (
	"fmt"
	"slices"
	"strings"

	"dreamcad/inference/weights"
)

// Account compares a file of weights with the description. Of the returned
// difference, Extra holds only names that the original checkpoint does not
// have either: what it is known to carry without need is left out.
func (d *Description) Account(src weights.Source) weights.Diff {
	diff := weights.Compare(src, d.Tensors())
	diff.Extra = slices.DeleteFunc(diff.Extra, d.spare)
	return diff
}

// spare says whether a tensor is one that checkpoints of the original carry
// but that the networks here do not read: schedule buffers, which are computed,
// text layers behind the one whose output is used, and the parts of CLIP that
// compare texts with images. attn_mask is written by some versions of open_clip.
func (d *Description) spare(name string) bool {
	switch name {
	case "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
		"log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
		"posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
		TextPrefix + "text_projection", TextPrefix + "logit_scale", TextPrefix + "attn_mask":
		return true
	}
	for i := d.Text.LayersUsed; i < d.Text.Layers; i++ {
		if strings.HasPrefix(name, fmt.Sprintf("%stransformer.resblocks.%d.", TextPrefix, i)) {
			return true
		}
	}
	return false
}
