"""Which models there are: those that ship, the presets, and the weights that the authors of MAM-E released.

The authors' list is put together from their public code; we have not loaded these weights. No part of the book needs
them. Most were saved in 2023 as pickled files: `mame convert ID --out DIR` makes a safe folder of one.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

from mame_lib.models.hub import is_cached
from mame_lib.models.presets import MODELS, PRESETS, SHIPPED


@dataclass(frozen=True)
class Released:
    """A model on the Hub that the authors of MAM-E released.

    `task` is `text-to-image`, `inpainting`, or `no text` for what this library does not load; `size` in pixels;
    `made`: what it made in the paper; `grammar`: sentences it was trained on.
    """

    id: str
    task: str
    base: str
    size: int
    made: str
    grammar: str
    note: str = ""


AREA = "a mammogram in {CC|MLO} view with {small|medium|big} area"
DENSITY = "a mammogram in {CC|MLO} view with {very low|low|high|very high} density"
LESION = "a mammogram with a lesion"
OLD = "mammogram, MLO view, small size"
_SD, _INPAINT = "Stable Diffusion 1.5", "Stable Diffusion 1.5 for inpainting"

RELEASED = (
    Released(
        "Likalto4/fusion_healthy", "text-to-image", _SD, 512, "Fig. 1, 15, 16 and 20; Table 3, Fusion",
        f"{AREA} / {DENSITY}, with hologic or siemens before mammogram",
    ),
    Released(
        "Likalto4/vindr_siemens_healthy", "text-to-image", _SD, 512, "Fig. 14; the Siemens interface", DENSITY,
    ),
    Released(
        "Likalto4/mammo40k_healthy_nosize", "text-to-image", _SD, 512, "the Hologic interface",
        "a mammogram in {CC|MLO} view",
    ),
    Released("Likalto4/mammo40k_healthy-only", "text-to-image", _SD, 512, "", OLD, "an earlier trial"),
    Released(
        "Likalto4/mammo40k_size-prompt_5k", "text-to-image", _SD, 512, "first draft of Table 3", OLD,
        "an earlier trial",
    ),
    Released(
        "Likalto4/mammo_vanilla-prompt", "text-to-image", _SD, 512, "", "mammogram, MLO view", "an earlier trial",
    ),
    Released(
        "Likalto4/mammo40k_healthy-lesion", "text-to-image", _SD, 512, "",
        "a mammogram in MLO view with lesion / healthy", "the drawing interface names it, though it can't inpaint",
    ),
    Released("Likalto4/mammo_lesion-inpainting", "inpainting", _INPAINT, 512, "lesions, Hologic", LESION),
    Released("Likalto4/vindr_lesion-inpainting", "inpainting", _INPAINT, 512, "lesions, Siemens", LESION),
    Released("Likalto4/latent_32_ga-8", "no text", "scratch", 512, "", "", "DDPM of latents"),
    Released("Likalto4/Breast_unconditional_64", "no text", "scratch", 64, "", "", "DDPM of pixels"),
    Released("Likalto4/Breast_unconditional_64_100", "no text", "scratch", 64, "", "", "DDPM of pixels"),
    Released(
        "Likalto4/Latent_Breast_unconditional_noboost", "no text", "scratch", 512, "", "", "DDPM of latents",
    ),
)  # fmt: skip


def table() -> str:
    """All models as text for a terminal: name, task, side in pixels, where it lies; below, what it is."""
    groups = {
        "Shipped": _shipped(),
        "Presets on the Hugging Face Hub": _hub_presets(),
        "Released by the authors of MAM-E (optional, not verified by us)": _released(),
    }
    widths = [max(len(row[k]) for rows in groups.values() for row in rows) for k in range(3)]
    lines = []
    for group, rows in groups.items():
        lines += ["", group]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
            lines.append("  " + "  ".join((*cells, row[3])))
            lines += [" " * 6 + line for line in textwrap.wrap(row[4], 100, break_on_hyphens=False)]
    return "\n".join(lines[1:])


def _shipped() -> list[tuple[str, ...]]:
    """(name, task, pixels, where, about) of each shipped model that is installed, and of `tiny-inpaint`."""
    size = _side(PRESETS["tiny"].image_size)
    there = [name for name in SHIPPED if name in MODELS or name == "tiny"]
    rows: list[tuple[str, ...]] = [
        (n, "inpainting" if n == "inpaint" else "text-to-image", size, "with the library", SHIPPED[n]) for n in there
    ]
    preset = PRESETS["tiny-inpaint"]
    return [*rows, (preset.name, preset.task, size, "with the library", preset.about)]


def _hub_presets() -> list[tuple[str, ...]]:
    presets = [preset for preset in PRESETS.values() if not Path(preset.source).is_absolute()]
    return [
        (preset.name, preset.task, _side(preset.image_size), _where(preset.source), f"{preset.about} ({preset.source})")
        for preset in presets
    ]


def _released() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for model in RELEASED:
        about = (model.made, model.note, f"“{model.grammar}”" if model.grammar else "")
        rows.append((model.id, model.task, _side(model.size), _where(model.id), "; ".join(filter(None, about))))
    return rows


def _where(repo: str) -> str:
    return "Hub, in this machine's cache" if is_cached(repo) else "Hub"


def _side(pixels: int) -> str:
    return f"{pixels} px"
