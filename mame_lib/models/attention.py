"""Look inside cross-attention: which words does each place of the image read?

    with record_cross_attention(components.unet) as maps:
        for state in mame.trajectory([prompt], indices=[0]):
            ...
    place = word_share(maps, token_positions(tokenizer, prompt, "density"))  # [8, 8]

Inside the block the softmax is computed openly instead of in PyTorch's fused kernel; what the UNet returns is the
same to rounding. Afterwards the UNet is as before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mame_lib.errors import InputError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTokenizer


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What one cross-attention layer did in one call of the UNet.

    layer: its name in the UNet. call: 0, 1, ... within the recording. timestep: of the call's first image.
    grid: (height, width) of the places that ask. weights: float32 [B, heads, height * width, tokens] on the CPU;
    each row is a softmax over the tokens and sums to 1. With guidance B is twice the number of images, the
    unconditional half first.
    """

    layer: str
    call: int
    timestep: int
    grid: tuple[int, int]
    weights: Tensor


class Recorder:
    """Stands in for a layer's attention processor: softmax(Q K^T / sqrt(d)) V, with the softmax kept."""

    def __init__(self, layer: str, recording: _Recording) -> None:
        self.layer, self.recording = layer, recording

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,  # [B, P, C]
        encoder_hidden_states: Tensor | None = None,  # [B, L, D]
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], len(context))
        query, key, value = (
            attn.head_to_batch_dim(project(states))  # [B * heads, P or L, d]
            for project, states in ((attn.to_q, hidden_states), (attn.to_k, context), (attn.to_v, context))
        )
        weights = attn.get_attention_scores(query, key, mask)  # [B * heads, P, L], softmax over L
        self.recording.keep(self.layer, weights.unflatten(0, (-1, attn.heads)))
        mixed = attn.batch_to_head_dim(weights @ value)  # [B, P, heads * d]
        return attn.to_out[1](attn.to_out[0](mixed))  # [B, P, C]


class _Recording:
    """The maps so far; the UNet's call tells it the timestep and the shape of the latents."""

    def __init__(self) -> None:
        self.maps: list[AttentionMap] = []
        self.call, self.timestep, self.height, self.width = -1, 0, 1, 1

    def begin(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each call of the UNet (a forward hook)."""
        names = ("sample", "timestep")
        sample, timestep = (kwargs[name] if name in kwargs else args[k] for k, name in enumerate(names))
        self.height, self.width = sample.shape[-2:]
        self.timestep = int(torch.as_tensor(timestep).flatten()[0])
        self.call += 1

    def keep(self, layer: str, weights: Tensor) -> None:
        """weights [B, heads, P, L]. The P places are the latent pixels, divided by a whole number each way."""
        shrink = round(math.sqrt(self.height * self.width / weights.shape[2]))
        grid = (-(-self.height // shrink), -(-self.width // shrink))
        kept = weights.detach().float().cpu()
        self.maps.append(AttentionMap(layer, self.call, self.timestep, grid, kept))


@contextmanager
def record_cross_attention(unet: UNet2DConditionModel) -> Iterator[list[AttentionMap]]:
    """Inside the block, every call of `unet` appends one `AttentionMap` for each of its cross-attention layers.

    The list may be emptied while recording. One map of SD 1.5 at 64 x 64 takes 10 MB an image, so record few calls
    there. On leaving, also by an error, the UNet has its own attention processors again.

    Raises
    ------
    InputError
        If the UNet has no cross-attention, or has a kind that normalizes or adds inside the layer (not that of
        Stable Diffusion 1 and 2).
    """
    layers = [name for name, layer in unet.named_modules() if _is_cross(layer)]
    if not layers:
        raise InputError("this UNet has no cross-attention: it does not read text.")
    for name in layers:
        _check(name, unet.get_submodule(name))
    own = dict(unet.attn_processors)
    recording = _Recording()
    mine = {f"{name}.processor": Recorder(name, recording) for name in layers}
    hook = unet.register_forward_pre_hook(recording.begin, with_kwargs=True)
    try:
        unet.set_attn_processor(own | mine)
        yield recording.maps
    finally:
        hook.remove()
        unet.set_attn_processor(own)


def _is_cross(layer: Any) -> bool:
    return hasattr(layer, "processor") and bool(getattr(layer, "is_cross_attention", False))


def _check(name: str, layer: Any) -> None:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
    strange = [extra for extra in extras if getattr(layer, extra, None) is not None]
    if strange or layer.residual_connection or layer.rescale_output_factor != 1.0:
        raise InputError(
            f"cannot record {name}: its kind of attention ({', '.join(strange) or 'residual'}) is not known here; "
            "use a UNet like Stable Diffusion's."
        )


def word_share(
    maps: Sequence[AttentionMap],
    positions: Sequence[int],
    *,
    rows: slice = slice(None),
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Share of the attention that the tokens at `positions` get at each place, float32 [height, width], 0..1.

    The tokens' shares are summed, then averaged over the maps, the images and the heads.

    rows : which of the batch to average, such as `slice(8, None)` for the conditional half of eight guided images.
    grid : take the maps of this (height, width); the finest there is by default.

    Raises
    ------
    InputError
        If there is no map of that grid, or no token.
    """
    wanted = grid or max((one.grid for one in maps), default=None)
    chosen = [one.weights[rows] for one in maps if one.grid == wanted]  # each [B, heads, P, L]
    if wanted is None or not chosen:
        raise InputError(f"there is no attention map of grid {wanted}: run the UNet inside the recording first.")
    if not len(positions):
        raise InputError("word_share needs the position of at least one token.")
    shares = [weights[..., list(positions)].sum(-1).mean((0, 1)) for weights in chosen]  # each [P]
    return torch.stack(shares).mean(0).reshape(wanted)


def token_positions(tokenizer: CLIPTokenizer, prompt: str, phrase: str) -> list[int]:
    """Where the tokens of `phrase` (whole words) stand in the tokenized `prompt`; the start token is position 0.

    Raises
    ------
    InputError
        If the prompt does not hold the phrase, or its end was cut off by the model's length.
    """
    length = tokenizer.model_max_length
    ids = tokenizer(prompt, truncation=True, max_length=length).input_ids  # start, pieces of words, end
    wanted = tokenizer(phrase).input_ids[1:-1]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    for first in range(1, len(ids) - len(wanted)):
        begins = first == 1 or pieces[first - 1].endswith("</w>")  # a word, not the end of one
        if wanted and begins and ids[first : first + len(wanted)] == wanted:
            return list(range(first, first + len(wanted)))
    raise InputError(f"the model does not read {phrase!r} in {prompt!r}: use words of the prompt, whole.")
