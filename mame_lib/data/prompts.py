"""The paper's caption grammar in both directions: `compose` writes a sentence, `parse` reads one.

The combined model of the paper never saw a caption with both an area and a density: its Hologic captions say
the area, its Siemens captions the density. `training_prompt` is that captioning trick; at inference the GUI
sentences (`compose` with order "area" or "density") ask for both, which is the test of concept extrapolation.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace

from mame_lib.data.case import AREAS, DENSITIES, FINDINGS, VENDORS, VIEWS, Attributes
from mame_lib.errors import InputError

GRAMMAR_VERSION = "mam-e/1"

# Inpainting: the paper has the first sentence alone, and names the others as future work.
FINDING_PROMPTS = {finding: f"a mammogram with a {finding}" for finding in FINDINGS}
LESION_PROMPT = FINDING_PROMPTS["lesion"]
CONSTANT_PROMPT = "a mammogram"  # one caption for every image (paper, Fig. 12)
LESION_CROP_PROMPT = "magnification of a lesion"  # model of lesion crops

# What each order says, in the order in which it says it. The GUI has the first four.
_SAYS: dict[str, tuple[str, ...]] = {
    "area": ("vendor", "view", "area", "density"),
    "density": ("vendor", "view", "density", "area"),
    "only area": ("vendor", "view", "area"),
    "only density": ("vendor", "view", "density"),
    "lesion": ("finding",),
    "constant": (),
}
ORDERS = (*_SAYS, "training")

# Sentences of the paper, its poster, its interfaces and its validation runs, as they stand there.
PAPER_PROMPTS: dict[str, str] = {
    "figure 12": "a mammogram",
    "figure 13": "a mammogram in MLO view with small area",
    "figure 14": "a mammogram in CC view with high density",
    "figure 15, table 3": "a siemens mammogram in MLO view with high density and small area",
    "figures 16, 20": "A siemens mammogram in MLO view with small area and very high density",
    "validation": "a mammogram in CC view with low density",
    "inpainting": LESION_PROMPT,
    "lesion crops": LESION_CROP_PROMPT,
    "probe": "a mammogram, black background",
    "zero-shot": "mammogram image x-ray radio, medical image",
}
NEGATIVE_PROMPTS = ("white background", "no black background", "low quality", "black background")

# Sentences outside the pattern: some of the paper, which say nothing or "lesion", and those of the findings.
_FIXED: dict[str, Attributes] = {
    **{sentence: Attributes() for sentence in NEGATIVE_PROMPTS},
    PAPER_PROMPTS["probe"]: Attributes(),
    PAPER_PROMPTS["zero-shot"]: Attributes(),
    **{sentence: Attributes(finding=finding) for finding, sentence in FINDING_PROMPTS.items()},
    LESION_CROP_PROMPT: Attributes(finding="lesion"),
}

_AREA = rf"(?P<area{{0}}>{'|'.join(AREAS)}) area"
_DENSITY = rf"(?P<density{{0}}>{'|'.join(sorted(DENSITIES, key=len, reverse=True))}) density"
_SENTENCE = re.compile(
    rf"an? (?:(?P<vendor>{'|'.join(VENDORS)}) )?mammogram(?: in (?P<view>cc|mlo) view)?"
    rf"(?: with (?:{_AREA.format(1)}(?: and {_DENSITY.format(1)})?"
    rf"|{_DENSITY.format(2)}(?: and {_AREA.format(2)})?))?"
)
# Wordings of March to May 2023, for older weights: "mammogram, MLO view, small size, with lesion".
_OLDER = re.compile(
    rf"mammogram(?:, (?P<view>cc|mlo) view)?(?:, (?P<area>{'|'.join(AREAS)}) size)?"
    r"(?:, (?P<finding>with lesion|without lesion|healthy))?"
)

_GRAMMAR = "a an mammogram in view with and area density"
_WORDS = frozenset(" ".join((_GRAMMAR, *VENDORS, *VIEWS, *AREAS, *DENSITIES, *FINDINGS)).lower().split())
_SYNONYMS = {"large": "big", "little": "small", "tiny": "small", "size": "area", "dense": "density"}


def said(attributes: Attributes, order: str = "area") -> Attributes:
    """The part of `attributes` that `compose(attributes, order)` puts into words.

    Laterality is never said: a right breast is the mirror of a left one.
    """
    names = _says(attributes, order)
    return Attributes(**{name: getattr(attributes, name) for name in names})


def compose(attributes: Attributes, order: str = "area") -> str:
    """The sentence for `attributes`; what is not known (None) is left out.

    order: "area", "density" (both, that one first), "only area", "only density" (the four priorities of the
    paper's interface), "training" (see `training_prompt`), "lesion" (inpainting caption), "constant".

    >>> compose(Attributes(vendor="siemens", view="CC", area="small", density="very high"), "density")
    'a siemens mammogram in CC view with very high density and small area'
    """
    names = _says(attributes, order)
    part = said(attributes, order)
    if part.finding:
        return FINDING_PROMPTS[part.finding]
    vendor = f" {part.vendor}" if part.vendor else ""
    view = f" in {part.view} view" if part.view else ""
    values = [(getattr(part, name), name) for name in names if name in ("area", "density")]
    looks = [f"{value} {name}" for value, name in values if value]
    return f"a{vendor} mammogram{view}" + (f" with {' and '.join(looks)}" if looks else "")


def sentence_of(finding: str) -> str:
    """The inpainting caption of a word of `FINDINGS`; raises `InputError` for any other."""
    if finding not in FINDING_PROMPTS:
        raise InputError(f"finding {finding!r} is unknown; use one of {', '.join(FINDINGS)}.")
    return FINDING_PROMPTS[finding]


def _says(attributes: Attributes, order: str) -> tuple[str, ...]:
    """Names of the attributes that the order says, in that order."""
    if order == "training":
        by_density = attributes.vendor == "siemens" or (attributes.vendor is None and attributes.area is None)
        return _SAYS["only density" if by_density else "only area"]
    if order not in _SAYS:
        raise InputError(f"prompt order {order!r} is unknown; use one of {', '.join(ORDERS)}.")
    return _SAYS[order]


def training_prompt(attributes: Attributes, *, say_vendor: bool = True) -> str:
    """The caption under which an image is trained: never both area and density.

    Hologic captions say the area and Siemens captions the density, though both are known or visible in both.
    An image of unknown vendor is captioned with its area, or with its density where no area is known.
    `say_vendor=False` leaves the vendor word out, as in the paper's two separate models.
    """
    part = said(attributes, "training")
    return compose(part if say_vendor else replace(part, vendor=None), "area")


TRAINING_PROMPTS: tuple[str, ...] = (
    *(training_prompt(Attributes("hologic", view, area)) for view in VIEWS for area in AREAS),
    *(training_prompt(Attributes("siemens", view, density=word)) for view in VIEWS for word in DENSITIES),
)


def understood(sentence: str) -> Attributes | None:
    """What a sentence says, or None if it is outside the grammar."""
    try:
        return parse(sentence)
    except InputError:
        return None


def parse(sentence: str) -> Attributes:
    """What a sentence of the grammar says; upper and lower case, spaces and a final period do not matter.

    Accepted: every sentence of `compose`; the fixed sentences of the paper, which say no attribute (negative
    prompts, probes) or a lesion; and the wordings of 2023, read as: "small size" -> area small, "with lesion"
    -> finding lesion, "healthy" and "without lesion" -> nothing said (there is no word for absence).
    Mind that "size" was split in two classes at an area ratio of 0.5 when it came up, not at 0.4 and 0.6.

    Raises
    ------
    InputError
        If the sentence is outside the grammar; the message names the words and shows a valid sentence nearby.
    """
    text = _normalized(sentence)
    if text in _FIXED:
        return _FIXED[text]
    if match := _SENTENCE.fullmatch(text):
        return _attributes(match.groupdict())
    if match := _OLDER.fullmatch(text):
        groups = match.groupdict()
        lesion = "lesion" if groups.pop("finding") == "with lesion" else None
        return replace(_attributes(groups), finding=lesion)
    reason = _reason(text)
    shown = _short(sentence)
    raise InputError(f"the prompt {shown!r} is outside the grammar: {reason}; try {_nearby(text)!r}.")


def _normalized(sentence: str) -> str:
    if not isinstance(sentence, str):
        raise InputError(f"a prompt is a sentence (str), not {type(sentence).__name__}.")
    return re.sub(r"\s*,\s*", ", ", " ".join(sentence.lower().split())).removesuffix(".").strip()


def _attributes(groups: Mapping[str, str | None]) -> Attributes:
    """Attributes from named groups; `area1` and `area2` are the two places where an area may stand."""
    values = {name.rstrip("12"): value for name, value in groups.items() if value}
    if "view" in values:
        values["view"] = values["view"].upper()
    return Attributes.from_dict(values)


def _short(sentence: str, limit: int = 100) -> str:
    line = " ".join(sentence.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _reason(text: str) -> str:
    """Why `text` is refused, in a clause that names the words to blame."""
    words = re.findall(r"[^\s,]+", text)
    if not words:
        return "it is empty"
    strange = list(dict.fromkeys(word for word in words if word not in _WORDS))
    if strange:
        names = [repr(_short(word, 30)) for word in strange[:4]] + ["…"] * (len(strange) > 4)
        return f"it does not know {', '.join(names)}"
    vocabulary = {"area": AREAS, "density": DENSITIES}
    for value, noun in re.findall(r"((?:very )?\w+) (area|density)\b", text):
        if value not in vocabulary[noun]:
            return f"{value!r} is no {noun}; it is one of {', '.join(vocabulary[noun])}"
    for kind, choices in {"vendor": VENDORS, "view": VIEWS}.items():
        found = [word for word in words if word.upper() in choices or word in choices]
        if len(found) > 1:
            return f"the {kind} is said twice, {' and '.join(map(repr, found[:2]))}"
    for noun in ("area", "density"):
        if words.count(noun) > 1:
            return f"the {noun} is said twice"
    if "mammogram" not in words:
        return "the word 'mammogram' is missing"
    if finding := _finding(words):
        return f"a {finding} has one sentence of its own, {FINDING_PROMPTS[finding]!r}"
    return "its words are known, but not in this order: vendor, view, then area and density"


def _finding(words: list[str]) -> str | None:
    """The longest finding all of whose words are said."""
    told = [finding for finding in FINDINGS if set(finding.split()) <= set(words)]
    return max(told, key=len, default=None)


def _nearby(text: str) -> str:
    """A valid sentence that keeps what can be understood of `text`."""
    words = [_repaired(word) for word in re.findall(r"[^\s,.]+", text)]
    line = " ".join(words)
    found: dict[str, str] = {}
    for name, choices in (("vendor", VENDORS), ("view", VIEWS)):
        choice = next((choice for choice in choices if choice.lower() in words), None)
        if choice:
            found[name] = choice
    areas = re.search(rf"\b({'|'.join(AREAS)})\b", line)
    density = re.search(r"\b((?:very )?(?:low|high))\b", line)
    if areas:
        found["area"] = areas[1]
    if density:
        found["density"] = density[1]
    if not found:
        finding = _finding(words)
        return FINDING_PROMPTS[finding] if finding else "a mammogram in MLO view with small area"
    first = "density" if areas and density and density.start() < areas.start() else "area"
    return compose(Attributes.from_dict(found), first)


def _repaired(word: str) -> str:
    """The grammar's word for a misspelt one or a synonym, or the word itself."""
    if word in _WORDS or word in _SYNONYMS:
        return _SYNONYMS.get(word, word)
    close = difflib.get_close_matches(word[:40], _WORDS, n=1, cutoff=0.75)
    return close[0] if close else word
