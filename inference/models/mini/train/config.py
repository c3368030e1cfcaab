"""The architecture of the mini model and the contents of model.json."""
import objects
from objects.caption import FILLERS
from objects.palette import COLOUR_SYNONYMS, MATERIALS, PATTERNS, SHADES

IMAGE, CONTEXT = 128, 32


def architecture(vocabulary, scale=1.):
    """model.json without the words. Every size that the engine needs stands here."""
    return {
        "name": "mini", "title": f"mini: {len(objects.THING_NAMES)} kinds of toy-like things, {IMAGE}\u00d7{IMAGE} pixels",
        "licence": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        "image_size": IMAGE, "views": 4, "latent_channels": 4, "scale_factor": scale, "parameterization": "eps",
        "timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "unet": {"model_channels": 64, "channel_mult": [1, 2, 2], "num_res_blocks": 1, "attention_downsample": [1, 2], "num_head_channels": 32,
                 "context_dim": 128, "camera_dim": 16, "norm_groups": 8},
        "vae": {"ch": 32, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "z_channels": 4, "norm_groups": 8},
        "text": {"width": 128, "layers": 3, "layers_used": 3, "heads": 2, "context_length": CONTEXT, "vocab": vocabulary},
        "camera": {"fov_degrees": 40, "distance": 2.8, "front_azimuth": 90, "elevations": [-20, 60]},
        "defaults": {"steps": 20, "guidance_scale": 5.0, "elevation": 25, "negative_prompt": "", "azimuths": [20, 110, 200, 290],
                     "prompt_suffix": "", "distill_prompt_suffix": "", "distill_negative_prompt": ""},
    }


def vocabulary():
    """What the model knows, for the sentence that an unknown prompt draws: {thing: words for it}, colours, materials, patterns."""
    return {
        "things": {name: sorted(set(t.nouns)) for name, t in sorted(objects.THINGS.items())},
        "parts": {name: sorted(t.parts) for name, t in sorted(objects.THINGS.items()) if t.parts},
        "colours": {c: COLOUR_SYNONYMS.get(c, []) for c in [*objects.COLOUR_NAMES, *SHADES]},
        "materials": {m: sorted(set(words)) for m, (words, _, _) in MATERIALS.items()},
        "fillers": sorted(set(FILLERS)),
        "patterns": {p: sorted(set(before)) for p, (_, before, _) in PATTERNS.items()},
    }
