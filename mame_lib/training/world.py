"""Several processes that train one model: what `accelerate launch` or `torchrun` started, or just one.

Every process holds the whole state and draws the whole batch; each computes the gradient of its share of the rows,
and the shares are added. So n processes do what one does with the same `batch_size`, up to the order of additions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among its like. `rank` 0 writes files; all take part in every call below."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> World:
        """Join the processes that the launcher announced in the environment; alone when there is none."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def device(self) -> str:
        """The device of this process: its own GPU, or the CPU."""
        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if self.size > 1 else "cuda"

    def share(self, count: int) -> slice:
        """The rows of a batch of `count` that are this process's: equal parts, as near as can be."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up each tensor over all processes, in place."""
        if self.size > 1:
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor(float(flag), device=device)
        self.sum_([total])
        return bool(total > 0)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """The end: nothing is shared any more."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = World()
