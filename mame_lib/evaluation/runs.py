"""What training runs have left behind: a table of them all, and the curves and the evolution of each as pictures.

A run folder may be damaged, or written to this very moment: nothing here changes it, and what cannot be read is
listed with the reason.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from mame_lib.errors import InputError
from mame_lib.models.components import NOTICE
from mame_lib.training.checkpoint import is_complete
from mame_lib.training.meter import DECILES
from mame_lib.training.run import read_log

FINISHED, RESUMABLE, BROKEN = "finished", "resumable", "broken"
DAMAGE = (OSError, ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)
HEAD = ("run", "preset", "method", "images", "steps", "batch", "loss", "held-out", "images/s", "memory", "when",
        "state")  # fmt: skip
ROWS, TILE, LABEL = 8, 256, 84  # of the evolution: rows and side of an image at most, width of the labels, in pixels


@dataclass(frozen=True)
class Run:
    """One run folder. `name` is its path below the folder that was asked for; `reason` says why a run is broken."""

    path: Path
    name: str
    state: str
    reason: str = ""
    config: dict[str, Any] = field(default_factory=dict, repr=False)
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    started: str = ""
    log: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def series(self, key: str, item: int | None = None) -> tuple[list[float], list[float]]:
        """Steps and values of one quantity of the log, or of one item of a list there, where it was noted."""
        found = [(line["step"], _number(line.get(key), item)) for line in self.log]
        return [float(step) for step, value in found if value is not None], [v for _, v in found if v is not None]

    @property
    def prompts(self) -> list[str]:
        """Captions of the validation images: those of the settings, or the most frequent of the data."""
        try:
            counts = {str(text): int(number) for text, number in self.data["captions"].items()}
            chosen = self.config.get("validation_prompts")
            return [str(one) for one in chosen or sorted(counts, key=lambda text: (-counts[text], text))[:3]]
        except DAMAGE:
            return []


def _number(value: Any, item: int | None = None) -> float | None:
    """A number of the log, or None for what is none, or none that can be drawn."""
    if item is not None:
        value = value[item] if isinstance(value, list) and len(value) > item else None
    return float(value) if isinstance(value, int | float) and abs(value) < 1e300 else None


def runs(folder: str | Path) -> list[Run]:
    """All runs at or below a folder, by name.

    Raises
    ------
    InputError
        If the folder does not exist or holds no run.
    """
    root, found = Path(folder), []
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a run folder, or one that holds runs.")
    for here, folders, files in os.walk(root):
        path = Path(here)
        if _looks_like_run(path, folders, files):
            name = path.name if path == root else str(path.relative_to(root))
            found.append(_read(path, name or path.resolve().name))
            folders.clear()
        folders[:] = [one for one in folders if not one.startswith(".")]
    if not found:
        raise InputError(f"there is no training run in {root}; `mame train` makes one.")
    return sorted(found, key=lambda run: run.name)


def _looks_like_run(path: Path, folders: Sequence[str], files: Sequence[str]) -> bool:
    """A log, or checkpoints, or settings as the trainer writes them; every network has a config.json too."""
    if "log.jsonl" in files or "checkpoints" in folders:
        return True
    try:
        return "config.json" in files and '"started"' in (path / "config.json").read_text(encoding="utf-8")
    except DAMAGE:
        return False


def _read(path: Path, name: str) -> Run:
    """A run with its state, whatever the folder has been through."""
    try:
        facts = json.loads((path / "config.json").read_text(encoding="utf-8"))
        config, data, started = dict(facts["config"]), dict(facts["data"]), str(facts["started"])
    except DAMAGE:
        config, data, started = {}, {}, ""
    try:
        log = [line for line in read_log(path) if isinstance(line, dict) and _number(line.get("step")) is not None]
    except DAMAGE:
        log = []
    if not config:
        state, reason = BROKEN, "config.json is missing or damaged"
    elif (path / "model" / "model_index.json").is_file():
        state, reason = FINISHED, ""
    elif any(is_complete(one) for one in path.glob("checkpoints/step-*") if one.suffix != ".partial"):
        state, reason = RESUMABLE, ""
    else:
        state, reason = BROKEN, "no complete checkpoint (in its first steps, or lost)"
    return Run(path, name, state, reason, config, data, started, log)


def table(rows: Sequence[Run]) -> str:
    """The runs as text, one line each: last loss and held-out loss, median speed, largest memory, start, state."""
    cells = [HEAD, *(_cells(run) for run in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEAD))]
    places = ["<" if name in ("run", "preset", "method", "when", "state") else ">" for name in HEAD]
    lines = ["  ".join(f"{t:{p}{w}}" for t, p, w in zip(row, places, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def _cells(run: Run) -> tuple[str, ...]:
    def last(key: str) -> str:
        values = run.series(key)[1]
        return f"{values[-1]:.4f}" if values else "-"

    def said(value: Any) -> str:
        return _plain(str(value)) if isinstance(value, int | str) else "-"

    speeds = run.series("images_per_second")[1]
    memory = run.series("peak_gpu_reserved")[1] or run.series("peak_memory")[1]
    done = max((line["step"] for line in run.log), default=0)
    return (
        _plain(run.name), said(run.config.get("preset")), said(run.config.get("method")), said(run.data.get("images")),
        f"{done}/{said(run.config.get('steps'))}", said(run.config.get("batch_size")), last("loss"),
        last("held_out_loss"), f"{median(speeds):.1f}" if speeds else "-",
        f"{max(memory) / 2**30:.2f} GiB" if memory else "-", said(run.started[:16].replace("T", " ") or None),
        f"{run.state}: {run.reason}" if run.reason else run.state,
    )  # fmt: skip


def _plain(text: str) -> str:
    """Nothing that moves the cursor: names of folders may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def curves(run: Run, path: str | Path) -> Path:
    """Draw loss and held-out loss, the loss by tenths of the timesteps, learning rate and gradient norm, as PNG.

    Raises
    ------
    InputError
        If the log holds no loss, if matplotlib is missing, or if the picture cannot be written.
    """
    if not run.series("loss")[1]:
        raise InputError(f"{run.path} has no loss in its log, so there is no curve to draw.")
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("curves need the package matplotlib; install it, or the extra `book`.") from error
    figure = Figure(figsize=(10, 6.4), dpi=100, layout="constrained")
    (loss, tenths), (rate, norm) = figure.subplots(2, 2)
    figure.suptitle(_plain(run.path.resolve().name), parse_math=False)
    loss.plot(*run.series("loss"), label="training", linewidth=1)
    if run.series("held_out_loss")[1]:
        loss.plot(*run.series("held_out_loss"), "o-", label="held out, fixed noise", markersize=4)
    loss.legend(frameon=False)
    for k in range(DECILES):
        steps, values = run.series("loss_by_decile", k)
        if steps:
            label = f"t from {100 * k}" if k % 3 == 0 else None
            tenths.plot(steps, values, color=colormaps["viridis"](k / DECILES), linewidth=1, label=label)
    tenths.set_yscale("log")
    if tenths.lines:
        tenths.legend(frameon=False)
    rate.plot(*run.series("learning_rate"))
    norm.plot(*run.series("grad_norm"), linewidth=1)
    titles = ("loss", "loss by tenth of the timesteps", "learning rate", "gradient norm before clipping")
    for ax, title in zip((loss, tenths, rate, norm), titles, strict=True):
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("step")
        ax.grid(alpha=0.3)
    return _write(path, lambda partial: figure.savefig(partial, format="png"))


