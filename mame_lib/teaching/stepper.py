"""Pictures to step through on a page of the book, without a kernel: sliders, one picture, one sentence.

Every picture lies in the page. Sliders are native range inputs, so arrow keys, touch and screen readers work as
everywhere; without a script the first picture is shown.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mame_lib.teaching.figures import ImageFigure, as_gray
from mame_lib.teaching.widgets import Html

Picture = Any  # an array, a PIL image or a figure
STYLE = """
.mame-steps { border: 1px solid var(--pst-color-border, #888); border-radius: 4px; padding: .8rem 1rem;
  background: var(--pst-color-background, transparent); color: var(--pst-color-text-base, inherit); }
.mame-steps img { display: block; margin: 0 auto .6rem; max-width: 100%; image-rendering: pixelated; }
.mame-steps img.curves { background: #fff; border-radius: 4px; padding: .3rem; }
.mame-steps label { display: grid; grid-template-columns: minmax(6rem, auto) 1fr minmax(5rem, auto); gap: .2rem .8rem;
  align-items: center; font-size: .9rem; }
.mame-steps input { width: 100%; min-height: 1.6rem; accent-color: var(--pst-color-primary, #0b62a4); }
.mame-steps input:focus-visible { outline: 3px solid var(--pst-color-primary, #0b62a4); outline-offset: 1px; }
.mame-steps label b { font-variant-numeric: tabular-nums; }
.mame-steps output { display: block; margin-top: .5rem; min-height: 2.6em; font-size: .9rem; }
"""
SCRIPT = """
(() => {
  const box = document.currentScript.closest(".mame-steps"), data = JSON.parse(box.querySelector("script").textContent);
  const sliders = [...box.querySelectorAll("input")], image = box.querySelector("img");
  const show = () => {
    const at = sliders.map((s) => +s.value), n = at.reduce((row, i, k) => row * data.labels[k].length + i, 0);
    image.src = data.pictures[n]; image.alt = data.words[n];
    box.querySelector("output").textContent = data.words[n];
    sliders.forEach((s, k) => {
      const label = data.labels[k][at[k]];
      s.closest("label").querySelector("b").textContent = label; s.setAttribute("aria-valuetext", label);
    });
  };
  sliders.forEach((s) => s.addEventListener("input", show));
  show();
})();
"""


def stepper(picture: Callable[..., Picture], words: Callable[..., str], **controls: Sequence[str]) -> Html:
    """A picture with sliders: one picture and one sentence for every combination of the controls.

    Parameters
    ----------
    picture : called with one index a control, such as `picture(2, 0)`; returns an image (uint8 `[h, w]` or
        `[h, w, 3]`, floats as `figures.as_gray` takes them, a PIL image) or a figure.
    words : called alike; the sentence below the picture, which is its alternative text too.
    controls : the sliders from top to bottom, each a name with its labels: `timestep=["0", "100"]`. An underscore
        in a name is shown as a space.

    Raises `ValueError` without a control, for a control without labels, and for an empty sentence.
    """
    if not controls or not all(controls.values()):
        raise ValueError("a stepper needs at least one control, and every control at least one label.")
    places = list(itertools.product(*(range(len(labels)) for labels in controls.values())))
    said = [words(*place) for place in places]
    if not all(sentence.strip() for sentence in said):
        raise ValueError("every picture of a stepper needs a sentence: it is what a blind reader gets.")
    pictures = [picture(*place) for place in places]
    sources = [_source(one) for one in pictures]
    data = {"labels": [list(labels) for labels in controls.values()], "pictures": sources, "words": said}
    rows = "".join(_slider(name.replace("_", " "), labels) for name, labels in controls.items())
    text = (
        f'<div class="mame-steps"><style>{STYLE}</style>'
        f'<script type="application/json">{_json(data)}</script>'
        f'<img src="{sources[0]}" alt="{html.escape(said[0])}"{_look(pictures[0])}>{rows}'
        f'<output aria-live="polite">{html.escape(said[0])}</output><script>{SCRIPT}</script></div>'
    )
    return Html(text, f"<{len(places)} pictures; the first: {said[0]}>")


def _slider(name: str, labels: Sequence[str]) -> str:
    first, name = html.escape(labels[0]), html.escape(name)
    return (
        f'<label><span>{name}</span><input type="range" min="0" max="{len(labels) - 1}" value="0" '
        f'aria-label="{name}" aria-valuetext="{first}"><b>{first}</b></label>'
    )


def _source(picture: Picture) -> str:
    """The picture as a data address: images without loss, curves as SVG."""
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    if isinstance(picture, ImageFigure):
        Image.open(io.BytesIO(picture.png())).save(stream, format="WEBP", lossless=True)
    elif isinstance(picture, Figure):
        picture.savefig(stream, format="svg", metadata={"Date": None})
        return _address("image/svg+xml", stream)
    else:
        _as_image(picture).save(stream, format="WEBP", lossless=True)
    return _address("image/webp", stream)


def _as_image(picture: Picture) -> Image.Image:
    """Arrays of three channels keep their color, everything else is gray."""
    if isinstance(picture, Image.Image):
        return picture
    array = np.asarray(picture)
    return Image.fromarray(array if array.ndim == 3 and array.dtype == np.uint8 else as_gray(picture))


def _address(kind: str, stream: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _look(picture: Picture) -> str:
    """Size of an image on the page, small ones enlarged by whole numbers; curves lie on white."""
    from matplotlib.figure import Figure

    if isinstance(picture, Figure) and not isinstance(picture, ImageFigure):
        return ' class="curves"'
    if isinstance(picture, Figure):
        return ""
    width, height = _as_image(picture).size
    times = max(1, 320 // max(width, height))
    return f' width="{width * times}" height="{height * times}"'


def _json(data: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
