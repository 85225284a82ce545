"""Chapter 08: wrong answers that students really give, and a fragment of the hint each must earn."""

import math


def bits_as_bytes(bits, average):
    return 4 + 4 + 2 * bits + 4 * average


def one_moment(bits, average):
    return 4 + 4 + bits / 8 + 4 * average


def no_gradient(bits, average):
    return 4 + 2 * bits / 8 + 4 * average


def sum_of_means(gradients, sizes):
    return sum(gradients)


def mean_of_means(gradients, sizes):
    return sum(gradients) / len(gradients)


def everything_open(blocks, inside, cuts):
    return cuts + blocks * inside


def nothing_kept(blocks, inside, cuts):
    return blocks / cuts * inside


def one_block_open(blocks, inside, cuts):
    return cuts + inside


def no_fixed_part(room, one, two):
    return math.floor(room / (two - one))


def first_image_forgotten(room, one, two):
    return max(0, math.floor((room - one) / (two - one) + 1e-9))


def decimal(room, one, two):
    return (room - one) / (two - one) + 1


WRONG = {
    "08-bytes": [
        (bits_as_bytes, "eight bits"), (one_moment, "two numbers"), (no_gradient, "weight and gradient"),
    ],
    "08-accumulate": [(sum_of_means, "plain sum"), (mean_of_means, "weight by size")],
    "08-segments": [
        (everything_open, "only one segment"), (nothing_kept, "inputs of the segments"),
        (one_block_open, "all of its blocks"),
    ],
    "08-fits": [
        (no_fixed_part, "before the first one"), (first_image_forgotten, "first image already"),
        (decimal, "whole number"),
    ],
}  # fmt: skip
