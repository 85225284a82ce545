"""The models of a sweep by name, and the hash that tells whether a model is still the one it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from mame_lib.errors import InputError
from mame_lib.evaluation.sweep_grid import Grid
from mame_lib.generation import Mame
from mame_lib.models.components import Components, name_of
from mame_lib.models.hub import NETWORKS

Model = str | Path | Mame


class Shelf:
    """Models by name, of those that are not loaded yet one in memory at a time.

    A folder is called by its last two names: a sweep does not tell where things lie on a disk.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._given = {name_of(_source(model)): model for model in models}
        self.names = list(self._given)
        self.folders = [name for name, model in self._given.items() if Path(_source(model)).is_dir()]
        self._loaded: tuple[str, Mame] | None = None
        if not models:
            raise InputError("there is no model; give one at least.")
        if len(self.names) < len({_source(model) for model in models}):
            raise InputError("two of the models have the same name; rename the folder of one.")

    def take(self, name: str) -> Mame:
        """The model of this name."""
        model = self._given[name]
        if isinstance(model, Mame):
            return model
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # frees the one before, if nobody else holds it
            self._loaded = name, Mame.load(model)
        return self._loaded[1]

    def weigh(self, grid: Grid) -> dict[str, str]:
        """The hash of each model's weights; raises `InputError` if one can't draw this grid."""
        found = {}
        for name in reversed(self.names):  # the first comes last, so it stays for the work
            parts = self.take(name).components
            if parts.inpainting:
                raise InputError(f"{name} is an inpainting model, which needs a mask; use a text-to-image model.")
            if max(grid.steps) > len(parts.schedule):
                raise InputError(f"steps is {max(grid.steps)}, but must be between 1 and {len(parts.schedule)}.")
            found[name] = weights_hash(parts)
        return {name: found[name] for name in self.names}


def _source(model: Model) -> str:
    return model.name if isinstance(model, Mame) else str(model)


def weights_hash(parts: Components) -> str:
    """16 hexadecimal digits that change with anything in a model that its pixels depend on."""
    digest = hashlib.sha256()
    facts = (parts.scheduler_config, parts.info.get("sampler"), sorted(parts.tokenizer.get_vocab().items()))
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for part in NETWORKS:
        # transformers 4 and 5 name the same weights with and without a prefix; positions are counted, not learned
        state = {name.removeprefix("text_model."): tensor for name, tensor in getattr(parts, part).state_dict().items()}
        for name in sorted(set(state) - {"embeddings.position_ids"}):
            digest.update(f"{part}.{name}".encode())
            digest.update(_bytes(state[name]))
    for tensor in (parts.start_mean, parts.start_factor):
        if tensor is not None:
            digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
