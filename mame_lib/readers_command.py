"""The command `mame readers`: make a reader study, serve it to a class, and score what came back."""

from __future__ import annotations

import argparse
import json
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mame_lib.argument_types import real, seed, whole
from mame_lib.errors import InputError
from mame_lib.terminal import check_out, quiet_libraries, with_bar

PHANTOMS_ARE_REAL = "No patient is shown: in this study, real means a phantom, drawn by a program without a network."
PHANTOMS = 45_000_000  # added to the seed: phantoms that no shipped model has learned from


def add_parser(commands: Any) -> None:
    """Arguments of `mame readers`."""
    command = commands.add_parser("readers", help="a reader study: new, serve, score", allow_abbrev=False)
    steps = command.add_subparsers(title="steps", metavar="STEP", required=True)
    _add_new(steps.add_parser("new", help="draw the cases and write the rating page", allow_abbrev=False))
    serve = steps.add_parser("serve", help="serve the page and collect the ratings", allow_abbrev=False)
    serve.add_argument("folder", type=Path, metavar="DIR", help="what `mame readers new` wrote")
    host_help = "address to listen at; 0.0.0.0 lets others in the network rate (default: 127.0.0.1, this machine)"
    serve.add_argument("--host", default="127.0.0.1", help=host_help)
    serve.add_argument("--port", type=whole(0, 65535), default=8008, help="(default: 8008; 0: any that is free)")
    score = steps.add_parser("score", help="ROC curves, intervals and agreement", allow_abbrev=False)
    score.add_argument("folder", type=Path, metavar="DIR", help="what `mame readers new` wrote")
    files_help = "files of ratings (default: all in DIR/ratings)"
    score.add_argument("--ratings", type=Path, nargs="+", metavar="FILE", help=files_help)
    score.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file too")
    for name, parser in (("serve", serve), ("score", score)):
        parser.set_defaults(command="readers", step=name)


