"""The detector: its numbers on made-up maps, its training on made-up spots, and the shipped weights on phantoms."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mame_lib.errors import InputError
from mame_lib.evaluation import cad
from mame_lib.evaluation.cad_cases import AREA, Cases, draw_case, draw_cases, mass
from mame_lib.evaluation.froc import auc

SEED = 15_900_000  # no detector was trained on these


@lru_cache(maxsize=1)
def phantoms() -> Cases:
    return draw_cases(range(12), SEED)


def spots(count: int, size: int = 32) -> tuple[np.ndarray, list[list[tuple[int, int, int, int]]]]:
    """Dark noise, and in every second image a bright square of 8 pixels."""
    rng = np.random.default_rng(0)
    images = rng.integers(40, 90, (count, size, size), dtype=np.uint8)
    boxes: list[list[tuple[int, int, int, int]]] = []
    for k, image in enumerate(images):
        x, y = (int(v) for v in rng.integers(0, size - 8, 2))
        boxes.append([(x, y, x + 8, y + 8)] if k % 2 else [])
        if k % 2:
            image[y : y + 8, x : x + 8] += 120
    return images, boxes


def test_the_detector_is_small_and_takes_any_multiple_of_eight() -> None:
    detector = cad.Detector().eval()
    assert sum(p.numel() for p in detector.parameters()) < 120_000
    for size in (32, 40, 128, 136):
        assert detector(torch.rand(2, 1, size, size)).shape == (2, 1, size // 4, size // 4)


def test_it_looks_at_patches() -> None:
    """A change far away, in the same background, changes nothing: scores inside a box are local."""
    detector = cad.load_cad()
    image = phantoms().images[1].copy()
    other = image.copy()
    other[:8, 120:] = 255
    there, here = cad.heat(detector, [image, other])
    assert np.array_equal(there[112:], here[112:])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32), np.float32), np.zeros((32, 32), np.uint8), np.zeros((1, 32, 40), np.uint8),
        np.zeros((1, 30, 30), np.uint8), np.zeros((0, 32, 32), np.uint8),
        [np.zeros((32, 32), np.uint8), np.zeros((40, 40), np.uint8)],
    ],
)  # fmt: skip
def test_images_that_it_cannot_take(images: object) -> None:
    with pytest.raises(InputError):
        cad.to_input(images)  # type: ignore[arg-type]


def test_targets_peak_in_the_middle_of_every_box() -> None:
    boxes = [[(8, 8, 24, 16)], [], [(0, 0, 5, 5), (20, 20, 31, 31)]]
    goal = cad.targets(boxes, 32).numpy()
    assert goal.shape == (3, 8, 8) and goal[1].max() == 0
    assert goal[0].max() == 1 and set(zip(*np.nonzero(goal[0] > 0.5), strict=True)) <= {(2, 3), (3, 3), (2, 4), (3, 4)}
    assert goal[2, 0, 0] == 1 and goal[2, 6, 6] == 1


def test_heat_score_and_score_inside_agree() -> None:
    torch.manual_seed(1)
    detector = cad.Detector()
    torch.nn.init.normal_(detector.head.weight, std=0.3)
    images, _ = spots(4)
    heat, cells = cad.heat(detector, images), cad.logits(detector, images).sigmoid().numpy()
    assert heat.shape == (4, 32, 32) and heat.dtype == np.float32 and (heat >= 0).all() and (heat <= 1).all()
    assert cad.score(detector, images) == pytest.approx(cells.max((1, 2)), abs=1e-6)
    whole = cad.score_inside(detector, images, [(0, 0, 32, 32)] * 4)
    assert whole == pytest.approx(heat.max((1, 2))) and (whole <= cad.score(detector, images) + 1e-6).all()
    assert cad.score_inside(detector, images[:1], [(-4, -4, 3, 3)])[0] == pytest.approx(heat[0, :3, :3].max())
    for boxes in ([(0, 0, 4, 4)], [(9, 9, 9, 12)] * 4, [(40, 40, 50, 50)] * 4):
        with pytest.raises(InputError):
            cad.score_inside(detector, images, boxes)


def test_training_learns_what_a_spot_is_and_repeats_itself() -> None:
    images, boxes = spots(64)
    arguments: dict = dict(steps=24, batch_size=8, rate=2e-2, augment=False)
    detector = cad.train_detector(images[:32], boxes[:32], **arguments)
    ill = np.array([len(some) > 0 for some in boxes[32:]])
    assert auc(cad.score(detector, images[32:]), ill) > 0.95
    inside = [
        box[0] <= marks[0].x <= box[2] and box[1] <= marks[0].y <= box[3]
        for marks, some in zip(cad.find(detector, images[32:]), boxes[32:], strict=True) for box in some
    ]  # fmt: skip
    assert np.mean(inside) > 0.9
    state = torch.get_rng_state()
    again = cad.train_detector(images[:32], boxes[:32], **arguments)
    assert all(torch.equal(a, b) for a, b in zip(detector.parameters(), again.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state()), "training leaves the caller's random numbers alone"


def test_training_refuses_what_does_not_match() -> None:
    images, boxes = spots(4)
    for arguments in ({"steps": 0}, {"batch_size": 1}, {"share": 1.0}):
        with pytest.raises(InputError):
            cad.train_detector(images, boxes, **arguments)
    with pytest.raises(InputError, match="one list an image"):
        cad.train_detector(images, boxes[:3])
    cad.train_detector(images, [[]] * 4, steps=1, batch_size=4)  # healthy images alone are allowed


def test_augmentation_moves_image_and_target_together() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(8, 1, 64, 64)
    x[:, :, 20:28, 36:44] = 0.5
    goal = cad.targets([[(36, 20, 44, 28)]] * 8, 64)[:, None]
    for _ in range(5):
        seen, wanted = cad.changed(x, goal, generator)
        assert seen.shape == x.shape and (seen >= 0).all() and (seen <= 1).all()
        bright = torch.nn.functional.avg_pool2d(seen, 4)
        for one, mine in zip(bright[:, 0], wanted[:, 0], strict=True):
            rows, columns = torch.nonzero(mine == mine.max(), as_tuple=True)
            assert one[rows, columns].min() > 0.2


def test_weights_that_cannot_be_loaded(tmp_path: Path) -> None:
    foreign = tmp_path / "cad.safetensors"
    foreign.write_bytes(b"nothing")
    for path in (foreign, tmp_path / "missing.safetensors"):
        with pytest.raises(InputError, match=r"tools/train_cad\.py"):
            cad.load_cad(path)


def test_cases_are_pairs_of_one_breast() -> None:
    cases = phantoms()
    assert len(cases) == 24 and cases.ill.tolist() == [True, False] * 12
    assert cases.breasts.tolist() == [k // 2 for k in range(24)]
    for k in range(0, 24, 2):
        x0, y0, x1, y1 = cases.boxes[k][0]
        changed = np.argwhere(cases.images[k].astype(int) - cases.images[k + 1] != 0)
        assert len(changed)
        inside = (changed >= (y0 - 2, x0 - 2)) & (changed < (y1 + 2, x1 + 2))
        assert inside.all(1).mean() > 0.5  # the display's gray scale spreads a little
    some = cases.take([0, 3]) + cases.take(cases.ill)
    assert len(some) == 14 and some.boxes[0] == cases.boxes[0] and some.boxes[1] == []
    image, boxes = draw_case(SEED, (0, True))
    assert np.array_equal(image, cases.images[0]) and boxes == cases.boxes[0]
    assert all(AREA[0] <= float(mass(SEED, k).area or 0) <= AREA[1] for k in range(50))
    with pytest.raises(InputError, match="no breast"):
        draw_cases([], SEED)


def test_the_shipped_detector_hears_true_masses() -> None:
    """Far above chance on phantoms that it never saw, also against the same breast; the rates are the benchmark's."""
    cases = phantoms()
    detector = cad.load_cad()
    boxes = [cases.boxes[k][0] for k in range(0, 24, 2)]
    with_mass, without = (cad.score_inside(detector, cases.images[start::2], boxes) for start in (0, 1))
    assert (with_mass > without).mean() >= 10 / 12
    assert cad.WEIGHTS.stat().st_size < 500_000
