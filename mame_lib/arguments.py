"""What the command line accepts: the parser of `mame`, with limits on every number. Standard library only."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from mame_lib import __version__, audit_command, inpaint_command, readers_command, synthesize_command
from mame_lib.argument_types import listed, pairs, positive, real, seed, seeds, whole, words
from mame_lib.errors import InputError

# The same names as in the library, which is not imported before the arguments are known to be good.
FITS = ("crop", "pad")
PRIORS = ("uniform", "paper")
LESION_KINDS = ("mass", "calcifications")
METHODS = ("full", "unet", "lora")
DTYPES = ("float16", "float32")
SAMPLERS = ("ddpm", "ddim", "euler", "heun", "dpm_solver_pp", "dpm_solver_pp_1s", "dpm_solver_pp_2s")
INTENSITIES = ("vendor", "range", "4095", "3500")
SOURCE_HELP = {
    "folder": "every DICOM, PNG, JPEG and TIFF below a folder, with a table if you have one",
    "vindr": "VinDr-Mammo 1.0.0 as downloaded from PhysioNet",
    "omidb": "OMI-DB: the folders data/ and images/",
    "cbis": "CBIS-DDSM: its four tables and the image tree of the NBIA retriever",
}


class Parser(argparse.ArgumentParser):
    """Reports a bad argument as `InputError`, which becomes one line like every other mistake."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see `{self.prog} --help`)")


def build_parser() -> argparse.ArgumentParser:
    """The parser; what it returns has `command`: phantom, prepare (with `source`), inspect, train, …"""
    parser = Parser(
        prog="mame", description="Learn diffusion models by rebuilding MAM-E.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mame {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (
        _add_phantom, _add_prepare, _add_inspect, _add_train, _add_runs, _add_generate, _add_sweep, _add_convert,
    ):  # fmt: skip
        add(commands)
    inpaint_command.add_parser(commands)
    synthesize_command.add_parser(commands)
    audit_command.add_parser(commands)
    readers_command.add_parser(commands)
    models = commands.add_parser("models", help="list the models that ship, and others that can be loaded")
    models.set_defaults(command="models")
    doctor = commands.add_parser("doctor", help="check the installation and say how to repair it")
    doctor.set_defaults(command="doctor")
    return parser


def _sampler(text: str) -> str:
    if text not in SAMPLERS:
        raise argparse.ArgumentTypeError(f"{text!r} is unknown; choose {', '.join(SAMPLERS)}")
    return text


def _add_phantom(commands: Any) -> None:
    command = commands.add_parser(
        "phantom", help="draw a data set of procedural mammograms", allow_abbrev=False
    )
    command.add_argument("--count", type=whole(1), default=2000, help="number of images (default: 2000)")
    command.add_argument("--seed", type=seed, default=0, help="population to draw (default: 0)")
    vendor_help = "only this vendor's look, with captions that do not name it (default: both looks, named)"
    command.add_argument("--vendor", choices=("hologic", "siemens"), help=vendor_help)
    priors_help = "how often each word occurs: equally, or as in the paper's data (default: uniform)"
    command.add_argument("--priors", choices=PRIORS, default="uniform", help=priors_help)
    lesions_help = "share of images with a lesion, 0 to 1 (default: 0)"
    command.add_argument("--lesions", type=real, default=0.0, metavar="SHARE", help=lesions_help)
    kind_help = "what every lesion is (default: a mass in three out of four)"
    command.add_argument("--lesion-kind", choices=LESION_KINDS, help=kind_help)
    area_help = "smallest and largest box, shares of the image (default: the paper's sizes)"
    command.add_argument("--lesion-area", type=listed(positive), metavar="LOW,HIGH", help=area_help)
    findings_help = "masses, spiculated masses and calcifications alike, half of them captioned by their own words"
    command.add_argument("--say-findings", action="store_true", help=findings_help)
    _add_manifest_options(command)
    command.set_defaults(command="phantom")


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser(
        "prepare", help="turn real mammograms into a data set", allow_abbrev=False
    )
    sources = command.add_subparsers(title="sources", metavar="SOURCE", required=True, parser_class=Parser)
    for name, text in SOURCE_HELP.items():
        source = sources.add_parser(name, help=text, allow_abbrev=False)
        source.add_argument("folder", type=Path, metavar="SRC")
        if name == "folder":
            source.add_argument("--table", type=Path, metavar="CSV", help="table of attributes and boxes, a row a box")
            columns_help = "names of its columns, such as patient=ID,density=BIRADS (default: file, patient, view, …)"
            source.add_argument("--columns", type=pairs, default={}, metavar="NAME=COLUMN,…", help=columns_help)
        if name == "vindr":
            findings_help = "findings that make a lesion image, such as Mass (default: every finding with a box)"
            source.add_argument("--findings", type=words, metavar="NAME,…", help=findings_help)
        _add_manifest_options(source)
        _add_prepare_options(source)
        source.set_defaults(command="prepare", source=name)