def _add_new(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("out", type=Path, metavar="DIR", help="folder to write: DIR/share is for the readers, DIR/key.csv is not")
    add("--data", type=Path, metavar="DIR", help="data set with the real images (default: phantoms stand for them)")
    add("--model", default="fused", help="makes the synthetic images: shipped model, model folder (default: fused)")
    images_help = "PNG files, or a data set, with the synthetic images, in place of making them"
    add("--images", type=Path, metavar="DIR", help=images_help)
    add("--cases", type=whole(1, 1000), default=25, metavar="N", help="cases of each class (default: 25)")
    add("--practice", type=whole(0, 20), default=2, metavar="N", help="practice cases of each class (default: 2)")
    add("--repeats", type=whole(0, 1000), default=0, metavar="N", help="cases of each class shown twice (default: 0)")
    seed_help = "decides cases, names and orders; who knows it can make the key (default: a new one, in recipe.json)"
    add("--seed", type=seed, help=seed_help)
    add("--steps", type=whole(1, 1000), default=24, help="sampler steps (default: 24)")
    add("--guidance-scale", type=real, default=4.0, help="1: no guidance (default: 4)")
    vae_help = "send the real images through the model's autoencoder, so that sharpness does not tell the classes"
    add("--through-autoencoder", action="store_true", help=vae_help)
    add("--title", default="Real or synthetic?", help="heading of the page (default: Real or synthetic?)")
    command.set_defaults(command="readers", step="new")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0."""
    return {"new": _new, "serve": _serve, "score": _score}[arguments.step](arguments)


def _new(arguments: argparse.Namespace) -> int:
    check_out(arguments.out)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise InputError(f"{arguments.out} exists already; give a new folder for the study.")
    if arguments.repeats > arguments.cases:
        raise InputError(f"--repeats {arguments.repeats} is more than the {arguments.cases} cases of a class.")
    if arguments.seed is None:
        arguments.seed = secrets.randbelow(2**31)  # a seed that every reader would try first is no blinding
    quiet_libraries()
    from mame_lib.evaluation.readers import tells
    from mame_lib.evaluation.readers.study import SHARE, make_study

    true, made = _images(arguments)
    study = make_study(
        arguments.out, true, made, cases_each=arguments.cases, seed=arguments.seed, repeats=arguments.repeats,
        practice=arguments.practice, title=arguments.title, recipe=_recipe(arguments),
        about="" if arguments.data else PHANTOMS_ARE_REAL,
    )  # fmt: skip
    found = tells.tells([one.image for one in true], [one.image for one in made])
    rate = arguments.out / SHARE / "rate.html"
    print(f"{arguments.out}: {len(study.cases)} cases, {len(study.practice)} to practice, {study.id}")
    print(f"give {arguments.out / SHARE} to the readers ({rate.name} is enough), and keep key.csv and recipe.json")
    print("\nWhat one number alone tells of the class (0.5: nothing; 0 or 1: everything)\n" + tells.table(found))
    if loud := [tell.name for tell in found if tell.loud]:
        also = "" if arguments.through_autoencoder else "; --through-autoencoder takes some of it away"
        print(f"mame: note: readers may go by {', '.join(loud)} instead of the anatomy{also}.", file=sys.stderr)
    return 0


def _recipe(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings, without paths, which may hold a name."""
    names = ("model", "steps", "guidance_scale", "through_autoencoder", "practice", "repeats")
    said = {name: getattr(arguments, name) for name in names}
    sources = {"real": "data set" if arguments.data else "phantoms", "made": "folder" if arguments.images else "model"}
    return {**said, **sources}


def _images(arguments: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Candidates of both classes; every prompt occurs as often in one as in the other, where prompts are known."""
    from dataclasses import replace

    import numpy as np

    from mame_lib.evaluation.degradations import round_trip
    from mame_lib.generation import Mame

    made = [] if arguments.images is None else _read(arguments.images)
    model = Mame.load(arguments.model) if not made or arguments.through_autoencoder else None
    size = model.components.image_size if model is not None else len(made[0].image)
    prompts = [one.stratum for one in made if one.stratum]
    true = _true(arguments, size, prompts)
    if not made:
        assert model is not None
        made = _made(arguments, model, [one.stratum for one in true])
    elif Counter(one.stratum for one in true) - Counter(prompts):
        print("mame: note: the two classes do not share their prompts; they are balanced in number alone.",
              file=sys.stderr)  # fmt: skip
        true, made = ([replace(one, stratum="") for one in some] for some in (true, made))
    if arguments.through_autoencoder:
        assert model is not None
        back = round_trip(np.stack([one.image for one in true]), model.components.vae)
        true = [replace(one, image=image) for one, image in zip(true, back, strict=True)]
    return true, made


def _made(arguments: argparse.Namespace, model: Any, prompts: list[str]) -> list[Any]:
    """A synthetic image for each prompt."""
    from mame_lib.evaluation.readers.study import Candidate

    images = model.stream(
        prompts, seed=arguments.seed, steps=arguments.steps, guidance_scale=arguments.guidance_scale
    )
    shown = with_bar(images, len(prompts), "image")
    return [Candidate(one.pixels, f"{model.name} {one.index}", one.prompt) for one in shown]


def _true(arguments: argparse.Namespace, size: int, prompts: list[str]) -> list[Any]:
    """The real class: as many images as are needed, under the prompts of the synthetic ones where these are known."""
    import numpy as np

    from mame_lib.evaluation.readers.study import Candidate

    count = arguments.cases + arguments.practice
    rng = np.random.default_rng([arguments.seed, 14])
    if arguments.data is not None:
        return _from_data(arguments.data, count, prompts, rng)
    vendor = arguments.model if arguments.model in ("hologic", "siemens") else None
    drawn = _phantoms(count, size, PHANTOMS + arguments.seed, vendor, [str(p) for p in rng.permutation(prompts)])
    shown = enumerate(with_bar(drawn, count, "phantom"))
    return [Candidate(image, f"phantom {k}", prompt) for k, (image, prompt) in shown]


def _phantoms(count: int, size: int, seed: int, vendor: str | None, prompts: list[str]) -> Iterator[tuple[Any, str]]:
    """Phantoms and their prompts: those that are given, as far as the grammar knows them, or any."""
    from mame_lib.data.phantom import draw
    from mame_lib.data.prompts import parse
    from mame_lib.data.sources import phantom_source

    if len(prompts) < count:
        yield from ((item.image, item.prompt) for item in phantom_source(count, size, seed, vendor))
        return
    for index, prompt in enumerate(prompts[:count]):
        yield draw(parse(prompt), size=size, seed=seed, index=index).image, prompt


def _from_data(folder: Path, count: int, prompts: list[str], rng: Any) -> list[Any]:
    """Images of a data set that were kept from training, if there are enough of them."""
    from mame_lib.data.manifest import load
    from mame_lib.evaluation.readers.study import Candidate

    data = load(folder)
    cases = [case for case in data.cases if case.split != "train"]
    if len(cases) < count <= len(data.cases):
        print(f"mame: note: {folder} has {len(cases)} cases outside its training split, but {count} are needed; "
              "training cases are shown too.", file=sys.stderr)  # fmt: skip
        cases = data.cases
    if len(cases) < count:
        raise InputError(f"{folder} has {len(cases)} images, but {count} are needed; ask for fewer cases.")
    free = Counter(prompts)
    first: list[Any] = []
    others: list[Any] = []
    for k in rng.permutation(len(cases)):
        fits = free[cases[k].prompt] > 0
        free[cases[k].prompt] -= fits
        (first if fits else others).append(cases[k])
    picked = [*first, *others][:count]
    return [Candidate(data.image(case), f"data {case.id}", case.prompt) for case in picked]


def _read(folder: Path) -> list[Any]:
    """The synthetic images of a data set, with prompts, or of a folder of PNG files, without."""
    from mame_lib.data.levels import read_bytes
    from mame_lib.data.manifest import is_manifest, load
    from mame_lib.evaluation.readers.study import Candidate

    if is_manifest(folder):
        data = load(folder)
        return [Candidate(data.image(case), f"image {case.id}", case.prompt) for case in data.cases]
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not files:
        raise InputError(f"there is no PNG file in {folder}; give a folder with the synthetic images.")
    return [Candidate(read_bytes(path), f"image {path.stem}") for path in files]


def _serve(arguments: argparse.Namespace) -> int:
    from mame_lib.evaluation.readers.server import StudyServer

    with StudyServer(arguments.folder, arguments.host, arguments.port) as server:
        where = server.address
        if arguments.host in ("0.0.0.0", "::"):
            where = f"http://{socket.gethostname()}:{server.server_address[1]}/"
        print(f"{where} shows {server.study.title!r}; ratings go to {server.ratings}; Ctrl+C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(f"{len(list(server.ratings.glob('*.csv')))} readers have rated", flush=True)
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from mame_lib.evaluation.readers.ratings import read_key, read_ratings, read_repeats, write_whole
    from mame_lib.evaluation.readers.score import report
    from mame_lib.evaluation.readers.study import KEY, RATINGS, load_study

    study = load_study(arguments.folder)
    key = read_key(arguments.folder / KEY)
    files = arguments.ratings or sorted((arguments.folder / RATINGS).glob("*.csv"))
    if not files:
        raise InputError(f"{arguments.folder / RATINGS} holds no ratings yet; put the readers' files there.")
    found = read_ratings(files)
    for one in found:
        if one.study != study.id:
            raise InputError(f"{one.reader} rated {one.study}, not {study.id} of {arguments.folder}; leave it out.")
    said = report(found, key, repeats=read_repeats(arguments.folder / KEY))
    print(said.text())
    if arguments.json is not None:
        check_out(arguments.json)
        write_whole(arguments.json, json.dumps(said.as_json(), indent=1) + "\n")
    return 0
