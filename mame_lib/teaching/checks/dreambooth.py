"""Checks of chapter 07, fine-tuning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mame_lib.teaching.checks import Hint, exercise


@exercise("07-loss")
def loss_per_image(answer: Any) -> None:
    random = torch.Generator().manual_seed(0)
    output, noise = torch.randn(2, 3, 4, 5, 6, generator=random)
    value = answer(output, noise)
    if not isinstance(value, Tensor) or value.shape != (3,):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise Hint(f"three images must give a tensor of three losses, not {shape}; leave the batch out of the mean.")
    squares = (output - noise).double() ** 2
    if torch.allclose(value.double(), squares.sum(dim=(1, 2, 3)), rtol=1e-4):
        raise Hint(
            "this is the sum over an image, the printed norm of Eq. 8; training uses the mean over its elements."
        )
    if not torch.allclose(value.double(), squares.mean(dim=(1, 2, 3)), rtol=1e-4):
        raise Hint("the values are off; square the difference of the two, then take the mean over C, H and W.")


@exercise("07-dropout")
def caption_dropout(answer: Any) -> None:
    captions, coins = ["one", "two", "three", "four"], [0.05, 0.5, 0.0999, 0.95]
    value = answer(captions, coins, 0.1)
    if not isinstance(value, list) or len(value) != len(captions):
        raise Hint("four captions must give a list of four: drop the words, not the image.")
    if value == ["one", "", "three", ""]:
        raise Hint("nine out of ten captions are lost; a coin falls below the rate with probability rate.")
    if value != ["", "two", "", "four"]:
        raise Hint("with rate 0.1 the captions whose coin is below 0.1 become the empty string, the others stay.")
    if answer(captions, coins, 0.0) != captions:
        raise Hint("rate 0 must leave every caption as it is.")


@exercise("07-epochs")
def steps_per_epoch(answer: Any) -> None:
    value = answer(47_585, 16, 16)
    if math.isclose(value, 47_585 / 16, rel_tol=1e-3):
        raise Hint("one optimizer step gathers 16 batches of 16; accumulation is missing from the count.")
    if value in (185, 186):
        raise Hint("batches need not stop at the end of an epoch, so the number is not whole; do not round it.")
    if not math.isclose(value, 185.879, rel_tol=1e-4) or not math.isclose(answer(33_643, 16, 4), 525.672, rel_tol=1e-4):
        raise Hint("the fused set should take 185.9 steps, and the Hologic set, 16 by 4, 525.7.")


@exercise("07-prior")
def prior_preservation(answer: Any) -> None:
    losses = torch.tensor([1.0, 2.0, 10.0, 20.0, 30.0])
    is_class = torch.tensor([False, False, True, True, True])
    value = float(answer(losses, is_class, 0.5))
    if math.isclose(value, float((losses * torch.where(is_class, 0.5, 1.0)).mean()), rel_tol=1e-5):
        raise Hint("one mean over all rows lets the number of class images set the balance; take two means.")
    if math.isclose(value, 20 + 0.5 * 1.5, rel_tol=1e-5):
        raise Hint("the weight belongs to the class images, not to ours; True in is_class marks a class image.")
    if not math.isclose(value, 1.5 + 0.5 * 20, rel_tol=1e-5):
        raise Hint("for our rows 1, 2 and class rows 10, 20, 30 at weight 0.5 the answer is 1.5 + 0.5 * 20.")


@exercise("07-weights")
def loss_weight(answer: Any) -> None:
    value = answer(torch.tensor([0.01, 0.5, 4.0, 100.0]), 1.0)
    if not isinstance(value, Tensor) or value.shape != (4,):
        raise Hint("the weights of four timesteps are a tensor of four; torch has minimum and clamp for all at once.")
    if torch.allclose(value, torch.tensor([0.01, 0.5, 1.0, 1.0])):
        raise Hint("this is min(SNR, gamma), the weight of the error in the clean image; for the noise, divide by SNR.")
    if torch.allclose(value, torch.tensor([1.0, 1.0, 4.0, 100.0])) or value.max() > 1 + 1e-6:
        raise Hint("no weight is above one; the clean timesteps, where SNR is large, must count less.")
    if not torch.allclose(value, torch.tensor([1.0, 1.0, 0.25, 0.01])):
        raise Hint("at gamma 1 the weight is 1 where SNR is below 1, and 1 / SNR above.")
    if not torch.allclose(answer(torch.tensor([2.0, 10.0]), 5.0), torch.tensor([1.0, 0.5])):
        raise Hint("gamma 1 is right, but at gamma 5 an SNR of 10 must weigh one half: use the argument.")


@exercise("07-stop")
def early_stop(answer: Any) -> None:
    steps, losses = [0, 50, 100, 150, 200, 250], [0.10, 0.08, 0.07, 0.072, 0.075, 0.06]
    value = answer(steps, losses, 2)
    if value == 250:
        raise Hint("a run that was stopped never saw step 250: two validations in a row without a new low end it.")
    if value in (150, 200):
        raise Hint("that is where you notice; return the step of the lowest loss so far, whose weights you would keep.")
    if value in (2, 3, 4):
        raise Hint("return the step, not its place in the list.")
    if value != 100:
        raise Hint("with a patience of 2 the losses 0.10 0.08 0.07 0.072 0.075 stop the run; its best step is 100.")
    if answer([0, 50, 100, 150], [0.4, 0.5, 0.3, 0.2], 2) != 150:
        raise Hint("one bad validation among good ones must not stop a run whose patience is 2.")


@exercise("07-lora")
def low_rank(answer: Any) -> None:
    value = answer(320, 768, 16)
    if isinstance(value, float) and value < 1:
        raise Hint("return the number of weights, not the share.")
    if value == 320 * 768:
        raise Hint("this is the full matrix; a low-rank update only stores its two thin factors.")
    if value in (16 * 320, 16 * 768):
        raise Hint("there are two factors: one as long as the output, one as long as the input.")
    if value != 16 * (320 + 768) or answer(64, 64, 4) != 512:
        raise Hint("B is [outputs, rank] and A is [rank, inputs]; for 320 x 768 at rank 16 that is 17,408 weights.")
