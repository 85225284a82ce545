"""The network of chapter 03: shapes, the block trick, and that it can learn."""

from __future__ import annotations

import pytest
import torch

from mame_lib.models.pixel import PixelUNet, pixel_unet


@pytest.mark.parametrize(("size", "channels"), [(32, (32, 48, 64)), (16, (16, 32)), (64, (16, 16, 16))])
def test_one_value_per_pixel(size: int, channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net = pixel_unet(size, channels)
    x = torch.randn(3, 1, size, size)
    out = net(x, torch.tensor([0, 500, 999]))
    assert out.shape == x.shape
    assert not torch.allclose(out[:1], net(x[:1], torch.tensor([700])), atol=1e-3)  # the timestep matters


def test_the_usual_network_is_small() -> None:
    weights = sum(p.numel() for p in pixel_unet().parameters())
    assert 0.5e6 < weights < 1e6


def test_blocks_lose_nothing_and_move_nothing() -> None:
    class Same(torch.nn.Module):
        def forward(self, blocks: torch.Tensor, t: torch.Tensor) -> object:
            assert blocks.shape == (2, 4, 4, 4)
            return type("Output", (), {"sample": blocks})()

    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(PixelUNet(Same())(x, torch.tensor([1, 2])), x)  # type: ignore[arg-type]


def test_it_learns_to_name_the_noise_of_a_constant_image() -> None:
    torch.manual_seed(0)
    net = pixel_unet(16, (16, 16))
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    losses = []
    for _ in range(60):
        noise = torch.randn(8, 1, 16, 16)
        loss = (net(0.7 * noise - 0.7, torch.full((8,), 500)) - noise).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("size", "channels", "word"),
    [
        (30, (16, 16, 16), "multiple of 8"),
        (32, (20, 16), "multiples of 8"),
        (32, (8, 16), "16 or more"),
        (32, (), "got"),
    ],
)
def test_impossible_networks_are_refused(size: int, channels: tuple[int, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        pixel_unet(size, channels)
