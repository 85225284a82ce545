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
    ids = tokenizer(prompt, verbose=False).input_ids  # otherwise a long prompt is also a warning on stderr
    return len(ids) > tokenizer.model_max_length


def encode_tokens(text_encoder: CLIPTextModel, input_ids: Tensor) -> Tensor:
    """Text states `[B, L, D]` of token ids `[B, L]`; each different row is encoded once."""
    unique, rows = torch.unique(input_ids, dim=0, return_inverse=True)  # [U, L], [B]
    states = text_encoder(unique).last_hidden_state  # [U, L, D]
    return states[rows]  # [B, L, D]


@torch.no_grad()
def encode_prompts(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, prompts: Sequence[str]) -> Tensor:
    """Text states `[B, L, D]` of sentences, float32, on the text encoder's device, without gradients."""
    return encode_tokens(text_encoder, tokenize(tokenizer, prompts).to(text_encoder.device)).float()


class PromptStates:
    """Text states of sentences for one piece of work, each different sentence encoded once.

    The latest `most` are kept (SD 1.5: 0.24 MB each). Keep no longer than the text encoder stays as it is: that its
    weights have changed cannot be seen from outside.
    """

    def __init__(self, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, most: int = 256) -> None:
        self.tokenizer, self.text_encoder, self.most = tokenizer, text_encoder, most
        self._kept: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """States `[B, L, D]` of the sentences, as `encode_prompts`."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._kept]
        if new:
            self._kept.update(zip(new, encode_prompts(self.tokenizer, self.text_encoder, new), strict=True))
        states = torch.stack([self._kept[prompt] for prompt in prompts])  # [B, L, D]
        for oldest in list(self._kept)[: max(0, len(self._kept) - self.most)]:
            del self._kept[oldest]
        return states
