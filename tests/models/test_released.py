"""The list of models: what is said to be here is here, and every id could be loaded or is said not to be."""

from __future__ import annotations

import re

from mame_lib.models.presets import MODELS, PRESETS, SHIPPED, resolve
from mame_lib.models.released import RELEASED, table


def test_shipped_names_are_models() -> None:
    assert set(MODELS) < set(SHIPPED) and "fused" in MODELS
    for name in MODELS:
        assert resolve(name).endswith(name)
    assert resolve("tiny-inpaint") == resolve("tiny")
    assert {p.task for p in PRESETS.values() if p.name.endswith("-inpaint")} == {"inpainting"}
    assert {p.task for p in PRESETS.values() if not p.name.endswith("-inpaint")} == {"text-to-image"}


def test_the_table_names_every_model_once() -> None:
    lines = table().splitlines()
    names = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert len(names) == len(set(names))
    assert set(names) == {*MODELS, *PRESETS, *(model.id for model in RELEASED)}


def test_the_released_weights_are_described() -> None:
    assert len({model.id for model in RELEASED}) == len(RELEASED) == 13
    for model in RELEASED:
        assert resolve(model.id) == model.id and model.base and model.size in (64, 512)
        assert model.grammar or model.task == "no text"
    assert sum(model.task == "inpainting" for model in RELEASED) == 2
