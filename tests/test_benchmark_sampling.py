"""benchmarks/sampling.py: turns, what is compared, and the shape of the stored result."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
STORED = BENCHMARKS / "results" / "sampling.json"


@pytest.fixture(scope="module")
def sampling() -> Any:
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("sampling")
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.slow
def test_both_sides_make_the_same_images(sampling: Any) -> None:
    mame = sampling.Mame.load("fused", "cpu")
    pipeline = sampling.load_peer(mame)
    sentences = sampling.prompts(3)
    assert len(set(sentences)) == 3
    theirs = sampling.peer_side(pipeline, mame, sentences)()
    assert theirs.dtype == np.uint8 and theirs.shape == (3, 128, 128) and theirs.std() > 10
    assert sampling.apart(theirs, sampling.our_side(mame, sentences)()) <= 1
    assert sampling.apart(theirs, sampling.our_side(mame, sentences, sampling.CHOSEN)()) > 1


def test_every_side_runs_once_a_round_in_turning_order(sampling: Any) -> None:
    diary = ""

    def side(name: str, seconds: float) -> Any:
        def run() -> np.ndarray:
            nonlocal diary
            diary += name
            until = time.process_time() + seconds
            while time.process_time() < until:
                pass
            return np.zeros((2, 8, 8), np.uint8)

        return run

    made = sampling.race({"peer": side("p", 0.03), "ours": side("o", 0.01), "interval": side("i", 0.015)}, 3)
    assert diary == "poi" + "poi" + "oip" + "ipo"  # the first is the warm-up
    assert made["ratio_cpu"]["ours"] == pytest.approx(3.0, rel=0.2)
    assert made["ratio_cpu"]["interval"] == pytest.approx(2.0, rel=0.2)
    assert made["images_per_cpu_second"]["peer"] == pytest.approx(2 / 0.03, rel=0.2)
    assert len(made["ratio_by_round"]["ours"]) == 3


def test_judging_counts_words_and_gray_levels(sampling: Any) -> None:
    from mame_lib.data.phantom import draw

    asked = [sampling.WANTED[k % 48] for k in range(8)]
    full = np.stack([draw(one, seed=5, index=k).image for k, one in enumerate(asked)])
    found = sampling.judged(full, full)
    assert found["rms_gray_levels"] == 0.0 and found["read_back"]["area"] > 0.8
    darker = np.where(full >= 3, full - 3, full + 3)
    assert sampling.judged(darker, full)["rms_gray_levels"] == 3.0
    empty = sampling.judged(np.zeros_like(full), full)  # no breast reads as small, which half of them ask for
    assert empty["read_back"]["area"] == np.mean([one.area == "small" for one in asked]) == 0.5


def test_stored_result() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert stored["provenance"]["command"].startswith("python benchmarks/sampling.py")
    assert set(stored["batches"]) == {"1", "4", "8"}
    for batch in stored["batches"].values():
        assert batch["gray_levels_apart"] <= 1
        for clock in ("ratio", "ratio_cpu"):
            assert set(batch[clock]) == {"ours", "interval"} and batch[clock]["interval"] > batch[clock]["ours"] > 1.0
        assert len(batch["ratio_by_round"]["ours"]) == batch["rounds"] >= 5
        ways = batch["milliseconds"]
        assert ways["unet, and folded upsamplers"] < ways["unet, diffusers"]
        assert ways["vae, folded upsamplers"] < ways["vae, diffusers"]
    full, *others = stored["sweep"]
    assert full["guided"] == full["steps"] == 24 and full["rms_gray_levels"] == 0 and full["images"] >= 48
    [chosen] = [row for row in others if row["interval"] == stored["interval"]]
    assert chosen["seconds"] < full["seconds"] and chosen["guided"] == 12
    for word, share in full["read_back"].items():
        assert chosen["read_back"][word] >= share - 0.05, word
    assert stored["cuda"] is None or stored["cuda"]["device"]
