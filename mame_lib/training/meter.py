"""What happened since the last line of the log, added up on the device: one synchronization a line, none a step."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mame_lib.training.data import Batch
from mame_lib.training.world import World

DECILES = 10


class Meter:
    """Sums of losses, by tenths of the timesteps and apart for class images, of norms, and of images."""

    def __init__(self, total_timesteps: int, device: torch.device) -> None:
        self.total, self.device = total_timesteps, device
        self._clear()

    def _clear(self) -> None:
        # [2, 11]: sums and counts of each tenth of the timesteps, and of the class images
        self.sums = torch.zeros(2, DECILES + 1, dtype=torch.float64, device=self.device)
        self.norm = torch.zeros((), device=self.device)
        self.steps, self.images, self.began = 0, 0, time.perf_counter()

    def add(self, batch: Batch, losses: Tensor, norm: Tensor) -> None:
        """One step of this process: its rows, their losses `[B]`, the gradient norm; what is not finite is left out."""
        bins = (batch.timesteps * DECILES // self.total).to(losses.device)  # [B]
        if batch.rows is not None:
            bins = torch.where(batch.rows.to(losses.device) < 0, DECILES, bins)
        finite = torch.isfinite(losses)  # [B]
        self.sums[0].index_add_(0, bins, torch.where(finite, losses, 0.0).to(self.sums))
        self.sums[1].index_add_(0, bins, finite.to(self.sums))
        self.norm += torch.where(torch.isfinite(norm), norm, 0.0)
        self.steps += 1
        self.images += len(losses)

    def line(self, world: World) -> dict[str, Any]:
        """The means over all processes since the last call, as plain numbers; the meter starts anew."""
        world.sum_([self.sums])
        sums, counts = self.sums.tolist()  # the one wait for the device
        seconds = time.perf_counter() - self.began
        own, number = sum(sums[:DECILES]), sum(counts[:DECILES])
        made: dict[str, Any] = {
            "loss": own / number if number else None,
            "loss_by_decile": [s / n if n else None for s, n in zip(sums[:DECILES], counts[:DECILES], strict=True)],
            "grad_norm": float(self.norm) / max(1, self.steps),
            "images_per_second": round(self.images * world.size / seconds, 3),
            "steps_averaged": self.steps,
        }
        if counts[DECILES]:
            made["prior_loss"] = sums[DECILES] / counts[DECILES]
        self._clear()
        return made | peak_memory(self.device)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Largest memory so far in bytes: of this process, and of the GPU, allocated and reserved."""
    found: dict[str, int] = {}
    status = Path("/proc/self/status")
    if status.is_file():  # Linux: its ru_maxrss would tell the parent's size when a big process started this one
        found["peak_memory"] = int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    elif sys.platform == "darwin":
        import resource

        found["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if device.type == "cuda":
        found["peak_gpu_allocated"] = torch.cuda.max_memory_allocated(device)
        found["peak_gpu_reserved"] = torch.cuda.max_memory_reserved(device)
    return found
