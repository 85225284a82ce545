"""Chapter 09: wrong answers that students really give, and a fragment of the hint each must earn."""

import numpy as np


def guide_from_the_tip(away, text, g):
    return text + g * (text - away)


def guide_backwards(away, text, g):
    return text + g * (away - text)


def guide_arrow_alone(away, text, g):
    return g * (text - away)


def guide_a_number(away, text, g):
    return float((away + g * (text - away)).mean())


def guide_without_the_empty_prompt(away, text, g):
    return g * text


def best_mean_of_ratios(free, text, noise):
    d = text - free
    return float((((noise - free) * d).sum(1) / (d * d).sum(1)).mean())


def best_from_the_tip(free, text, noise):
    d = text - free
    return float(((noise - text) * d).sum() / (d * d).sum())


def best_as_a_length(free, text, noise):
    d = text - free
    return float(((noise - free) * d).sum() / (d * d).sum() ** 0.5)


def best_through_the_origin(free, text, noise):
    d = text - free
    return float((noise * d).sum() / (d * d).sum())


def best_always_one(free, text, noise):
    return 1.0


def variances_swapped(a, b, g):
    return a**g * b ** (1 - g), 1 / (g / a + (1 - g) / b)


def variances_precision(a, b, g):
    return g / a + (1 - g) / b, a**g * b ** (1 - g)


def variances_on_a_line(a, b, g):
    return g * a + (1 - g) * b, a**g * b ** (1 - g)


def variances_same(a, b, g):
    return 1 / (g / a + (1 - g) / b), 1 / (g / a + (1 - g) / b)


def variances_negative(a, b, g):
    precision = g / a + (1 - g) / b
    return (1 / precision if precision else None), a**g * b ** (1 - g)


def variances_none_of_both(a, b, g):
    precision = g / a + (1 - g) / b
    return (1 / precision, a**g * b ** (1 - g)) if precision > 0 else (None, None)


def means_with_the_diagonal(scores):
    return scores.mean(), scores[0::2, 1::2].diagonal().mean()


def means_with_the_zeros(scores):
    return np.triu(scores, 1).mean(), scores[0::2, 1::2].diagonal().mean()


def means_of_neighbors(scores):
    return scores[np.triu_indices(len(scores), 1)].mean(), scores.diagonal(1).mean()


def means_one_number(scores):
    return scores[np.triu_indices(len(scores), 1)].mean()


def rows_open_interval(grid, g, low, high):
    return len(grid) + (0 if g in (0, 1) else sum(low < t < high for t in grid))


def rows_only_inside(grid, g, low, high):
    return sum(2 for t in grid if low <= t <= high)


def rows_all_the_way(grid, g, low, high):
    return len(grid) * (1 if g in (0, 1) else 2)


def rows_whatever_the_scale(grid, g, low, high):
    return len(grid) + sum(low <= t <= high for t in grid)


WRONG = {
    "09-guide": [
        (guide_from_the_tip, "the other convention"),
        (guide_backwards, "points the wrong way"),
        (guide_arrow_alone, "the arrow alone"),
        (guide_a_number, "shape of the two answers"),
        (guide_without_the_empty_prompt, "g = 0 must give"),
    ],
    "09-best": [
        (best_mean_of_ratios, "shortest arrows speak loudest"),
        (best_from_the_tip, "measure from the tip"),
        (best_as_a_length, "squared length"),
        (best_through_the_origin, "through the origin"),
        (best_always_one, "a smaller one is possible"),
    ],
    "09-density": [
        (variances_swapped, "changed places"),
        (variances_precision, "its inverse is the variance"),
        (variances_on_a_line, "inverse variances that lie on a line"),
        (variances_same, "variance of the samples"),
        (variances_negative, "there is none, say None"),
        (variances_none_of_both, "even where no density exists"),
    ],
    "09-pairs": [
        (means_with_the_diagonal, "holds the diagonal"),
        (means_with_the_zeros, "number of pairs"),
        (means_of_neighbors, "not (1, 2)"),
        (means_one_number, "two numbers"),
    ],
    "09-calls": [
        (rows_open_interval, "both ends"),
        (rows_only_inside, "outside of the interval"),
        (rows_all_the_way, "all the way"),
        (rows_whatever_the_scale, "multiplied by zero"),
    ],
}
