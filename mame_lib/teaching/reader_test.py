"""Take the test yourself: a small reader study on a page of the book, without a kernel, with the score at the end.

Images, order and truth lie in the page; the truth is lightly encoded, so that a glance at the source does not spoil it.
The page computes AUC, DeLong error and interval as `mame_lib.evaluation.readers.roc` does.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mame_lib.evaluation.froc import Interval
from mame_lib.evaluation.readers.ratings import SCALE
from mame_lib.teaching.widgets import Html

NOTICE = "Some of these images are synthetic. For research and teaching, not for diagnosis."
STYLE = """
.mame-test { border: 1px solid var(--pst-color-border, #888); border-radius: 4px; padding: .8rem 1rem; outline: none;
  background: var(--pst-color-background, transparent); color: var(--pst-color-text-base, inherit); }
.mame-test [hidden] { display: none !important; }
.mame-test p { margin: 0 0 .5rem; font-size: .9rem; }
.mame-test .case { background: #24272b; border-radius: 4px; padding: 8px; }
.mame-test .case img { display: block; margin: 0 auto; width: var(--wide); max-width: 100%; }
.mame-test img { image-rendering: pixelated; }
.mame-test button { font: inherit; font-size: .9rem; line-height: 1.2; min-height: 2.75rem; padding: .35rem .5rem;
  border: 1px solid var(--pst-color-border, #888); border-radius: 6px; cursor: pointer;
  background: var(--pst-color-surface, #eee); color: var(--pst-color-text-base, #000); }
.mame-test button[aria-pressed="true"] { background: var(--pst-color-text-base, #000);
  color: var(--pst-color-background, #fff); }
.mame-test button:is(:disabled, [aria-disabled="true"]) { opacity: .6; cursor: default; }
.mame-test button:focus-visible { outline: 3px solid var(--pst-color-primary, #0b62a4); outline-offset: 1px; }
.mame-test .scale { display: grid; grid-template-columns: repeat(5, 1fr); gap: .4rem; margin: .6rem 0; }
.mame-test .scale b { display: block; }
.mame-test .turns { display: flex; gap: .5rem; align-items: center; }
.mame-test output { display: block; min-height: 1.7em; font-size: .9rem; }
.mame-test .score h4 { font-size: 1.05rem; margin: .2rem 0 .5rem; outline: none; }
.mame-test .result { display: grid; grid-template-columns: minmax(9rem, 13rem) 1fr; gap: 1rem; align-items: start; }
.mame-test svg { width: 100%; max-width: 13rem; overflow: visible; }
.mame-test svg path { fill: none; stroke: var(--pst-color-primary, #0b62a4); stroke-width: 2.5; }
.mame-test svg :is(rect, line) { fill: none; stroke: currentColor; stroke-width: .7; }
.mame-test svg line { stroke-dasharray: 3 3; } .mame-test svg text { font-size: 9px; fill: currentColor; }
.mame-test table { border-collapse: collapse; font-size: .85rem; margin: 0; color: inherit; width: auto; }
.mame-test :is(td, th) { padding: .1rem .6rem .1rem 0; text-align: right; font-weight: 400; background: none;
  color: inherit; }
.mame-test th:first-child { text-align: left; }
.mame-test ul { list-style: none; margin: .3rem 0 .8rem; padding: 0; display: grid; gap: .4rem;
  grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); font-size: .75rem; }
.mame-test li { margin: 0; } .mame-test li img { width: 64px; display: block; }
.mame-test li.wrong { font-weight: 700; }
@media (max-width: 40rem) { .mame-test .scale, .mame-test .result { grid-template-columns: 1fr; }
  .mame-test .scale { gap: .25rem; } .mame-test .scale button { text-align: left; }
  .mame-test .scale b { display: inline; margin-right: .6em; } .mame-test .case img { width: var(--narrow); } }
"""
SCRIPT = r"""
(() => {
  const box = document.currentScript.closest(".mame-test"), data = JSON.parse(box.querySelector("script").textContent);
  const all = (name) => [...box.querySelectorAll(name)], [image] = all(".case img"), [said] = all("output");
  const buttons = all(".scale button"), [back, next] = all(".turns button"), [title] = all(".which");
  const [asking, score] = [...all(".asking"), ...all(".score")], N = data.images.length;
  const truth = [...atob(data.key)].map((letter) => letter.charCodeAt(0) & 1);  // 1: synthetic
  const ratings = Array(N).fill(null);
  let at = 0;
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const variance = (values) => {
    const middle = mean(values);
    return values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (values.length - 1) / values.length;
  };
  const areaOf = (scores, kinds) => {  // AUC, DeLong's error, and the interval on the scale of log-odds
    const yes = scores.filter((_, i) => kinds[i]), no = scores.filter((_, i) => !kinds[i]);
    const wins = (a, b) => a > b ? 1 : a === b ? 0.5 : 0, z = 1.959963984540054;
    const auc = yes.flatMap((a) => no.map((b) => wins(a, b))).reduce((a, b) => a + b, 0) / (yes.length * no.length);
    const se = Math.sqrt(variance(yes.map((a) => mean(no.map((b) => wins(a, b))))) +
      variance(no.map((b) => mean(yes.map((a) => wins(a, b))))));
    let low, high;
    if (se < 1e-12) {  // nothing varies: what could have stayed unseen in so few cases
      const unseen = 1 - 0.025 ** (1 / Math.min(yes.length, no.length));
      const reach = auc === 0 || auc === 1 ? unseen : unseen / 2;
      [low, high] = [Math.max(0, auc - reach), Math.min(1, auc + reach)];
    } else {
      const odds = Math.log(auc / (1 - auc)), half = z * se / (auc * (1 - auc));
      [low, high] = [odds - half, odds + half].map((x) => 1 / (1 + Math.exp(-x)));
    }
    return {auc, se, low, high};
  };
  box.areaOf = areaOf;  // for whoever opens the console, and for our tests
  const show = () => {
    image.src = data.images[at];
    title.textContent = `Image ${at + 1} of ${N}`;
    buttons.forEach((button, i) => { button.setAttribute("aria-pressed", String(ratings[at] === i)); });
    back.setAttribute("aria-disabled", String(at === 0));
    next.setAttribute("aria-disabled", String(ratings[at] === null));
    next.textContent = at === N - 1 ? "Show my score" : "Next";
    said.textContent = ratings[at] === null ? "" : `You say: ${data.scale[ratings[at]]}.`;
  };
  const go = (to) => { at = to; show(); title.focus({preventScroll: true}); };
  const rate = (value) => { ratings[at] = value; show(); next.focus({preventScroll: true}); };
  const forward = () => {
    if (ratings[at] === null) said.textContent = "Rate this image first: 0, 1, 2, 3 or 4.";
    else if (at < N - 1) go(at + 1);
    else finish();
  };
  const put = (parent, name, text, more = {}) => {
    const made = Object.assign(document.createElement(name), more);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const finish = () => {
    const scores = ratings.map((rating) => 4 - rating), {auc, se, low, high} = areaOf(scores, truth);
    box.result = {auc, se, low, high, ratings: [...ratings], truth};
    asking.hidden = true;
    score.hidden = false;
    const [head, text, path, rows, list] = ["h4", ".verdict", "path", "tbody", "ul"].map((s) => score.querySelector(s));
    const three = (x) => x.toFixed(2);
    head.textContent = `Your AUC: ${three(auc)}, 95 % interval ${three(low)} to ${three(high)}`;
    const verdicts = {
      none: "A guesser has 0.50, which lies within your interval: this test does not show that you can tell them " +
        "apart. It does not show that you cannot, either.",
      above: "A guesser has 0.50, which lies outside your interval: you tell them apart.",
      below: "You tell them apart, but call them by the wrong names: the synthetic ones look more real to you.",
    };
    text.textContent = `${verdicts[low > 0.5 ? "above" : high < 0.5 ? "below" : "none"]} ${data.compare}`;
    const count = (kind, rating) => ratings.filter((r, i) => truth[i] === kind && r === rating).length;
    let x = 0, y = 0, d = "M0,100";
    const yes = truth.filter(Boolean).length;
    data.scale.forEach((words, rating) => {
      const row = put(rows, "tr", "");
      put(row, "th", `${rating} ${words}`, {scope: "row"});
      [1, 0].forEach((kind) => put(row, "td", count(kind, rating)));
      x += count(0, rating) / (N - yes);
      y += count(1, rating) / yes;
      d += `L${(100 * x).toFixed(2)},${(100 - 100 * y).toFixed(2)}`;
    });
    path.setAttribute("d", d);
    [1, 0].forEach((kind) => truth.forEach((is, i) => {
      if (is !== kind) return;
      const wrong = kind ? ratings[i] > 2 : ratings[i] < 2, what = kind ? "synthetic" : data.real;
      const item = put(list, "li", "", {className: wrong ? "wrong" : ""});
      item.append(Object.assign(new Image(), {src: data.images[i], alt: ""}));
      put(item, "span", `${what}: ${ratings[i]}`);
    }));
    head.focus();
  };
  buttons.forEach((button, i) => { button.disabled = false; button.addEventListener("click", () => rate(i)); });
  back.disabled = next.disabled = false;
  back.addEventListener("click", () => { if (at) go(at - 1); });
  next.addEventListener("click", forward);
  box.addEventListener("keydown", (event) => {
    if (asking.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const own = event.target.matches("button") && event.target !== next;
    const acts = {ArrowLeft: () => { if (at) go(at - 1); }, Backspace: () => { if (at) go(at - 1); },
      ArrowRight: forward, Enter: own ? null : forward, " ": own ? null : forward};
    const act = /^[0-4]$/.test(event.key) ? () => rate(+event.key) : acts[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();  // arrows turn the pages of some books
    if (!event.repeat || act !== forward) act();
  });
  show();
})();
"""


def reader_test(
    real: Sequence[NDArray[np.uint8]],
    synthetic: Sequence[NDArray[np.uint8]],
    *,
    seed: int,
    real_name: str = "phantom",
    compare: tuple[str, Interval] | None = None,
) -> Html:
    """A test of all these images, uint8 `[n, n]`, in an order drawn from `seed`; rated 0 to 4, by keys or buttons.

    real_name: what the score calls the images that are not synthetic. compare: whose AUC is told beside the reader's
    own, such as `("The reader of the paper", interval)`. Without a script the first image and the scale are shown.

    Raises `ValueError` for fewer than two images of a class, and for images that are not uint8 of one size.
    """
    images = [np.asarray(image) for image in (*real, *synthetic)]
    if min(len(real), len(synthetic)) < 2 or len({image.shape for image in images}) > 1 or images[0].ndim != 2:
        raise ValueError("a reader test needs two images or more of each class, all gray and of one size.")
    if any(image.dtype != np.uint8 for image in images):
        raise ValueError("the images of a reader test must be uint8: the same gray levels as in a file.")
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(images))
    truth = (places >= len(real)).astype(np.uint8)
    hidden = (rng.integers(0, 128, len(images)).astype(np.uint8) << 1) | truth  # the truth is the lowest bit
    sources = [_source(images[k]) for k in places]
    more = "" if compare is None else (
        f"{compare[0]}: {compare[1].value:.2f}, {compare[1].low:.2f} to {compare[1].high:.2f}."
    )  # fmt: skip
    data = {
        "images": sources, "key": base64.b64encode(hidden.tobytes()).decode(), "scale": list(SCALE),
        "real": real_name, "compare": more,
    }  # fmt: skip
    shown = _markup(data, images[0].shape[0])
    text = f'<div class="mame-test" tabindex="-1"><style>{STYLE}</style>{shown}<script>{SCRIPT}</script></div>'
    return Html(text, f"<a reader test of {len(images)} images; it needs a page with a script>")


def _markup(data: dict[str, Any], size: int) -> str:
    """The page before the script has run: the first image, the scale, and an empty score."""
    wide, narrow = (max(1, room // size) * size for room in (400, 290))  # whole screen pixels for each of the image
    scale = "".join(
        f'<button type="button" aria-pressed="false" disabled><b>{value}</b>{words}</button>'
        for value, words in enumerate(SCALE)
    )
    said = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    number, name = len(data["images"]), html.escape(data["real"])
    return f"""<script type="application/json">{said}</script>
<p>{NOTICE} Keys: 0 to 4 rate, Enter or Space next, ← back.</p>
<div class="asking"><p><b class="which" tabindex="-1">Image 1 of {number}</b></p>
<div class="case" style="--wide:{wide}px;--narrow:{narrow}px">
<img src="{data["images"][0]}" width="{wide}" height="{wide}" alt="A mammogram to judge."></div>
<div class="scale" role="group" aria-label="How real is it?">{scale}</div>
<output aria-live="polite">{number} images to rate, with your score at the end; it needs JavaScript.</output>
<div class="turns"><button type="button" disabled>Back</button><button type="button" disabled>Next</button></div></div>
<div class="score" hidden><h4 tabindex="-1"></h4><p class="verdict"></p><div class="result">
<svg viewBox="-14 -4 120 122" role="img" aria-label="Your ROC curve"><rect width="100" height="100"/>
<line x1="0" y1="100" x2="100" y2="0"/><path d=""/><text x="50" y="114" text-anchor="middle">{name}s called synthetic
</text><text transform="translate(-5 50) rotate(-90)" text-anchor="middle">synthetic ones found</text></svg>
<table><thead><tr><th scope="col">you said</th><th scope="col">synthetic</th><th scope="col">{name}</th></tr></thead>
<tbody></tbody></table></div>
<p>What was what, and your rating (bold: you leaned to the other side)</p><ul></ul></div>"""


def _source(image: NDArray[np.uint8]) -> str:
    """An image [n, n] as a data address, without loss; gray as three equal channels, as WebP has it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="WEBP", lossless=True, quality=100)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
