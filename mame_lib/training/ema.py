"""The exponential moving average of the trained weights: what is validated and what is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A float32 shadow of some parameters.

    The decay warms up as `(1 + n) / (10 + n)` after `n` updates, so that early weights are soon forgotten. A decay of
    0 means no average: nothing is stored, and `applied` leaves the weights as they are.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters) if decay > 0 else []
        self.shadow = [p.detach().clone().float() for p in self.parameters]
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the shadow towards the current weights."""
        self.updates += 1
        if self.parameters:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the networks hold the averaged weights; afterwards their own again, bit for bit.

        Weights and averages change places, so nothing is copied; `shadow` must not be read meanwhile.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.shadow, strict=True):
            parameter.data, average.data = average.data, parameter.data

    def tensors(self) -> dict[str, Tensor]:
        """The shadow as named tensors, for a checkpoint."""
        return {str(i): value for i, value in enumerate(self.shadow)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Put back what `tensors` gave."""
        self.updates = updates
        if self.shadow:
            torch._foreach_copy_(self.shadow, [tensors[str(i)] for i in range(len(self.shadow))])
