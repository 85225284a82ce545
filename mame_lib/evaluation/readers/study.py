"""A reader study before anyone has read: which cases, under which names, in which order, in which folder.

    OUT/share/rate.html         the page to rate on; needs nothing else      } what readers may see:
    OUT/share/study.json        names of the cases, for programs             } give this folder away,
    OUT/share/images/CASE.png   the images, for other viewers                } or serve it
    OUT/key.csv                 what is real and what is synthetic           keep from the readers
    OUT/recipe.json             how the study was made, seed included        keep from the readers
    OUT/ratings/READER.csv      what comes back

Both classes get the same size, the same encoder, the same number of bytes, the same date, and names drawn at random.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.data.folders import complete_or_nothing
from mame_lib.errors import InputError
from mame_lib.evaluation.readers import ratings
from mame_lib.evaluation.readers.files import padded, png

Gray = NDArray[np.uint8]

FORMAT = "mame-reader-study/1"
SHARE, KEY, RECIPE, RATINGS = "share", "key.csv", "recipe.json", "ratings"
NOTICE = "Some of these images are synthetic. For research and teaching, not for diagnosis."
TITLE = "Real or synthetic?"
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike
_DATE = 946_684_800  # 1 January 2000: the date of every image


@dataclass(frozen=True)
class Candidate:
    """An image that may be shown, uint8 [n, n].

    source: where it comes from, in the key alone. stratum: what both classes are to have in equal numbers, such as
    the prompt.
    """

    image: Gray = field(repr=False)
    source: str
    stratum: str = ""


@dataclass(frozen=True)
class Study:
    """What readers may know of a study: everything but the truth.

    id: its name in ratings. about: what the classes are, said before the first case. cases: names, in no order that
    means anything. repeats: {second: first} for images that are shown twice. practice: names of the practice cases and
    their truth. salt: what `order` mixes with the reader's code. root: the folder, with its images.
    """

    id: str
    title: str
    about: str
    size: int
    salt: str
    cases: tuple[str, ...]
    repeats: dict[str, str]
    practice: dict[str, str]
    root: Path

    def order(self, reader: str) -> list[str]:
        """The cases as this reader meets them, practice left out; raises `InputError` for a code that will not do."""
        return order(self.cases, self.repeats, self.salt, ratings.check_name(reader, "reader"))

    def file(self, case: str) -> Path:
        """Where the image of a case lies."""
        return self.root / SHARE / "images" / f"{case}.png"

    def image(self, case: str) -> Gray:
        """The image of a case, uint8 [n, n]."""
        with Image.open(self.file(case)) as picture:
            return np.asarray(picture)


def order(cases: Sequence[str], repeats: Mapping[str, str], salt: str, reader: str) -> list[str]:
    """The cases in an order of the reader's own: a pure shuffle, then what is shown twice.

    No run of one class is avoided: a reader who knows that runs are short can tell what comes next. The R repeats come
    last, in the order of their first showings, so that R cases or more stand from one showing to the next.
    The page computes the same in JavaScript: FNV-1a of "salt:reader" seeds mulberry32, which shuffles by Fisher and
    Yates.
    """
    first = sorted(set(cases) - set(repeats))
    state = 0x811C9DC5
    for byte in f"{salt}:{reader}".encode():
        state = ((state ^ byte) * 0x01000193) & 0xFFFFFFFF

    def draw() -> int:
        nonlocal state
        state = (state + 0x6D2B79F5) & 0xFFFFFFFF
        x = ((state ^ state >> 15) * (state | 1)) & 0xFFFFFFFF
        x ^= (x + ((x ^ x >> 7) * (x | 61))) & 0xFFFFFFFF
        return x ^ x >> 14

    for i in range(len(first) - 1, 0, -1):
        j = draw() % (i + 1)
        first[i], first[j] = first[j], first[i]
    again = {shown: case for case, shown in repeats.items()}
    return first + [again[case] for case in first if case in again]


def make_study(
    out: str | Path,
    real: Sequence[Candidate | Gray],
    synthetic: Sequence[Candidate | Gray],
    *,
    cases_each: int,
    seed: int,
    repeats: int = 0,
    practice: int = 0,
    title: str = TITLE,
    about: str = "",
    recipe: Mapping[str, Any] | None = None,
) -> Study:
    """Draw the cases of a blinded, balanced study and write its folder, whole or not at all.

    Parameters
    ----------
    real, synthetic : what may be shown, uint8 [n, n] of one size: `Candidate`s, or images alone.
    cases_each : cases of each class. Every stratum has as many cases of one class as of the other.
    seed : decides cases, names, and with a reader's code their order. Keep it from the readers: with the same seed and
        images anyone makes the same key.
    repeats : cases of each class that are shown twice, under another name, to see whether a reader agrees with herself.
    practice : cases of each class that come first, with the truth after each answer, and do not count.
    title, about : heading of the page, and a sentence before the first case: what "real" means in this study.
    recipe : what else should be remembered, such as model and prompts; kept from the readers.

    Raises
    ------
    InputError
        If a number is out of range, the images differ in size or are not uint8 squares, there are too few of them (in
        matching strata), or `out` exists.
    """
    root = Path(out)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists already; give a new folder for the study.")
    if cases_each < 1 or not 0 <= repeats <= cases_each or practice < 0 or seed < 0:
        raise InputError(
            f"{cases_each} cases, {repeats} repeats and {practice} practice cases of each class with seed {seed} "
            "will not do; use 1 case or more, no more repeats than cases, and no negative number."
        )
    classes = {"real": _candidates(real, "real"), "synthetic": _candidates(synthetic, "synthetic")}
    size = _one_size(classes)
    rng = np.random.default_rng([seed, 8])
    pairs = _matched(classes["real"], classes["synthetic"], cases_each + practice, rng)
    drawn = [(truth, one) for pair in pairs for truth, one in zip(ratings.TRUTHS, pair, strict=True)]
    names = _names(len(drawn) + 2 * repeats, rng)
    shown = dict(zip(names, drawn, strict=False))  # the first `cases_each` pairs count, the others are practice
    kept, tried = names[: 2 * cases_each], names[2 * cases_each : len(drawn)]
    twice = dict(zip(names[len(drawn) :], kept[: 2 * repeats], strict=True))
    shown |= {second: shown[first] for second, first in twice.items()}
    salt = hashlib.sha256(f"mame reader study {seed}".encode()).hexdigest()[:16]
    study = Study(
        id=_identity(shown, salt, title), title=title, about=about, size=size, salt=salt,
        cases=tuple(sorted([*kept, *twice])),
        repeats=dict(sorted(twice.items())), practice={name: shown[name][0] for name in tried}, root=root,
    )  # fmt: skip
    with complete_or_nothing(root) as partial:
        _write(partial, study, shown, {"seed": seed, "cases_each": cases_each, **(recipe or {})})
    return study


def load_study(folder: str | Path) -> Study:
    """The study in a folder that `make_study` wrote.

    Raises
    ------
    InputError
        If there is none, its study.json is damaged, or an image is missing.
    """
    root = Path(folder)
    path = root / SHARE / "study.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{root} is no reader study (it has no {SHARE}/study.json); `mame readers new` makes one."
                         ) from error  # fmt: skip
    except ValueError as error:
        raise InputError(f"{path} is damaged; make the study again.") from error
    try:
        if said["format"] != FORMAT:
            raise InputError(f"{path} has the format {said['format']!r}, not {FORMAT}; make the study again.")
        study = Study(
            id=ratings.check_name(said["study"], "study"), title=str(said["title"]),
            about=str(said["about"]), size=int(said["size"]), salt=str(said["salt"]),
            cases=tuple(ratings.check_name(case, "case") for case in said["cases"]), repeats=dict(said["repeats"]),
            practice=dict(said["practice"]), root=root,
        )  # fmt: skip
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged; make the study again.") from error
    for case in (*study.cases, *map(ratings.check_name, study.practice)):
        if not study.file(case).is_file():
            raise InputError(f"{study.file(case)} is missing; make the study again.")
    return study


def _candidates(given: Sequence[Candidate | Gray], truth: str) -> list[Candidate]:
    return [one if isinstance(one, Candidate) else Candidate(one, f"{truth} {k}") for k, one in enumerate(given)]


def _one_size(classes: Mapping[str, Sequence[Candidate]]) -> int:
    """The side of all images, or a sentence about the first that differs."""
    size = None
    for truth, some in classes.items():
        if len({one.source for one in some}) < len(some):
            raise InputError(f"two {truth} images have the same source; every source must be named once.")
        for one in some:
            shape = np.shape(one.image)
            size = size or (shape[0] if len(shape) == 2 else 0)
            if shape != (size, size) or np.asarray(one.image).dtype != np.uint8:
                what = f"{np.asarray(one.image).dtype} {list(shape)}"
                raise InputError(f"the {truth} image {one.source} is {what}; all must be uint8 squares of one size.")
    if not size:
        raise InputError("there are no images; give some of each class.")
    return size


def _matched(
    real: Sequence[Candidate], synthetic: Sequence[Candidate], count: int, rng: np.random.Generator
) -> list[tuple[Candidate, Candidate]]:
    """`count` pairs, a real and a synthetic image of one stratum, in random order, no image twice."""
    waiting: dict[str, list[Candidate]] = {}
    for k in rng.permutation(len(synthetic)):
        waiting.setdefault(synthetic[k].stratum, []).append(synthetic[k])
    pairs: list[tuple[Candidate, Candidate]] = []
    for k in rng.permutation(len(real)):
        if len(pairs) < count and waiting.get(real[k].stratum):
            pairs.append((real[k], waiting[real[k].stratum].pop()))
    if len(pairs) < count:
        raise InputError(
            f"{count} images of each class are needed, but only {len(pairs)} pairs of one stratum (such as the prompt) "
            f"are among {len(real)} real and {len(synthetic)} synthetic ones; give more, or ask for fewer cases."
        )
    return pairs


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Names drawn at random, each once."""
    names: dict[str, None] = {}
    while len(names) < count:
        names["".join(rng.choice(list(_LETTERS), 6))] = None
    return list(names)