def evolution(run: Run, path: str | Path) -> Path:
    """The validation images over the steps as PNG, a row a step (at most 8 of them, evenly chosen), a column a prompt.

    Raises
    ------
    InputError
        If the run has no sample that can be read, or if the picture cannot be written.
    """
    strips = _samples(run.path / "samples")
    if not strips:
        raise InputError(f"{run.path} has no validation images; train with --validation-every.")
    keep = sorted({round(k) for k in np.linspace(0, len(strips) - 1, min(ROWS, len(strips)))})
    strips = [strips[k] for k in keep]
    wide, high = strips[-1][1].size
    columns = max(1, wide // high)
    titles = run.prompts if len(run.prompts) == columns else []
    wrapped = ["\n".join(textwrap.wrap(_plain(text), max(8, high // 7))) for text in titles]
    top = 8 + 14 * max((text.count("\n") + 1 for text in wrapped), default=0)
    sheet = Image.new("L", (LABEL + wide, top + len(strips) * (high + 4)), 36)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for column, text in enumerate(wrapped):
        pen.multiline_text((LABEL + column * high + 4, 4), text, fill=232, font=font, spacing=2)
    for row, (step, strip) in enumerate(strips):
        y = top + row * (high + 4)
        sheet.paste(strip, (LABEL, y))
        pen.text((8, y + high // 2 - 6), f"step {step}", fill=232, font=font)
    info = PngInfo()
    info.add_text("Disclaimer", NOTICE)
    return _write(path, lambda partial: sheet.save(partial, format="PNG", pnginfo=info))


def _samples(folder: Path) -> list[tuple[int, Image.Image]]:
    """Step and images of each sample that can be read, by step, all of one size and 256 pixels high at most."""
    found = []
    for path in sorted(folder.glob("step-*.png")):
        try:
            step = int(path.stem[5:])
            with Image.open(path) as picture:
                strip = picture.convert("L")
        except (*DAMAGE, SyntaxError, Image.DecompressionBombError):  # PNG chunks that make no sense are a SyntaxError
            continue
        shrink = -(-strip.height // TILE)
        found.append((step, strip.reduce(shrink) if shrink > 1 else strip))
    return sorted((one for one in found if one[1].size == found[-1][1].size), key=lambda one: one[0])


def _write(path: str | Path, save: Callable[[Path], Any]) -> Path:
    """Have `save` write the picture whole or not at all."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save(partial)
        os.replace(partial, target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError(f"cannot write {target} ({error.strerror or error}); name another folder by --out.") from error
    return target
