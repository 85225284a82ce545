"""Chapter 11: wrong answers that students really give, and a fragment of the hint each must earn."""

import numpy as np
import torch


def cells_nearest(mask, f):
    return mask[::f, ::f]


def cells_all(mask, f):
    n = len(mask) // f
    return mask.reshape(n, f, n, f).all(axis=(1, 3))


def cells_majority(mask, f):
    n = len(mask) // f
    return mask.reshape(n, f, n, f).mean(axis=(1, 3)) >= 0.5


def cells_counts(mask, f):
    n = len(mask) // f
    return mask.reshape(n, f, n, f).sum(axis=(1, 3))


def cells_axes_mixed(mask, f):
    n = len(mask) // f
    return mask.reshape(n, n, f, f).any(axis=(2, 3))


def cells_transposed(mask, f):
    n = len(mask) // f
    return mask.reshape(n, f, n, f).any(axis=(1, 3)).T


def cells_at_full_size(mask, f):
    n = len(mask) // f
    return mask.reshape(n, f, n, f).any(axis=(1, 3)).repeat(f, 0).repeat(f, 1)


def lost_found(w, h, f):
    return min(w / f, 1) * min(h / f, 1)


def lost_not_cut(w, h, f):
    return 1 - w / f * h / f


def lost_both_miss(w, h, f):
    return max(0, 1 - w / f) * max(0, 1 - h / f)


def lost_cut_at_the_product(w, h, f):
    return 1 - min(w * h / f**2, 1)


def lost_by_cells(w, h, f):
    return 1 - min((w + 1) / (f + 1), 1) * min((h + 1) / (f + 1), 1)


def widen_mask_first(weight, extra):
    return torch.cat([torch.zeros(len(weight), extra, 3, 3), weight], dim=1)


def widen_at_random(weight, extra):
    return torch.cat([weight, torch.ones(len(weight), extra, 3, 3)], dim=1)


def widen_shared_out(weight, extra):
    return torch.cat([weight * 4 / (4 + extra), torch.zeros(len(weight), extra, 3, 3)], dim=1)


def widen_more_kernels(weight, extra):
    return torch.cat([weight, torch.zeros(extra, *weight.shape[1:])])


def loss_inside_only(errors, mask, inside):
    return (inside * mask * errors).mean((1, 2, 3))


def loss_divided_by_cells(errors, mask, inside):
    return ((1 + (inside - 1) * mask) * errors).mean((1, 2, 3))


def loss_sum_of_channels(errors, mask, inside):
    counts = 1 + (inside - 1) * mask
    return (counts * errors).sum((1, 2, 3)) / counts.sum((1, 2, 3))


def loss_whole_batch(errors, mask, inside):
    counts = 1 + (inside - 1) * mask
    return (counts * errors).mean(1).sum((1, 2)) / counts.sum() * 3


def loss_one_too_many(errors, mask, inside):
    counts = 1 + inside * mask
    return (counts * errors.mean(1, keepdim=True)).sum((1, 2, 3)) / counts.sum((1, 2, 3))


def loss_one_number(errors, mask, inside):
    return errors.mean()


def belief_in_health(lesion, healthy, free):
    d = lesion - healthy
    return float(((lesion - free) * d).sum() / (d * d).sum())


def belief_by_lengths(lesion, healthy, free):
    return 1 - float((lesion - free).norm() / (lesion - healthy).norm())


def belief_mean_of_ratios(lesion, healthy, free):
    d = lesion - healthy
    return float((1 - ((lesion - free) * d).sum((1, 2, 3)) / (d * d).sum((1, 2, 3))).mean())


def belief_not_squared(lesion, healthy, free):
    d = lesion - healthy
    return 1 - float(((lesion - free) * d).sum() / d.norm())


def belief_constant(lesion, healthy, free):
    return 0.5


def paste_in_place(image, change, mask, weight):
    image[mask] = np.clip(np.rint(image[mask] + weight[mask] * change[mask]), 0, np.iinfo(image.dtype).max)
    return image


def paste_everywhere(image, change, mask, weight):
    return np.clip(np.rint(image + weight * change), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def paste_in_floats(image, change, mask, weight):
    return np.where(mask, image + weight * change, image)


def paste_wraps(image, change, mask, weight):
    result = image.copy()
    result[mask] = np.rint(image[mask] + weight[mask] * change[mask]).astype(np.int64).astype(image.dtype)
    return result


def paste_cuts(image, change, mask, weight):
    result = image.copy()
    values = np.clip(image[mask] + weight[mask] * change[mask], 0, np.iinfo(image.dtype).max)
    result[mask] = values.astype(image.dtype)
    return result


def paste_without_weight(image, change, mask, weight):
    result = image.copy()
    result[mask] = np.clip(np.rint(image[mask] + change[mask]), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return result


def paste_in_place_of_the_picture(image, change, mask, weight):
    result = image.copy()
    result[mask] = np.clip(np.rint((weight * change)[mask]), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return result


WRONG = {
    "11-cells": [
        (cells_nearest, "the nearest rule"),
        (cells_all, "masked as a whole"),
        (cells_majority, "a majority"),
        (cells_counts, "must be boolean"),
        (cells_axes_mixed, "axes are mixed up"),
        (cells_transposed, "changed places"),
        (cells_at_full_size, "as large as the image"),
    ],
    "11-lost": [
        (lost_found, "the box is found"),
        (lost_not_cut, "cut each factor at 1"),
        (lost_both_miss, "one axis misses"),
        (lost_cut_at_the_product, "not the product"),
        (lost_by_cells, "of all places"),
    ],
    "11-widen": [
        (widen_mask_first, "come last"),
        (widen_at_random, "must be zero"),
        (widen_shared_out, "the old ones have changed"),
        (widen_more_kernels, "kernels, inputs, rows, columns"),
    ],
    "11-loss": [
        (loss_inside_only, "counts once, not nothing"),
        (loss_divided_by_cells, "the number of cells"),
        (loss_sum_of_channels, "four times too large"),
        (loss_whole_batch, "not of the whole batch"),
        (loss_one_too_many, "+ 1 times"),
        (loss_one_number, "one loss for each image"),
    ],
    "11-belief": [
        (belief_in_health, "the belief in healthy tissue"),
        (belief_by_lengths, "a ratio of lengths"),
        (belief_mean_of_ratios, "shortest arrows speak loudest"),
        (belief_not_squared, "squared length of d"),
        (belief_constant, "of the way from healthy to lesion"),
    ],
    "11-paste": [
        (paste_in_place, "write into a copy"),
        (paste_everywhere, "outside the mask have changed"),
        (paste_in_floats, "cast at the very end"),
        (paste_wraps, "starts over"),
        (paste_cuts, "cuts the fraction off"),
        (paste_without_weight, "the weight is missing"),
        (paste_in_place_of_the_picture, "does not take its place"),
    ],
}