def _add_prepare_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    fit_help = "crop: the paper's center crop, which loses rows; pad: the whole image (default: crop)"
    add("--fit", choices=FITS, default="crop", help=fit_help)
    intensity_help = "which value becomes white (default: vendor, a rule for each maker)"
    add("--intensity", choices=INTENSITIES, default="vendor", help=intensity_help)
    raw_help = "raw detector images: refuse them, or take their inverted logarithm (default: refuse)"
    add("--for-processing", choices=("refuse", "log"), default="refuse", help=raw_help)
    add("--workers", type=whole(1, 256), help="processes (default: one for each core)")
    salt_help = "secret word behind the patients' pseudonyms (default: this computer's own)"
    add("--salt", metavar="WORD", help=salt_help)
    log_help = "write the refused files, by their paths, to this file outside the data set"
    add("--log", type=Path, metavar="FILE", help=log_help)


def _add_inspect(commands: Any) -> None:
    command = commands.add_parser("inspect", help="count what a data set holds, and draw it", allow_abbrev=False)
    command.add_argument("data", type=Path, metavar="DIR")
    sheet_help = "contact sheet to write (default: DIR-contact.png, beside the data set)"
    command.add_argument("--sheet", type=Path, metavar="FILE", help=sheet_help)
    command.set_defaults(command="inspect")


def _add_manifest_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="data set folder to write")
    command.add_argument(
        "--size", type=whole(64, 1024), default=128, help="side of the images (default: 128)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace a data set that is already there")


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="fine-tune a model on a data set", allow_abbrev=False)
    add = command.add_argument
    add("--config", type=Path, metavar="FILE", help="settings in a TOML file, by the names of TrainConfig")
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="any setting of TrainConfig; may be repeated")
    # None: not said here, so the file, or else the default of TrainConfig, decides.
    add("--data", type=Path, metavar="DIR", help="data set, as written by phantom or prepare")
    add("--out", type=Path, metavar="RUN", help="run folder to write; the model is RUN/model")
    add("--preset", help="base model: tiny or sd15, or tiny-inpaint or sd15-inpaint for lesions (default: tiny)")
    add("--base", metavar="MODEL", help="start from this model instead of the preset's own")
    add("--method", choices=METHODS, help="what learns: everything, the UNet, low-rank updates (default: full)")
    add("--steps", type=whole(1), help="optimizer steps in all (default: 300)")
    add("--batch-size", type=whole(1), help="images of an optimizer step (default: the preset's)")
    add("--micro-batch-size", type=whole(1), help="images at once, to save memory (default: all of them)")
    add("--learning-rate", type=positive, help="peak learning rate (default: the preset's)")
    add("--seed", type=seed, help="(default: 1337, the paper's)")
    add("--validation-every", type=whole(0), help="steps; 0: no samples (default: 100)")
    add("--prompt", dest="constant_prompt", metavar="CAPTION", help="one caption for every image (default: the data's)")
    add("--prior-prompt", metavar="CAPTION", help="preserve what the base model draws of this (default: off)")
    add("--checkpoint-every", type=whole(0), help="steps; 0: at the end only (default: 0)")
    add("--resume", action="store_true", default=None, help="go on from the last checkpoint of RUN")
    plan_help = "print what memory the run would need and stop; with a number, on a GPU of so many GiB"
    add("--plan", type=positive, nargs="?", const=0.0, metavar="GIB", help=plan_help)
    command.set_defaults(command="train")


