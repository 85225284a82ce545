"""The drawing of the rooms shows what was counted: one tile a layer, one dot an R, one line a skip."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel
from matplotlib.patches import Rectangle

from mame_lib.models.rooms import Room, rooms_of
from mame_lib.models.tiny import tiny_unet
from mame_lib.planner.networks import SD15
from mame_lib.teaching.figures import axes
from mame_lib.teaching.rooms_figure import draw_rooms, explain_rooms


@pytest.fixture(params=["tiny", "sd15"])
def rooms(request: pytest.FixtureRequest) -> list[Room]:
    with torch.device("meta"):
        return rooms_of(tiny_unet() if request.param == "tiny" else UNet2DConditionModel.from_config(SD15["unet"]))


def test_every_layer_every_timestep_and_every_skip_is_drawn(rooms: list[Room]) -> None:
    figure, axis = axes()
    draw_rooms(axis, rooms, "a title")
    explain_rooms(figure)
    parts = [part for room in rooms for part in room.parts]
    letters = [text.get_text() for text in axis.texts]
    assert sum(isinstance(patch, Rectangle) for patch in axis.patches) == len(parts)
    assert letters.count("R") == sum(part.kind == "R" for part in parts)
    assert letters.count("T") == sum(part.kind == "T" for part in parts)
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    skips = [line for line in axis.lines if line.get_marker() != "o"]
    assert len(dots) == sum(part.hears_time for part in parts)
    assert len(skips) == sum(bool(part.skip_from) for part in parts)
    for room in rooms:
        assert f"{room.channels} × {room.side} × {room.side}" in letters
    assert "a title" in axis.get_title()


def test_nothing_leaves_the_frame_and_no_tile_covers_another(rooms: list[Room]) -> None:
    _, axis = axes()
    draw_rooms(axis, rooms, "a title")
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    boxes = [patch.get_bbox() for patch in axis.patches if isinstance(patch, Rectangle)]
    assert all(left <= box.x0 and box.x1 <= right and bottom <= box.y0 and box.y1 <= top for box in boxes)
    for k, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[k + 1 :])
