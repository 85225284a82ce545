"""Every labelled equation of chapter 06, recomputed in float64 on another road, against real layers where there are."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from numpy.typing import NDArray
from transformers import CLIPTextModel

from mame_lib.models.attention import AttentionMap, word_share
from mame_lib.models.tiny import tiny_text_encoder, tiny_tokenizer

F64 = NDArray[np.float64]


def _array(tensor: torch.Tensor) -> F64:
    return tensor.detach().double().numpy()


@pytest.fixture(scope="module")
def encoder() -> CLIPTextModel:
    torch.manual_seed(0)
    model = tiny_text_encoder(tiny_tokenizer()).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)  # untrained weights are too small to tell a wrong mask from a right one
    return model


IDS = torch.tensor([[5, 17, 300, 17, 9]])


def test_eq_06_input(encoder: CLIPTextModel) -> None:
    """Looking up rows is multiplying with two selection matrices, of the token and of the place."""
    table = _array(encoder.get_input_embeddings().weight)
    place = _array(encoder.embeddings.position_embedding.weight)
    token = np.zeros((5, len(table)))
    token[np.arange(5), IDS[0].numpy()] = 1
    mine = token @ table + np.eye(5, len(place)) @ place
    entering = encoder(IDS, output_hidden_states=True).hidden_states[0][0]
    np.testing.assert_allclose(mine, _array(entering), atol=1e-12)
    assert np.abs(mine[1] - mine[3]).max() > 0.1  # the same token at two places


def test_eq_06_causal(encoder: CLIPTextModel) -> None:
    """The first layer's attention, token by token over what stands before it, one head after the other."""
    layer = encoder.encoder.layers[0]
    heard: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = layer.self_attn.register_forward_hook(
        lambda _, args, kwargs, out: heard.append((kwargs.get("hidden_states", args[0] if args else None), out[0])),
        with_kwargs=True,
    )
    encoder(IDS)
    hook.remove()
    (entered, left), attention = heard[0], layer.self_attn
    q, k, v = (_array(f(entered))[0] for f in (attention.q_proj, attention.k_proj, attention.v_proj))  # [5, 96]
    d = 24  # 96 numbers in four heads
    mixed = np.zeros((5, 96))
    for head in (slice(n * d, (n + 1) * d) for n in range(4)):
        for i in range(5):
            odds = [math.exp(q[i, head] @ k[j, head] / math.sqrt(d)) for j in range(i + 1)]
            for j, one in enumerate(odds):
                mixed[i, head] += one / sum(odds) * v[j, head]
    mine = mixed @ _array(attention.out_proj.weight).T + _array(attention.out_proj.bias)
    np.testing.assert_allclose(mine, _array(left)[0], atol=1e-10)


