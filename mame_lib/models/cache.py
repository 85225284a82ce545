"""The latent cache: the posterior moments of every image, encoded once, in a memory-mapped file.

Mean and standard deviation are kept, not a sample, so each step can draw a fresh one: the same in distribution as
encoding at every step. 65.5 kB an image at 512 pixels. The file's name is a digest of the autoencoder's weights and
of every pixel that went in, so a stale cache is never read. It lies inside the data folder, for it is a picture
of the data: whoever deletes the one deletes the other.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mame_lib.errors import InputError
from mame_lib.models.latents import encode_moments

FORMAT = "moments/2"  # part of each key: another way to encode is another cache
FOLDER = ".cache"


def digest_of(*networks: nn.Module) -> str:
    """A digest of all weights and buffers of some networks."""
    state = hashlib.blake2b(digest_size=16)
    for network in networks:
        for name, tensor in network.state_dict().items():
            state.update(name.encode())
            state.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return state.hexdigest()


def key_of(parts: Iterable[str | bytes]) -> str:
    """A name for a cache made from these parts; each is told from the next."""
    state = hashlib.blake2b(digest_size=12)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def cache_folder(data: Path, run: Path) -> Path:
    """Where caches of a data set lie: inside it, or inside the run when the data may not be written to."""
    return (data if os.access(data, os.W_OK | os.X_OK) else run) / FOLDER


def cached(path: Path, shape: Sequence[int], rows: Callable[[int, int], NDArray[np.float16]]) -> NDArray[np.float16]:
    """The memory-mapped array `path` of `shape`; made with `rows(first, last)`, in blocks, when it is not there.

    It is written under a temporary name and renamed when complete.

    Raises `InputError` when it cannot be written.
    """
    if not path.is_file():
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent)
            with partial.open("wb") as file:  # not a map: writing to one on a full disk ends the process
                header = {"descr": "<f2", "fortran_order": False, "shape": tuple(shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for first in tqdm(range(0, shape[0], 64), desc="encoding", unit="block", disable=None, leave=False):
                    file.write(rows(first, min(first + 64, shape[0])).astype("<f2").tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            raise InputError(f"cannot write the latent cache {path} ({error.strerror}); make room there.") from error
        finally:
            partial.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _sweep(folder: Path) -> None:
    """Remove what a killed run left half-written; younger than a day, it may be another run's work in progress."""
    for stale in folder.glob("*.partial"):
        if stale.is_file() and time.time() - stale.stat().st_mtime > 86_400:
            stale.unlink(missing_ok=True)


def encode(vae: nn.Module, images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float16]:
    """Moments of gray images `[B, n, n]` in 0 … 255, as they are cached: float16 `[B, 2, 4, h, w]`."""
    moments = encode_moments(vae, images)  # type: ignore[arg-type]
    pair: Tensor = torch.stack([moments.mean, moments.std], dim=1)  # [B, 2, 4, h, w]
    return pair.half().numpy()
