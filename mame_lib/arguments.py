"""What the command line accepts: the parser of `mame`, with limits on every number. Standard library only."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mame_lib import __version__
from mame_lib.errors import InputError

SEED_LIMIT = 2**63  # torch takes seeds of 64 bits, signed


class Parser(argparse.ArgumentParser):
    """Reports a bad argument as `InputError`, which becomes one line like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has `command`: phantom, prepare folder, train, generate or doctor."""
    parser = Parser(
        prog="mame", description="Learn diffusion models by rebuilding MAM-E.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mame {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (_add_phantom, _add_prepare, _add_train, _add_generate):
        add(commands)
    doctor = commands.add_parser("doctor", help="check the installation and say how to repair it")
    doctor.set_defaults(command="doctor")
    return parser


def _whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A converter for whole numbers from `low` to `high`, both included."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < low or (high is not None and value > high):
            limit = f"{low} or more" if high is None else f"{low} to {high}"
            raise argparse.ArgumentTypeError(f"{value} is out of range; use {limit}")
        return value

    return convert


def _real(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def _positive(text: str) -> float:
    value = _real(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


_seed = _whole(0, SEED_LIMIT - 1)


def _add_phantom(commands: Any) -> None:
    command = commands.add_parser(
        "phantom", help="draw a data set of procedural mammograms", allow_abbrev=False
    )
    command.add_argument("--count", type=_whole(1), default=2000, help="number of images (default: 2000)")
    command.add_argument("--seed", type=_seed, default=0, help="population to draw (default: 0)")
    vendor_help = "only this vendor's look, with captions that do not name it (default: both looks, named)"
    command.add_argument("--vendor", choices=("hologic", "siemens"), help=vendor_help)
    _add_manifest_options(command)
    command.set_defaults(command="phantom")


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser(
        "prepare", help="turn your own mammograms into a data set", allow_abbrev=False
    )
    sources = command.add_subparsers(title="sources", metavar="SOURCE", required=True, parser_class=Parser)
    folder = sources.add_parser(
        "folder", help="every DICOM, PNG, JPEG and TIFF below a folder", allow_abbrev=False
    )
    folder.add_argument("folder", type=Path, metavar="SRC")
    salt_help = "secret word: the same one gives the same patient pseudonyms again (default: random)"
    folder.add_argument("--salt", metavar="WORD", help=salt_help)
    _add_manifest_options(folder)
    folder.set_defaults(command="prepare folder")


def _add_manifest_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="data set folder to write")
    command.add_argument(
        "--size", type=_whole(64, 1024), default=128, help="side of the images (default: 128)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a data set that is already there")


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="fine-tune a model on a data set", allow_abbrev=False)
    add = command.add_argument
    add("--data", type=Path, required=True, metavar="DIR", help="data set, as written by phantom or prepare")
    add("--out", type=Path, required=True, metavar="RUN", help="run folder to write; the model is RUN/model")
    add("--preset", default="tiny", help="base model: tiny or sd15 (default: tiny)")
    add("--steps", type=_whole(1), required=True, help="optimizer steps in all")
    add("--batch-size", type=_whole(1), help="images a step (default: the preset's)")
    add("--learning-rate", type=_positive, help="peak learning rate (default: the preset's)")
    add("--seed", type=_seed, default=1337, help="(default: 1337, the paper's)")
    add("--validation-every", type=_whole(0), default=100, help="steps; 0: no samples (default: 100)")
    add("--prompt", metavar="CAPTION", help="one caption for every image (default: the data's)")
    add("--checkpoint-every", type=_whole(0), default=0, help="steps; 0: at the end only (default: 0)")
    add("--resume", action="store_true", help="go on from the last checkpoint of RUN")
    command.set_defaults(command="train")


def _add_generate(commands: Any) -> None:
    command = commands.add_parser("generate", help="make a mammogram from a sentence", allow_abbrev=False)
    add = command.add_argument
    add("prompt", metavar="PROMPT", help='for example "a siemens mammogram in MLO view with small area"')
    add("--model", default="fused", help="shipped model, run's model folder or Hub id (default: fused)")
    add("--out", type=Path, required=True, metavar="FILE", help="a .png file, or a folder")
    add("--seed", type=_seed, default=0, help="(default: 0)")
    add("--count", type=_whole(1), default=1, help="number of images (default: 1)")
    add("--steps", type=_whole(1, 1000), default=24, help="sampler steps (default: 24)")
    add("--guidance-scale", type=_real, default=4.0, help="1: no guidance (default: 4)")
    add("--negative-prompt", default="", help="what to steer away from")
    add("--batch-size", type=_whole(1), help="images made at once; does not change them")
    command.set_defaults(command="generate")
