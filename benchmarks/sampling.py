"""Our sampling beside diffusers' `StableDiffusionPipeline`: images per second, and what the faster settings cost.

    python benchmarks/sampling.py --out benchmarks/results/sampling.json

The shipped model `fused` is written as a complete pipeline folder and loaded by diffusers; both sides then make the
same images: same weights, prompts and start latents, 24 steps of DPM-Solver++ 2M, guidance 4. First the images are
compared: unless they agree within one gray level (channels averaged the same way), nothing is timed. Then the sides
take turns on one thread, in one process, each round in another order, so that whatever else the machine does falls on
all. The ratio is that within a round. The peer has its progress bar off and returns arrays.

"ours" is our default, whose output is the peer's. "interval" is the same with guidance in an interval of timesteps;
that changes the images, so a sweep measures how: images of every combination of the prompt's words, how often the
asked attributes are read back from them, and how far they are from those with guidance throughout. Fewer steps with
guidance throughout are there for comparison; the peer can take those too. About six minutes on an idle core. A CUDA
device adds a case of SD 1.5's size (random weights) with bfloat16, a compiled UNet and channels last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from provenance import report

from mame_lib.data.case import AREAS, DENSITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.prompts import compose
from mame_lib.diffusion.start import initial_noise
from mame_lib.evaluation.attributes import measure_all
from mame_lib.generation import Mame
from mame_lib.models.folding import decoder
from mame_lib.models.saving import quiet
from mame_lib.models.text import encode_prompts
from mame_lib.models.walk import Walk

STEPS, GUIDANCE, SEED = 24, 4.0, 20
BATCHES = (1, 4, 8)
WANTED = [Attributes(*words) for words in product(VENDORS, VIEWS, AREAS, DENSITIES)]  # 48
READ = ("vendor", "view", "area", "density")
INTERVALS = ((200, 999), (400, 999), (500, 999), (600, 999), (0, 800), (0, 500), (200, 800), (300, 700))
FEWER_STEPS = (20, 16, 12)
CHOSEN = (
    500,
    999,
)  # half of the calls; by the sweep no word is read back less often, and ends at high noise are nearer
Side = Callable[[], np.ndarray]


def prompts(count: int) -> list[str]:
    """Sentences that differ as much as they can: `count` of the 48, evenly spread."""
    return [compose(WANTED[k * len(WANTED) // count]) for k in range(count)]


def load_peer(mame: Mame) -> Any:
    """The model as diffusers loads it from a complete pipeline folder."""
    from diffusers import StableDiffusionPipeline

    with tempfile.TemporaryDirectory() as folder, quiet():
        mame.components.save(Path(folder) / "model", dtype=torch.float32)
        pipeline = StableDiffusionPipeline.from_pretrained(Path(folder) / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def peer_side(pipeline: Any, mame: Mame, sentences: list[str]) -> Side:
    """The pipeline's gray images [B, n, n], from the start latents that ours begins with."""
    noise = initial_noise(SEED, range(len(sentences)), mame.components.latent_shape)  # [B, 4, h, w]
    start = mame.components.start_from(noise, len(mame.components.schedule) - 1).to(pipeline.device, pipeline.dtype)

    def run() -> np.ndarray:
        made = pipeline(
            sentences, num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=start, output_type="np"
        ).images  # [B, n, n, 3], 0..1
        return np.asarray((made.mean(-1) * 255).round(), np.uint8)

    return run


