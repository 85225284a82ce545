"""A population is read from TOML; a mistake in it is one sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from mame_lib.errors import InputError
from mame_lib.synthesize import Spec, read_spec, spec_from

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_said_means_all_alike() -> None:
    spec = spec_from({})
    assert spec == Spec() and spec.shares["density"] == dict.fromkeys(("very low", "low", "high", "very high"), 0.25)
    assert spec.shares["finding"] == {"none": 1.0} and not spec.has_lesions
    assert spec.shares["split"] == {"train": 1.0} and "none" not in spec.shares["vendor"]


def test_what_is_said_comes_back(tmp_path) -> None:
    spec = read_spec(ROOT / "examples" / "population.toml")
    assert spec.has_lesions and spec.shares["vendor"] == {"hologic": 0.6, "siemens": 0.4}
    path = tmp_path / "again.toml"
    path.write_text(spec.to_toml())
    assert read_spec(path) == spec == spec_from(spec.to_dict())
    odd = spec_from({"model": 'a "b"\\c', "guidance_scale": 2})
    assert spec_from(tomllib.loads(odd.to_toml())) == odd and isinstance(odd.guidance_scale, float)


def test_the_order_of_words_in_the_file_does_not_matter() -> None:
    one, other = ({"view": dict(pairs)} for pairs in ([("CC", 0.3), ("MLO", 0.7)], [("MLO", 0.7), ("CC", 0.3)]))
    assert spec_from(one).to_toml() == spec_from(other).to_toml()


@pytest.mark.parametrize(
    "text, words",
    [
        ("[density]\nlow = 0.5\nhigh = 0.4", "the shares of [density] add up to 0.9, but must add up to 1"),
        ("[vendor]\nhologic = 0.7\nsiemens = 0.4", "[vendor] add up to 1.1"),
        ("[view]", "[view] add up to 0"),
        ("[finding]\nmas = 1.0", "[finding] has no word 'mas'; the nearest is 'mass'"),
        ("[view]\ncc = 1.0", "the nearest is 'CC'"),
        ("[view]\nxyz = 1.0", "use one of CC, MLO, none"),
        ("[laterality]\nnone = 1.0", "use one of L, R"),
        ("[order]\nlesion = 1.0", "[order] has no word 'lesion'"),
        ("[split]\nval = 1.0", "[split] has no word 'val'"),
        ("[vendors]\nhologic = 1.0", "the key 'vendors' is unknown; the nearest is 'vendor'"),
        ("sted = 3", "the key 'sted' is unknown; the nearest is 'seed'"),
        ("zzz = 3", "use one of model, inpainter, seed"),
        ("[area]\nsmall = -0.5\nbig = 1.5", "gives 'small' the share -0.5; use a number from 0 to 1"),
        ("[area]\nsmall = nan", "the share nan"),
        ("[area]\nsmall = true", "the share True"),
        ('[area]\nsmall = "all"', "the share 'all'"),
        ("area = 3", "area is 3, but must be a table [area]"),
        ("seed = -1", "seed is -1, but must be a whole number from 0 to 2**63 - 1"),
        ("seed = 9223372036854775808", "seed is 9223372036854775808"),
        ("seed = 1.5", "seed is 1.5, but must be a whole number"),
        ("steps = 0", "steps is 0, but must be a whole number from 1 to 1000"),
        ("steps = true", "steps is True"),
        ("guidance_scale = inf", "guidance_scale is inf, but must be a number from 0 to 50"),
        ("guidance_scale = nan", "guidance_scale is nan"),
        ("most_tries = 101", "most_tries is 101"),
        ("screen = 1", "screen is 1, but must be true or false"),
        ('model = ""', "the name of a model"),
        ("model = 3", "model is 3"),
        ("seed =", "is not TOML"),
    ],
)
def test_a_bad_population_is_one_sentence(tmp_path, text, words) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_spec(path)
    said = str(caught.value)
    assert words in said and said.endswith(".") and "\n" not in said and str(path) in said


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot read the population"):
        read_spec(tmp_path / "none.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        read_spec(tmp_path / "x.toml")


def test_a_sum_that_is_off_by_rounding_is_fine() -> None:
    thirds = {"area": dict.fromkeys(("small", "medium", "big"), 0.333333333)}
    assert spec_from(thirds).shares["area"]["big"] == 0.333333333
