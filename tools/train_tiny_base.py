"""Train the tiny base model from nothing, on pictures that are not mammograms.

    python tools/train_tiny_base.py --work build/tiny-base --out mame_lib/weights/tiny

Stages: `vae` (autoencoder), `cache` (posterior moments of captioned pictures), `texture` (the autoencoder's decoder
alone, for sharpness: the latents stay, so it may run beside the next stage), `unet` (denoiser and text encoder),
`export` (float16 pipeline folder with its card). Each stage goes on from its last checkpoint when called again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tiny_vae import PHASES, train_vae

from mame_lib import __version__
from mame_lib.data.pictures import picture
from mame_lib.models.components import Components
from mame_lib.models.latents import encode_moments
from mame_lib.models.text import tokenize
from mame_lib.models.tiny import tiny_text_encoder, tiny_tokenizer, tiny_unet, tiny_vae
from mame_lib.training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet, batch_of_step
from mame_lib.training.loop import start, train_step

STAGES = ("vae", "cache", "texture", "unet", "export")
SEED = 20240324


def train_phases(work: Path, *, decoder_only: bool) -> None:
    """Run the autoencoder's phases of one kind, in order."""
    for name, phase in PHASES.items():
        if phase.decoder_only is decoder_only:
            train_vae(work, name)


def trained_vae(work: Path) -> torch.nn.Module:
    """The averaged autoencoder of its last phase, with the scaling factor of the cache if there is one."""
    vae = tiny_vae().eval()
    done = [work / f"vae-{phase}" for phase in PHASES if (work / f"vae-{phase}" / "state.json").exists()]
    vae.load_state_dict(read_checkpoint(done[-1])[0]["ema"])
    if (work / "cache" / "cache.json").exists():
        vae.register_to_config(scaling_factor=json.loads((work / "cache" / "cache.json").read_text())["scaling_factor"])
    return vae


def cache(work: Path, count: int) -> None:
    """Encode `count` captioned pictures; the scaling factor makes their latents unit variance (Rombach et al. 2022)."""
    if (work / "cache" / "cache.json").exists():
        return
    vae, captions, means, stds = trained_vae(work), [], [], []
    for first in range(0, count, 64):
        drawn = [picture(SEED + 1, i) for i in range(first, min(first + 64, count))]
        moments = encode_moments(vae, np.stack([image for image, _ in drawn]))
        means.append(moments.mean.half())
        stds.append(moments.std.half())
        captions += [caption for _, caption in drawn]
        print(f"cache {len(captions)}/{count}", flush=True)
    mean = torch.cat(means)
    (work / "cache").mkdir(parents=True, exist_ok=True)
    save_file({"mean": mean.contiguous(), "std": torch.cat(stds).contiguous()}, work / "cache" / "moments.safetensors")
    facts = {"scaling_factor": round(1 / float(mean.float().std()), 5), "captions": captions}
    (work / "cache" / "cache.json").write_text(json.dumps(facts))


def parts(work: Path) -> Components:
    """Tokenizer and autoencoder of the stages before, untrained UNet and text encoder (from a fixed seed)."""
    torch.manual_seed(SEED)
    tokenizer = tiny_tokenizer()
    return Components(tiny_unet(), trained_vae(work), tiny_text_encoder(tokenizer), tokenizer)


def train_unet(work: Path, steps: int, batch_size: int, learning_rate: float) -> None:
    """Pretrain denoiser and text encoder together with the trainer that fine-tunes them later."""
    components = parts(work)
    tensors = load_file(work / "cache" / "moments.safetensors")
    captions = json.loads((work / "cache" / "cache.json").read_text())["captions"]
    data = TrainingSet(
        moments=torch.stack([tensors["mean"], tensors["std"]], dim=1).numpy(),  # [N, 2, 4, h, w] float16
        input_ids=tokenize(components.tokenizer, captions),
        empty_ids=tokenize(components.tokenizer, [""])[0],
        scaling_factor=float(components.vae.config.scaling_factor),
    )
    config = TrainConfig(
        data=work, out=work / "unet", steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=SEED,
        text_learning_rate_factor=1.0, ema_decay=0.999, warmup=100,
    )  # fmt: skip
    state = start(config, components)
    if (work / "unet" / "state.json").exists():
        files, info = read_checkpoint(work / "unet")
        components.unet.load_state_dict(files["unet"])
        components.text_encoder.load_state_dict(files["text_encoder"])
        restore_optimizer(state.optimizer, files["optimizer"])
        state.ema.restore(files["ema"], info["ema_updates"])
        state.step = info["step"]
    began, losses = time.time(), []
    while state.step < steps:
        batch = batch_of_step(data, config, state.step)
        losses.append(train_step(state, batch, config)[0].mean())
        if state.step % 50 == 0:
            print(
                f"unet {state.step}/{steps}  loss {float(torch.stack(losses).mean()):.4f}  {time.time() - began:.0f} s",
                flush=True,
            )
            losses = []
        if state.step % 500 == 0 or state.step == steps:
            checkpoint = {
                "unet": components.unet.state_dict(),
                "text_encoder": components.text_encoder.state_dict(),
                "ema": state.ema.tensors(),
                "optimizer": optimizer_tensors(state.optimizer),
            }
            info = {
                "step": state.step,
                "ema_updates": state.ema.updates,
                "batch_size": batch_size,
                "pictures": len(data),
            }
            write_checkpoint(work / "unet", checkpoint, info)


def export(work: Path, out: Path) -> None:
    """Write the averaged weights as a diffusers pipeline folder with `mame.json`; the card is `README.md` beside it."""
    components = parts(work)
    files, info = read_checkpoint(work / "unet")
    components.unet.load_state_dict(files["unet"])
    components.text_encoder.load_state_dict(files["text_encoder"])
    state = start(TrainConfig(data=work, out=out), components)
    state.ema.restore(files["ema"], info["ema_updates"])
    vae_steps = {phase: read_checkpoint(work / f"vae-{phase}")[1]["step"] for phase in PHASES}
    components.info = {
        "format": 1,
        "library": __version__,
        "preset": "tiny",
        "pretraining": {
            "data": "mame_lib.data.pictures", "pictures": info["pictures"], "vae_steps": vae_steps,
            "unet_steps": info["step"], "batch_size": info["batch_size"], "seed": SEED,
        },
    }  # fmt: skip
    card = (out / "README.md").read_bytes() if (out / "README.md").exists() else None
    with state.ema.applied():
        components.save(out)
    if card is not None:
        (out / "README.md").write_bytes(card)


def main() -> None:
    """Run the stages asked for, in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tiny-base"), help="checkpoints and cache")
    parser.add_argument("--out", type=Path, default=Path("mame_lib/weights/tiny"), help="model folder to write")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--unet-steps", type=int, default=1600)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stages = {
        "vae": lambda: train_phases(options.work, decoder_only=False),
        "texture": lambda: train_phases(options.work, decoder_only=True),
        "cache": lambda: cache(options.work, options.pictures),
        "unet": lambda: train_unet(options.work, options.unet_steps, options.batch_size, options.learning_rate),
        "export": lambda: export(options.work, options.out),
    }
    for name in options.stages:
        stages[name]()


if __name__ == "__main__":
    main()
