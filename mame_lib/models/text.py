"""From sentences to the text states that the UNet's cross-attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Token ids `[B, L]`, always padded or cut to the model's length L (77 for SD 1.5, 32 for tiny).

    Padding must be the same in training and inference: the padded positions are read by cross-attention too.
    """
    return tokenizer(
        list(prompts), padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids  # [B, L]


def is_cut(tokenizer: CLIPTokenizer, prompt: str) -> bool:
    """True if the prompt is longer than the model reads, so that its end is ignored."""
    return len(tokenizer(prompt).input_ids) > tokenizer.model_max_length


def encode_tokens(text_encoder: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """Text states `[B, L, D]` of token ids `[B, L]`; each different row is encoded once."""
    unique, rows = torch.unique(input_ids, dim=0, return_inverse=True)  # [U, L], [B]
    states = text_encoder(unique).last_hidden_state  # [U, L, D]
    return states[rows]  # [B, L, D]


@torch.no_grad()
def encode_prompts(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: Sequence[str]) -> Tensor:
    """Text states `[B, L, D]` of sentences, float32, on the text encoder's device, without gradients."""
    return encode_tokens(text_encoder, tokenize(tokenizer, prompts).to(text_encoder.device)).float()
