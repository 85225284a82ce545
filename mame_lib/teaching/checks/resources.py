"""Checks of chapter 08, resources: bytes, gradients in parts, segments, and what fits."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


@exercise("08-bytes")
def bytes_per_weight(answer: Any) -> None:
    for bits in (8, 32):  # with 32 bits a gradient and a moment weigh the same
        for average in (False, True):
            truth = 4 + 4 + 2 * bits / 8 + 4 * average
            value = float(answer(bits, average))
            if math.isclose(value, truth):
                continue
            if math.isclose(value, 4 + 4 + 2 * bits + 4 * average):
                raise Hint("you added bits to bytes: a byte has eight bits.")
            if math.isclose(value, 4 + 4 + bits / 8 + 4 * average):
                raise Hint("Adam keeps two numbers for each weight, the mean of its gradients and of their squares.")
            if math.isclose(value, 4 + 2 * bits / 8 + 4 * average):
                raise Hint("one of weight and gradient is missing: both are there when the optimizer steps.")
            if average and math.isclose(value, truth - 4):
                raise Hint("with the average on, each weight has a third float32 twin.")
            raise Hint("count what one trained weight needs: itself, its gradient, two moments, its average.")


@exercise("08-accumulate")
def gradient_in_parts(answer: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for sizes in ((4, 4, 4), (4, 4, 2), (1, 7)):
        parts = [torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in sizes]
        means = [part.mean(0) for part in parts]
        result = answer(means, list(sizes))
        if not isinstance(result, Tensor) or result.shape != (3,):
            raise Hint("return one gradient, of the same shape as each of the given ones.")
        truth = torch.cat(parts).mean(0)
        if torch.allclose(result.double(), truth):
            continue
        total = torch.stack(means).sum(0)
        if torch.allclose(result.double(), total):
            raise Hint("a plain sum of means grows with the number of parts, as if the learning rate did: average.")
        if torch.allclose(result.double(), total / len(means)):
            raise Hint("the last part is smaller, and its images must not count more than the others: weight by size.")
        if torch.allclose(result.double(), sum(m * s for m, s in zip(means, sizes, strict=True))):  # type: ignore[arg-type]
            raise Hint("this is the sum over all images: one division is missing.")
        raise Hint("undo each mean first (times its size), add up, then divide by the number of all images.")


@exercise("08-segments")
def segments(answer: Any) -> None:
    for blocks, inside, cuts in ((16, 10.0, 4), (16, 10.0, 1), (16, 10.0, 16), (36, 4.0, 6)):
        truth = cuts + blocks / cuts * inside
        value = float(answer(blocks, inside, cuts))
        if math.isclose(value, truth):
            continue
        if math.isclose(value, blocks * inside + cuts) or math.isclose(value, blocks * inside):
            raise Hint("all insides at once is what checkpointing avoids: only one segment is open at a time.")
        if math.isclose(value, blocks / cuts * inside):
            raise Hint("the inputs of the segments are missing: without them nothing can be computed again.")
        if math.isclose(value, cuts + inside):
            raise Hint("an open segment holds the inside of all of its blocks, and it has blocks / cuts of them.")
        raise Hint("add two things: one input for each segment, and the inside of the blocks of one segment.")


@exercise("08-fits")
def largest_batch(answer: Any) -> None:
    cases = ((14.7, 10.0, 11.5), (24.0, 10.0, 11.0), (40.0, 12.3, 12.5), (10.0, 10.0, 11.0), (9.0, 10.0, 11.0))
    for room, one, two in cases:
        each = two - one
        truth = max(0, math.floor((room - one) / each + 1e-9) + 1)
        value = answer(room, one, two)
        if float(value) != int(value):
            raise Hint("half an image can't be trained on: return a whole number.")
        if int(value) == truth:
            continue
        if int(value) == math.floor(room / each):
            raise Hint("an image costs little, but weights, gradients and moments are there before the first one.")
        if truth == 0:
            raise Hint("where even one image is too much, the answer is 0.")
        if int(value) == truth + 1:
            raise Hint("one image too many: round down, and mind that `one` holds the first image already.")
        if int(value) == truth - 1:
            raise Hint("one more fits: `one` holds the first image already.")
        raise Hint("the line through (1, one) and (2, two) says what n images take; solve it for the room.")
