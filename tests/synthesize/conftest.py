"""A small population, made once: 12 images of one step each, half of them with a lesion."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from mame_lib.synthesize import Spec, spec_from, studio, synthesize

SMALL = {
    "steps": 1, "screen": False, "keep_twins": True, "seed": 5,
    "finding": {"none": 0.5, "mass": 0.25, "lesion": 0.25}, "split": {"train": 0.7, "test": 0.3},
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def loaded_once() -> Iterator[None]:
    """Each model is read and hashed once, not once a call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio, "_load", lru_cache(studio._load))
        hashes: dict[int, str] = {}
        weigh = studio.weights_hash
        patch.setattr(studio, "weights_hash", lambda parts: hashes.setdefault(id(parts), weigh(parts)))
        yield


@pytest.fixture(scope="session")
def small() -> Spec:
    return spec_from(SMALL)


@pytest.fixture(scope="session")
def made(small, tmp_path_factory) -> Path:
    """Treat it as read-only, or copy it."""
    out = tmp_path_factory.mktemp("population") / "data"
    synthesize(small, 12, out)
    return out
