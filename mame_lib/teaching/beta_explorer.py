"""A noise schedule to play with on the page: pick a shape, move the ends and T, and see what is left of the image.

The curves are computed in the page by a few lines of script, in double precision, with the formulas of
`mame_lib.diffusion.schedule`. The first frame is drawn here, from that module, so that a page without a script
shows the schedule of Stable Diffusion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mame_lib.diffusion.schedule import Schedule, for_name
from mame_lib.teaching.widgets import Html

SHAPES = {"scaled_linear": "scaled linear", "linear": "linear", "cosine": "cosine"}
# Name of a slider: its words, least, most, step, and where it stands first. The ends never cross.
SLIDERS = {
    "beta_start": ("first β", 0.0001, 0.01, 0.00005, 0.00085),
    "beta_end": ("last β", 0.01, 0.05, 0.0005, 0.012),
    "timesteps": ("timesteps T", 50, 2000, 50, 1000),
}
WIDTH, HEIGHT, POINTS = 200, 120, 201  # a panel in its own units, and how many points a curve has at most
PANELS = (
    ("β, the variance of a step", ("beta",)),
    ("√ᾱ of the image (line), √(1−ᾱ) of the noise (dashes)", ("signal", "sigma")),
    ("log₁₀ of the signal-to-noise ratio", ("log_snr",)),
)
STYLE = """
.mame-beta { --image: #0b62a4; --noise: #c2570c; border: 1px solid var(--pst-color-border, #888); border-radius: 4px;
  padding: .8rem 1rem; background: var(--pst-color-background, transparent);
  color: var(--pst-color-text-base, inherit); }
