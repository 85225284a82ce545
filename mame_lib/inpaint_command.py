"""The command `mame inpaint`, and the lesion that `mame generate --lesion` puts into what it made."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mame_lib.argument_types import box, real, seed, whole
from mame_lib.errors import InputError
from mame_lib.terminal import check_out, image_names, note_grammar, quiet_libraries, with_bar

# The same words as in the library, which is not imported before the arguments are known to be good.
FINDINGS = ("lesion", "mass", "spiculated mass", "calcification cluster")


def add_parser(commands: Any) -> None:
    """Arguments of `mame inpaint`."""
    about = "put a lesion into a mammogram, where a box or a mask says"
    command = commands.add_parser("inpaint", help=about, allow_abbrev=False)
    add = command.add_argument
    add("image", type=Path, metavar="IMAGE", help="mammogram of any size: PNG, TIFF or JPEG of 8 or 16 bits, or DICOM")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--box", type=box, metavar="X0,Y0,X1,Y1", help="what is filled, in pixels of the image")
    where.add_argument("--mask", type=Path, metavar="FILE", help="what is filled: white in an image of the same size")
    add("--out", type=Path, required=True, metavar="FILE", help="a .png file, or a folder; a .mask.png lies beside it")
    words = command.add_mutually_exclusive_group()
    words.add_argument("--finding", choices=FINDINGS, default="lesion", help="(default: lesion)")
    words.add_argument("--prompt", metavar="SENTENCE", help='any sentence; "a mammogram" fills in healthy tissue')
    add("--model", default="inpaint", help="shipped model, run's model folder or Hub id (default: inpaint)")
    add("--seed", type=seed, default=0, help="(default: 0)")
    add("--count", type=whole(1), default=1, help="number of fillings (default: 1)")
    add("--steps", type=whole(1, 1000), default=24, help="sampler steps (default: 24)")
    add("--guidance-scale", type=real, default=4.0, help="1: no guidance (default: 4)")
    add("--negative-prompt", default="", help="what to steer away from")
    add("--feather", type=real, help="soft border inside the mask, pixels of the model; 0: hard (default: 3)")
    add("--keep-detail", action="store_true", help="keep texture inside the mask that the autoencoder would lose")
    command.set_defaults(command="inpaint")


def add_lesion(command: Any) -> None:
    """Arguments of `mame generate` that put a lesion into each image."""
    add = command.add_argument
    lesion_help = "put a lesion into each image: at a plausible place, or in a box x0,y0,x1,y1"
    add("--lesion", type=_place, nargs="?", const="auto", metavar="BOX", help=lesion_help)
    add("--finding", choices=FINDINGS, default="lesion", help="what lesion, with --lesion (default: lesion)")
    inpainter_help = "model that makes the lesion (default: the one that ships, for 128 pixels)"
    add("--inpainter", metavar="MODEL", help=inpainter_help)


def _place(text: str) -> str | tuple[int, ...]:
    return text if text == "auto" else box(text)


def run(arguments: argparse.Namespace) -> int:
    """Fill the mask; prints the files written."""
    names = image_names(arguments.out, arguments.count, arguments.seed)
    check_out(names[0])
    if not arguments.image.exists():
        raise InputError(f"{arguments.image} does not exist; give an image file.")
    if arguments.image.resolve() in {name.resolve() for name in names}:
        raise InputError(f"--out {arguments.image} would overwrite the image; choose another name.")
    quiet_libraries()
    from mame_lib.data.prompts import sentence_of
    from mame_lib.generation import Mame

    prompt = arguments.prompt or sentence_of(arguments.finding)
    model = Mame.load(arguments.model)
    note_grammar(prompt)
    options = {} if arguments.feather is None else {"feather": arguments.feather}
    for index, name in enumerate(with_bar(names, len(names), "image")):
        made = model.inpaint(
            arguments.image, arguments.mask, box=arguments.box, prompt=prompt, seed=arguments.seed, start_index=index,
            negative_prompt=arguments.negative_prompt, guidance_scale=arguments.guidance_scale, steps=arguments.steps,
            keep_detail=arguments.keep_detail, **options,
        )  # fmt: skip
        print(made[0].save(name))
    return 0


def generate(arguments: argparse.Namespace, model: Any, names: list[Path], options: dict[str, Any]) -> int:
    """`mame generate --lesion`: healthy images by `options` of `Mame.stream`, a lesion in each."""
    if arguments.guidance_interval is not None:
        raise InputError("--guidance-interval can't go with --lesion; leave one of them out.")
    for index, name in enumerate(with_bar(names, len(names), "image")):
        made = model.generate_with_lesion(
            arguments.prompt, arguments.lesion, inpainter=arguments.inpainter, finding=arguments.finding,
            start_index=index, **{**options, "count": 1},
        )  # fmt: skip
        print(made[0].save(name))
    return 0
