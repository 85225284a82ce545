"""The counted rooms are those of the loaded tree: shapes of a forward pass, weights that add up, Fig. 10's counts."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel

from mame_lib.errors import InputError
from mame_lib.models.rooms import other_parameters, rooms_of
from mame_lib.models.tiny import tiny_unet
from mame_lib.planner.networks import SD15


@pytest.fixture(scope="module")
def sd15() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(SD15["unet"])


@pytest.fixture(params=["sd15", "tiny", "tiny, 9 channels", "three layers"])
def unet(request: pytest.FixtureRequest, sd15: UNet2DConditionModel) -> UNet2DConditionModel:
    if request.param == "sd15":
        return sd15
    with torch.device("meta"):
        if request.param == "three layers":
            return UNet2DConditionModel(
                sample_size=12, block_out_channels=(16, 32), layers_per_block=3, norm_num_groups=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=12,
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            )  # fmt: skip
        return tiny_unet(9 if "9" in request.param else 4)


def test_stable_diffusion_is_not_a_mirror(sd15: UNet2DConditionModel) -> None:
    """The corrected Fig. 10 (paper-map: 2 + 2 down, R T R in the middle, 3 + 3 up, 859,520,964 weights)."""
    rooms = rooms_of(sd15)
    assert [room.letters for room in rooms] == ["RTRT"] * 3 + ["RR", "RTR", "RRR"] + ["RTRTRT"] * 3
    assert [room.channels for room in rooms] == [320, 640, 1280, 1280, 1280, 1280, 1280, 640, 320]
    assert [room.side for room in rooms] == [64, 32, 16, 8, 8, 8, 16, 32, 64]
    assert [room.skips for room in rooms] == [3, 3, 3, 2, 0, 3, 3, 3, 3]
    assert [room.resamples for room in rooms] == ["down"] * 3 + ["", ""] + ["up"] * 3 + [""]
    assert sum(room.parameters for room in rooms) + other_parameters(sd15) == 859_520_964


def _inputs(unet: UNet2DConditionModel, kind: type) -> dict[str, list[tuple[tuple[int, ...], Any]]]:
    """By room, for each layer of this kind as it runs: the shape of its input, and the timestep vector it is given."""
    seen: dict[str, list[tuple[tuple[int, ...], Any]]] = {room.name: [] for room in rooms_of(unet)}

    def note(room: str, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[room].append((tuple(args[0].shape), args[1] if len(args) > 1 else kwargs.get("temb")))

    hooks = [
        layer.register_forward_pre_hook(partial(note, room), with_kwargs=True)
        for room in seen for layer in unet.get_submodule(room).modules() if isinstance(layer, kind)
    ]  # fmt: skip
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    with torch.device("meta"):
        x = torch.zeros(1, unet.config.in_channels, side, side)
        unet(x, torch.zeros(1), encoder_hidden_states=torch.zeros(1, 7, width))
    for hook in hooks:
        hook.remove()
    return seen


def test_shapes_are_those_of_a_forward_pass(unet: UNet2DConditionModel) -> None:
    resnets, transformers = _inputs(unet, ResnetBlock2D), _inputs(unet, Transformer2DModel)
    for room in rooms_of(unet):
        for kind, seen in (("R", resnets), ("T", transformers)):
            told = [(1, part.in_channels, room.side, room.side) for part in room.parts if part.kind == kind]
            assert told == [shape for shape, _ in seen[room.name]]
        assert room.parts[-1].out_channels == room.channels


def test_every_resnet_hears_the_timestep_and_only_they_do(unet: UNet2DConditionModel) -> None:
    rooms = rooms_of(unet)
    for room in rooms:
        for part in room.parts:
            assert part.hears_time is (part.kind == "R")
            assert part.reads_text is (part.kind == "T")
    given = [time for rows in _inputs(unet, ResnetBlock2D).values() for _, time in rows]
    assert len(given) == sum(room.count("R") for room in rooms)
    assert all(tuple(time.shape) == (1, 4 * unet.config.block_out_channels[0]) for time in given)
    assert all(time is None for rows in _inputs(unet, Transformer2DModel).values() for _, time in rows)


def test_every_skip_is_sent_and_taken_once(unet: UNet2DConditionModel) -> None:
    rooms = rooms_of(unet)
    by_name = {room.name: room for room in rooms}
    taken = [part for room in rooms for part in room.parts if part.skip_from]
    assert all(room.path == "up" for room in rooms if any(part.skip_from for part in room.parts))
    senders = [part.skip_from for part in taken]
    for room in rooms:
        if room.path == "down":
            assert senders.count(room.name) == room.skips == room.count("R") + (room.resamples == "down")
    assert senders.count("conv_in") == 1 and senders[-1] == "conv_in"
    for part in taken:
        width = by_name[part.skip_from].channels if part.skip_from != "conv_in" else unet.conv_in.out_channels
        assert part.skip_channels == width
    for room in rooms:
        came = room.parts[0].in_channels - room.parts[0].skip_channels
        before = rooms[rooms.index(room) - 1].channels if room is not rooms[0] else unet.conv_in.out_channels
        assert came == before


def test_weights_add_up(unet: UNet2DConditionModel) -> None:
    outside = [unet.conv_in, unet.time_embedding, unet.conv_norm_out, unet.conv_out]
    assert other_parameters(unet) == sum(p.numel() for layer in outside for p in layer.parameters())


def test_other_kinds_of_blocks_are_refused() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
            down_block_types=("KDownBlock2D", "KDownBlock2D"), up_block_types=("KUpBlock2D", "KUpBlock2D"),
            mid_block_type=None,
        )  # fmt: skip
        unet.down_blocks[0].resnets = torch.nn.ModuleList()
    with pytest.raises(InputError, match=r"cannot read the UNet's down_blocks\.0"):
        rooms_of(unet)
