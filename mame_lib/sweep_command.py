"""The command `mame sweep`: write a grid of images and measurements, or check one that was written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mame_lib.errors import InputError
from mame_lib.terminal import check_out, note_grammar, quiet_libraries, with_bar


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0, or 1 when a row can't be made again."""
    if arguments.folder is not None or arguments.verify is not None:
        return _verify(arguments)
    if arguments.out is None:
        raise InputError("say with --out into which folder the sweep goes (see `mame sweep --help`)")
    check_out(arguments.out)
    if arguments.prompts not in (None, "grammar"):
        sentences = [*arguments.prompt, *_sentences(Path(arguments.prompts))]
    else:
        sentences = arguments.prompt
    if not sentences and not arguments.prompts:
        raise InputError("there is no prompt; give --prompt SENTENCE, --prompts FILE or --prompts grammar.")
    quiet_libraries()
    from mame_lib.evaluation.sweep import sweep
    from mame_lib.evaluation.sweep_grid import grammar

    if arguments.prompts == "grammar":
        sentences = [*sentences, *grammar()]
    new = 0

    def progress(rows: Any, total: int) -> Any:
        nonlocal new
        new = total
        for sentence in dict.fromkeys(sentences):  # only now is it known that the rest is in order
            note_grammar(sentence)
        return with_bar(rows, total, "image")

    try:
        rows = sweep(
            arguments.model or ["fused"], sentences, guidance_scale=arguments.guidance, steps=arguments.steps,
            seeds=arguments.seeds, count=arguments.count, sampler=arguments.sampler,
            negative_prompt=arguments.negative_prompt or "", batch_size=arguments.batch_size, out=arguments.out,
            keep_images=not arguments.no_images, progress=progress,
        )  # fmt: skip
    except (KeyboardInterrupt, SystemExit):
        print("mame: stopped; the same command goes on from here.", file=sys.stderr)
        raise
    print(f"{arguments.out}: {len(rows):,} images, {new:,} new")
    print(_summary(rows))
    return 0


def _sentences(path: Path) -> list[str]:
    """The lines of a file, without empty ones and those that begin with #."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"cannot read the prompts in {path} ({reason}); write a sentence a line.") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InputError(f"there is no sentence in {path}; write one a line.")
    return found


def _summary(rows: Any) -> str:
    """How often each attribute was obeyed where it was asked."""
    from mame_lib.evaluation.sweep_rows import ASKABLE, obeyed

    lines = []
    for name in ASKABLE:
        yes, no, unknown = obeyed(rows, name)
        if yes + no:
            lines.append(f"{name:<8} obeyed {yes:,} of {yes + no:,} ({yes / (yes + no):.0%}), {unknown:,} unknown")
    return "\n".join(lines) or "nothing was asked that can be measured"


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.folder is None or arguments.verify is None:
        raise InputError("to check a sweep give its folder and a number of images: `mame sweep DIR --verify 5`.")
    quiet_libraries()
    from mame_lib.evaluation.sweep import verify

    checks = verify(arguments.folder, arguments.verify, arguments.seed, arguments.model or ())
    for check in checks:
        row, said = check.row, "same" if check.same else "DIFFERENT"
        levels = "" if check.largest is None else f", gray levels differ by {check.largest} at most"
        recipe = f"{row.model}, guidance {row.guidance_scale:g}, {row.steps} steps, seed {row.seed}, index {row.index}"
        print(f"{said}: {recipe}: {row.prompt!r}{levels}, measurements by {check.drift:.1g}")
    return 0 if all(check.same for check in checks) else 1
