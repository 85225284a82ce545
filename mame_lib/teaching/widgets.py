"""Controls that work on the pages of the book without a kernel: plain HTML, a few lines of script, no library.

Everything a control can say is computed beforehand and lies in the page. Native form elements are used, so that
keyboard and screen reader work as everywhere; colors are those of the theme, light or dark.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mame_lib.teaching.figures import COLORS

# GiB that a card offers, a little less than its name says.
CARDS = {
    "T4, 16 GB (Colab)": 14.7, "RTX 3060, 12 GB": 11.6, "RTX 4090 or A10, 24 GB": 23.5, "A30, 24 GB": 23.5,
    "A40, 48 GB": 44.4, "A100 or H100, 80 GB": 79.1,
}  # fmt: skip
QUESTIONS: dict[str, tuple[str, dict[Any, str]]] = {
    "method": ("What learns", {"full": "UNet and text encoder", "unet": "UNet", "lora": "low-rank updates"}),
    "micro_batch_size": ("Images at once", {n: str(n) for n in (1, 2, 4, 8, 16)}),
    "gradient_checkpointing": ("Gradient checkpointing", {True: "on", False: "off"}),
    "optimizer": ("Optimizer states", {"adamw8bit": "8 bits", "adamw": "32 bits"}),
    "ema_decay": ("Average of the weights (EMA)", {0.0: "off", 0.99: "on"}),
}
STYLE = """
.mame-fit { border: 1px solid var(--pst-color-border, #888); border-radius: 4px; padding: .8rem 1rem;
  background: var(--pst-color-background, transparent); }
.mame-fit, .mame-fit legend, .mame-fit select { color: var(--pst-color-text-base, inherit); }
.mame-fit .asks { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .5rem 1rem; }
.mame-fit label { display: flex; flex-direction: column; font-size: .9rem; }
.mame-fit select { font: inherit; padding: .25rem; background: var(--pst-color-surface, #fff);
  border: 1px solid var(--pst-color-border, #888); border-radius: 3px; }
.mame-fit select:focus-visible { outline: 3px solid var(--pst-color-primary, #0b62a4); outline-offset: 1px; }
.mame-fit .bar { position: relative; display: flex; height: 1.5rem; margin: .9rem 0 .3rem;
  background: var(--pst-color-surface, #eee); border: 1px solid var(--pst-color-border, #888); }
.mame-fit .bar span { height: 100%; } .mame-fit .bar i { position: absolute; top: -5px; bottom: -5px; width: 3px;
  background: var(--pst-color-text-base, #000); }
.mame-fit .key { display: flex; flex-wrap: wrap; gap: .15rem 1rem; font-size: .88rem; }
.mame-fit .key b { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; }
.mame-fit output { display: block; margin-top: .6rem; font-weight: 600; }
"""
SCRIPT = """
(() => {
  const box = document.getElementById("mame-fit"), data = JSON.parse(box.querySelector("script").textContent);
  const asked = [...box.querySelectorAll("select")], size = (mib) => (mib / 1024).toFixed(1) + " GiB";
  const show = () => {
    const [card, ...chosen] = asked.map((s) => s.value), room = data.cards[card] * 1024;
    const [phase, ...parts] = data.rows[chosen.join("|")], total = parts.reduce((a, b) => a + b, 0);
    const full = Math.max(total, room) * 1.02;
    box.querySelectorAll(".bar span").forEach((span, i) => { span.style.width = 100 * parts[i] / full + "%"; });
    box.querySelector(".bar i").style.left = 100 * room / full + "%";
    box.querySelectorAll(".key em").forEach((em, i) => { em.textContent = size(parts[i]); });
    box.querySelector("output").textContent =
      `${total <= room ? "Fits" : "Does not fit"}: ${size(total)} predicted at the peak (${phase}), ` +
      `${size(room)} on the card.`;
  };
  asked.forEach((s) => s.addEventListener("change", show));
  show();
})();
"""


@dataclass(frozen=True)
class Html:
    """Something that shows itself in a notebook as HTML."""

    text: str
    plain: str = "<control>"

    def _repr_html_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.plain


def calculator(grid: Sequence[Mapping[str, Any]]) -> Html:
    """"Will it fit on my card": a form over predicted plans, with a bar of where the memory goes.

    grid : one entry for each combination of the answers in `QUESTIONS`, as benchmarks/memory.py makes them: the
        answers by name, `phase`, and `parts` in MiB.

    Without a script the first answers are shown. Raises `ValueError` when a combination is missing.
    """
    rows = {_key(entry): [entry["phase"], *entry["parts"].values()] for entry in grid}
    wanted = 1
    for _, answers in QUESTIONS.values():
        wanted *= len(answers)
    if len(rows) != wanted:
        raise ValueError(f"the calculator needs {wanted} plans, got {len(rows)}.")
    names, colors = list(grid[0]["parts"]), [*COLORS, "#8a8f94"]
    first = _key({name: next(iter(answers)) for name, (_, answers) in QUESTIONS.items()})
    phase, *parts = rows[first]
    card, room = next(iter(CARDS.items()))
    verdict = "Fits" if sum(parts) <= room * 1024 else "Does not fit"
    asks = [_select("Card", {name: name for name in CARDS})]
    asks += [_select(text, {_word(value): words for value, words in answers.items()})
             for text, answers in QUESTIONS.values()]  # fmt: skip
    full = max(sum(parts), room * 1024) * 1.02
    bars, keys = [], []
    for name, size, color in zip(names, parts, colors, strict=True):
        bars.append(f'<span style="width:{100 * size / full:.1f}%;background:{color}"></span>')
        word = f"{html.escape(name)} <em>{size / 1024:.1f} GiB</em>"
        keys.append(f'<span><b style="background:{color}"></b>{word}</span>')
    said = f"{verdict}: {sum(parts) / 1024:.1f} GiB predicted at the peak ({phase}), {room:.1f} GiB on the card."
    data = json.dumps({"cards": CARDS, "rows": rows}, separators=(",", ":"))
    text = (
        f'<div class="mame-fit" id="mame-fit"><style>{STYLE}</style>'
        f'<script type="application/json">{data}</script>'
        f'<div class="asks">{"".join(asks)}</div>'
        f'<div class="bar" aria-hidden="true">{"".join(bars)}<i style="left:{100 * room * 1024 / full:.1f}%"></i></div>'
        f'<div class="key">{"".join(keys)}</div><output aria-live="polite">{said}</output></div>'
        f"<script>{SCRIPT}</script>"
    )
    return Html(text, f"{card}, {first}: {said}")


def _select(text: str, answers: Mapping[str, str]) -> str:
    options = "".join(f'<option value="{html.escape(v)}">{html.escape(words)}</option>' for v, words in answers.items())
    return f"<label>{html.escape(text)}<select>{options}</select></label>"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _key(entry: Mapping[str, Any]) -> str:
    """The answers of an entry in one word."""
    return "|".join(_word(entry[name]) for name in QUESTIONS)
