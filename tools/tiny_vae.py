"""Stage 1 of the tiny base: train the autoencoder on procedural pictures (called by `train_tiny_base.py`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from mame_lib.data.pictures import picture
from mame_lib.models.tiny import tiny_vae
from mame_lib.training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint

CROP = 64
GRAY_SHARE = 0.9  # four latent channels are few: the model is meant for gray images, but must know color


def draw(seed: int, index: int, smooth: bool) -> np.ndarray:
    """Picture `index`; `smooth` prefers those without the fine regular patterns that eight-fold compression loses."""
    image, caption = picture(seed, index, gray_share=GRAY_SHARE)
    if not smooth:
        return image
    fine = any(kind in caption for kind in ("sand", "checks", "dots", "stripes"))
    return picture(seed + 1, index, gray_share=GRAY_SHARE)[0] if fine and index % 5 else image


def batch(seed: int, step: int, size: int, full: bool, smooth: bool = False) -> Tensor:
    """Pictures of step `step` in [-1, 1], `[B, 3, h, w]`: two 64-pixel crops a picture, or whole pictures."""
    rng = np.random.default_rng((seed, step))
    crops = []
    for i in range(size if full else size // 2):
        image = draw(seed, step * size + i, smooth)
        for _ in range(1 if full else 2):
            y, x = (0, 0) if full else rng.integers(0, image.shape[0] - CROP + 1, 2)
            crop = image if full else image[y : y + CROP, x : x + CROP]
            crops.append(crop if rng.uniform() < 0.5 else crop[:, ::-1])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def band_power(images: Tensor, patch: int = 32) -> Tensor:
    """Log power in radial frequency bands of overlapping Hann-windowed patches of the luminance, `[N, bands]`."""
    gray = images.mean(1, keepdim=True)  # [B, 1, h, w]
    patches = gray.unfold(2, patch, patch // 2).unfold(3, patch, patch // 2).reshape(-1, patch, patch)
    window = torch.hann_window(patch)[:, None] * torch.hann_window(patch)[None, :]
    patches = (patches - patches.mean((1, 2), keepdim=True)) * window
    power = torch.fft.rfft2(patches).abs().square() / window.square().sum()  # [N, 32, 17]
    frequency = torch.hypot(torch.fft.fftfreq(patch)[:, None], torch.fft.rfftfreq(patch)[None, :])
    edges = torch.tensor([0.03, 0.06, 0.09, 0.12, 0.16, 0.20, 0.25, 0.31, 0.38, 0.5])
    which = torch.bucketize(frequency, edges)  # band 0 is the mean, the last one lies beyond Nyquist
    member = F.one_hot(which, len(edges) + 1).float().reshape(-1, len(edges) + 1)[:, 1:-1]
    mean = power.flatten(1) @ member / member.sum(0)
    return torch.log(mean + 1e-5)


def loss_terms(vae: AutoencoderKL, images: Tensor, noise_seed: int) -> dict[str, Tensor]:
    """Reconstruction, spectrum and KL terms of one batch, each a scalar.

    The logarithm of each image's squared error is minimized, which is its PSNR: a plain mean would be ruled by the few
    pictures (fine checks, sand) that no autoencoder of this size can keep.
    """
    generator = torch.Generator().manual_seed(noise_seed)
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        output = vae.decode(latents).sample
    output = output.float()
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return {
        "l1": (output - images).abs().mean(),
        "log_mse": torch.log((output - images).square().mean((1, 2, 3)) + 1e-4).mean(),
        "spectrum": (band_power(output) - band_power(images)).abs().mean(),
        "kl": kl,
    }


@dataclass(frozen=True)
class Phase:
    """A stretch of the training with its own cosine, pictures and loss weights."""

    steps: int
    learning_rate: float
    smooth: bool  # mostly pictures without fine regular patterns
    weights: dict[str, float]
    decoder_only: bool = False  # the latents stay, so that the denoiser can be trained meanwhile


PHASES = {
    "shapes": Phase(9000, 2e-3, False, {"l1": 1.0, "log_mse": 0.25, "spectrum": 0.0, "kl": 1e-5}),
    "smooth": Phase(5500, 1e-3, True, {"l1": 0.3, "log_mse": 0.5, "spectrum": 0.0, "kl": 1e-5}),
    "texture": Phase(4000, 1e-3, True, {"l1": 0.3, "log_mse": 0.5, "spectrum": 0.1, "kl": 0.0}, decoder_only=True),
}


def train_vae(work: Path, phase_name: str, seed: int = 0) -> None:
    """Train, or go on training, one phase in `work/vae-PHASE`; about 0.2 s a step on one core.

    A phase starts from the averaged weights of the one before.
    """
    phase, folder = PHASES[phase_name], work / f"vae-{phase_name}"
    torch.manual_seed(seed)
    vae = tiny_vae()
    names = list(PHASES)
    if phase_name != names[0]:
        vae.load_state_dict(read_checkpoint(work / f"vae-{names[names.index(phase_name) - 1]}")[0]["ema"])
    if phase.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    trained = [p for p in vae.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=phase.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = {name: value.clone() for name, value in vae.state_dict().items()}
    first = 0
    if (folder / "state.json").exists():
        files, info = read_checkpoint(folder)
        vae.load_state_dict(files["weights"])
        ema, first = files["ema"], info["step"]
        restore_optimizer(optimizer, files["optimizer"])
    stream = seed + 1000 * names.index(phase_name)
    started, running = time.time(), dict.fromkeys(phase.weights, 0.0)
    for step in range(first, phase.steps):
        progress = step / phase.steps
        for group in optimizer.param_groups:
            cosine = 0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress))
            group["lr"] = phase.learning_rate * min(1, (step + 1) / 100) * cosine
        full = progress > 0.85 and step % 2 == 0
        terms = loss_terms(vae, batch(stream, step, 2 if full else 8, full, phase.smooth), noise_seed=step)
        torch.stack([phase.weights[name] * value for name, value in terms.items()]).sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.998, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(ema.values()), list(vae.state_dict().values()), 1 - decay)
        for name, value in terms.items():
            running[name] += float(value.detach()) / 100
        if (step + 1) % 100 == 0:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in running.items())
            print(f"vae {phase_name} {step + 1}/{phase.steps}  {shown}  {time.time() - started:.0f} s", flush=True)
            running = dict.fromkeys(phase.weights, 0.0)
        if (step + 1) % 1000 == 0 or step + 1 == phase.steps:
            parts = {"weights": vae.state_dict(), "ema": ema, "optimizer": optimizer_tensors(optimizer)}
            write_checkpoint(folder, parts, {"step": step + 1})
