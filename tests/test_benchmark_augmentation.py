"""The statistics of the augmentation benchmark on runs whose answers are known, and its arms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mame_lib.evaluation.cad_cases import Cases

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    import augmentation
    from augmentation_statistics import MEASURES, Run, bootstrap, holm, p_value, read_rows, table, write_rows


def run(arm: str, seed: int, shift: float, cases: int = 60) -> Run:
    """Scores of ill cases higher by `shift` standard deviations; the noise is the seed's, the same in all arms."""
    rng = np.random.default_rng(seed)
    ill = np.arange(cases) < cases // 2
    scores = 1 / (1 + np.exp(-rng.normal(shift * ill, 1.0)))
    hit = np.where(ill & (rng.random(cases) < 0.8), scores, 0.0)
    alarms = [[float(v)] if v < 0.7 else [] for v in rng.random(cases)]
    return Run(arm, seed, ill, np.round(scores, 4), np.round(hit, 4), [[round(v, 4) for v in some] for some in alarms])


def runs() -> list[Run]:
    return [run(arm, seed, shift) for arm, shift in (("few", 0.5), ("same", 0.5), ("more", 2.0)) for seed in range(3)]


def test_rows_come_back(tmp_path: Path) -> None:
    write_rows(runs(), tmp_path / "rows.csv.gz")
    for before, after in zip(runs(), read_rows(tmp_path / "rows.csv.gz"), strict=True):
        assert (before.arm, before.seed, before.alarms) == (after.arm, after.seed, after.alarms)
        for name in ("ill", "scores", "hit"):
            assert np.allclose(getattr(before, name), getattr(after, name), atol=5e-5)


def test_a_better_arm_is_found_and_an_equal_one_is_not() -> None:
    found = table(runs(), "few", draws=300)
    assert set(found) == {"few", "same", "more"}
    for name in MEASURES:
        assert "difference" not in found["few"][name]
        same = found["same"][name]["difference"]
        assert same["value"] == 0 and same["interval"] == [0, 0] and same["p (Holm)"] == 1
    better = found["more"]["auc"]["difference"]
    assert better["interval"][0] > 0 and better["p"] <= better["p (Holm)"] < 0.05
    for arm in found.values():
        assert arm["auc"]["interval"][0] <= arm["auc"]["value"] <= arm["auc"]["interval"][1]
        assert np.mean(arm["auc"]["by seed"]) == pytest.approx(arm["auc"]["value"], abs=1e-4)


def test_an_arm_without_one_of_its_seeds_is_refused() -> None:
    with pytest.raises(ValueError, match="lacks"):
        bootstrap(runs()[:-1], draws=1)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert p_value(np.full(99, 1.0)) == pytest.approx(2 / 100)
    assert p_value(np.zeros(99)) == 1


def test_every_arm_starts_from_the_same_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are numbers here: true ones by case, synthetic ones from 10,000 on; twins share a breast."""
    def numbers(count: int, first: int) -> np.ndarray:
        return np.arange(first, first + count, dtype=np.uint16)

    most, few, healthy = augmentation.SIZES[-1], augmentation.FEW, augmentation.HEALTHY
    ill, well = few + most, healthy + most
    box = [(1, 1, 2, 2)]
    true = Cases(numbers(ill + well, 0), [box] * ill + [[]] * well, np.arange(ill + well))  # type: ignore[arg-type,list-item]
    pool = Cases(numbers(2 * most, 10_000), [box] * most + [[]] * most, np.tile(np.arange(most), 2))  # type: ignore[arg-type,list-item]
    monkeypatch.setattr(augmentation, "load", lambda name: true if name.startswith("true") else pool)
    assert len({arm.name for arm in augmentation.ARMS}) == len(augmentation.ARMS)
    base = set(augmentation.cases_of(augmentation.Arm(), 0).images.tolist())
    assert len(base) == few + healthy
    for arm in augmentation.ARMS:
        cases = augmentation.cases_of(arm, 0)
        assert base <= set(cases.images.tolist()) and len(set(cases.images.tolist())) == len(cases)
        added = cases.take(range(len(base), len(cases)))
        assert added.ill.sum() == arm.count and (~added.ill).sum() == arm.count * arm.twins
        if arm.source in ("synthetic", "in true breasts") and arm.twins:
            assert set(added.breasts[added.ill]) == set(added.breasts[~added.ill])
    smaller, larger = (augmentation.cases_of(augmentation.Arm("synthetic", k), 1).images for k in (24, 96))
    assert set(smaller.tolist()) <= set(larger.tolist())
    seeds = (augmentation.TEST, augmentation.TRAIN, augmentation.GROUND)
    assert len({*seeds, *augmentation.TRAINING}) == len(seeds) + len(augmentation.TRAINING), "no leak by the seed"
