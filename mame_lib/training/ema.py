"""The exponential moving average of the trained weights: what is validated and what is saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """A float32 shadow of the trainable parameters of some networks.

    The decay warms up as `(1 + n) / (10 + n)` after `n` updates, so that early weights are soon forgotten.
    """

    def __init__(self, networks: Sequence[nn.Module], decay: float) -> None:
        self.parameters = [p for network in networks for p in network.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone().float() for p in self.parameters]
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Move the shadow towards the current weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Inside the block the networks hold the averaged weights; afterwards their own again, bit for bit."""
        raw = [p.detach().clone() for p in self.parameters]
        live: list[Tensor] = list(self.parameters)
        torch._foreach_copy_(live, self.shadow)
        try:
            yield
        finally:
            torch._foreach_copy_(live, raw)

    def tensors(self) -> dict[str, Tensor]:
        """The shadow as named tensors, for a checkpoint."""
        return {str(i): value for i, value in enumerate(self.shadow)}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Put back what `tensors` gave."""
        self.updates = updates
        torch._foreach_copy_(self.shadow, [tensors[str(i)] for i in range(len(self.shadow))])
