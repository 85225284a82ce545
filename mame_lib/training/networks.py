"""Which weights learn: full fine-tuning, the UNet alone, or low-rank updates; and a frozen text encoder as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mame_lib.errors import InputError
from mame_lib.models.components import Components
from mame_lib.training.config import TrainConfig
from mame_lib.training.data import TrainingSet
from mame_lib.training.images import placed


class CachedText(nn.Module):
    """A frozen text encoder as a table: token ids in, states out. The encoder itself may leave the GPU."""

    def __init__(self, components: Components, sets: Sequence[TrainingSet | None], device: torch.device) -> None:
        super().__init__()
        rows = [torch.cat([data.empty_ids[None], data.input_ids]) for data in sets if data is not None]
        self.ids = torch.unique(torch.cat(rows), dim=0).to(device)  # [U, L]
        with torch.no_grad(), placed(components.text_encoder, device):
            chunks = [components.text_encoder(ids).last_hidden_state.float() for ids in self.ids.split(64)]
        self.states: Tensor = torch.cat(chunks)  # [U, L, D]

    def forward(self, input_ids: Tensor) -> Any:
        """States `[B, L, D]` of token ids `[B, L]` that are in the table, as `last_hidden_state`."""
        from transformers.modeling_outputs import BaseModelOutput

        same = (input_ids[:, None] == self.ids[None]).all(-1)  # [B, U]
        assert bool(same.any(1).all()), "a caption that is not in the table"
        return BaseModelOutput(last_hidden_state=self.states[same.int().argmax(1)])


def trainable(config: TrainConfig, components: Components) -> list[nn.Parameter]:
    """Open what this run trains, close the rest, and return it; low-rank updates are added here.

    Raises `InputError` when `lora` is asked for and peft is missing.
    """
    unet, text_encoder = components.unet, components.text_encoder
    for network in (unet, text_encoder, components.vae):
        network.requires_grad_(False)
    if config.method == "lora":
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise InputError("method lora needs the package peft; install the extra `train`.") from error
        targets = ["to_q", "to_k", "to_v", "to_out.0"]
        low = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_rank, target_modules=targets)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)  # the first factor of each update is random, the second zero
            unet.add_adapter(low)
    else:
        unet.requires_grad_(True)
        text_encoder.requires_grad_(config.trains_text)
    unet.train()
    text_encoder.train(config.trains_text)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        if config.trains_text:
            text_encoder.activation_checkpointing_enable()
    return [p for network in (unet, text_encoder) for p in network.parameters() if p.requires_grad]


def groups(config: TrainConfig, components: Components) -> list[dict[str, Any]]:
    """Parameter groups: UNet and text encoder at their rates; norms, biases and embeddings are not decayed."""
    made = []
    tables = {id(m.weight) for n in (components.unet, components.text_encoder) for m in n.modules()
              if isinstance(m, nn.Embedding)}  # fmt: skip
    for network, factor in ((components.unet, 1.0), (components.text_encoder, config.text_learning_rate_factor)):
        for decayed in (True, False):
            some = [
                p for p in network.parameters()
                if p.requires_grad and (p.ndim > 1 and id(p) not in tables) is decayed
            ]  # fmt: skip
            if some:
                decay = config.weight_decay if decayed else 0.0
                made.append({"params": some, "factor": factor, "weight_decay": decay})
    return made