def _add_runs(commands: Any) -> None:
    command = commands.add_parser("runs", help="list training runs, and draw their curves", allow_abbrev=False)
    command.add_argument("folder", type=Path, metavar="DIR", help="a run folder, or one that holds runs")
    out_help = "folder for curves.png and evolution.png of each run (default: the run's own)"
    command.add_argument("--out", type=Path, metavar="DIR", help=out_help)
    command.set_defaults(command="runs")


def _add_generate(commands: Any) -> None:
    command = commands.add_parser("generate", help="make a mammogram from a sentence", allow_abbrev=False)
    add = command.add_argument
    add("prompt", metavar="PROMPT", help='for example "a siemens mammogram in MLO view with small area"')
    add("--model", default="fused", help="shipped model, run's model folder or Hub id (default: fused)")
    add("--out", type=Path, required=True, metavar="FILE", help="a .png file, or a folder")
    add("--seed", type=seed, default=0, help="(default: 0)")
    add("--count", type=whole(1), default=1, help="number of images (default: 1)")
    add("--steps", type=whole(1, 1000), default=24, help="sampler steps (default: 24)")
    add("--guidance-scale", type=real, default=4.0, help="1: no guidance (default: 4)")
    rescale_help = "0 to 1: take back the spread that guidance adds (default: the model's own, mostly 0)"
    add("--guidance-rescale", type=real, metavar="PHI", help=rescale_help)
    interval_help = "guidance at these timesteps only, 0 to 999; others take half the time (default: at all)"
    add("--guidance-interval", type=whole(0), nargs=2, metavar=("LOW", "HIGH"), help=interval_help)
    add("--negative-prompt", default="", help="what to steer away from")
    add("--batch-size", type=whole(1), help="images made at once; does not change them")
    add("--quality", choices=("screen",), help="screen: draw again what shows one of the paper's four failures")
    add("--most-tries", type=whole(1), default=8, help="draws of one image under --quality (default: 8)")
    inpaint_command.add_lesion(command)
    command.set_defaults(command="generate")


def _add_sweep(commands: Any) -> None:
    about = "generate and measure every combination of models, sentences and settings"
    command = commands.add_parser("sweep", help=about, allow_abbrev=False)
    add = command.add_argument
    add("folder", type=Path, nargs="?", metavar="DIR", help="a finished sweep, for --verify")
    add("--model", action="append", metavar="MODEL", help="as for generate; may be repeated (default: fused)")
    add("--prompt", action="append", default=[], metavar="SENTENCE", help="may be repeated")
    prompts_help = 'file with a sentence a line, or "grammar" for all that the grammar has'
    add("--prompts", metavar="FILE", help=prompts_help)
    add("--negative-prompt", action="append", metavar="SENTENCE", help="may be repeated (default: none)")
    guidance_help = "guidance scales, such as 1,2,4 (default: 4)"
    add("--guidance", type=listed(real), default=(4.0,), metavar="G,…", help=guidance_help)
    add("--steps", type=listed(whole(1, 1000)), default=(24,), metavar="N,…", help="such as 10,24 (default: 24)")
    sampler_help = "samplers (default: dpm_solver_pp)"
    add("--sampler", type=listed(_sampler), default=("dpm_solver_pp",), metavar="NAME,…", help=sampler_help)
    seeds_help = "0:40 for 40 of them, or 0,5,9 (default: 0)"
    add("--seeds", type=seeds, default=(0,), metavar="A:B", help=seeds_help)
    add("--count", type=whole(1), default=1, help="images of each seed; quicker than many seeds (default: 1)")
    add("--batch-size", type=whole(1), default=8, help="images of a seed made at once (default: 8)")
    add("--no-images", action="store_true", help="keep the table alone, for large grids")
    add("--out", type=Path, metavar="DIR", help="folder to write, or to go on with")
    add("--verify", type=whole(1), metavar="N", help="make N images of the sweep DIR again and compare them")
    add("--seed", type=seed, default=0, help="which N are drawn (default: 0)")
    command.set_defaults(command="sweep")


def _add_convert(commands: Any) -> None:
    about = "write any model as a folder of safetensors, for this or another program"
    command = commands.add_parser("convert", help=about, allow_abbrev=False)
    command.add_argument("source", metavar="MODEL", help="shipped model, preset, model folder or Hub id")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.add_argument("--dtype", choices=DTYPES, default="float16", help="of the weights (default: float16)")
    command.set_defaults(command="convert")