def test_eq_06_sinusoid() -> None:
    """cos and sin are the two parts of one number on the unit circle; the speeds form a geometric series."""
    d, speed = 48, 1.0
    theirs = _array(Timesteps(d, flip_sin_to_cos=True, downscale_freq_shift=0)(torch.arange(1000)))
    for i in range(d // 2):
        for t in (0, 1, 37, 500, 999):
            point = cmath.exp(1j * speed * t)
            assert abs(theirs[t, i] - point.real) < 2e-4 and abs(theirs[t, i + d // 2] - point.imag) < 2e-4
        speed *= (1 / 10000) ** (1 / (d / 2))
    assert speed == pytest.approx(1e-4)  # one more would have been 1 / 10000


def test_eq_06_time() -> None:
    torch.manual_seed(0)
    layer = TimestepEmbedding(6, 10).double()
    e = np.random.default_rng(0).normal(size=6)
    y = _array(layer.linear_1.weight) @ e + _array(layer.linear_1.bias)
    bent = y * (0.5 + 0.5 * np.tanh(y / 2))  # y times the logistic function
    mine = _array(layer.linear_2.weight) @ bent + _array(layer.linear_2.bias)
    np.testing.assert_allclose(mine, _array(layer(torch.from_numpy(e[None])))[0], atol=1e-12)


def _silu(y: F64) -> F64:
    return y * (0.5 + 0.5 * np.tanh(y / 2))


def _norm(x: F64, layer: torch.nn.GroupNorm) -> F64:
    groups = x.reshape(layer.num_groups, -1)
    whole = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + layer.eps)
    return whole.reshape(x.shape) * _array(layer.weight)[:, None, None] + _array(layer.bias)[:, None, None]


def _conv(x: F64, layer: torch.nn.Conv2d) -> F64:
    """A 3 x 3 or 1 x 1 convolution as a sum of shifted pictures."""
    weight = _array(layer.weight)
    edge = weight.shape[-1] // 2
    padded, (h, w) = np.pad(x, ((0, 0), (edge, edge), (edge, edge))), x.shape[1:]
    total = np.zeros((len(weight), h, w)) + _array(layer.bias)[:, None, None]
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            total += np.tensordot(weight[:, :, i, j], padded[:, i : i + h, j : j + w], axes=1)
    return total


@pytest.mark.parametrize("out_channels", [8, 12])
def test_eq_06_resnet(out_channels: int) -> None:
    torch.manual_seed(1)
    block = ResnetBlock2D(in_channels=8, out_channels=out_channels, temb_channels=10, groups=4, eps=1e-5).double()
    g = np.random.default_rng(1)
    x, tau = g.normal(size=(8, 5, 4)), g.normal(size=10)
    raised = _array(block.time_emb_proj.weight) @ _silu(tau) + _array(block.time_emb_proj.bias)
    h = _conv(_silu(_norm(x, block.norm1)), block.conv1) + raised[:, None, None]
    carried = x if out_channels == 8 else _conv(x, block.conv_shortcut)
    mine = carried + _conv(_silu(_norm(h, block.norm2)), block.conv2)
    theirs = block(torch.from_numpy(x[None]), torch.from_numpy(tau[None]))
    np.testing.assert_allclose(mine, _array(theirs)[0], atol=1e-10)


def test_eq_06_cross() -> None:
    """diffusers' layer, with its fused kernel, against sums over places, words and heads."""
    torch.manual_seed(2)
    layer = Attention(query_dim=6, cross_attention_dim=5, heads=2, dim_head=4).double()
    g = np.random.default_rng(2)
    x, c = g.normal(size=(7, 6)), g.normal(size=(3, 5))
    w_q, w_k, w_v = (_array(f.weight).T for f in (layer.to_q, layer.to_k, layer.to_v))
    mixed = np.zeros((7, 8))
    for head in (slice(0, 4), slice(4, 8)):
        for place in range(7):
            odds = [math.exp(float(x[place] @ w_q[:, head] @ w_k[:, head].T @ c[j]) / 2) for j in range(3)]
            mixed[place, head] = sum(one * (c[j] @ w_v[:, head]) for j, one in enumerate(odds)) / sum(odds)
    mine = mixed @ _array(layer.to_out[0].weight).T + _array(layer.to_out[0].bias)
    theirs = layer(torch.from_numpy(x[None]), encoder_hidden_states=torch.from_numpy(c[None]))
    np.testing.assert_allclose(mine, _array(theirs)[0], atol=1e-10)


def test_eq_06_share() -> None:
    """Sums over tokens of means over heads; all words together get the whole attention of each place."""
    odds = np.random.default_rng(3).exponential(size=(3, 4, 6))  # heads, places, tokens
    weights = odds / odds.sum(-1, keepdims=True)
    maps = [AttentionMap("layer", 0, 0, (2, 2), torch.from_numpy(weights)[None])]
    words, whole = [[0], [1, 2, 3], [4, 5]], np.zeros(4)
    for word in words:
        mine = [sum(weights[h, place, j] for h in range(3) for j in word) / 3 for place in range(4)]
        np.testing.assert_allclose(word_share(maps, word).flatten().numpy(), mine, atol=1e-12)
        whole += mine
    np.testing.assert_allclose(whole, 1.0, atol=1e-12)


def test_eq_06_cosine() -> None:
    """The same from inner products alone: center the Gram matrix on both sides, then divide by its diagonal."""
    u = torch.randn(5, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 3
    own = u - u.mean(0)
    printed = torch.nn.functional.cosine_similarity(own[:, None], own[None], dim=-1)
    center = np.eye(5) - 1 / 5
    gram = center @ _array(u @ u.T) @ center
    lengths = np.sqrt(np.diag(gram))
    np.testing.assert_allclose(gram / np.outer(lengths, lengths), printed.numpy(), atol=1e-12)
