"""Checks of chapter 06, conditioning. Truth is computed in float64 by loops over places, words and pairs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise

END = 9


@exercise("06-tokens")
def padded(answer: Any) -> None:
    short, exact, long = [8, 1, 2, END], [8, 1, 2, 3, 4, END], [8, 1, 2, 3, 4, 5, 6, END]
    for ids in (short, exact, long):
        result = answer(list(ids), 6, END)
        if not isinstance(result, list | tuple):
            raise Hint(f"return a list of token ids, not {type(result).__name__}.")
        result = [int(one) for one in result]
        if len(result) != 6:
            kind = "short" if len(ids) < 6 else "long"
            raise Hint(f"a sentence that is too {kind} came back with {len(result)} ids instead of 6.")
        if result[: min(len(ids), 5)] != ids[:5]:
            raise Hint("the words at the front must stay what they are: fill up and cut at the back.")
        if any(one != END for one in result[len(ids) :]):
            raise Hint(f"behind a short sentence stand {result[len(ids) :]}: CLIP fills up with the end token.")
        if result[-1] != END:
            raise Hint("a cut sentence has no end any more: the last place belongs to the end token, always.")


@exercise("06-sinusoid")
def embed(answer: Any) -> None:
    t, d = torch.tensor([0, 1, 37, 999]), 8
    result = answer(t, d)
    if not isinstance(result, Tensor) or result.shape != (4, d):
        raise Hint("return a tensor with one row for each timestep and d columns.")
    result = result.double()
    truth = _waves(t, d, lambda i: 10000 ** (-2 * i / d))
    if torch.allclose(result, truth, atol=1e-4):
        return
    if torch.allclose(result, torch.cat([truth[:, d // 2 :], truth[:, : d // 2]], 1), atol=1e-4):
        raise Hint("sines and cosines have changed places: at t = 0 the first half must be 1 and the second half 0.")
    if torch.allclose(result, truth.reshape(4, 2, d // 2).mT.reshape(4, d), atol=1e-4):
        raise Hint("cosine and sine take turns in your columns; here all cosines come first, then all sines.")
    if torch.allclose(result, _waves(t, d, lambda i: 10000 ** (-i / d)), atol=1e-4):
        raise Hint(
            "your slowest wave is too fast: there are d/2 frequencies, not d, and they should reach from 1 to nearly "
            "1/10000."
        )
    if not torch.allclose(result[0], truth[0], atol=1e-6):
        raise Hint("at t = 0 every cosine is 1 and every sine is 0: check the angles and which half is which.")
    raise Hint(
        "at t = 0 you are right, later not: print your frequencies; the first is 1, each is a fixed fraction of the "
        "one before."
    )


def _waves(t: Tensor, d: int, frequency: Any) -> Tensor:
    angles = [[float(one) * frequency(i) for i in range(d // 2)] for one in t]
    rows = [[math.cos(a) for a in row] + [math.sin(a) for a in row] for row in angles]
    return torch.tensor(rows, dtype=torch.float64)  # [B, d]


@exercise("06-cross")
def cross_attention(answer: Any) -> None:
    g = torch.Generator().manual_seed(0)
    x, c, w_q, w_k, w_v = (
        torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((5, 6), (4, 3), (6, 2), (3, 2), (3, 2))
    )
    result = answer(x, c, w_q, w_k, w_v)
    if not isinstance(result, Tensor) or result.shape != (5, 2):
        raise Hint("return one row of d numbers for every place of the image: x @ w_q has that shape.")
    q, k, v = x @ w_q, c @ w_k, c @ w_v
    score = q @ k.mT
    if _close(result, _mixed(score / math.sqrt(2), v)):
        return
    if _close(result, _mixed(score, v)):
        raise Hint("the scores are too large: divide them by the square root of d, the width of a query.")
    if _close(result, _mixed(score / 2, v)):
        raise Hint("you divide by d itself; it is its square root that keeps the scores near unit size.")
    if _close(result, (score / math.sqrt(2)).softmax(0) @ v):
        raise Hint("your weights sum to 1 over the places; each place should share out 1 over the words.")
    if _close(result, score / math.sqrt(2) @ v):
        raise Hint("scores are no weights yet: they may be negative; a softmax makes shares of them.")
    raise Hint(
        "each row must be a weighted mean of the values c @ w_v, with weights that depend on the query of that place "
        "and on the keys c @ w_k."
    )


def _mixed(score: Tensor, v: Tensor) -> Tensor:
    """Softmax over the words, row by row, then the mean of the values."""
    rows = []
    for row in score:
        weights = (row - row.max()).exp()
        rows.append(sum(w * one for w, one in zip(weights / weights.sum(), v, strict=True)))
    return torch.stack([torch.as_tensor(row) for row in rows])  # [P, d]


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-6))


@exercise("06-cosine")
def cosine_map(answer: Any) -> None:
    g = torch.Generator().manual_seed(1)
    vectors = torch.randn(4, 6, generator=g, dtype=torch.float64) + 5 * torch.randn(6, generator=g, dtype=torch.float64)
    result = answer(vectors)
    if not isinstance(result, Tensor) or result.shape != (4, 4):
        raise Hint("return a square tensor: one row and one column for each sentence.")
    if _close(result, _cosines(vectors - vectors.mean(0))):
        return
    if _close(result, _cosines(vectors)):
        raise Hint("nearly every pair is close to 1: what all sentences share is still in it, take it away first.")
    if _close(result, _cosines(vectors - vectors.mean(1, keepdim=True))):
        raise Hint("you subtracted a number from each sentence; the mean to subtract is a vector, over the sentences.")
    if not _close(result.diagonal(), torch.ones(4)):
        raise Hint("a sentence compared with itself must give 1: divide by both lengths.")
    raise Hint("the diagonal is 1, but not every pair is right: subtract the mean first, then take the lengths.")


def _cosines(z: Tensor) -> Tensor:
    return torch.stack([torch.stack([a @ b / math.sqrt(float(a @ a) * float(b @ b)) for b in z]) for a in z])


@exercise("06-switch")
def switched(answer: Any) -> None:
    asked: list[str] = []

    def says(name: str, value: float) -> Any:
        def model(x: Tensor, t: Tensor) -> Tensor:
            asked.append(name)
            return torch.full_like(x, value)

        return model

    model = answer(says("first", 1.0), says("second", 2.0), 500)
    if not callable(model):
        raise Hint("return a model: a function of x and t that a sampler can call.")
    said = {}
    for timestep in (999, 501, 500, 499, 0):
        result = model(torch.zeros(2, 3), torch.full((2,), timestep))
        if not isinstance(result, Tensor) or result.shape != (2, 3):
            raise Hint("your model must hand on what the chosen model returns, unchanged.")
        said[timestep] = float(result[0, 0])
    if said[999] == 2.0 and said[0] == 1.0:
        raise Hint("the order is reversed: sampling begins at large t, so the first sentence rules above t_swap.")
    if said[999] != 1.0 or said[0] != 2.0 or said[501] != 1.0 or said[499] != 2.0:
        raise Hint("above t_swap the first model is asked, below it the second; look at t, not at the number of calls.")
    if said[500] != 2.0:
        raise Hint("at t_swap itself the second sentence should rule already.")
    if len(asked) > 5:
        raise Hint("both models are called at every step: the network is paid for twice; ask only the one you need.")
