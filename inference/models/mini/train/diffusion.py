"""Noise schedule, DDIM sampling with guidance, and the bundle of networks that a model folder holds."""
import json
import os

import torch

import render
from networks import tensorfile
from networks.text import TextEncoder
from networks.unet import UNet
from networks.vae import VAE
from tokenizer import Tokenizer

PREFIX = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": "cond_stage_model.model."}


def alphas(config, device="cpu"):
    """Cumulative alphas of the schedule, (timesteps) fp32."""
    betas = torch.linspace(config["beta_start"] ** .5, config["beta_end"] ** .5, config["timesteps"], dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float().to(device)


def ddim_steps(count, timesteps=1000):
    """Timesteps in sampling order: multiples of the stride, plus 1."""
    return [t + 1 for t in range(0, timesteps, timesteps // count)][::-1]


class Model:
    """unet, vae, text (modules), tokenizer, config (model.json), scale (latent scale factor)."""

    def __init__(self, config, tokenizer, device="cpu"):
        self.config, self.tokenizer, self.device, self.scale = config, tokenizer, device, config["scale_factor"]
        self.unet, self.vae, self.text = UNet(config["unet"]), VAE(config["vae"]), TextEncoder(config["text"])
        for net in (self.unet, self.vae, self.text):
            net.to(device).requires_grad_(False)
            net.to(memory_format=torch.channels_last)
        self.abar = alphas(config, device)

    def networks(self):
        return {"unet": self.unet, "vae": self.vae, "text": self.text}

    def half(self):
        for net in self.networks().values():
            net.half()
        return self

    def tensors(self, kind=torch.float16):
        """Everything under the checkpoint's names."""
        return {PREFIX[n] + k: v.to(kind) for n, net in self.networks().items() for k, v in net.state_dict().items()}

    def load(self, tensors):
        for n, net in self.networks().items():
            own = {k[len(PREFIX[n]):]: v.float() for k, v in tensors.items() if k.startswith(PREFIX[n])}
            net.load_state_dict(own)
        return self

    @staticmethod
    def read(folder, device="cpu"):
        with open(os.path.join(folder, "model.json"), encoding="utf-8") as f:
            config = json.load(f)
        tokenizer = Tokenizer.read(os.path.join(folder, "merges.txt"), config["text"]["context_length"])
        return Model(config, tokenizer, device).load(tensorfile.load(os.path.join(folder, "weights.safetensors"))[0])

    def encode_text(self, prompts):
        ids = torch.tensor([self.tokenizer(p) for p in prompts], device=self.device)
        return self.text(ids)

    def decode(self, latents):
        """(B, 4, h, w) -> images (B, 3, H, W) in 0..1, fp32"""
        kind = self.vae.post_quant_conv.weight.dtype
        return ((self.vae.decode((latents / self.scale).to(kind)).float() + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def sample(self, prompts, azimuth, elevation, seeds, steps=20, guidance=5., rescale=0.):
        """Four views a prompt. azimuth (N, F) and elevation (N, F) in degrees; seeds (N) ints -> latents (N F, 4, h, w).

        rescale pulls the guided prediction's spread towards the conditional one's (Lin et al. 2023, CFG rescale)."""
        N, F = azimuth.shape
        side = self.config["image_size"] // 8
        noise = [torch.randn(F, 4, side, side, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        x = torch.cat(noise).to(self.device)
        context = torch.cat([self.encode_text([""]).expand(N, -1, -1), self.encode_text(prompts)])
        camera = render.camera_matrix(azimuth.reshape(-1), elevation.reshape(-1)).to(self.device).repeat(2, 1)
        order = ddim_steps(steps)
        for i, t in enumerate(order):
            times = torch.full((2 * N * F,), t, device=self.device)
            stacked = x.repeat(2, 1, 1, 1).contiguous(memory_format=torch.channels_last)
            without, with_text = self.unet(stacked, times, context, camera).float().chunk(2)
            e = without + guidance * (with_text - without)
            if rescale:
                spread = with_text.reshape(N, -1).std(1) / e.reshape(N, -1).std(1)
                e = e * (1 + rescale * (spread - 1)).repeat_interleave(F)[:, None, None, None]
            a = self.abar[t]
            previous = self.abar[order[i + 1]] if i + 1 < len(order) else self.abar[0]
            clean = (x - (1 - a).sqrt() * e) / a.sqrt()
            x = previous.sqrt() * clean + (1 - previous).sqrt() * e
        return x

    @torch.no_grad()
    def views(self, prompts, azimuth, elevation, seeds, batch=256, **options):
        """-> images (N, F, H, W, 3) uint8 on the CPU; as the product truncates them."""
        out = []
        for i in range(0, len(prompts), batch):
            part = slice(i, i + batch)
            images = self.decode(self.sample(prompts[part], azimuth[part], elevation[part], seeds[part], **options))
            out.append((images * 255).to(torch.uint8).permute(0, 2, 3, 1).reshape(-1, azimuth.shape[1], *images.shape[2:], 3).cpu())
        return torch.cat(out)