def _identity(shown: Mapping[str, tuple[str, Candidate]], salt: str, title: str) -> str:
    """A short name that another set of images, names or orders does not have."""
    digest = hashlib.sha256(f"{salt}|{title}".encode())
    for name in sorted(shown):
        digest.update(name.encode() + np.ascontiguousarray(shown[name][1].image).tobytes())
    return f"study-{digest.hexdigest()[:10]}"


def _write(place: Path, study: Study, shown: Mapping[str, tuple[str, Candidate]], recipe: Mapping[str, Any]) -> None:
    """All files of a new study below `place`."""
    from mame_lib.evaluation.readers.page import rating_page

    images = place / SHARE / "images"
    images.mkdir(parents=True)
    (place / RATINGS).mkdir()
    files = {name: png(one.image) for name, (_, one) in shown.items()}
    longest = max(map(len, files.values()))
    for name, data in files.items():
        (images / f"{name}.png").write_bytes(padded(data, longest))
        os.utime(images / f"{name}.png", (_DATE, _DATE))
    public = {
        "format": FORMAT, "study": study.id, "title": study.title, "about": study.about, "notice": NOTICE,
        "size": study.size, "scale": list(ratings.SCALE), "salt": study.salt, "cases": list(study.cases),
        "repeats": study.repeats, "practice": study.practice,
    }  # fmt: skip
    (place / SHARE / "study.json").write_text(json.dumps(public, indent=1) + "\n", encoding="utf-8")
    placed = Study(**{**study.__dict__, "root": place})
    (place / SHARE / "rate.html").write_text(rating_page(placed), encoding="utf-8")
    listed = sorted(study.cases, key=lambda name: (name in study.repeats, name))  # first showings first: read_repeats
    ratings.write_key(place / KEY, [(name, shown[name][0], shown[name][1].source) for name in listed])
    strata = {name: shown[name][1].stratum for name in sorted(shown)}
    text = json.dumps({"format": FORMAT, "study": study.id, **recipe, "strata": strata}, indent=1, ensure_ascii=False)
    (place / RECIPE).write_text(text + "\n", encoding="utf-8")
