"""From a configuration to something that can learn: base model, cached latents, class images, trainable weights."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data import manifest
from mame_lib.data.case import Case
from mame_lib.data.masks import breast_mask
from mame_lib.data.places import free_area, place_box
from mame_lib.data.prompts import CONSTANT_PROMPT
from mame_lib.errors import InputError
from mame_lib.models.cache import FORMAT, cache_folder, cached, digest_of, encode, key_of
from mame_lib.models.components import Components
from mame_lib.models.inpainting import GRAY, blank, box_mask, latent_mask, snap, widen
from mame_lib.models.text import tokenize
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import Masks, TrainingSet
from mame_lib.training.images import class_images, placed
from mame_lib.training.world import ALONE, World

GROWTHS = (0.0, 0.25, 0.5)  # an inpainting mask may be wider than the lesion, or the model learns to fill it


@dataclass(frozen=True)
class Prepared:
    """The encoded splits, class images, the prompts (most frequent first), and facts for the run folder."""

    training_set: TrainingSet
    held_out: TrainingSet | None
    prior: TrainingSet | None
    prompts: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """An image of a set: its file, caption, name, and boxes in fractions of its side."""

    path: Path
    caption: str
    name: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()


def load_base(config: TrainConfig) -> Components:
    """The base model on the CPU, made ready for the task: nine input channels, another prediction type.

    Raises `InputError` when the base does not fit the task or the method.
    """
    components = Components.load(config.base_model)
    if config.inpainting:
        if config.method == "lora" and not components.inpainting:
            raise InputError(
                f"method lora can't teach {config.base_model} to see a mask, for it leaves the new input weights at "
                "zero; use method unet or full, or a base that inpaints already."
            )
        widen(components.unet)
    elif components.inpainting:
        raise InputError(f"{config.base_model} is an inpainting model; choose a preset that ends in -inpaint.")
    changes: dict[str, Any] = {}
    if config.prediction_type is not None:
        changes["prediction_type"] = config.prediction_type
    if config.zero_terminal_snr:
        changes["rescale_betas_zero_snr"] = True
    components.scheduler_config = {**components.scheduler_config, **changes}
    return components


def prepare(config: TrainConfig, device: str | None = None, world: World = ALONE) -> tuple[Components, Prepared]:
    """Load the base model, encode the data once (moments, not samples), then bring the UNet to the device.

    The networks come to the device one after another: text encoder and autoencoder stay there only while they work.

    Raises `InputError` for data without a training split (or, to inpaint, without boxes) and a model that can't load.
    """
    data = manifest.load(config.data)
    splits = {name: _pictures(data, name, config) for name in ("train", "validation")}
    if not splits["train"]:
        lack = "no lesion box in" if config.inpainting and data.split("train") else "no case in"
        raise InputError(f"{config.data} has {lack} its training split; prepare a data set with more images.")
    components = load_base(config)
    # Full training has every weight in its checkpoints; otherwise some stay those of the base, which must not change.
    base = [] if config.trains_text else [digest_of(components.unet, components.text_encoder)]
    place, cache = torch.device(device or world.device()), cache_folder(config.data, config.out)
    with placed(components.vae, place):
        if not world.main:
            world.wait()  # the first process fills the cache, the others read it
        sets = [_encode(components, pictures, cache, config) for pictures in (splits["train"], splits["validation"])]
        training_set, held_out = sets
        assert training_set is not None
        components.start_mean = training_set.mean_latent()  # [4, h, w]
        components.unet.to(place)
        prior = _prior(config, components, cache) if config.prior_prompt is not None else None
        if world.main:
            world.wait()
    if place.type == "cuda":
        components.unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    counts = Counter(picture.caption for picture in splits["train"])
    prompts = tuple(sorted(counts, key=lambda caption: (-counts[caption], caption)))
    facts = {
        "images": len(training_set),
        "held_out": len(splits["validation"]),
        "captions": dict(counts),
        "source": data.info.get("source"),
        "digest": key_of([*(one.key for one in (training_set, prior) if one is not None), *base]),
        "epoch_steps": len(training_set) / config.rows,
    }
    return components, Prepared(training_set, held_out, prior, prompts, facts)


def _pictures(data: manifest.Manifest, split: str, config: TrainConfig) -> list[Picture]:
    """The images of a split that this task learns from: all of them, or, to inpaint, those with boxes.

    With `healthy_boxes` the others come after them, each with one box, under `CONSTANT_PROMPT`.
    """

    def boxes(case: Case) -> tuple[tuple[float, float, float, float], ...]:
        with Image.open(data.root / case.image) as image:
            n = image.width
        return tuple((x0 / n, y0 / n, x1 / n, y1 / n) for x0, y0, x1, y1 in case.boxes)

    cases = [case for case in data.split(split) if case.boxes or not config.inpainting]
    constant = config.constant_prompt
    pictures = [
        Picture(data.root / c.image, c.prompt if constant is None else constant, c.id, boxes(c) if c.boxes else ())
        for c in cases
    ]
    if config.healthy_boxes and config.inpainting and pictures:
        healthy = [case for case in data.split(split) if case.attributes.finding is None and not case.boxes]
        pictures += _healthy_pictures(data, healthy, [picture.boxes[0] for picture in pictures])
    return pictures


def _healthy_pictures(
    data: manifest.Manifest, cases: Sequence[Case], boxes: Sequence[tuple[float, float, float, float]]
) -> list[Picture]:
    """Healthy images, each with a box of the size of one of `boxes`, placed by a stream of its own.

    An image whose breast has no room for its box is left out.
    """
    pictures = []
    for case in cases:
        image = data.image(case)
        rng = np.random.default_rng(int.from_bytes(hashlib.blake2b(case.id.encode(), digest_size=8).digest(), "big"))
        x0, y0, x1, y1 = boxes[int(rng.integers(len(boxes)))]
        n = len(image)
        box = place_box(free_area(breast_mask(image)), round((x1 - x0) * n), round((y1 - y0) * n), rng)
        if box is not None:
            place = (box[0] / n, box[1] / n, box[2] / n, box[3] / n)
            pictures.append(Picture(data.root / case.image, CONSTANT_PROMPT, case.id, (place,)))
    return pictures


def _prior(config: TrainConfig, components: Components, cache: Path) -> TrainingSet | None:
    assert config.prior_prompt is not None
    folder, _ = class_images(components, config.prior_prompt, config.prior_images, config.seed, cache)
    files = [folder / f"{index:06d}.png" for index in range(config.prior_images)]
    return _encode(components, [Picture(file, config.prior_prompt, file.stem) for file in files], cache, config)


def _encode(
    components: Components, pictures: Sequence[Picture], cache: Path, config: TrainConfig
) -> TrainingSet | None:
    """Token ids and cached moments of some pictures; None of no picture."""
    if not pictures:
        return None
    size, vae, (channels, side, _) = components.image_size, components.vae, components.latent_shape

    def images(first: int, last: int) -> NDArray[np.uint8]:
        return np.stack([_square(picture.path, size) for picture in pictures[first:last]])  # [B, n, n]

    content = [hashlib.blake2b(picture.path.read_bytes()).digest() for picture in pictures]
    key = key_of([FORMAT, digest_of(vae), str(size), *content])
    plain = (len(pictures), 2, channels, side, side)
    captions = sorted({picture.caption for picture in pictures})
    ids = dict(zip(captions, tokenize(components.tokenizer, captions), strict=True))
    made = TrainingSet(
        key=key_of([key, *(picture.caption for picture in pictures), repr([picture.boxes for picture in pictures])]),
        moments=cached(cache / f"moments-{key}.npy", plain, lambda a, b: encode(vae, images(a, b))),
        input_ids=torch.stack([ids[picture.caption] for picture in pictures]),  # [N, L]
        empty_ids=tokenize(components.tokenizer, [""])[0],  # [L]
        scaling_factor=float(vae.config.scaling_factor),
        ids=tuple(picture.name for picture in pictures),
    )
    if not config.inpainting:
        return made
    scaled = [[(x0 * size, y0 * size, x1 * size, y1 * size) for x0, y0, x1, y1 in p.boxes] for p in pictures]
    masks = np.stack([[snap(box_mask(b, size, g), size // side) for g in GROWTHS] for b in scaled])  # [N, V, n, n]

    def masked(first: int, last: int) -> NDArray[np.float16]:
        here, seen = masks[first:last], images(first, last)
        planes = [encode(vae, blank(seen, here[:, variant])) for variant in range(len(GROWTHS))]
        return np.stack(planes, axis=1)  # [B, V, 2, 4, h, w]

    name = f"masked-{key_of([key, repr(GROWTHS), repr(scaled)])}.npy"
    return replace(made, masks=Masks(
        latent=np.stack([latent_mask(variant, side)[:, 0].numpy() > 0.5 for variant in masks.swapaxes(0, 1)], axis=1),
        moments=cached(cache / name, (len(pictures), len(GROWTHS), *plain[1:]), masked),
        gray=torch.from_numpy(encode(vae, np.full((1, size, size), GRAY, np.float32))[0]).float(),
    ))  # fmt: skip


def _square(path: Path, size: int) -> NDArray[np.uint8]:
    """An 8-bit gray image at the model's size, `[n, n]`."""
    with Image.open(path) as image:
        gray = image.convert("L")
        if gray.width != gray.height:
            raise InputError(f"{path} is {gray.width} x {gray.height}, not square; run `mame prepare` on its source.")
        return np.asarray(gray if gray.width == size else gray.resize((size, size), Image.Resampling.LANCZOS))
