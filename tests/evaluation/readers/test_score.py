"""From ratings to a report: numbers are those of the parts, words are plain, bad tables are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mame_lib.errors import InputError
from mame_lib.evaluation.readers import agreement, panel, power, roc, score
from mame_lib.evaluation.readers.ratings import Rating


def ratings_of(one: panel.Panel, reader: str = "reader") -> tuple[list[Rating], dict[str, str]]:
    key = {f"c{k:02d}": "synthetic" if made else "real" for k, made in enumerate(one.synthetic)}
    rows = [Rating("s", f"{reader}{j}", case, int(one.ratings[j, k]), 2.0 + j, k + 1)
            for j in range(len(one.ratings)) for k, case in enumerate(key)]  # fmt: skip
    return rows, key


STUDY = panel.ReaderModel(auc=0.6, reader_sd=0.05).simulate(3, 20, 22, seed=2)


def test_the_numbers_are_those_of_the_parts() -> None:
    rows, key = ratings_of(STUDY)
    found = score.report(reversed(rows), key)
    together = panel.mean_auc(STUDY.scores, STUDY.synthetic)
    assert found.cases == {"real": 22, "synthetic": 20} and found.panel is not None and found.equality is not None
    assert found.panel.value == pytest.approx(together.value) and found.panel.se == pytest.approx(together.se)
    assert found.equality.p == pytest.approx(power.equivalence(together.value, together.se, df=together.df).p)
    assert found.alpha == pytest.approx(agreement.krippendorff(STUDY.ratings))
    for j, one in enumerate(found.readers):
        assert one.auc == roc.delong(STUDY.scores[j], STUDY.synthetic).logit()
        given, made = STUDY.ratings[j], STUDY.synthetic
        assert one.right == ((given < 2) & made).sum() + ((given > 2) & ~made).sum()
        assert one.unsure == (given == 2).sum() and one.right + one.wrong + one.unsure == 42
        assert one.counts["synthetic"] == np.bincount(given[made], minlength=5).tolist()
        assert one.seconds == 2.0 + j and one.missing == 0


def test_the_text_fits_a_terminal_and_says_what_is_not_shown() -> None:
    text = score.report(*ratings_of(STUDY)).text()
    assert max(map(len, text.splitlines())) <= 88
    for words in ("reader0", "cannot tell", "smallest margin", "not for diagnosis", "Krippendorff", "3 readers"):
        assert words in text


def test_the_json_is_json() -> None:
    told = json.loads(json.dumps(score.report(*ratings_of(STUDY)).as_json(), allow_nan=False))
    assert told["readers"][0]["auc"]["low"] < told["readers"][0]["auc"]["high"]
    assert told["equality"]["verdict"] in power.VERDICTS and len(told["panel"]["aucs"]) == 3


def test_one_reader_is_about_other_cases_only() -> None:
    rows, key = ratings_of(STUDY)
    found = score.report([one for one in rows if one.reader == "reader1"], key)
    assert found.panel is None and found.alpha is None and found.mean_kappa is None
    assert any("not about other readers" in warning for warning in found.warnings)
    alone = roc.delong(STUDY.scores[1], STUDY.synthetic)
    assert found.equality is not None and found.equality.p == pytest.approx(power.equivalence(alone.value, alone.se).p)


def test_unanswered_cases_are_counted_and_named() -> None:
    rows, key = ratings_of(STUDY)
    found = score.report([one for one in rows if one.reader != "reader2" or one.case < "c30"], key)
    assert [one.missing for one in found.readers] == [0, 0, 12]
    assert any("reader2 has not rated 12 of 42" in warning for warning in found.warnings)


def test_a_reader_with_too_few_cases_gets_no_area_and_does_not_stop_the_others() -> None:
    rows, key = ratings_of(STUDY)
    found = score.report([one for one in rows if one.reader != "reader2" or one.case == "c00"], key)
    assert found.readers[2].auc is None and found.panel is not None and len(found.panel.aucs) == 2
    assert "no AUC" in found.text()
    lone = score.report([rows[0]], key)
    assert lone.equality is None and "nothing is shown" in lone.text() and lone.readers[0].again is None


def test_guessers_of_one_word_and_perfect_readers() -> None:
    key = {f"c{k}": "synthetic" if k < 10 else "real" for k in range(20)}
    same = [Rating("s", "anna", case, 3, 1.0, k + 1) for k, case in enumerate(key)]
    found = score.report(same, key)
    assert found.readers[0].verdict == power.UNKNOWN and found.equality is None
    assert any("one rating throughout" in warning for warning in found.warnings)
    perfect = [Rating("s", "bert", case, 0 if said == "synthetic" else 4, 1.0, 1) for case, said in key.items()]
    one = score.report(perfect, key).readers[0]
    assert one.verdict == power.DIFFERENT and one.auc is not None and one.auc.low > 0.6 and one.of_decided is not None
    assert one.of_decided.value == 1
    both = score.report(same + perfect, key)
    assert both.panel is not None and both.text()


def test_images_shown_again_count_for_agreement_alone() -> None:
    rows, key = ratings_of(STUDY)
    again = {f"again{k}": f"c{k:02d}" for k in range(6)}
    key |= {second: key[first] for second, first in again.items()}
    value = {(one.reader, one.case): one.rating for one in rows}
    repeated = rows + [Rating("s", reader, second, value[reader, first], 1.0, 99)
                       for reader in ("reader0", "reader1") for second, first in again.items()]  # fmt: skip
    plain, found = score.report(rows, {k: v for k, v in key.items() if k not in again}), score.report(
        repeated, key, repeats=again)  # fmt: skip
    assert found.readers[0].auc == plain.readers[0].auc and found.cases == plain.cases
    assert found.readers[0].again is not None and found.readers[0].again.value == pytest.approx(1)
    assert found.readers[2].again is None
    assert "shown twice" in found.text()


def test_an_unbalanced_key_is_named() -> None:
    one = panel.ReaderModel().simulate(1, 8, 20, seed=0)
    assert any("by the odds" in warning for warning in score.report(*ratings_of(one)).warnings)


def test_bad_tables_get_a_sentence() -> None:
    rows, key = ratings_of(STUDY)
    with pytest.raises(InputError, match="no rating"):
        score.report([], key)
    with pytest.raises(InputError, match="not in the key"):
        score.report(rows, {"c00": "real"})
    with pytest.raises(InputError, match="twice"):
        score.report([*rows, rows[0]], key)
    with pytest.raises(InputError, match="several studies"):
        score.report([*rows, Rating("t", "x", "c00", 1, 1.0, 1)], key)
    with pytest.raises(InputError, match="real or synthetic"):
        score.report(rows, {case: "maybe" for case in key})
