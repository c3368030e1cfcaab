"""Stage 2: UNet and text encoder together, on encoded objects."""
import time

import torch

from flat import FlatAdam, captured


def step_weights(abar):
    """Weight of each timestep: min(SNR, 5) / SNR, and up to 8 times more for the noisiest, where overall colour is decided."""
    snr = abar / (1 - abar)
    return snr.clamp(max=5) / snr * (1 / abar).clamp(max=8)


class Trainer:
    def __init__(self, model, dataset, device, batch=128, rate=8e-4, average=.9995, drop=.12):
        """model: diffusion.Model on the device; its unet and text become views of the optimizer's buffers."""
        self.device, self.rate = device, rate
        unet, text = model.unet, model.text
        self.adam = FlatAdam({"unet": unet, "text": text}, torch.bfloat16 if device == "cuda" else torch.float32, 0., .01, average)
        self.seen = torch.zeros((), device=device)
        weights, abar = step_weights(model.abar), model.abar
        latents, ids, cameras = dataset.latents, dataset.ids, dataset.cameras
        N, F, h, w, z = latents.shape
        empty = torch.tensor(model.tokenizer(""), dtype=ids.dtype, device=device)

        def step():
            i = torch.randint(0, N, (batch,), device=device)
            x = latents[i].float()  # (batch, F, h, w, z)
            words = ids[i, torch.randint(0, ids.shape[1], (batch,), device=device)]
            words = torch.where((torch.rand(batch, device=device) < drop)[:, None], empty, words)
            t = torch.randint(0, abar.shape[0], (batch,), device=device)
            noise, a = torch.randn_like(x), abar[t][:, None, None, None, None]
            noisy = (a.sqrt() * x + (1 - a).sqrt() * noise).view(batch * F, h, w, z).permute(0, 3, 1, 2)
            times = t[:, None].expand(batch, F).reshape(-1)
            e = unet(noisy, times, text(words.long()), cameras[i].view(batch * F, 16)).float()
            error = (e.permute(0, 2, 3, 1).reshape(batch, F, h, w, z) - noise) ** 2
            loss = (weights[t] * error.flatten(1).mean(1)).mean()
            loss.backward()
            self.adam.step()
            self.seen.lerp_(loss.detach(), .005)

        self.step = step

    def run(self, seconds, final, warm=500, save=None, every=75., most=10 ** 9, say=print):
        """Trains for so many seconds. final: let the rate fall to 2 % over the last 65 %; else it stays. save() is called every so often."""
        begun = saved = time.time()
        go, i = captured(self.step, self.device), 0
        say(f"unet: captured after {time.time() - begun:.1f} s")
        while i < most:
            now = time.time()
            spent = (now - begun) / seconds
            if spent >= 1:
                break
            fall = max(.02, min(1., (1 - spent) / .65)) if final else 1.
            self.adam.rate.fill_(self.rate * min(1., (float(i) + 1) / warm) * fall)
            for _ in range(min(50, most)):
                go()
            if self.device == "cuda":
                torch.cuda.synchronize()
            i += 50
            if i % 1000 == 0:
                say(f"unet: {i} iterations, loss {float(self.seen):.4f}, {time.time() - begun:.0f} s, {i / (time.time() - begun):.1f}/s")
            if save and now - saved > every:
                save()
                saved = now
        say(f"unet: {i} iterations in {time.time() - begun:.0f} s, loss {float(self.seen):.4f}")
        return i
