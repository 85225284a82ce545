"""Chapter 06: wrong answers that students really give, and a fragment of the hint each must earn."""

import torch


def tokens_cut_off_the_end(ids, length, end):
    return (ids + [end] * length)[:length]


def tokens_never_cut(ids, length, end):
    return ids + [end] * (length - len(ids))


def tokens_padded_with_zero(ids, length, end):
    return [*ids[: length - 1], end] if len(ids) > length else ids + [0] * (length - len(ids))


def tokens_padded_in_front(ids, length, end):
    return [*ids[: length - 1], end] if len(ids) > length else [end] * (length - len(ids)) + ids


def _angles(t, d, last):
    return t[:, None] * 10000 ** (-torch.arange(d // 2) / last)


def sinusoid_sines_first(t, d):
    angle = _angles(t, d, d / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def sinusoid_with_d_frequencies(t, d):
    angle = _angles(t, d, d)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def sinusoid_interleaved(t, d):
    angle = _angles(t, d, d / 2)
    return torch.stack([angle.cos(), angle.sin()], dim=2).flatten(1)


def sinusoid_that_grows(t, d):
    angle = t[:, None] * 10000 ** (torch.arange(d // 2) / (d / 2))
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def _scores(x, c, w_q, w_k):
    return (x @ w_q) @ (c @ w_k).T


def cross_without_scale(x, c, w_q, w_k, w_v):
    return _scores(x, c, w_q, w_k).softmax(-1) @ (c @ w_v)


def cross_divided_by_d(x, c, w_q, w_k, w_v):
    return (_scores(x, c, w_q, w_k) / w_q.shape[1]).softmax(-1) @ (c @ w_v)


def cross_over_places(x, c, w_q, w_k, w_v):
    return (_scores(x, c, w_q, w_k) / w_q.shape[1] ** 0.5).softmax(0) @ (c @ w_v)


def cross_without_softmax(x, c, w_q, w_k, w_v):
    return _scores(x, c, w_q, w_k) / w_q.shape[1] ** 0.5 @ (c @ w_v)


def cross_with_values_of_the_keys(x, c, w_q, w_k, w_v):
    return (_scores(x, c, w_q, w_k) / w_q.shape[1] ** 0.5).softmax(-1) @ (c @ w_k)


def cosine_plain(vectors):
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    return unit @ unit.T


def cosine_centered_within_each(vectors):
    return cosine_plain(vectors - vectors.mean(1, keepdim=True))


def cosine_without_lengths(vectors):
    z = vectors - vectors.mean(0)
    return z @ z.T


def switch_reversed(first, second, t_swap):
    return lambda x, t: second(x, t) if t[0] > t_swap else first(x, t)


def switch_too_late(first, second, t_swap):
    return lambda x, t: first(x, t) if t[0] >= t_swap else second(x, t)


def switch_that_asks_both(first, second, t_swap):
    return lambda x, t: torch.where((t > t_swap)[:, None], first(x, t), second(x, t))


WRONG = {
    "06-tokens": [
        (tokens_cut_off_the_end, "has no end any more"),
        (tokens_never_cut, "too long"),
        (tokens_padded_with_zero, "fills up with the end token"),
        (tokens_padded_in_front, "at the back"),
    ],
    "06-sinusoid": [
        (sinusoid_sines_first, "changed places"),
        (sinusoid_with_d_frequencies, "too fast"),
        (sinusoid_interleaved, "take turns"),
        (sinusoid_that_grows, "print your frequencies"),
    ],
    "06-cross": [
        (cross_without_scale, "too large"),
        (cross_divided_by_d, "square root"),
        (cross_over_places, "over the places"),
        (cross_without_softmax, "no weights yet"),
        (cross_with_values_of_the_keys, "weighted mean of the values"),
    ],
    "06-cosine": [
        (cosine_plain, "all sentences share"),
        (cosine_centered_within_each, "is a vector"),
        (cosine_without_lengths, "divide by both lengths"),
    ],
    "06-switch": [
        (switch_reversed, "reversed"),
        (switch_too_late, "t_swap itself"),
        (switch_that_asks_both, "paid for twice"),
    ],
}
