"""Our trainer beside diffusers' own training scripts: images per second, time to first step, memory, loss.

    python benchmarks/training.py --peer PATH/train_dreambooth.py --out benchmarks/results/training.json

PATH is `examples/dreambooth` of a diffusers checkout; `--peer-t2i PATH/train_text_to_image.py` adds that script (it
needs the package datasets). The scripts are run as they are. They need torchvision: `--site DIR` says where it lies
when it is not installed, and a build for CUDA will do beside a CPU build of PyTorch
(`pip install --no-deps --target DIR torchvision==0.28.0` for PyTorch 2.13).

Every run is a process of its own; ours and theirs train in turn, ten steps each, so that whatever else the machine
does falls on both (see turns.py). Both start from the same weights (the tiny base, as a complete pipeline folder) and
see the same phantoms. First the peer's own first step is recorded while it runs: latents, noise, timesteps, loss and
gradient. From the same latents, noise and timesteps our loss and gradient must be the same. Then each case is raced;
the models that both have saved are judged by the loss on 512 rows that neither has seen, at fixed noise. A CUDA device
adds cases of SD 1.5's size at 512 pixels (random weights serve for speed). About 20 minutes on two idle cores;
`--only NAME` races one case and leaves the others in the file as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixed_loss import FixedLoss
from provenance import report
from sides import PROMPT, Case, Folders, lay_out, our_settings, peer_flags
from turns import BLOCK, Program, program, take_turns

from mame_lib.data.sources import phantom_source
from mame_lib.models.cache import FOLDER
from mame_lib.models.components import Components
from mame_lib.models.latents import encode_moments
from mame_lib.models.text import tokenize
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Batch
from mame_lib.training.loop import diffusion_loss
from mame_lib.training.networks import trainable

IMAGES, HELD_OUT, DRAWS = 480, 128, 4  # phantoms to learn from (30 batches), to judge by, and noises for each
CONSTANT = ("--lr_scheduler", "constant", "--lr_warmup_steps", "0")
COSINE = ("--lr_scheduler", "cosine", "--lr_warmup_steps", "20")
BARE = {"rate_schedule": "constant", "warmup": 0, "ema_decay": 0.0, "caption_dropout": 0.0, "validation_every": 0}


def cases(workers: int) -> dict[str, Case]:
    """The races on the CPU."""
    loader = ("--dataloader_num_workers", str(workers))
    return {
        "matched": Case(
            "UNet and text encoder, one caption; AdamW at a constant rate, no average, dropout or validation",
            {"constant_prompt": PROMPT, "text_learning_rate_factor": 1.0, **BARE},
            ("--train_text_encoder", *CONSTANT),
        ),
        "best": Case(
            "the same, each at its best: our defaults (average, dropout, validation), the peer's loader in processes",
            {"constant_prompt": PROMPT},
            ("--train_text_encoder", "--set_grads_to_none", *loader, *COSINE),
        ),
        "unet": Case(
            "UNet alone, each at its best: our defaults, the peer's caption encoded once, its loader in processes",
            {"constant_prompt": PROMPT, "method": "unet"},
            ("--pre_compute_text_embeddings", "--set_grads_to_none", *loader, *COSINE),
        ),
        "text_to_image": Case(
            "UNet alone, a caption an image, averaged weights",
            {"method": "unet", **BARE, "ema_decay": 0.9999},
            ("--use_ema", *loader, *CONSTANT),
            script="text_to_image",
        ),
    }  # fmt: skip


def judge(base: Components, *, captions: bool) -> FixedLoss:
    """The loss of held-out phantoms at fixed noise, with their own captions or all with the one."""
    items = list(phantom_source(HELD_OUT, size=base.image_size, seed=8))
    moments = encode_moments(base.vae, np.stack([item.image for item in items]))
    latents = moments.mean * base.vae.config.scaling_factor  # [N, 4, h, w]
    return FixedLoss.of(base, latents, [item.prompt if captions else PROMPT for item in items], DRAWS)


def equivalence(script: Path, folders: Folders, options: argparse.Namespace) -> dict[str, Any]:
    """The peer's first step of the case "matched" against ours from the same latents, noise and timesteps."""
    from safetensors.torch import load_file

    case, probe, out = cases(0)["matched"], folders.root / "probe.safetensors", folders.root / "probe"
    flags = peer_flags(case, folders, out, 1, seed=0)
    task: dict[str, Any] = {"script": str(script), "flags": flags, "probe": str(probe), "site": options.site}
    take_turns({"peer": program(folders.root / "probe.log", options.threads, **task)})
    theirs = load_file(probe)
    config = TrainConfig(**our_settings(case, folders, folders.root / "unused", 1, seed=0))
    parts = Components.load(folders.base)
    trained = trainable(config, parts)
    ids = tokenize(parts.tokenizer, [PROMPT]).repeat(len(theirs["latents"]), 1)  # [B, L]
    batch = Batch(theirs["latents"], theirs["noise"], theirs["timesteps"], ids)
    loss = diffusion_loss(parts, batch, parts.schedule, torch.float32).mean()
    loss.backward()
    ours = torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained])
    found = [theirs.get(f"gradient.{i}", torch.zeros_like(p)).flatten() for i, p in enumerate(trained)]
    peer = torch.cat(found)
    told = {"ours": loss.item(), "peer": theirs["loss"].item()}
    return {
        "loss": told,
        "loss_apart": abs(told["ours"] - told["peer"]),
        "gradient_norm": float(peer.norm()),
        "gradient_apart": float((ours - peer).norm() / peer.norm()),
        "weights": len(peer),
    }


