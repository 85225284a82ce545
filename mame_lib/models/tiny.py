"""The tiny Stable Diffusion: the same four classes as SD 1.5, about a three-hundredth of its size.

| part | SD 1.5 | tiny |
|---|---|---|
| `UNet2DConditionModel` | 320/640/1280/1280 channels, 64 x 64 | 48/80/96, 16 x 16, text at 8 x 8 and 4 x 4 |
| `AutoencoderKL` | 128/256/512/512 channels, f = 8 | 16/32/64/80 channels, f = 8 |
| `CLIPTextModel` | 12 layers of width 768, 77 tokens | 3 layers of width 96, 32 tokens |
| `CLIPTokenizer` | 49,408 byte-pair tokens | bytes plus the words of the pretraining captions |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

IMAGE_SIZE = 128
LATENT_CHANNELS = 4
MAX_TOKENS = 32

# The noise schedule of SD 1.5 and the sampler we validated, spelled out: diffusers' defaults change on reload.
SCHEDULER_CONFIG = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "timestep_spacing": "trailing",
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "steps_offset": 1,
}

# General English and everything the pretraining captions say; "mammogram" and the vendors are new to the base.
WORDS = """
a an the of on in at with and or no not without is to for from by picture image photo view area
density size side background left right top bottom middle small medium big very low high large tiny
bright dark light quality noise blurry black white gray red orange yellow green blue purple pink
brown circle square triangle ring star cross diamond ellipse clouds smoke marble hair sand leaves
stripes dots checks gradient
""".split()  # noqa: SIM905
# Frequent English pairs shorten the words that are not in the list.
PAIRS = "th he in er an re on at en nd ti es or te ed is it al ar st to nt ng se ma ou le ve co me de si ro ra".split()  # noqa: SIM905


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of bytes and the whole words of `WORDS`, built without any file.

    Any text is accepted: a word outside `WORDS` falls apart into its bytes. Length 32, padded with the end token.
    """
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    seen = set(tokens)
    for word in sorted(set(WORDS), key=lambda w: (len(w), w)):
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:  # right to left, so that words sharing an ending share its pieces
            left, right = pieces[-2:]
            if left + right not in seen:
                merges.append((left, right))
                tokens.append(left + right)
                seen.add(left + right)
            pieces[-2:] = [left + right]
    merges += [(pair[0], pair[1]) for pair in PAIRS if pair not in seen]
    tokens += [pair for pair in PAIRS if pair not in seen]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        unk_token="<|endoftext|>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        model_max_length=MAX_TOKENS,
    )


def tiny_vae() -> AutoencoderKL:
    """A fully convolutional autoencoder, 3 x 128 x 128 to 4 x 16 x 16 (f = 8), about 1.3 M parameters, untrained."""
    from diffusers import AutoencoderKL

    channels = (16, 32, 64, 80)
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,  # so that crops of any size train it
    )


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder with three layers of width 96, untrained. States: `[B, 32, 96]`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=288,
            projection_dim=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tiny_unet(in_channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """A denoiser for 4 x 16 x 16 latents and text states of width 96, about 2.7 M parameters, untrained."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 8,
        in_channels=in_channels,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(48, 80, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=96,
        attention_head_dim=4,
        norm_num_groups=16,
    )
