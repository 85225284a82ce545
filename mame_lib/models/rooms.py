"""The rooms of a UNet, read off the loaded module tree: what stands where, how wide, at which resolution.

Paper Fig. 6 and Fig. 10 draw them; here they are counted (`rooms_of`), so that a drawing can't be wrong about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from mame_lib.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class Part:
    """One layer of a room, in the order in which it runs.

    kind: "R", a ResNet block; "T", a transformer block stack, which attends to the image and to the text.
    in_channels: what it is given; in the up path this includes the channels of one skip connection.
    skip_channels: of these, how many come over a skip. skip_from: the room that sends it ("conv_in" for the first).
    hears_time: whether the timestep's embedding is added inside. reads_text: whether it attends to text states.
    """

    kind: str
    in_channels: int
    out_channels: int
    skip_channels: int = 0
    skip_from: str = ""
    hears_time: bool = False
    reads_text: bool = False


@dataclass(frozen=True)
class Room:
    """One block of the UNet.

    name: in the module tree. path: "down", "mid" or "up". side: of the maps its parts work on, in latent pixels.
    resamples: "down", "up" or "" for the convolution behind its last part. skips: what it hands to the up path (down)
    or takes from the down path (up). parameters: how many weights it holds.
    """

    name: str
    path: str
    side: int
    parts: tuple[Part, ...]
    resamples: str
    skips: int
    parameters: int

    @property
    def channels(self) -> int:
        """Channels of what leaves the room."""
        return self.parts[-1].out_channels

    @property
    def letters(self) -> str:
        """Its parts in order, such as "RTRT"."""
        return "".join(part.kind for part in self.parts)

    def count(self, kind: str) -> int:
        """How many parts are of this kind, "R" or "T"."""
        return self.letters.count(kind)


def rooms_of(unet: UNet2DConditionModel) -> list[Room]:
    """The blocks of a UNet from the way in to the way out: down blocks, the mid block, up blocks.

    Nothing is computed, so the UNet may lie on the meta device.

    Raises
    ------
    InputError
        If a block is not made of ResNet and transformer blocks, such as those of a cascaded or a distilled model.
    """
    side = int(unet.config.sample_size)
    waiting = [_Skip(int(unet.conv_in.out_channels), "conv_in")]  # for the up path, which takes the last one first
    found = []
    for number, block in enumerate(unet.down_blocks):
        name, resamples = f"down_blocks.{number}", "down" if getattr(block, "downsamplers", None) else ""
        parts = _parts(name, block)
        sent = [_Skip(layer.out_channels, name) for layer in block.resnets]  # after each ResNet and its transformer
        sent += [_Skip(parts[-1].out_channels, name)] if resamples else []
        waiting += sent
        found.append(Room(name, "down", side, parts, resamples, len(sent), _size(block)))
        side = -(-side // 2) if resamples else side
    if unet.mid_block is not None:
        found.append(Room("mid_block", "mid", side, _parts("mid_block", unet.mid_block), "", 0, _size(unet.mid_block)))
    for number, block in enumerate(unet.up_blocks):
        name, resamples = f"up_blocks.{number}", "up" if getattr(block, "upsamplers", None) else ""
        taken = [waiting.pop() for _ in block.resnets]
        found.append(Room(name, "up", side, _parts(name, block, taken), resamples, len(taken), _size(block)))
        side = side * 2 if resamples else side
    return found


def other_parameters(unet: UNet2DConditionModel) -> int:
    """Weights outside the rooms: the first and the last convolution and what turns the timestep into a vector."""
    return _size(unet) - sum(room.parameters for room in rooms_of(unet))


class _Skip(NamedTuple):
    channels: int
    room: str


def _parts(name: str, block: Any, skips: list[_Skip] | None = None) -> tuple[Part, ...]:
    """Parts in running order. Each transformer follows a ResNet; the mid block ends with a ResNet that has none."""
    resnets, transformers = list(getattr(block, "resnets", [])), list(getattr(block, "attentions", None) or [])
    if not resnets or len(transformers) not in (0, len(resnets), len(resnets) - 1):
        raise InputError(f"cannot read the UNet's {name} ({type(block).__name__}): use one like Stable Diffusion's.")
    parts = []
    for layer, skip, transformer in zip_longest(resnets, skips or [], transformers):
        hears = getattr(layer, "time_emb_proj", None) is not None
        channels, sender = skip or (0, "")
        parts.append(Part("R", layer.in_channels, layer.out_channels, channels, sender, hears_time=hears))
        if transformer is not None:
            width = int(transformer.in_channels)
            reads = any(getattr(one, "attn2", None) is not None for one in transformer.transformer_blocks)
            parts.append(Part("T", width, width, reads_text=reads))
    return tuple(parts)


def _size(module: Any) -> int:
    return sum(weight.numel() for weight in module.parameters())