def speed(blocks: Sequence[tuple[float, float, int]], clock: int = 0, batch: int = 16) -> float:
    """Images per second of a program without its warm-up and its end; clock 0 is the wall's, 1 the CPU's."""
    timed = blocks[2:-1]
    return batch * sum(block[2] for block in timed) / sum(block[clock] for block in timed)


def summary(runs: dict[str, list[Program]], losses: dict[str, list[float]], before: float) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves. The ratio is that within a round, so a busy one is fair."""
    wall = {side: [speed(run.blocks) for run in some] for side, some in runs.items()}
    cpu = {side: [speed(run.blocks, clock=1) for run in some] for side, some in runs.items()}
    first = {side: statistics.median(run.blocks[0][0] for run in some) for side, some in runs.items()}
    total = {side: statistics.median(sum(b[0] for b in run.blocks) for run in some) for side, some in runs.items()}
    rate = {side: statistics.median(values) for side, values in wall.items()}
    ratios = [ours / peer for ours, peer in zip(wall["ours"], wall["peer"], strict=True)]
    gain = 1 / rate["peer"] - 1 / rate["ours"]  # seconds an image
    return {
        "images_per_second": {side: round(value, 2) for side, value in rate.items()},
        "ratio": round(statistics.median(ratios), 2),
        "images_per_second_by_round": {side: [round(v, 2) for v in values] for side, values in wall.items()},
        "ratio_by_round": [round(ratio, 2) for ratio in ratios],
        "images_per_cpu_second": {side: round(statistics.median(values), 2) for side, values in cpu.items()},
        "seconds_to_first_step": {side: round(value, 1) for side, value in first.items()},
        "seconds_in_all": {side: round(value, 1) for side, value in total.items()},
        "images_until_ahead": round(max(0.0, first["ours"] - first["peer"]) / gain) if gain > 0 else None,
        "peak_resident_mb": {
            side: round(statistics.median(run.result["peak_resident"] for run in some) / 1e6)
            for side, some in runs.items()
        },
        "fixed_noise_loss": {
            "before": round(before, 5),
            **{side: round(statistics.mean(values), 5) for side, values in losses.items()},
        },
        "fixed_noise_loss_by_round": {side: [round(v, 5) for v in values] for side, values in losses.items()},
    }


def race(name: str, case: Case, script: Path, folders: Folders, fixed: FixedLoss, options: argparse.Namespace) -> Any:
    """Some rounds of a case, each with a seed of its own and an empty latent cache."""
    runs: dict[str, list[Program]] = {"ours": [], "peer": []}
    losses: dict[str, list[float]] = {"ours": [], "peer": []}
    for number in range(options.rounds):
        outs = {side: folders.root / f"{name}-{side}-{number}" for side in runs}
        shutil.rmtree(folders.data / FOLDER, ignore_errors=True)
        settings = our_settings(case, folders, outs["ours"], options.steps, number)
        flags = peer_flags(case, folders, outs["peer"], options.steps, number)
        logs = {side: folders.root / f"{name}-{side}.log" for side in runs}
        both = {
            "ours": program(logs["ours"], options.threads, ours=settings),
            "peer": program(logs["peer"], options.threads, script=str(script), flags=flags, site=options.site),
        }
        take_turns(both)
        for side, model in (("ours", outs["ours"] / "model"), ("peer", outs["peer"])):
            runs[side].append(both[side])
            losses[side].append(statistics.mean(fixed(Components.load(model))))
            shutil.rmtree(outs[side])
            said = f"{speed(both[side].blocks):.1f} images/s, loss {losses[side][-1]:.4f}"
            print(f"{name}, round {number + 1}, {side}: {said}", file=sys.stderr, flush=True)
    return {
        "about": case.about, "date": time.strftime("%Y-%m-%d"), "rounds": options.rounds, "steps": options.steps,
        "threads": options.threads, "ours": case.ours, "peer": " ".join(case.peer), "script": script.name,
        **summary(runs, losses, statistics.mean(fixed(Components.load(folders.base)))),
    }  # fmt: skip


def stable_diffusion() -> Components:
    """A model of SD 1.5's size with random weights; its tokenizer is the tiny one, at 77 tokens."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from mame_lib.models.tiny import tiny_tokenizer
    from mame_lib.planner.networks import SD15

    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 77
    torch.manual_seed(0)
    return Components(
        unet=UNet2DConditionModel.from_config(SD15["unet"]), vae=AutoencoderKL.from_config(SD15["vae"]),
        text_encoder=CLIPTextModel(CLIPTextConfig(**SD15["text_encoder"])), tokenizer=tokenizer,
    )  # fmt: skip


