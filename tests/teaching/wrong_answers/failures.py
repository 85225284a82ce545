"""Chapter 12: wrong answers that students really give, and a fragment of the hint each must earn."""

from math import comb

import numpy as np


def _level(tiles):
    return float(np.quantile(np.quantile(tiles, 0.25, axis=1), 0.05))


def measures_with_tissue(tiles, free):
    return np.median(tiles.std(1)), _level(tiles)


def measures_with_mean_spread(tiles, free):
    return tiles.std(1)[free].mean(), _level(tiles)


def measures_with_one_spread(tiles, free):
    return tiles[free].std(), _level(tiles)


def measures_with_mean_level(tiles, free):
    return np.median(tiles.std(1)[free]), np.quantile(tiles.mean(1), 0.05)


def measures_with_a_mask(tiles, free):
    return np.median(tiles.std(1)[free]), _level(tiles[free])


def area_without_ties(bad, good):
    return sum(b > g for b in bad for g in good) / (len(bad) * len(good))


def area_with_whole_ties(bad, good):
    return sum(b >= g for b in bad for g in good) / (len(bad) * len(good))


def area_reversed(bad, good):
    return sum((b < g) + (b == g) / 2 for b in bad for g in good) / (len(bad) * len(good))


def area_not_divided(bad, good):
    return sum((b > g) + (b == g) / 2 for b in bad for g in good)


def gray_without_kappa(abar, D, mu, s):
    return mu * (1 - s * (abar * D) ** 0.5), s


def gray_without_root(abar, D, mu, s):
    kappa = abar * D * s**2 + 1 - abar
    return mu * (1 - s * (abar * D) ** 0.5 / kappa), s / kappa


def gray_without_pixels(abar, D, mu, s):
    kappa = (abar * s**2 + 1 - abar) ** 0.5
    return mu * (1 - s * abar**0.5 / kappa), s / kappa


def gray_with_all_noise(abar, D, mu, s):
    return 0.0, s


def _tails(n, k, sides=2):
    return sides * sum(comb(n, i) for i in range(k + 1)) / 2**n


def _changed(before, after):
    pairs = list(zip(before, after, strict=True))
    return sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs)


def paired_one_side(before, after):
    mended, spoiled = _changed(before, after)
    return _tails(mended + spoiled, min(mended, spoiled), 1) if mended + spoiled else 1.0


def paired_not_cut(before, after):
    mended, spoiled = _changed(before, after)
    return _tails(mended + spoiled, min(mended, spoiled)) if mended + spoiled else 1.0


def paired_all_failures(before, after):
    b, a = sum(before), sum(after)
    return min(1.0, _tails(a + b, min(a, b))) if a + b else 1.0


def paired_nothing_is_zero(before, after):
    mended, spoiled = _changed(before, after)
    return min(1.0, _tails(mended + spoiled, min(mended, spoiled))) if mended + spoiled else 0.0


def redraw_counts_the_index_up(draw, bad, seed_of, index, most):
    for j in range(most):
        image = draw(seed_of(0), index + j)
        if bad(image) <= 1:
            break
    return image, j


def redraw_never_stops(draw, bad, seed_of, index, most):
    images = [draw(seed_of(j), index) for j in range(most)]
    j = min(range(most), key=lambda k: bad(images[k]))
    return images[j], j


def redraw_keeps_the_last(draw, bad, seed_of, index, most):
    for j in range(most):
        image = draw(seed_of(j), index)
        if bad(image) <= 1:
            break
    return image, j


def redraw_returns_the_image_only(draw, bad, seed_of, index, most):
    return draw(seed_of(0), index)


def redraw_draws_once_too_often(draw, bad, seed_of, index, most):
    for j in range(most + 1):
        image = draw(seed_of(j), index)
        if bad(image) <= 1:
            break
    return image, j


WRONG = {
    "12-background": [
        (measures_with_tissue, "free tiles only"),
        (measures_with_mean_spread, "take their median"),
        (measures_with_one_spread, "within each tile first"),
        (measures_with_mean_level, "a lower quartile"),
        (measures_with_a_mask, "b needs no mask"),
    ],
    "12-auc": [
        (area_without_ties, "it counts one half, not nothing"),
        (area_with_whole_ties, "one half, not one"),
        (area_reversed, "the other way round"),
        (area_not_divided, "divide by the number of pairs"),
    ],
    "12-gray": [
        (gray_without_kappa, "divide by kappa"),
        (gray_without_root, "take the square root"),
        (gray_without_pixels, "D s^2, not s^2"),
        (gray_with_all_noise, "divide by kappa"),
    ],
    "12-paired": [
        (paired_one_side, "count both tails"),
        (paired_not_cut, "cut at 1"),
        (paired_all_failures, "only those that changed"),
        (paired_nothing_is_zero, "p must be 1"),
    ],
    "12-redraw": [
        (redraw_counts_the_index_up, "Change the seed, not the index"),
        (redraw_never_stops, "is accepted at once"),
        (redraw_keeps_the_last, "the least bad of them"),
        (redraw_returns_the_image_only, "return a pair"),
        (redraw_draws_once_too_often, "you drew"),
    ],
}
