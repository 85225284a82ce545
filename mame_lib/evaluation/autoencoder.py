"""What an autoencoder keeps of a mammogram (paper, section 2.4.1 and Fig. 9): look here before training on latents.

A diffusion model never draws what its autoencoder cannot write. `reconstruct` sends images there and back;
`scores` says how near they come back, `power_kept` which scales survive, `visibility` and `contrast_kept` which
lesions do. Gray levels are on the 8-bit scale 0..255 but need not be whole numbers: images of 12 or 16 bits are divided
by their white and multiplied by 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from torch import Tensor

from mame_lib.errors import InputError
from mame_lib.evaluation.similarity import mean_within, psnr, ssim_map
from mame_lib.evaluation.texture import radial_power
from mame_lib.models.latents import Moments, decode_color, encode_moments, images_at_once

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

Gray = NDArray[Any]
Masks = NDArray[np.bool_]
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Reconstruction:
    """Images after the autoencoder, and the latents on the way.

    moments: posterior of each image, `[N, 4, h, w]`, unscaled. color: what the decoder wrote, float32 `[N, 3, n, n]`,
    clipped to 0..255 and not rounded.
    """

    moments: Moments
    color: Tensor

    @property
    def gray(self) -> NDArray[np.float32]:
        """Mean of the three channels, `[N, n, n]`: a mammogram has no color, so what color there is is error."""
        return np.asarray(self.color.mean(1).numpy(), np.float32)

    @property
    def chroma(self) -> F64:
        """Invented color of each image, `[N]`: root mean square distance of the channels from their mean, in levels."""
        away = (self.color - self.color.mean(1, keepdim=True)).double()  # [N, 3, n, n]
        return np.asarray((away**2).mean((1, 2, 3)).sqrt().numpy())


@torch.no_grad()
def reconstruct(
    vae: AutoencoderKL, images: Gray, *, noise: Tensor | None = None, batch_size: int | None = None
) -> Reconstruction:
    """Encode and decode gray images `[N, n, n]` or RGB `[N, n, n, 3]`, uint8 or float, 0..255.

    noise: standard normal `[N, 4, h, w]`: the latents are then a sample of the posterior, otherwise its mean.

    Raises
    ------
    InputError
        If values lie outside 0..255, or are fractions of 1.
    """
    low, high = float(np.min(images)), float(np.max(images))
    if low < 0 or high > 255 or (np.asarray(images).dtype.kind == "f" and 0 < high <= 1):
        raise InputError(
            f"gray levels 0 to 255 are expected, not {low:.4g} to {high:.4g}; divide by the white level and "
            "multiply by 255."
        )
    batch_size = batch_size or images_at_once(images.shape[1], most=8)
    moments = encode_moments(vae, images, batch_size)
    latents = moments.mean if noise is None else moments.mean + moments.std * noise  # [N, 4, h, w]
    return Reconstruction(moments, (decode_color(vae, latents, batch_size) + 1) * 127.5)


def power_kept(images: Gray, back: Gray, masks: Masks) -> tuple[F64, F64]:
    """Frequencies `[F]` in cycles a pixel, and the share of each image's power spectrum that is left, `[K, F]`.

    Spectra as `texture.radial_power` takes them inside the breast; a breast in which no region fits has no row.

    Raises
    ------
    InputError
        As `texture.radial_power`, and if no breast holds a region.
    """
    pairs = [(radial_power(a, m), radial_power(b, m)) for a, b, m in zip(images, back, masks, strict=True)]
    rows = [(before[0], after[1] / before[1]) for before, after in pairs if before[0].size]
    if not rows:
        raise InputError("no breast is large enough for a spectrum; give larger ones.")
    return rows[0][0], np.stack([kept for _, kept in rows])


class Visibility(NamedTuple):
    """A lesion against what surrounds it, `[N]` each: its contrast in gray levels, and contrast over spread."""

    contrast: F64
    to_noise: F64


def visibility(images: Gray, lesions: Masks, breasts: Masks, *, ring: int = 4) -> Visibility:
    """How lesions stand out: mean inside minus mean of the ring around, and that over the ring's standard deviation.

    images `[N, n, n]`; lesions, breasts: masks of that shape; ring: its width in pixels, one pixel off the lesion.

    Raises
    ------
    InputError
        If a lesion is empty, or nothing of the breast lies around it.
    """
    rows = []
    for image, lesion, breast in zip(np.asarray(images, np.float64), lesions, breasts, strict=True):
        around = binary_dilation(lesion, iterations=ring + 1) & ~binary_dilation(lesion) & breast
        if not (lesion.any() and around.any()):
            raise InputError("a lesion needs pixels, and breast around it.")
        contrast = image[lesion].mean() - image[around].mean()
        rows.append((contrast, contrast / max(float(image[around].std()), 1e-9)))
    contrasts, ratios = np.array(rows).T
    return Visibility(contrasts, ratios)


def contrast_kept(with_lesion: tuple[Gray, Gray], without: tuple[Gray, Gray], lesions: Masks) -> tuple[F64, F64]:
    """What a lesion adds to the mean gray of its pixels, before and after the autoencoder, `[N]` each.

    with_lesion, without: (images, reconstructions) of the same breasts with and without it, `[N, n, n]`. The
    comparison is possible only for phantoms, and it is exact: nothing but the lesion differs.
    """
    (a, a_back), (b, b_back) = with_lesion, without
    differences = (np.asarray(x, np.float64) - y for x, y in ((a, b), (a_back, b_back)))
    before, after = ((change * lesions).sum((1, 2)) / lesions.sum((1, 2)) for change in differences)
    return before, after


def interval(values: Any) -> tuple[float, float]:
    """Mean of independent values, and half the width of its 95 % interval (1.96 standard errors).

    Raises
    ------
    InputError
        If there are fewer than two values.
    """
    row = np.asarray(values, np.float64).ravel()
    if row.size < 2:
        raise InputError("an interval needs at least two values.")
    return float(row.mean()), float(1.96 * row.std(ddof=1) / np.sqrt(row.size))


def scores(images: Gray, back: Gray, breasts: Masks) -> dict[str, F64]:
    """Scores of reconstructions `back` by name, `[N]` each; images `[N, n, n]` and the masks of their breasts.

    psnr, ssim: of the whole image. psnr_breast, ssim_breast: of the breast alone. ground: root mean square gray of
    the background, which should be black; nan where a breast fills the image.

    Raises
    ------
    InputError
        As `similarity.psnr`.
    """
    found: dict[str, F64] = {}
    similar = ssim_map(images, back)  # [N, n, n]
    for name, mask in (("", None), ("_breast", breasts)):
        found[f"psnr{name}"] = np.asarray(psnr(images, back, mask=mask).numpy())
        found[f"ssim{name}"] = np.asarray(mean_within(similar, mask).numpy())
    air = (~breasts).sum((1, 2))
    power = (np.asarray(back, np.float64) ** 2 * ~breasts).sum((1, 2))
    found["ground"] = np.sqrt(np.divide(power, air, out=np.full(len(air), np.nan), where=air > 0))
    return found
