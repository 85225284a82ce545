"""Classifier-free guidance: Eq. 9 for every g, in one forward pass."""

import pytest
import torch

from mame_lib.diffusion.guidance import combine, guided, switch

TEXT, FREE = torch.full((1, 5, 3), 2.0), torch.full((1, 5, 3), -1.0)
X, T = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 3, 3, 3])


class Counting:
    """A denoiser that depends on all three inputs, and counts how often and how wide it is called."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, context):
        assert len(x) == len(t) == len(context)
        self.batches.append(len(x))
        return torch.sin(x) * context.mean((1, 2))[:, None, None, None] + 0.01 * t[:, None, None, None]


@pytest.mark.parametrize("g", [-2.0, 0.0, 0.5, 1.0, 4, 7.5, 20.0])
def test_equation_9_for_every_scale(g):
    denoiser = Counting()
    text, free = denoiser(X, T, TEXT.expand(4, -1, -1)), denoiser(X, T, FREE.expand(4, -1, -1))
    torch.testing.assert_close(guided(denoiser, TEXT, FREE, g)(X, T), free + g * (text - free))
    torch.testing.assert_close(combine(free, text, g), free + g * (text - free))


@pytest.mark.parametrize(("g", "width"), [(0.0, 4), (1.0, 4), (0.5, 8), (4.0, 8)])
def test_one_forward_pass(g, width):
    denoiser = Counting()
    guided(denoiser, TEXT, FREE, g)(X, T)
    assert denoiser.batches == [width]


def test_scale_one_needs_no_unconditional_context():
    assert guided(Counting(), TEXT, None, 1.0)(X, T).shape == X.shape
    with pytest.raises(ValueError, match="needs an unconditional context"):
        guided(Counting(), TEXT, None, 4.0)


def test_a_prompt_per_image_stays_with_its_image():
    contexts = torch.arange(4.0).reshape(4, 1, 1).expand(4, 5, 3)
    together = guided(Counting(), contexts, FREE, 3.0)(X, T)
    for i in range(4):
        alone = guided(Counting(), contexts[i : i + 1], FREE, 3.0)(X[i : i + 1], T[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_half_predictions_are_combined_in_float32():
    free, text = torch.full((2,), 1.0).half(), torch.full((2,), 1.0009765625).half()
    assert combine(free, text, 7.5).dtype == torch.float32
    assert combine(free, text, 7.5)[0].item() == pytest.approx(1 + 7.5 * 2**-10)


@pytest.mark.parametrize("g", [float("nan"), float("inf"), float("-inf")])
def test_a_scale_must_be_finite(g):
    with pytest.raises(ValueError, match="finite number"):
        guided(Counting(), TEXT, FREE, g)


def test_contexts_must_fit():
    with pytest.raises(ValueError, match="3 prompts for 4 images"):
        guided(Counting(), TEXT.expand(3, -1, -1), FREE, 4.0)(X, T)
    with pytest.raises(ValueError, match="same number of tokens"):
        guided(Counting(), TEXT, FREE[:, :2], 4.0)


def test_rescaled_guidance_equals_the_library():
    """Lin et al. 2024, Eq. 15 and 16, image by image."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    free, text = (torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    text = text * torch.tensor([0.5, 1.0, 2.0, 4.0])[:, None, None, None]
    for share in (0.3, 0.7, 1.0):
        theirs = rescale_noise_cfg(combine(free, text, 7.5), text, guidance_rescale=share)
        torch.testing.assert_close(combine(free, text, 7.5, share), theirs, rtol=1e-5, atol=1e-5)
    whole = combine(free, text, 7.5, 1.0)
    torch.testing.assert_close(whole.std((1, 2, 3)), text.std((1, 2, 3)), rtol=1e-5, atol=0)
    assert torch.equal(combine(free, text, 7.5, 0.0), combine(free, text, 7.5))


def test_the_guided_model_rescales_too():
    denoiser = Counting()
    text, free = denoiser(X, T, TEXT.expand(4, -1, -1)), denoiser(X, T, FREE.expand(4, -1, -1))
    torch.testing.assert_close(guided(denoiser, TEXT, FREE, 4.0, 0.7)(X, T), combine(free, text, 4.0, 0.7))
    assert not torch.allclose(combine(free, text, 4.0, 0.7), combine(free, text, 4.0))


def test_guidance_in_an_interval_saves_half_of_the_network_outside():
    denoiser = Counting()
    full, plain = guided(denoiser, TEXT, FREE, 4.0), guided(denoiser, TEXT, None, 1.0)
    model = switch(200, 800, full, plain)
    for t, expected, width in ((199, plain, 4), (200, full, 8), (500, full, 8), (800, full, 8), (801, plain, 4)):
        at = torch.full((4,), t)
        wanted = expected(X, at)
        denoiser.batches.clear()
        assert torch.equal(model(X, at), wanted) and denoiser.batches == [width]


def test_an_interval_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match=r"lower timestep, got 800\.\.200"):
        switch(800, 200, lambda x, t: x, lambda x, t: x)
