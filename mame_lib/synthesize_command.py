"""The command `mame synthesize`: a data set by population, by one process or by many under `accelerate launch`."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mame_lib.argument_types import whole
from mame_lib.errors import InputError
from mame_lib.terminal import check_out, quiet_libraries, with_bar

MOST = 1_000_000  # images of a data set


def add_parser(commands: Any) -> None:
    """Arguments of `mame synthesize`."""
    about = "make a data set of synthetic mammograms from the shares of its population"
    many = (
        "One process computes on one thread, so that the images do not depend on it. Several share the work: "
        "accelerate launch --multi_gpu --num_processes N -m mame_lib synthesize SPEC …, on a processor too."
    )
    command = commands.add_parser("synthesize", help=about, epilog=many, allow_abbrev=False)
    add = command.add_argument
    add("spec", type=Path, metavar="SPEC", help="population in a TOML file: models, seed, shares")
    add("--count", type=whole(1, MOST), required=True, metavar="N", help="number of images")
    add("--out", type=Path, required=True, metavar="DIR", help="data set folder to write, to go on with, or to grow")
    training_help = "data set that the models learned from, to look for copies of it; may be repeated"
    add("--training-data", type=Path, action="append", default=[], metavar="DIR", help=training_help)
    add("--dicom", action="store_true", help="write each image as a DICOM file too")
    command.set_defaults(command="synthesize")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0, or 1 when two of the images are equal."""
    check_out(arguments.out)
    from mame_lib.synthesize.spec import read_spec

    spec = read_spec(arguments.spec)
    if arguments.dicom:
        from dataclasses import replace

        spec = replace(spec, dicom=True)
        _check_dicom()
    quiet_libraries()
    from mame_lib.synthesize import synthesize

    main = os.environ.get("RANK", "0") == "0"
    shown: Any = with_bar(None, arguments.count, "image") if main else nullcontext()
    try:
        with shown as bar:

            def progress(there: int, total: int) -> None:
                bar.total = total
                bar.update(there - bar.n)

            made = synthesize(
                spec, arguments.count, arguments.out, training_data=arguments.training_data,
                progress=progress if main else None,
            )  # fmt: skip
    except (KeyboardInterrupt, SystemExit) as stopped:
        if main and getattr(stopped, "code", None) != 2:
            print("mame: stopped; the same command goes on from here.", file=sys.stderr)
        raise
    if made is None:
        return 0
    print(f"{arguments.out}: {made.count:,} images, {made.lesions:,} with a lesion, {_speed(made)}")
    if spec.screen:
        print(f"redrew {made.redrawn:,}; {made.bad:,} of them failed every time, the least bad was kept")
    if made.training is not None:
        top = made.training.largest
        flagged = len(made.training.flagged)
        print(f"nearest to a training image: {top.image}, correlation {top.correlation:.4f}; {flagged:,} flagged")
    for group in made.equal:
        print(f"mame: note: images {', '.join(map(str, group))} are equal.", file=sys.stderr)
    return 1 if made.equal else 0


def _speed(made: Any) -> str:
    return f"{made.new:,} new ({made.new / made.seconds:.2f} a second)" if made.new else "0 new"


def _check_dicom() -> None:
    """Before the work, not after the first block."""
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        from mame_lib.data.dicom import INSTALL

        raise InputError(f"writing DICOM files needs pydicom; install it with: {INSTALL}") from error
