"""Chapter 10: wrong answers that students really give, and a fragment of the hint each must earn."""

import itertools
import math

import numpy as np
import torch


def pairs_that_do_occur(captions, words):
    return {pair for pair in itertools.combinations(words, 2) if any(set(pair) <= c for c in captions)}


def pairs_in_both_orders(captions, words):
    return [pair for pair in itertools.permutations(words, 2) if not any(set(pair) <= c for c in captions)]


def pairs_of_the_first_caption(captions, words):
    return {pair for pair in itertools.combinations(words, 2) if not set(pair) <= captions[0]}


def pairs_with_themselves(captions, words):
    return set(itertools.combinations_with_replacement(words, 2))


def chance_uniform(asked, measured):
    return 1 / len(asked)


def chance_of_the_favorite(asked, measured):
    return measured.max()


def chance_with_itself(asked, measured):
    return (measured**2).sum()


def wald(yes, n):
    p = yes / n
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - half, p + half


def wilson_around_the_share(yes, n):
    half = 1.96 / (n + 1.96**2) * math.sqrt(yes * (n - yes) / n + 1.96**2 / 4)
    return yes / n - half, yes / n + half


def wilson_too_narrow(yes, n):
    z = 1.96
    middle, half = (yes + z * z / 2) / (n + z * z), z / (n + z * z) * math.sqrt(yes * (n - yes) / n)
    return middle - half, middle + half


def clusters_ignored(hits):
    return hits.size


def clusters_counted(hits):
    return hits.shape[1]


def design_effect(hits):
    n, p, count = hits.size, hits.mean(), hits.shape[1]
    return count / (count - 1) * ((hits - p).sum(0) ** 2).sum() / n**2 / (p * (1 - p) / n)


def graft_too_long(head, tail, ahead, behind):
    return torch.cat([head[:ahead], tail])


def graft_at_the_same_place(head, tail, ahead, behind):
    return torch.cat([head[:ahead], tail[ahead:]])


def graft_with_zeros(head, tail, ahead, behind):
    joined = torch.cat([head[:ahead], tail[behind:], torch.zeros(len(head), head.shape[1])])
    return joined[: len(head)]


WRONG = {
    "10-together": [
        (pairs_that_do_occur, "asked are the others"),
        (pairs_in_both_orders, "are one pair"),
        (pairs_of_the_first_caption, "look into all captions"),
        (pairs_with_themselves, "two different words"),
    ],
    "10-chance": [
        (chance_uniform, "equally often"),
        (chance_of_the_favorite, "most frequent class"),
        (chance_with_itself, "meet itself"),
        (lambda asked, measured: np.abs(asked - measured).sum(), "then the sum"),
    ],
    "10-wilson": [
        (wald, "textbook's p"),
        (wilson_around_the_share, "not centered"),
        (wilson_too_narrow, "under the root"),
    ],
    "10-clusters": [
        (clusters_ignored, "not 240 trials"),
        (clusters_counted, "not every cluster"),
        (design_effect, "divided by it"),
    ],
    "10-graft": [
        (graft_too_long, "fill up, or cut"),
        (graft_at_the_same_place, "another place"),
        (graft_with_zeros, "padding"),
    ],
}
