"""The data card: what is in the folder, what was asked and what came out, and how to make it again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mame_lib.data.case import Case
from mame_lib.evaluation.adherence import wilson
from mame_lib.synthesize.checks import TrainingCheck
from mame_lib.synthesize.folder import CHECKSUMS, RECIPES, TRAINING, Row
from mame_lib.synthesize.plan import draws
from mame_lib.synthesize.spec import NONE, SAID, TABLES, Spec

LEVEL = 0.95
_LISTED = 20


def card(
    spec: Spec, rows: Sequence[Row], header: Mapping[str, Any], equal: Sequence[Sequence[int]],
    training: TrainingCheck | None,
) -> str:  # fmt: skip
    """README.md of a population, in Markdown. header: synthesis.json. equal: groups of images with equal pixels."""
    parts = [
        _FRONT,
        f"# {len(rows):,} synthetic mammograms\n\n"
        "**Synthetic images. No patient, not for diagnosis.** Every image was made by a diffusion model from a "
        "sentence and a seed. Use them to study and to teach, not to decide about a person; what a model trained on "
        "them does on real mammograms has to be shown on real mammograms.",
        _contents(spec, rows),
        _shares(spec, rows),
        _screening(spec, rows),
        _copies(equal, training),
        _again(spec, rows, header),
    ]
    return "\n\n".join(parts) + "\n"


_FRONT = """---
pretty_name: Synthetic mammograms
tags: [synthetic, mammography, not-for-diagnosis]
---"""


def _contents(spec: Spec, rows: Sequence[Row]) -> str:
    lesions = sum(bool(row.get("lesion")) for row in rows)
    lines = [
        "## What is here", "",
        f"- `images/`: {len(rows):,} images, 8-bit gray PNG, the breast facing left; the recipe is inside each file",
        "- `masks/`: the breast, as measured",
        f"- `lesions/`: the {lesions:,} regions in which a lesion was painted (their boxes are in `metadata.jsonl`)",
    ]  # fmt: skip
    if spec.keep_twins:
        lines.append(f"- `twins/`: {lesions:,} breasts as they were before the lesion")
    if spec.dicom:
        lines.append("- `dicom/`: the images as Digital Mammography FOR PRESENTATION, right breasts facing right")
    return "\n".join([
        *lines,
        "- `metadata.jsonl`, `dataset.json`: the data set, as `mame inspect` and `mame train --data` read it",
        f"- `{RECIPES}`: a line an image: sentence, seed, draw, weights, measurements, checksums",
        f"- `{CHECKSUMS}`: for `sha256sum -c {CHECKSUMS}`",
        "",
        "A lesion fills a region that was asked for; whether a lesion can be seen there is not promised. "
        "Attributes in `metadata.jsonl` are what was asked, not what a reader would say.",
    ])  # fmt: skip


def _shares(spec: Spec, rows: Sequence[Row]) -> str:
    """Every word: asked, drawn with the interval of the draw, said, and measured where pixels can show it."""
    drawn = [draws(spec, row["index"]) for row in rows]
    lines = [
        "## Shares", "",
        "Each image drew a word of each attribute by itself, so shares vary by chance. *Drawn*: how many images drew "
        f"the word, with the {LEVEL:.0%} interval of a share (Wilson); *in*: the asked share lies within it, which "
        f"about one row in {1 / (1 - LEVEL):.0f} misses by chance. *Said*: how many of the sentences name the word, "
        "which not every order of a sentence does. *Measured*: of the images whose sentence names the attribute at "
        "all, the share in which the pixels show this word.", "",
        "| attribute | word | asked | drawn | interval | in | said | measured |",
        "|---|---|---:|---:|---:|:---:|---:|---:|",
    ]  # fmt: skip
    for name, words in TABLES.items():
        given = Counter(one[name] for one in drawn)
        for word in words:
            asked, number = spec.shares[name].get(word, 0.0), given[word]
            if asked > 0:
                low, high = wilson(number, len(rows), LEVEL)
                lines.append(
                    f"| {name} | {word} | {asked:.1%} | {number:,} ({number / len(rows):.1%}) "
                    f"| {low:.1%} to {high:.1%} | {'yes' if low <= asked <= high else 'no'} "
                    f"| {_said_and_seen(rows, name, word)} |"
                )
    return "\n".join(lines)


def _said_and_seen(rows: Sequence[Row], name: str, word: str) -> str:
    """The last two cells of a line."""
    if name not in SAID or word == NONE:
        return "|"
    said = [row for row in rows if name in row["asked"]]
    number = sum(row["asked"][name] == word for row in said)
    seen = sum(row["measured"][name] == word for row in said)
    return f"{number:,} | {seen / len(said):.1%}" if said else "0 |"


def _screening(spec: Spec, rows: Sequence[Row]) -> str:
    lines = ["## Screening", ""]
    if spec.screen:
        redrawn = sum(row["redrawn"] > 0 for row in rows)
        bad = sum((row["badness"] or 0) > 1 for row in rows)
        draws = sum(row["redrawn"] + 1 for row in rows)
        lines.append(
            f"Breasts that showed residual noise, a gray background, another attribute than asked or nonsense were "
            f"drawn again, {spec.most_tries} times in all at most: {redrawn:,} of {len(rows):,} images needed more "
            f"than one draw ({draws:,} draws in all), and {bad:,} failed every time; of those the least bad draw was "
            f"kept (`badness` above 1 in `{RECIPES}`). So the images are no fair sample of what the model draws. "
            "Lesions were not screened."
        )
    else:
        lines.append("Nothing was screened: the images are a fair sample of what the model draws, failures included.")
    if crowded := sum("lesion" in row and row["lesion"] is None for row in rows):
        lines.append(f"\nIn {crowded:,} breasts there was no room for the lesion that was asked for; they have none.")
    return "\n".join(lines)


def _copies(equal: Sequence[Sequence[int]], training: TrainingCheck | None) -> str:
    found = f"{len(equal):,} groups of images are equal:" if equal else "No two images are equal."
    lines = ["## Copies", "", found]
    lines += [f"- {', '.join(f'{index:06d}' for index in group)}" for group in equal[:_LISTED]]
    if training is None:
        return "\n".join([*lines, "", "They were not compared with the models' training images (`--training-data`)."])
    top = training.largest
    lines += [
        "",
        f"Against {training.training_images:,} training images ({', '.join(training.folders)}), by correlation at "
        f"32 x 32 pixels: the most similar pair is `{top.image}` and `{top.training}` at {top.correlation:.4f}, the "
        f"median of the nearest is {training.median:.4f}. Above {training.threshold:.4f}, which one in a thousand "
        f"training images reaches against the others, lie {len(training.flagged):,} images: look at them"
        f" (all in `{TRAINING}`)." + (" A copy is not ruled out by this check." if not training.flagged else ""),
    ]  # fmt: skip
    lines += [f"- `{one.image}`, `{one.training}`: {one.correlation:.4f}" for one in training.flagged[:_LISTED]]
    return "\n".join(lines)


def _again(spec: Spec, rows: Sequence[Row], header: Mapping[str, Any]) -> str:
    weights = ", ".join(f"{name} `{digest}`" for name, digest in header["weights"].items())
    versions = "; then ".join(", ".join(f"{k} {v}" for k, v in one.items()) for one in header["versions"])
    return (
        "## To make it again\n\n"
        f"Image *i* depends on the population below, the weights ({weights}) and *i* alone: not on how many images are "
        "made, by how many processes, or where a run was interrupted. The same versions on the same kind of processor "
        f"give the same bytes ({versions}).\n\n"
        f"    mame synthesize population.toml --count {len(rows)} --out DIR\n\n"
        f"```toml\n{spec.to_toml()}```"
    )


def case_of(row: Row) -> Case:
    """The case of a row, as the manifest has it."""
    return Case.from_line(json.dumps(row["case"]))
