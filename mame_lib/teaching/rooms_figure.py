"""The UNet's rooms as a drawing: the counted blocks of `mame_lib.models.rooms`, down on the left, up on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from mame_lib.models.rooms import Room
from mame_lib.teaching.figures import COLORS

RESNET, TRANSFORMER, TIME = COLORS[0], COLORS[1], COLORS[2]
GRAY = "#80868b"  # readable on white and on dark paper

_TILE, _STEP = 0.62, 0.76  # side of a part; from one part to the next
_LEVEL = 1.8  # from one row to the next
_INNER = 1.3  # where the down path ends (left of the middle) and the up path begins (right of it)


def draw_rooms(axis: Axes, rooms: Sequence[Room], title: str) -> None:
    """Draw a UNet into `axis`: a blue tile R for each ResNet block, an orange T for each transformer.

    A green dot on a tile: the timestep is added there. Gray lines: the skip connections, each from the room that
    sends it to the room that takes it. Every count, width, resolution and line is that of `rooms`.
    """
    down, up = ([room for room in rooms if room.path == path] for path in ("down", "up"))
    rows = {room.name: -_LEVEL * k for k, room in enumerate(down)}
    rows |= {room.name: -_LEVEL * k for k, room in enumerate(reversed(up))}
    for room in rooms:
        width = len(room.parts) * _STEP
        if room.path == "mid":
            left, y = -width / 2, -_LEVEL * max(len(down), len(up))
        else:
            left, y = (-_INNER - width if room.path == "down" else _INNER), rows[room.name]
        _room(axis, room, left, y)
    rows["conv_in"] = _LEVEL * 0.7
    _box(axis, "conv in", -_INNER - 0.7, rows["conv_in"])
    _box(axis, "conv out", _INNER + 0.7, rows["conv_in"])
    for room in up:
        senders = [part.skip_from for part in room.parts if part.skip_from]
        for number, sender in enumerate(senders):
            level = rows[sender] == rows[room.name]  # else it leaves behind the halving, towards the next row
            start, end = (0.1 - 0.2 * number,) * 2 if level else (0.0 if sender == "conv_in" else -0.28, 0.28)
            axis.plot([-_INNER, _INNER], [rows[sender] + start, rows[room.name] + end], color=GRAY, lw=0.9, zorder=0)
    axis.set(xlim=(-6.2, 6.6), ylim=(-_LEVEL * 4 - 0.8, _LEVEL * 0.7 + 0.5))  # alike, so that two can be compared
    axis.set_title(title)
    axis.set_aspect("equal")
    axis.axis("off")


def explain_rooms(figure: Figure) -> None:
    """Say below the drawings what their colors, dots and lines mean."""
    tile: dict[str, Any] = {"marker": "s", "ls": "", "ms": 9}
    dot: dict[str, Any] = {"marker": "o", "ls": "", "ms": 5}
    handles = [
        Line2D([], [], color=RESNET, label="R, ResNet block", **tile),
        Line2D([], [], color=TRANSFORMER, label="T, transformer: reads the text", **tile),
        Line2D([], [], color=TIME, label="hears the timestep", **dot),
        Line2D([], [], color=GRAY, label="skip connection"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, handletextpad=0.4, columnspacing=1.4)


def _room(axis: Axes, room: Room, left: float, y: float) -> None:
    """The tiles of a room from `left` on, its output's shape above, its weights below, an arrow where it resamples."""
    for k, part in enumerate(room.parts):
        x = left + k * _STEP + _STEP / 2
        color = RESNET if part.kind == "R" else TRANSFORMER
        axis.add_patch(Rectangle((x - _TILE / 2, y - _TILE / 2), _TILE, _TILE, color=color, lw=0))
        axis.text(x, y, part.kind, color="white", size=8, ha="center", va="center")
        if part.hears_time:
            axis.plot(x, y + _TILE / 2, "o", color=TIME, mec="white", mew=0.6, ms=5)
    outside = {"down": "right", "up": "left", "mid": "center"}[room.path]
    x = {"down": -_INNER - _STEP * 0.1, "up": _INNER + _STEP * 0.1, "mid": 0.0}[room.path]
    size = f"{room.parameters / 1e6:.1f} M" if room.parameters >= 1e6 else f"{room.parameters / 1e3:.0f} k"
    shape = f"{room.channels} × {room.side} × {room.side}"
    for words, height, side in ((shape, 0.46, "bottom"), (size, -0.42, "top")):
        axis.text(x, y + height, words, size=7.5, color=GRAY, ha=outside, va=side)
    if room.resamples:
        width = max(len(room.parts) * _STEP, 2.9) + 0.25  # the text above may be wider than the tiles
        outer = -_INNER - width if room.path == "down" else _INNER + width
        tail, head = (y, y - 0.9) if room.resamples == "down" else (y - 0.1, y + 0.8)
        axis.annotate("", (outer, head), (outer, tail), arrowprops={"arrowstyle": "->", "color": GRAY})
    if room.path == "mid":
        half = len(room.parts) * _STEP / 2
        near, far = (half + 0.1, y + 0.1), (half + 0.9, y + 0.7)
        axis.annotate("", (-near[0], near[1]), (-far[0], far[1]), arrowprops={"arrowstyle": "->", "color": GRAY})
        axis.annotate("", far, near, arrowprops={"arrowstyle": "->", "color": GRAY})


def _box(axis: Axes, words: str, x: float, y: float) -> None:
    axis.text(x, y, words, size=7.5, color=GRAY, ha="center", va="center", bbox={"fc": "none", "ec": GRAY, "lw": 0.8})
