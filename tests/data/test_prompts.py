"""The caption grammar: every sentence of the paper, round trips, and messages for what is outside."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mame_lib.data import prompts
from mame_lib.data.case import AREAS, DENSITIES, LATERALITIES, VENDORS, VIEWS, Attributes
from mame_lib.data.prompts import compose, parse, said, training_prompt
from mame_lib.errors import InputError

TRAINING = """\
a hologic mammogram in CC view with small area
a hologic mammogram in CC view with medium area
a hologic mammogram in CC view with big area
a hologic mammogram in MLO view with small area
a hologic mammogram in MLO view with medium area
a hologic mammogram in MLO view with big area
a siemens mammogram in CC view with very low density
a siemens mammogram in CC view with low density
a siemens mammogram in CC view with high density
a siemens mammogram in CC view with very high density
a siemens mammogram in MLO view with very low density
a siemens mammogram in MLO view with low density
a siemens mammogram in MLO view with high density
a siemens mammogram in MLO view with very high density""".splitlines()


WORDS = re.findall(r"\S+", "a mammogram in CC MLO view with very high low small area density and , .")


def one_of(words):
    return st.one_of(st.none(), st.sampled_from(words))


ATTRIBUTES = st.builds(
    Attributes,
    vendor=one_of(VENDORS),
    view=one_of(VIEWS),
    area=one_of(AREAS),
    density=one_of(DENSITIES),
    laterality=one_of(LATERALITIES),
    finding=one_of(("lesion",)),
)


def test_the_14_training_sentences():
    assert list(prompts.TRAINING_PROMPTS) == TRAINING


@pytest.mark.parametrize(
    "sentence, expected",
    [
        ("a hologic mammogram in CC view with big area", Attributes("hologic", "CC", "big")),
        ("a mammogram in MLO view with small area", Attributes(None, "MLO", "small")),
        ("a mammogram in CC view with high density", Attributes(None, "CC", None, "high")),
        ("a mammogram in CC view with low density", Attributes(None, "CC", None, "low")),
        (
            "a siemens mammogram in MLO view with high density and small area",
            Attributes("siemens", "MLO", "small", "high"),
        ),
        (
            "A siemens mammogram in MLO view with small area and very high density",
            Attributes("siemens", "MLO", "small", "very high"),
        ),
        (
            "a Siemens mammogram in mlo VIEW with Very  Low density.",
            Attributes("siemens", "MLO", None, "very low"),
        ),
        ("a mammogram", Attributes()),
        ("mammogram", Attributes()),
        ("a mammogram with a lesion", Attributes(finding="lesion")),
        ("magnification of a lesion", Attributes(finding="lesion")),
        ("white background", Attributes()),
        ("no black background", Attributes()),
        ("low quality", Attributes()),
        ("black background", Attributes()),
        ("a mammogram, black background", Attributes()),
        ("mammogram image x-ray radio, medical image", Attributes()),
        ("mammogram, MLO view", Attributes(view="MLO")),
        ("mammogram, MLO view, small size", Attributes(view="MLO", area="small")),
        ("mammogram, MLO view, small size, with lesion", Attributes(None, "MLO", "small", finding="lesion")),
        ("mammogram, MLO view, small size, without lesion", Attributes(view="MLO", area="small")),
        ("mammogram, MLO view, big size, healthy", Attributes(view="MLO", area="big")),
        ("a mammogram in MLO view", Attributes(view="MLO")),
    ],
)
def test_sentences_of_the_paper(sentence, expected):
    assert parse(sentence) == expected
    assert parse(sentence.upper()) == expected


def test_every_listed_sentence_is_accepted():
    for sentence in (*prompts.TRAINING_PROMPTS, *prompts.PAPER_PROMPTS.values(), *prompts.NEGATIVE_PROMPTS):
        parse(sentence)


@pytest.mark.parametrize(
    "order, sentence",
    [
        ("area", "a siemens mammogram in MLO view with small area and very high density"),
        ("density", "a siemens mammogram in MLO view with very high density and small area"),
        ("only area", "a siemens mammogram in MLO view with small area"),
        ("only density", "a siemens mammogram in MLO view with very high density"),
        ("training", "a siemens mammogram in MLO view with very high density"),
        ("lesion", "a mammogram"),
        ("constant", "a mammogram"),
    ],
)
def test_orders_of_the_interface(order, sentence):
    attributes = Attributes("siemens", "MLO", "small", "very high", "R")
    assert compose(attributes, order) == sentence


def test_captioning_trick():
    both = {"view": "CC", "area": "big", "density": "low"}
    assert training_prompt(Attributes("hologic", **both)) == "a hologic mammogram in CC view with big area"
    assert training_prompt(Attributes("siemens", **both)) == "a siemens mammogram in CC view with low density"
    assert training_prompt(Attributes(**both)) == "a mammogram in CC view with big area"
    separate = training_prompt(Attributes("siemens", **both), say_vendor=False)
    assert separate == "a mammogram in CC view with low density"
    assert training_prompt(Attributes(density="low")) == "a mammogram with low density"
    assert compose(Attributes(finding="lesion", **both), "lesion") == "a mammogram with a lesion"


@given(ATTRIBUTES, st.sampled_from(prompts.ORDERS))
def test_round_trip_keeps_what_the_order_says(attributes, order):
    assert parse(compose(attributes, order)) == said(attributes, order)


@given(ATTRIBUTES, st.booleans())
def test_no_training_caption_holds_both(attributes, say_vendor):
    read = parse(training_prompt(attributes, say_vendor=say_vendor))
    assert read.area is None or read.density is None


@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(st.sampled_from(WORDS)).map(" ".join),
    )
)
def test_any_text_is_read_or_refused_with_a_valid_sentence(text):
    try:
        parse(text)
    except InputError as error:
        offered = re.search(r"; try '(.*)'\.$", str(error))
        assert offered and isinstance(parse(offered[1]), Attributes)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "sentence, blamed, offered",
    [
        ("", "empty", "a mammogram"),
        ("a fluffy cat", "'fluffy'", "a mammogram"),
        ("a siemens mammogram in LM view", "'lm'", "a siemens mammogram'"),
        ("a mammogram with high area", "'high' is no area", "a mammogram with high density"),
        ("a mammogram with very small area", "'very small' is no area", "a mammogram with small area"),
        ("a mammogram with extremely high density", "'extremely'", "a mammogram with high density"),
        ("a siemns mammogram in CC view", "'siemns'", "a siemens mammogram in CC view"),
        ("a mammogram in CC view with large area", "'large'", "a mammogram in CC view with big area"),
        ("a mammogram with small area and big area", "area is said twice", "a mammogram with small area"),
        ("a hologic siemens mammogram", "vendor is said twice", "a hologic mammogram"),
        ("in CC view with small area", "'mammogram' is missing", "a mammogram in CC view with small area"),
        ("a mammogram with small area in CC view", "order", "a mammogram in CC view with small area"),
        ("a hologic mammogram with a lesion", "lesion has one sentence", "a hologic mammogram"),
    ],
)
def test_refusal_names_the_words_and_offers_a_sentence(sentence, blamed, offered):
    with pytest.raises(InputError) as caught:
        parse(sentence)
    assert blamed in str(caught.value)
    assert f"try '{offered}" in str(caught.value)


def test_long_prompts_do_not_flood_the_message():
    with pytest.raises(InputError) as caught:
        parse("word " * 10_000)
    assert len(str(caught.value)) < 400


def test_unknown_order_and_wrong_type():
    with pytest.raises(InputError, match="only density"):
        compose(Attributes(), "size")
    with pytest.raises(InputError, match="sentence"):
        parse(None)  # type: ignore[arg-type]