def gpu_cases(precision: str) -> dict[str, tuple[Case, float | None, int, int]]:
    """On CUDA: a case, the cap of memory in GiB, steps, and those of a turn; without flags ours runs alone."""
    lean = {"constant_prompt": PROMPT, "gradient_checkpointing": True, "optimizer": "adamw8bit",
            "text_learning_rate_factor": 1.0, **BARE}  # fmt: skip
    flags = ("--train_text_encoder", "--gradient_checkpointing", "--use_8bit_adam", "--mixed_precision",
             {"bfloat16": "bf16", "float16": "fp16"}[precision], *CONSTANT)  # fmt: skip
    sizes: dict[str, Any] = {"size": 512, "rate": 1e-6}
    t4 = Case("a T4's recipe", {**lean, "precision": "float16"}, (), batch=1, **sizes)
    paper = Case("the paper's batch", {**lean, "precision": precision, "micro_batch_size": 16}, (), batch=256, **sizes)
    both = Case("matched", {**lean, "precision": precision}, flags, batch=4, **sizes)
    return {"t4": (t4, 16.0, 52, 10), "paper": (paper, 20e9 / 2**30, 6, 2), "matched": (both, None, 52, 10)}


def on_gpu(script: Path, root: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Speed and memory at SD 1.5's size; None without a CUDA device. A program that does not fit is a result too."""
    if not torch.cuda.is_available():
        return None
    precision = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    folders = lay_out(root, stable_diffusion(), count=48, size=512)
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for name, (case, cap, steps, block) in gpu_cases(precision).items():
        common: dict[str, Any] = {"gpu": True, "cap_gib": cap, "block": block}
        settings = our_settings(case, folders, root / f"{name}-ours", steps, seed=0)
        programs = {"ours": program(root / f"{name}-ours.log", options.threads, ours=settings, **common)}
        if case.peer:
            flags = peer_flags(case, folders, root / f"{name}-peer", steps, seed=0)
            log = root / f"{name}-peer.log"
            programs["peer"] = program(
                log, options.threads, script=str(script), flags=flags, site=options.site, **common
            )
        found[name] = {"about": case.about, "batch": case.batch, "cap_gib": cap, "ours": case.ours, "peer": case.peer}
        for side, done in programs.items():  # one after the other: both at once would share the memory
            try:
                take_turns({side: done})
                rate = round(speed(done.blocks, batch=case.batch), 3)
                found[name][f"{side}_measured"] = {"images_per_second": rate, **done.result}
            except SystemExit as error:
                found[name][f"{side}_measured"] = {"failed": str(error).splitlines()[-1]}
    return found


def identity(script: Path) -> dict[str, str]:
    """Name of a script and the id under which git knows this very text."""
    text = script.read_bytes()
    return {"script": script.name, "git_blob": hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()}


def peer_packages(site: str | None) -> dict[str, str]:
    """Versions of what only the scripts of the peer need."""
    found = distributions(path=[site] if site else sys.path)
    return {one.name: one.version for one in found if one.name in ("torchvision", "datasets")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="train_dreambooth.py of diffusers")
    parser.add_argument("--peer-t2i", type=Path, help="train_text_to_image.py of diffusers")
    parser.add_argument("--site", help="folder with packages for the peer alone, such as torchvision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=62, help="10 k + 2: the end falls into no turn that counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="one case; the others stay in the file as they are")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.peer is None:
        parser.error("--peer is missing: the path of train_dreambooth.py in a diffusers checkout")
    if options.steps % BLOCK != 2 or options.steps < 3 * BLOCK:
        parser.error(f"--steps must be {BLOCK} k + 2, and at least {3 * BLOCK + 2}")
    root = Path(tempfile.mkdtemp(prefix="mame-benchmark-"))
    try:
        for result in compare(options, root):  # stored after each part, for a run takes its time
            report(result, options.out, "torch", "diffusers", "transformers", "accelerate")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def compare(options: argparse.Namespace, root: Path) -> Iterator[dict[str, Any]]:
    """Equivalence, then the races, then the GPU; yields what there is after each of them."""
    scripts = {"dreambooth": options.peer.resolve()}
    if options.peer_t2i:
        scripts["text_to_image"] = options.peer_t2i.resolve()
    base = Components.load("tiny")
    folders = lay_out(root / "tiny", base, IMAGES, base.image_size)
    judges = {name: judge(base, captions=name == "text_to_image") for name in scripts}
    known = cases(workers=options.threads)
    chosen = {n: c for n, c in known.items() if c.script in scripts and options.only in (None, n)}
    same = equivalence(scripts["dreambooth"], folders, options)
    print(f"same step: {same}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "peer": {"scripts": [identity(script) for script in scripts.values()], "packages": peer_packages(options.site)},
        "model": "tiny", "images": IMAGES, "size": base.image_size, "batch": 16, "precision": "float32",
        "held_out_rows": HELD_OUT * DRAWS,
        "equivalence": same, "cases": {}, "cuda": None,
    }  # fmt: skip
    if options.only and options.out and options.out.exists():
        stored = json.loads(options.out.read_text())
        result.update(cases=stored["cases"], cuda=stored["cuda"])
    for name, case in chosen.items():
        result["cases"][name] = race(name, case, scripts[case.script], folders, judges[case.script], options)
        yield result
    if options.only is None:
        result["cuda"] = on_gpu(scripts["dreambooth"], root / "sd15", options)
        yield result


if __name__ == "__main__":
    main()