def our_side(mame: Mame, sentences: list[str], interval: tuple[int, int] | None = None) -> Side:
    """Our gray images [B, n, n]."""

    def run() -> np.ndarray:
        made = mame.generate(
            sentences, steps=STEPS, guidance_scale=GUIDANCE, guidance_interval=interval, seed=SEED,
            batch_size=len(sentences),
        )  # fmt: skip
        return np.stack([one.pixels for one in made])

    return run


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """Largest difference in gray levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def race(sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    """Every side once a round, in turning order: seconds by the wall's and the CPU's clock, ratios to the peer's."""
    names = list(sides)
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    images = {name: len(side()) for name, side in sides.items()}  # and a warm-up
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter(), time.process_time()
            sides[name]()
            wall[name].append(time.perf_counter() - began[0])
            cpu[name].append(time.process_time() - began[1])
    ratios = {name: [p / o for p, o in zip(cpu["peer"], cpu[name], strict=True)] for name in names if name != "peer"}
    by_wall = {name: [p / o for p, o in zip(wall["peer"], wall[name], strict=True)] for name in ratios}
    return {
        "rounds": rounds,
        "images_per_second": {name: round(images[name] / statistics.median(wall[name]), 3) for name in names},
        "images_per_cpu_second": {name: round(images[name] / statistics.median(cpu[name]), 3) for name in names},
        "ratio": {name: round(statistics.median(by_wall[name]), 3) for name in ratios},
        "ratio_cpu": {name: round(statistics.median(ratios[name]), 3) for name in ratios},
        "ratio_by_round": {name: [round(v, 3) for v in by_wall[name]] for name in ratios},
    }


def population(mame: Mame, each: int, **settings: Any) -> tuple[np.ndarray, float]:
    """`each` images of every combination of words, [48 each, n, n], and the CPU seconds of one."""
    began = time.process_time()
    settings = {"steps": STEPS, "guidance_scale": GUIDANCE, **settings}
    made = mame.generate(WANTED, count=each * len(WANTED), seed=SEED + 1, **settings)
    return np.stack([one.pixels for one in made]), (time.process_time() - began) / len(made)


def judged(images: np.ndarray, full: np.ndarray) -> dict[str, Any]:
    """How often each asked word is read back, and the distance to the images with guidance throughout."""
    asked = [WANTED[k % len(WANTED)] for k in range(len(images))]
    read = measure_all(images)
    hits = {name: [getattr(a, name) == getattr(m, name) for a, m in zip(asked, read, strict=True)] for name in READ}
    off = (images.astype(float) - full.astype(float)) ** 2  # [N, n, n]
    return {
        "read_back": {name: round(float(np.mean(row)), 3) for name, row in hits.items()},
        "read_back_mean": round(float(np.mean(list(hits.values()))), 4),
        "rms_gray_levels": round(float(np.sqrt(off.mean((1, 2))).mean()), 2),
    }


def guided_calls(mame: Mame, interval: Sequence[int]) -> int:
    """Calls of the UNet with guidance, of `STEPS`."""
    from mame_lib.diffusion.samplers import timesteps

    return sum(interval[0] <= t <= interval[1] for t in timesteps(mame.components.schedule, STEPS))


