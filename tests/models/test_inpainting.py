"""Inpainting: surgery that changes nothing, masks that mean the same at both resolutions, gray inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mame_lib.models.components import Components
from mame_lib.models.inpainting import blank, box_mask, latent_mask, snap, widen
from mame_lib.models.latents import to_tensor
from mame_lib.models.tiny import tiny_unet

FLOATS = st.floats(-20, 150, allow_nan=False)


def test_a_widened_unet_says_the_same_whatever_the_mask() -> None:
    unet = Components.load("tiny").unet
    x, context = torch.randn(3, 4, 16, 16), torch.randn(3, 32, 96)
    t = torch.tensor([0, 500, 999])
    with torch.no_grad():
        before = unet(x, t, encoder_hidden_states=context).sample
        widen(unet)
        for extra in (torch.zeros(3, 5, 16, 16), 9 * torch.randn(3, 5, 16, 16)):
            after = unet(torch.cat([x, extra], dim=1), t, encoder_hidden_states=context).sample
            torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    assert unet.config.in_channels == 9 == unet.conv_in.in_channels
    assert not bool(unet.conv_in.weight[:, 4:].any())


def test_a_wide_unet_is_left_alone_and_others_are_refused() -> None:
    wide = tiny_unet(9)
    before = wide.conv_in
    widen(wide)
    assert wide.conv_in is before
    with pytest.raises(ValueError, match="8 input channels"):
        widen(tiny_unet(8))


def test_surgery_keeps_dtype_and_whether_it_learns() -> None:
    for learns in (True, False):
        unet = tiny_unet().requires_grad_(learns).to(torch.float64)
        widen(unet)
        assert unet.conv_in.weight.requires_grad is learns and unet.conv_in.weight.dtype == torch.float64


def test_a_saved_wide_unet_comes_back(tmp_path) -> None:
    components = Components.load("tiny")
    widen(components.unet)
    with torch.no_grad():
        components.unet.conv_in.weight[:, 4:] = 0.25
    components.save(tmp_path / "model", dtype=torch.float32)
    again = Components.load(tmp_path / "model")
    assert torch.equal(again.unet.conv_in.weight, components.unet.conv_in.weight)


def test_boxes_are_half_open_and_cut_at_the_border() -> None:
    mask = box_mask([(2, 3, 5, 4)], 8)
    assert [tuple(p) for p in np.argwhere(mask)] == [(3, 2), (3, 3), (3, 4)], "row 3, columns 2 to 4"
    assert np.array_equal(box_mask([(-5, -5, 3, 3), (6, 6, 99, 99)], 8)[[0, 7, 0], [0, 7, 7]], [True, True, False])
    assert not box_mask([(20, 20, 30, 30)], 8).any() and not box_mask([], 8).any()
    assert box_mask([(-9, -9, -2, -2)], 8).sum() == 0, "a negative end is not counted from the other side"


def test_boxes_grow_around_their_center() -> None:
    mask = box_mask([(10, 20, 30, 24)], 64, grow=0.5)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == (5, 35, 19, 25)


@given(box=st.tuples(FLOATS, FLOATS, FLOATS, FLOATS), grow=st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=200, deadline=None)
def test_snapped_masks_mean_the_same_at_both_resolutions(box, grow) -> None:
    """Nearest, area and maximum agree; nothing that was masked is lost, and at most a cell is added around it."""
    x0, x1 = sorted(box[::2])
    y0, y1 = sorted(box[1::2])
    mask = box_mask([(x0, y0, x1, y1)], 128, grow)
    snapped = snap(mask, 8)
    assert bool((snapped | ~mask).all())
    pixels = torch.from_numpy(snapped).float()[None, None]
    small = latent_mask(snapped[None], 16)
    assert small.dtype == torch.float32 and set(small.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(small, F.interpolate(pixels, size=(16, 16), mode="area"))
    assert torch.equal(small, F.max_pool2d(pixels, 8))
    assert np.array_equal(small[0, 0].numpy().repeat(8, 0).repeat(8, 1) > 0.5, snapped)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        by_hand = np.zeros((128, 128), bool)
        by_hand[rows[0] // 8 * 8 : (rows[-1] // 8 + 1) * 8, columns[0] // 8 * 8 : (columns[-1] // 8 + 1) * 8] = True
        assert np.array_equal(snapped, by_hand)


@given(x=st.integers(0, 126), y=st.integers(0, 126))
@settings(max_examples=60, deadline=None)
def test_a_lesion_smaller_than_a_cell_is_never_lost(x, y) -> None:
    """Without snapping, the nearest pixel that the library looks at may lie beside it."""
    mask = box_mask([(x, y, x + 2, y + 2)], 128)
    assert latent_mask(snap(mask, 8)[None], 16)[0, 0, y // 8, x // 8] == 1
    lost = box_mask([(3, 3, 5, 5)], 128)
    assert not bool(latent_mask(lost[None], 16).any()), "which shows that snapping is needed"


def test_boxes_scale_with_the_image() -> None:
    """The same fractions of the side, at 128 and at 512 pixels, are the same cells of the 16 x 16 or 64 x 64 grid."""
    fractions = (0.25, 0.5, 0.375, 0.6875)
    small = snap(box_mask([tuple(f * 128 for f in fractions)], 128), 8)  # type: ignore[list-item]
    large = snap(box_mask([tuple(f * 512 for f in fractions)], 512), 32)  # type: ignore[list-item]
    assert np.array_equal(latent_mask(small[None], 16), latent_mask(large[None], 16))


def test_masked_pixels_are_gray_and_others_untouched() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16), dtype=np.uint8)
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 4:8, 4:8] = True
    hidden = blank(images, masks)
    assert hidden.dtype == np.float32
    tensor = to_tensor(hidden)
    where = torch.from_numpy(masks)[:, None].expand_as(tensor)
    assert bool((tensor[where] == 0).all()), "0 in [-1, 1], exactly"
    assert torch.equal(tensor[~where], to_tensor(images)[~where])


def test_the_masked_image_is_that_of_the_library() -> None:
    """`StableDiffusionInpaintPipeline` blanks by `image * (mask < 0.5)` in [-1, 1]."""
    images = np.random.default_rng(1).integers(0, 256, (1, 128, 128), dtype=np.uint8)
    mask = snap(box_mask([(30, 40, 60, 70)], 128), 8)
    theirs = to_tensor(images) * (torch.from_numpy(mask)[None, None] < 0.5)
    torch.testing.assert_close(to_tensor(blank(images, mask[None])), theirs, rtol=0, atol=0)
