"""Drawing images again that a judge refuses: what `Mame.generate(..., quality=...)` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mame_lib.data.case import Attributes
from mame_lib.diffusion.start import generator_for
from mame_lib.errors import InputError

if TYPE_CHECKING:
    from mame_lib.generation import Generated

Prompt = str | Attributes
Asked = list[tuple[int, Prompt]]  # index and prompt of each image of a batch
Judge = Callable[[list[np.ndarray], list[Prompt]], Sequence[float | bool]]  # see `Mame.stream`

MOST_TRIES = 8


def redraw_seed(seed: int, draw: int) -> int:
    """The seed from which draw number `draw` of an image takes its noise; draw 0 takes the user's own.

    An image that was drawn again is thus `generate(prompt, seed=redraw_seed(seed, draw), start_index=index)`.
    """
    return seed if draw == 0 else generator_for(seed, "redraw", draw).initial_seed()


def screened(
    draw: Callable[[Asked, int], list[Generated]], asked: Asked, judge: Judge, most_tries: int
) -> list[Generated]:
    """One image for each that is asked: the first draw that may be kept, or the least bad of all.

    draw : makes the images of a list of indices and prompts, given the number of the draw, from 0.
    """
    kept: dict[int, Generated] = {}
    left = asked
    for number in range(most_tries):
        images = draw(left, number)
        said = judge([image.pixels for image in images], [prompt for _, prompt in left])
        for image, bad in zip(images, map(_badness, said), strict=True):
            best = kept.get(image.index)
            if best is None or bad < (best.badness or 0.0):
                best = replace(image, draw=number, badness=bad)
            kept[image.index] = replace(best, redrawn=number)
        left = [one for one in left if (kept[one[0]].badness or 0.0) > 1]
        if not left:
            break
    return [kept[index] for index, _ in asked]


def _badness(said: float | bool) -> float:
    return (0.0 if said else 2.0) if isinstance(said, bool | np.bool_) else float(said)


def judge_for(quality: str | Judge | None, most_tries: int) -> Judge | None:
    """What judges the images. The library's own stands above this module and is loaded when it is asked for.

    Raises
    ------
    InputError
        If `quality` is neither "screen" nor a function, or there is no try.
    """
    if most_tries < 1:
        raise InputError(f"most_tries is {most_tries}, but must be at least 1.")
    if quality == "screen":
        from mame_lib.evaluation.failures import badness

        return badness
    if quality is not None and not callable(quality):
        raise InputError(f'quality {quality!r} is unknown; use "screen", a function, or leave it out.')
    return quality