html[data-theme="dark"] .mame-beta, [data-jp-theme-light="false"] .mame-beta { --image: #6db3f2; --noise: #ffa15c; }
.mame-beta .asks, .mame-beta .panels { display: grid; gap: .5rem 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(12.5rem, 1fr)); }
.mame-beta label { display: block; font-size: .9rem; }
.mame-beta label b { float: right; font-variant-numeric: tabular-nums; }
.mame-beta input, .mame-beta select { width: 100%; min-height: 1.8rem; font: inherit; color: inherit;
  accent-color: var(--pst-color-primary, #0b62a4); }
.mame-beta select { background: var(--pst-color-surface, #fff); border: 1px solid var(--pst-color-border, #888);
  border-radius: 3px; color: var(--pst-color-text-base, #000); }
.mame-beta :is(input, select):focus-visible { outline: 3px solid var(--pst-color-primary, #0b62a4); }
.mame-beta label:has(:disabled) { opacity: .5; }
.mame-beta .panels { margin-top: .8rem; } .mame-beta .panels span { font-size: .85rem; }
.mame-beta svg { display: block; width: 100%; overflow: visible; }
.mame-beta svg rect { fill: none; stroke: var(--pst-color-border, #888); }
.mame-beta svg path { fill: none; stroke: var(--image); stroke-width: 2; vector-effect: non-scaling-stroke; }
.mame-beta svg path.sigma { stroke: var(--noise); stroke-dasharray: 5 3; }
.mame-beta svg line { stroke: currentColor; stroke-width: .7; stroke-dasharray: 2 2; }
.mame-beta svg text { font-size: 10px; fill: currentColor; }
.mame-beta output { display: block; margin-top: .8rem; min-height: 2.6em; font-weight: 600; }
"""
SCRIPT = """
(() => {
  const box = document.currentScript.closest(".mame-beta"), [W, H, POINTS] = box.dataset.panel.split(" ").map(Number);
  const shape = box.querySelector("select"), sliders = [...box.querySelectorAll("input")];
  const tables = () => {
    const [start, end, T] = sliders.map((s) => +s.value), beta = [], wave = (t) =>
      Math.cos((t / T + 0.008) / 1.008 * Math.PI / 2) ** 2;
    for (let t = 0; t < T; t++) {
      const along = t / (T - 1), a = Math.sqrt(start), b = Math.sqrt(end);
      beta.push(shape.value === "linear" ? start + (end - start) * along
        : shape.value === "cosine" ? Math.min(0.999, 1 - wave(t + 1) / wave(t)) : (a + (b - a) * along) ** 2);
    }
    let product = 1;
    const abar = beta.map((b) => product *= 1 - b), snr = abar.map((a) => a / (1 - a));
    return {beta, signal: abar.map(Math.sqrt), sigma: abar.map((a) => Math.sqrt(1 - a)), snr,
            log_snr: snr.map(Math.log10)};
  };
  const show = () => {
    const now = box.tables = tables(), T = now.beta.length, last = now.snr[T - 1];
    const ranges = [[0, Math.max(...now.beta)], [0, 1], [Math.floor(now.log_snr[T - 1]), Math.ceil(now.log_snr[0])]];
    const n = Math.min(T, POINTS), picked = [...Array(n).keys()].map((i) => Math.floor(i * (T - 1) / (n - 1)));
    box.querySelectorAll("svg").forEach((svg, k) => {
      const [low, high] = ranges[k], y = (v) => ((1 - (v - low) / (high - low)) * H).toFixed(1);
      svg.querySelectorAll("path").forEach((path) => path.setAttribute("d", "M" + picked.map((t) =>
        (t / (T - 1) * W).toFixed(1) + "," + y(now[path.getAttribute("class")][t])).join("L")));
      svg.querySelectorAll("line").forEach((line) => ["y1", "y2"].forEach((at) => line.setAttribute(at, y(0))));
      const told = [+high.toPrecision(3), +low.toPrecision(3), T - 1];
      svg.querySelectorAll("text").forEach((text, i) => { text.textContent = told[i]; });
    });
    sliders.forEach((s, i) => { s.closest("label").querySelector("b").textContent = +s.value;
      s.disabled = i < 2 && shape.value === "cosine"; });
    const won = now.snr.findIndex((s) => s < 1), left = 100 * now.signal[T - 1];
    box.querySelector("output").textContent =
      `Last timestep, t = ${T - 1}: SNR ${last.toExponential(2)}, ` +
      `${left < 0.01 ? "less than 0.01" : left.toPrecision(2)} % of the amplitude left. ` +
      (won < 0 ? "The noise never wins." : `The noise wins (SNR < 1) from t = ${won} on.`);
  };
  [shape, ...sliders].forEach((s) => s.addEventListener("input", show));
  show();
})();
"""


def explorer() -> Html:
    """Noise schedules by select box and sliders: β, √ᾱ, √(1−ᾱ) and log₁₀ SNR, and what is left at the end.

    The object shows itself as HTML. It opens with Stable Diffusion's schedule. Its script leaves the curves as the
    property `tables` of the element `.mame-beta`, full precision, for whoever opens the console.
    """
    start, end, timesteps = (first for *_, first in SLIDERS.values())
    schedule = for_name("scaled_linear", beta_start=start, beta_end=end, timesteps=int(timesteps))
    options = "".join(f'<option value="{name}">{words}</option>' for name, words in SHAPES.items())
    asks = f"<label>shape of the schedule<select>{options}</select></label>"
    asks += "".join(
        f'<label><b>{first:g}</b>{words}<input type="range" name="{name}" aria-label="{words}" '
        f'min="{least}" max="{most}" step="{step:.6g}" value="{first}"></label>'
        for name, (words, least, most, step, first) in SLIDERS.items()
    )
    said = sentence(schedule)
    text = (
        f'<div class="mame-beta" data-panel="{WIDTH} {HEIGHT} {POINTS}"><style>{STYLE}</style>'
        f'<div class="asks">{asks}</div><div class="panels">{_panels(schedule)}</div>'
        f'<output aria-live="polite">{said.replace("<", "&lt;")}</output><script>{SCRIPT}</script></div>'
    )
    return Html(text, f"<noise schedule explorer; at first: {said}>")


def sentence(schedule: Schedule) -> str:
    """What the explorer says below its curves: the last SNR, the amplitude left, and when the noise wins."""
    last, won = len(schedule) - 1, (schedule.snr < 1).nonzero().flatten().tolist()
    mantissa, exponent = f"{float(schedule.snr[-1]):.2e}".split("e")
    left = 100 * float(schedule.signal[-1])
    share = "less than 0.01" if left < 0.01 else f"{left:.{max(0, 1 - math.floor(math.log10(left)))}f}"
    end = f"The noise wins (SNR < 1) from t = {won[0]} on." if won else "The noise never wins."
    return (
        f"Last timestep, t = {last}: SNR {mantissa}e{int(exponent):+d}, "
        f"{share} % of the amplitude left. {end}"
    )


def _panels(schedule: Schedule) -> str:
    """The three drawings of the first frame."""
    curves = {
        "beta": schedule.betas.tolist(),
        "signal": schedule.signal.tolist(),
        "sigma": schedule.sigma.tolist(),
        "log_snr": schedule.snr.double().log10().tolist(),
    }
    logs = curves["log_snr"]
    ranges = ((0.0, max(curves["beta"])), (0.0, 1.0), (math.floor(logs[-1]), math.ceil(logs[0])))
    drawn = []
    for (title, names), (low, high) in zip(PANELS, ranges, strict=True):
        paths = "".join(f'<path class="{name}" d="{_path(curves[name], low, high)}"/>' for name in names)
        zero = (1 - (0 - low) / (high - low)) * HEIGHT
        level = f'<line x1="0" x2="{WIDTH}" y1="{zero:.1f}" y2="{zero:.1f}"/>' if "log_snr" in names else ""
        drawn.append(
            f'<div><svg viewBox="-34 -6 {WIDTH + 40} {HEIGHT + 22}" role="img" aria-label="{title}, against the '
            f'timestep"><rect width="{WIDTH}" height="{HEIGHT}"/>{level}{paths}'
            f'<text x="-4" y="8" text-anchor="end">{high:.3g}</text>'
            f'<text x="-4" y="{HEIGHT}" text-anchor="end">{low:.3g}</text>'
            f'<text x="{WIDTH}" y="{HEIGHT + 13}" text-anchor="end">{len(schedule) - 1}</text></svg>'
            f"<span>{title}</span></div>"
        )
    return "".join(drawn)


def _path(values: Sequence[float], low: float, high: float) -> str:
    """An SVG path through at most `POINTS` of the values [T]; low and high are the bottom and top of the panel."""
    last, count = len(values) - 1, min(len(values), POINTS)
    picked = [i * last // (count - 1) for i in range(count)]
    return "M" + "L".join(
        f"{t / last * WIDTH:.1f},{(1 - (values[t] - low) / (high - low)) * HEIGHT:.1f}" for t in picked
    )
