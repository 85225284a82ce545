"""Design of a reader study: blinded, balanced, from its seed, and honest about what gives the classes away."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.files import padded, png
from mame_lib.evaluation.readers.ratings import read_key, read_repeats
from mame_lib.evaluation.readers.study import Candidate, load_study, make_study, order
from mame_lib.evaluation.readers.tells import table, tells

SIZE = 16


def images(count: int, seed: int) -> list[np.ndarray]:
    """Noise; that of even seeds has few gray levels, so that its files are shorter."""
    step = 1 if seed % 2 else 32
    return list(np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE)).astype(np.uint8) // step * step)


def candidates(count: int, seed: int, name: str) -> list[Candidate]:
    return [Candidate(image, f"{name} {k}", "ab"[k % 2]) for k, image in enumerate(images(count, seed))]


@pytest.fixture
def study(tmp_path: Path):
    return make_study(
        tmp_path / "s", candidates(20, 1, "r"), candidates(20, 2, "f"), cases_each=8, seed=5, repeats=3, practice=2
    )


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in folder.rglob("*") if p.is_file()}  # fmt: skip


def test_same_seed_same_bytes_other_seed_other_names(tmp_path: Path) -> None:
    pools = candidates(9, 1, "r"), candidates(9, 2, "f")
    seeds = {"a": 5, "b": 5, "c": 6}
    made = [make_study(tmp_path / name, *pools, cases_each=5, seed=seed) for name, seed in seeds.items()]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert made[0].id == made[1].id != made[2].id
    assert not set(made[0].cases) & set(made[2].cases)


def test_balanced_in_number_and_in_every_stratum(study) -> None:
    key = read_key(study.root / "key.csv")
    recipe = json.loads((study.root / "recipe.json").read_text())
    assert set(key) == set(study.cases) and not set(key) & set(study.practice)
    assert Counter(key.values()) == {"real": 11, "synthetic": 11}
    once = [case for case in study.cases if case not in study.repeats]
    kinds = Counter((key[case], recipe["strata"][case]) for case in once)
    assert all(kinds["real", stratum] == kinds["synthetic", stratum] for stratum in "ab") and len(once) == 16
    assert Counter(study.practice.values()) == {"real": 2, "synthetic": 2}
    assert read_repeats(study.root / "key.csv") == study.repeats and len(study.repeats) == 6
    assert Counter(key[case] for case in study.repeats) == {"real": 3, "synthetic": 3}
    for second, first in study.repeats.items():
        assert np.array_equal(study.image(second), study.image(first)) and key[second] == key[first]
    sources = [line.split(",")[2] for line in (study.root / "key.csv").read_text().splitlines()[1:]]
    assert Counter(Counter(sources).values()) == {1: 10, 2: 6}  # nothing else is shown twice


def test_nothing_that_readers_get_tells_the_class(study) -> None:
    share = study.root / "share"
    files = sorted((share / "images").iterdir())
    assert {path.stem for path in files} == {*study.cases, *study.practice}
    assert len({(path.stat().st_size, path.stat().st_mtime) for path in files}) == 1
    for path in files:
        with Image.open(path) as picture:
            assert (picture.mode, picture.size, picture.info) == ("L", (SIZE, SIZE), {})
    public = (share / "study.json").read_text() + (share / "rate.html").read_text()
    key = (study.root / "key.csv").read_text().splitlines()[1:]
    assert not [line for line in key if line.split(",")[2] in public.replace('"', "")]
    said = json.loads((share / "study.json").read_text())
    assert "seed" not in said and set(said["practice"]) == set(study.practice)
    assert said["cases"] == sorted(said["cases"])
    assert "truth" not in json.dumps({k: v for k, v in said.items() if k != "practice"})


def test_pixels_are_those_that_were_given(study) -> None:
    given = {one.source: one.image for one in (*candidates(20, 1, "r"), *candidates(20, 2, "f"))}
    for line in (study.root / "key.csv").read_text().splitlines()[1:]:
        case, _, source = line.split(",")
        assert np.array_equal(study.image(case), given[source])


def test_padding_leaves_a_good_png(tmp_path: Path) -> None:
    image = images(1, 3)[0]
    data = png(image)
    for length in (len(data), len(data) + 1, 5000):
        long = padded(data, length)
        assert len(long) == length + 12
        (tmp_path / "p.png").write_bytes(long)
        with Image.open(tmp_path / "p.png") as picture:
            picture.load()
            assert np.array_equal(np.asarray(picture), image)


def test_every_reader_has_an_order_of_her_own(study) -> None:
    orders = [study.order(name) for name in ("anna", "bob", "carla", "Anna")]
    assert all(sorted(one) == sorted(study.cases) for one in orders)
    assert len(set(map(tuple, orders))) == 4 and orders[0] == study.order("anna")
    with pytest.raises(InputError, match="the reader '=1\\+1' will not do"):
        study.order("=1+1")


def test_a_second_showing_is_far_from_the_first() -> None:
    cases = [f"c{k:02d}" for k in range(30)] + [f"r{k}" for k in range(8)]
    repeats = {f"r{k}": f"c{3 * k:02d}" for k in range(8)}
    for reader in range(200):
        shown = order(cases, repeats, "salt", str(reader))
        gaps = [shown.index(second) - shown.index(first) for second, first in repeats.items()]
        assert min(gaps) >= 8


def test_the_order_is_a_fair_shuffle() -> None:
    cases = [f"c{k}" for k in range(6)]
    places = np.zeros((6, 6))
    for reader in range(3000):
        for place, case in enumerate(order(cases, {}, "s", f"reader-{reader}")):
            places[int(case[1]), place] += 1
    expected = 3000 / 6
    assert ((places - expected) ** 2 / expected).sum() < 25 + 6 * np.sqrt(50)  # chi square, 25 degrees of freedom
    # Neighbors too: each of the 30 ordered pairs should stand at the first two places equally often.
    firsts = Counter(tuple(order(cases, {}, "s", f"reader-{k}")[:2]) for k in range(3000))
    assert len(firsts) == 30 and sum((n - 100) ** 2 / 100 for n in firsts.values()) < 29 + 6 * np.sqrt(58)


def test_a_study_is_read_again(study) -> None:
    assert load_study(study.root) == study


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda root: (root / "share" / "study.json").unlink(), "is no reader study"),
        (lambda root: (root / "share" / "study.json").write_text("{"), "damaged"),
        (lambda root: (root / "share" / "study.json").write_text("[]"), "damaged"),
        (lambda root: (root / "share" / "study.json").write_text('{"format": "x/9"}'), "has the format 'x/9'"),
        (lambda root: next((root / "share" / "images").iterdir()).unlink(), "is missing"),
    ],
)
def test_a_damaged_study(study, damage, words: str) -> None:
    damage(study.root)
    with pytest.raises(InputError, match=words):
        load_study(study.root)


def test_a_name_cannot_lead_out_of_the_folder(study) -> None:
    path = study.root / "share" / "study.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"cases": ["../../key"]}))
    with pytest.raises(InputError, match="will not do"):
        load_study(study.root)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(cases_each=0), "will not do"),
        (dict(repeats=9), "no more repeats than cases"),
        (dict(seed=-1), "no negative number"),
        (dict(cases_each=20, practice=1), "only 20 pairs"),
        (dict(real=[np.zeros((8, 8), np.uint8)] * 20), r"the synthetic image synthetic 0 is uint8 \[16, 16\]"),
        (dict(real=[np.zeros((16, 16))] * 20), r"float64 \[16, 16\]"),
        (dict(real=[np.zeros((16, 16, 3), np.uint8)] * 20), r"uint8 \[16, 16, 3\]"),
        (dict(real=[], synthetic=[]), "there are no images"),
        (dict(real=[Candidate(np.zeros((16, 16), np.uint8), "x")] * 20), "the same source"),
        (dict(real=[Candidate(image, str(k), "c") for k, image in enumerate(images(20, 1))]), "only 0 pairs"),
    ],
)
def test_mistakes_leave_nothing_behind(change: dict, words: str, tmp_path: Path) -> None:
    given = dict(real=images(20, 1), synthetic=images(20, 2), cases_each=8, seed=5) | change
    with pytest.raises(InputError, match=words):
        make_study(tmp_path / "s", given.pop("real"), given.pop("synthetic"), **given)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(study) -> None:
    before = contents(study.root)
    with pytest.raises(InputError, match="exists already"):
        make_study(study.root, images(3, 1), images(3, 2), cases_each=2, seed=1)
    assert contents(study.root) == before


def test_tells_see_what_differs_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(rng.uniform(60, 200, (32, 32)), 1.5).astype(np.uint8) for _ in range(60)]
    real, same = smooth[:30], smooth[30:]
    assert not [tell.name for tell in tells(real, same) if tell.loud]
    sharp = tells(real, [(image + rng.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8) for image in same])
    loud = {tell.name for tell in sharp if tell.loud}
    assert "sharpness in the breast" in loud and "bytes of the file" in loud and "mean gray level" not in loud
    assert sharp[0].strength > 0.99 and sharp[0].auc > 0.99
    assert "<- a tell" in table(sharp) and max(map(len, table(sharp).splitlines())) <= 88
    with pytest.raises(InputError, match="both classes"):
        tells(real, [])


def test_few_images_give_no_alarm_by_chance() -> None:
    alarms = sum(tell.loud for seed in range(12) for tell in tells(images(5, seed), images(5, seed + 1000)))
    assert alarms <= 2  # of 96
