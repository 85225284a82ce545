"""The rating form of a notebook, clicked through: the same ratings as from the page; and its first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.ratings import Rating, read_ratings
from mame_lib.evaluation.readers.study import Study, make_study
from mame_lib.teaching.rating_form import RatingForm


@pytest.fixture
def study(tmp_path: Path) -> Study:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16)).astype(np.uint8)
    return make_study(tmp_path / "s", list(pixels[:4]), list(pixels[4:]), cases_each=3, seed=1, practice=1)


def test_clicks_become_ratings(study: Study, tmp_path: Path) -> None:
    form = RatingForm(study.root, "anna")
    with pytest.raises(InputError, match="nothing is rated yet"):
        form.save(tmp_path / "r.csv")
    for truth in study.practice.values():
        form._buttons[2].click()
        assert f"That practice image is {truth}." in form._said.value and not form.ratings
    for value in (4, 0, 1):
        form._buttons[value].click()
    form._back.click()
    assert "probably synthetic" in form._said.value
    form._buttons[3].click()  # a second thought
    assert [one.rating for one in form.ratings] == [4, 0, 3] and not form.done
    assert [one.case for one in form.ratings] == study.order("anna")[:3]
    half = read_ratings(form.save(tmp_path / "half.csv"))

    again = RatingForm(study, "anna", ratings=half)
    assert "Case 4 of 6" in again._title.value
    for value in (0, 1, 2):
        again._buttons[value].click()
    assert again.done and again._buttons[0].disabled and "All cases are rated" in again._title.value
    assert [one.rating for one in read_ratings(again.save(tmp_path / "r.csv"))] == [4, 0, 3, 0, 1, 2]
    with pytest.raises(InputError, match="no rating of a case on the screen"):
        again.rate(1)
    again.back()
    again.rate(4)
    assert again.ratings[-1].rating == 4 and again.done


def test_a_first_frame_where_there_are_no_widgets(study: Study) -> None:
    form = RatingForm(study, "anna")
    shown = form._repr_mimebundle_(include=None, exclude=None)
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == form.box.model_id
    assert "data:image/png;base64," in shown["text/html"] and "not for diagnosis" in shown["text/html"]
    assert "4 definitely real" in shown["text/html"] and "6 cases" in shown["text/plain"]


def test_mistakes(study: Study) -> None:
    with pytest.raises(InputError, match="will not do"):
        RatingForm(study, "=1")
    with pytest.raises(InputError, match="not this form's"):
        RatingForm(study, "anna", ratings=[Rating(study.id, "bob", study.cases[0], 1, 1.0, 1)])
    with pytest.raises(InputError, match="no rating of a case"):
        RatingForm(study, "anna").rate(5)
