"""The rating page of a reader study inside a notebook: the same cases, the same order, the same file of ratings.

It needs ipywidgets (7.7 to 8.1) and a running kernel. On a page of the book, and in a viewer without widgets, its first
frame is shown.
"""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mame_lib.errors import InputError
from mame_lib.evaluation.readers.ratings import SCALE, Rating, write_ratings
from mame_lib.evaluation.readers.study import NOTICE, Study, load_study

_SIDE = 384  # screen pixels that an image may fill


class RatingForm:
    """Rate the cases of a study in a notebook; the last line of a cell shows the form.

    A click on 0 to 4 rates and goes on, "Back" goes back to change. `ratings` are what was said so far, `save` writes
    them as `mame readers score` reads them. Practice cases come first, tell the truth, and are not among the ratings.
    """

    def __init__(self, study: Study | str | Path, reader: str, *, ratings: Iterable[Rating] = ()) -> None:
        """
        study : a study or its folder. ratings : what this reader has said before, to go on from there.

        Raises
        ------
        InputError
            If ipywidgets is missing, the reader's code will not do, or an earlier rating is of something else.
        """
        try:
            import ipywidgets
        except ImportError as error:
            raise InputError("the rating form needs ipywidgets; install it, or use share/rate.html.") from error
        self.study = study if isinstance(study, Study) else load_study(study)
        self.reader = reader
        self._cases = self.study.order(reader)
        self._all = [*self.study.practice, *self._cases]
        self._given: dict[str, tuple[int, float]] = {}
        for one in ratings:
            if (one.study, one.reader) != (self.study.id, reader) or one.case not in self._cases:
                raise InputError(f"{one.case} was rated by {one.reader} in {one.study}, which is not this form's.")
            self._given[one.case] = one.rating, one.seconds
        if self._given:
            self._given |= {case: (2, 0.0) for case in self.study.practice}  # not asked again
        self._at = next((k for k, case in enumerate(self._all) if case not in self._given), len(self._all))
        self._since = time.perf_counter()
        self._spent = {case: seconds for case, (_, seconds) in self._given.items()}
        self._build(ipywidgets)
        self._show("")

    @property
    def ratings(self) -> list[Rating]:
        """The ratings so far, in the order of the cases."""
        return [
            Rating(self.study.id, self.reader, case, *self._given[case], position)
            for position, case in enumerate(self._cases, 1) if case in self._given
        ]  # fmt: skip

    @property
    def done(self) -> bool:
        """Whether every case is rated."""
        return len(self.ratings) == len(self._cases)

    def save(self, path: str | Path) -> Path:
        """Write the ratings so far as a CSV file, whole or not at all; raises `InputError` if there are none."""
        if not self.ratings:
            raise InputError("nothing is rated yet; rate a case before you save.")
        return write_ratings(path, self.ratings)

    def rate(self, value: int) -> None:
        """What a click on a button does: rate the case on the screen, and go on.

        Raises
        ------
        InputError
            If the value is not 0 to 4, or no case is on the screen.
        """
        if not 0 <= value < len(SCALE) or self._at == len(self._all):
            raise InputError(f"{value} is no rating of a case on the screen; use 0 to 4, and `back` after the last.")
        case = self._all[self._at]
        self._stop()
        self._given[case] = value, self._spent[case]
        truth = self.study.practice.get(case)
        self._at += 1
        self._show(f"You said: {SCALE[value]}." + (f" That practice image is {truth}." if truth else ""))

    def back(self) -> None:
        """Show the case before, with what was said of it."""
        self._stop()
        self._at = max(0, self._at - 1)
        given = self._given.get(self._all[self._at])
        self._show("" if given is None else f"You said: {SCALE[given[0]]}; click to change it.")

    def _stop(self) -> None:
        if self._at < len(self._all):
            case = self._all[self._at]
            self._spent[case] = self._spent.get(case, 0.0) + time.perf_counter() - self._since

    def _build(self, widgets: Any) -> None:
        wide = widgets.Layout(width="auto")
        self._image = widgets.Image(format="png")
        self._title, self._said = widgets.HTML(), widgets.HTML()
        self._progress = widgets.IntProgress(min=0, max=len(self._cases), layout=widgets.Layout(width=f"{_SIDE}px"))
        self._buttons = [widgets.Button(description=f"{k} {words}", layout=wide) for k, words in enumerate(SCALE)]
        for k, button in enumerate(self._buttons):
            button.on_click(lambda _, value=k: self.rate(value))
        self._back = widgets.Button(description="Back", layout=wide)
        self._back.on_click(lambda _: self.back())
        row = widgets.HBox(self._buttons, layout=widgets.Layout(flex_flow="row wrap"))
        self.box = widgets.VBox([self._title, self._image, row, self._said, widgets.HBox([self._back, self._progress])])

    def _show(self, said: str) -> None:
        """Bring the form in step with the case on the screen."""
        over, trial = self._at == len(self._all), self._at < len(self.study.practice)
        number, total = self._at + 1, len(self.study.practice)
        if not trial:
            number, total = number - total, len(self._cases)
        title = "All cases are rated; <code>save</code> writes them." if over else (
            f"{'Practice' if trial else 'Case'} {number} of {total}"
        )  # fmt: skip
        self._title.value = f"<b>{title}</b><br>{NOTICE}"
        if not over:
            self._image.value = _enlarged(self.study, self._all[self._at])
        for button in self._buttons:
            button.disabled = over
        self._back.disabled = self._at == 0
        self._progress.value = len(self.ratings)
        self._said.value = html.escape(said)
        self._since = time.perf_counter()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """The widget where there is one, and its first frame for all others."""
        picture = base64.b64encode(self._image.value).decode()
        words = ", ".join(f"{k} {word}" for k, word in enumerate(SCALE))
        frame = (
            f'<p>{self._title.value}</p><p><img src="data:image/png;base64,{picture}" alt="A mammogram to judge."></p>'
            f"<p>In a running notebook five buttons stand here: {words}.</p>"
        )
        view = {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}
        return {
            "application/vnd.jupyter.widget-view+json": view, "text/html": frame,
            "text/plain": f"<a form for {len(self._cases)} cases, {len(self.ratings)} rated>",
        }  # fmt: skip


def _enlarged(study: Study, case: str) -> bytes:
    """The image of a case as PNG, each pixel a square of whole screen pixels."""
    times = max(1, _SIDE // study.size)
    stream = io.BytesIO()
    Image.fromarray(np.kron(study.image(case), np.ones((times, times), np.uint8))).save(stream, "PNG")
    return stream.getvalue()