def sweep(mame: Mame, each: int) -> list[dict[str, Any]]:
    """Quality and CPU seconds an image: guidance throughout, in intervals, and with fewer steps."""
    full, seconds = population(mame, each)
    rows = [{"interval": None, "steps": STEPS, "guided": STEPS, "images": len(full), "seconds": round(seconds, 4),
             **judged(full, full)}]  # fmt: skip
    settings: list[dict[str, Any]] = [{"guidance_interval": interval} for interval in INTERVALS]
    settings += [{"steps": steps} for steps in FEWER_STEPS]
    settings.append({"guidance_scale": 1.0})
    for one in settings:
        images, seconds = population(mame, each, **one)
        interval, steps = one.get("guidance_interval"), one.get("steps", STEPS)
        guided = guided_calls(mame, interval) if interval else steps * (one.get("guidance_scale") != 1.0)
        rows.append({"interval": interval, "steps": steps, "guided": guided, "images": len(images),
                     "seconds": round(seconds, 4), **judged(images, full)})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def tricks(mame: Mame, batch: int, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of CPU of one guided call of the UNet and of decoding one batch, with and without our ways."""
    parts = mame.components
    unet, walk, bare = parts.unet, Walk(parts.unet), Walk(parts.unet)
    bare.upsamplers = [list(block.upsamplers or ()) for block in unet.up_blocks]
    x = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))  # [B, 4, h, w]
    t = torch.full((batch,), 500)
    text = encode_prompts(parts.tokenizer, parts.text_encoder, ["", *prompts(batch)])  # [1 + B, L, D]
    context = torch.cat([text[:1].expand(batch, -1, -1), text[1:]])  # [2B, L, D]
    twice, times, folded = torch.cat([x, x]), torch.cat([t, t]), decoder(parts.vae)
    ways: dict[str, Callable[[], Any]] = {
        "unet, diffusers": lambda: unet(twice, times, encoder_hidden_states=context),
        "unet, shared trunk and skips": lambda: bare(x, t, context),
        "unet, and folded upsamplers": lambda: walk(x, t, context),
        "unet without guidance, diffusers": lambda: unet(x, t, encoder_hidden_states=text[1:]),
        "unet without guidance, ours": lambda: walk(x, t, text[1:]),
        "vae, diffusers": lambda: parts.vae.decode(x),
        "vae, folded upsamplers": lambda: folded(x),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for _ in range(repeats):
            for name, way in ways.items():
                began = time.process_time()
                way()
                spent[name].append(time.process_time() - began)
    return {name: round(1e3 * statistics.median(values), 2) for name, values in spent.items()}


def on_cpu(mame: Mame, rounds: int) -> dict[str, Any]:
    """Identity first, then the race, for every batch."""
    pipeline = load_peer(mame)
    found = {}
    for batch in BATCHES:
        sentences = prompts(batch)
        sides = {
            "peer": peer_side(pipeline, mame, sentences),
            "ours": our_side(mame, sentences),
            "interval": our_side(mame, sentences, CHOSEN),
        }
        levels = apart(sides["peer"](), sides["ours"]())
        if levels > 1:
            raise SystemExit(f"batch {batch}: the images differ by {levels} gray levels, so speeds say nothing.")
        found[str(batch)] = {"gray_levels_apart": levels, **race(sides, rounds), "milliseconds": tricks(mame, batch)}
        print(batch, found[str(batch)], flush=True)
    return found


def on_gpu(rounds: int) -> dict[str, Any] | None:
    """SD 1.5's size, random weights: the peer in bfloat16, ours compiled and channels last too. None without CUDA."""
    if not torch.cuda.is_available():
        return None
    from training import stable_diffusion

    parts = stable_diffusion().to("cuda")
    for network in (parts.unet, parts.vae, parts.text_encoder):
        network.requires_grad_(False).eval()
    mame = Mame(parts, "random weights")
    pipeline = load_peer(mame).to("cuda", torch.bfloat16)
    for network in (parts.unet, parts.vae):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts.unet = torch.compile(parts.unet, dynamic=False)  # type: ignore[assignment]
    found: dict[str, Any] = {"device": torch.cuda.get_device_name()}
    for batch in BATCHES:
        sides = {"peer": peer_side(pipeline, mame, prompts(batch))}
        for name, interval in (("ours", None), ("interval", CHOSEN)):
            with_float32 = our_side(mame, prompts(batch), interval)
            sides[name] = torch.autocast("cuda", torch.bfloat16)(with_float32)
        found[str(batch)] = race(sides, rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--each", type=int, default=1, help="images of each of the 48 combinations in the sweep")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mame = Mame.load("fused", "cpu")
    result = {
        "about": "the shipped tiny model, 128 pixels, 24 steps of DPM-Solver++ 2M, guidance 4, one thread",
        "interval": CHOSEN,
        "batches": on_cpu(mame, options.rounds),
        "sweep": sweep(mame, options.each),
        "cuda": on_gpu(options.rounds),
    }
    report(result, options.out, "torch", "diffusers", "transformers", threads=1)


if __name__ == "__main__":
    main()
