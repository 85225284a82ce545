"""Chapter 15: wrong answers that students really give, and a fragment of the hint each must earn."""

import numpy as np
from scipy.stats import rankdata


def _bell(box, centers, sd=0.25, turned=False, power=2):
    x0, y0, x1, y1 = box
    u = np.abs((centers - (x0 + x1) / 2) / (sd * (x1 - x0))) ** power
    v = np.abs((centers - (y0 + y1) / 2) / (sd * (y1 - y0))) ** power
    cells = np.exp(-(u[None] + v[:, None]) / 2)
    return cells.T if turned else cells


def bell_turned(box, centers):
    cells = _bell(box, centers, turned=True)
    return cells / cells.max()


def bell_not_scaled(box, centers):
    return _bell(box, centers)


def bell_too_wide(box, centers):
    cells = _bell(box, centers, sd=0.5)
    return cells / cells.max()


def bell_not_squared(box, centers):
    cells = _bell(box, centers, power=1)
    return cells / cells.max()


def bell_as_box(box, centers):
    x0, y0, x1, y1 = box
    return ((centers >= y0) & (centers < y1))[:, None] * ((centers >= x0) & (centers < x1))[None] * 1.0


def _ranks(scores, ill, ranks, off=True, divide=True):
    n, m = ill.sum(), (~ill).sum()
    value = ranks[ill].sum() - (n * (n + 1) / 2 if off else 0)
    return value / (n * m) if divide else value


def ranks_with_own(scores, ill):
    return _ranks(scores, ill, rankdata(scores), off=False)


def ranks_not_divided(scores, ill):
    return _ranks(scores, ill, rankdata(scores), divide=False)


def ranks_backwards(scores, ill):
    return _ranks(scores, ill, rankdata(-scores))


def ranks_from_zero(scores, ill):
    return _ranks(scores, ill, rankdata(scores) - 1)


def ranks_of_the_file(scores, ill):
    return _ranks(scores, ill, rankdata(scores, method="ordinal"))


def _froc(marks, boxes, least, strict=False, closed=False, once=True, by_image=False, per_image=True, doubles=False):
    found = lesions = alarms = 0
    for some, here in zip(marks, boxes, strict=True):
        shown = [(x, y) for x, y, s in some if (s > least if strict else s >= least)]
        free, got = list(here), 0
        for x, y in shown:
            inside = [b for b in here if b[0] <= x < b[2] + closed and b[1] <= y < b[3] + closed]
            if not inside or (doubles and inside[0] not in free):
                alarms += 1
            elif not once or inside[0] in free:
                got += 1
                free = [b for b in free if b is not inside[0]]
        found += min(got, 1) if by_image else got
        lesions += min(len(here), 1) if by_image else len(here)
    return found / lesions, alarms / (len(marks) if per_image else 1)


def froc_counts_twice(marks, boxes, least):
    return _froc(marks, boxes, least, once=False)


def froc_alarms_twice(marks, boxes, least):
    return _froc(marks, boxes, least, doubles=True)


def froc_strict(marks, boxes, least):
    return _froc(marks, boxes, least, strict=True)


def froc_closed(marks, boxes, least):
    return _froc(marks, boxes, least, closed=True)


def froc_all_marks(marks, boxes, least):
    return _froc(marks, boxes, 0.0)


def froc_in_all(marks, boxes, least):
    return _froc(marks, boxes, least, per_image=False)


def froc_by_image(marks, boxes, least):
    return _froc(marks, boxes, least, by_image=True)


def _cam(features, slopes):
    return np.tensordot(slopes.mean((1, 2)), features, 1)


def cam_not_cut(features, slopes):
    return _cam(features, slopes)


def cam_of_sums(features, slopes):
    return np.maximum(np.tensordot(slopes.sum((1, 2)), features, 1), 0)


def cam_without_mean(features, slopes):
    return np.maximum((features * slopes).sum(0), 0)


def cam_absolute(features, slopes):
    return np.abs(_cam(features, slopes))


def cam_averaged(features, slopes):
    return np.maximum(_cam(features, slopes), 0) / len(features)


def _pointing(maps, boxes, closed=0, turned=False, share=True, whole=False):
    hits, inside = 0, []
    for heat, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        if turned:
            y, x = x, y
        hits += x0 <= x < x1 + closed and y0 <= y < y1 + closed
        part = heat[x0:x1, y0:y1] if turned else heat[y0:y1, x0:x1]
        inside.append(part.sum() / (heat.sum() if share and not whole else 1))
    energy = sum(inside) / maps.sum() if whole else np.mean(inside)
    return hits / len(maps), energy


def pointing_turned(maps, boxes):
    return _pointing(maps, boxes, turned=True)


def pointing_closed(maps, boxes):
    return _pointing(maps, boxes, closed=1)


def pointing_counts(maps, boxes):
    share, energy = _pointing(maps, boxes)
    return share * len(maps), energy


def pointing_sums(maps, boxes):
    return _pointing(maps, boxes, share=False)


def pointing_all_at_once(maps, boxes):
    return _pointing(maps, boxes, whole=True)


def holm_bonferroni(p):
    return [min(1.0, len(p) * one) for one in p]


def holm_not_carried(p):
    rank = np.argsort(np.argsort(p, kind="stable"))
    return [min(1.0, (len(p) - r) * one) for r, one in zip(rank, p, strict=True)]


def _holm(p, cut=True):
    steps = (len(p) - np.arange(len(p))) * np.sort(p)
    return np.maximum.accumulate(np.minimum(steps, 1) if cut else steps)


def holm_sorted(p):
    return _holm(p)


def holm_above_one(p):
    found = np.empty(len(p))
    found[np.argsort(p, kind="stable")] = _holm(p, cut=False)
    return found


def holm_nothing(p):
    return p


WRONG = {
    "15-target": [
        (bell_turned, "x and y are exchanged"),
        (bell_not_scaled, "divide by the largest"),
        (bell_too_wide, "too wide"),
        (bell_not_squared, "square the distances"),
        (bell_as_box, "the box itself"),
    ],
    "15-ranks": [
        (ranks_with_own, "take off n (n + 1) / 2"),
        (ranks_not_divided, "number of pairs"),
        (ranks_backwards, "the wrong way"),
        (ranks_from_zero, "counted from 1"),
        (ranks_of_the_file, "share the mean"),
    ],
    "15-froc": [
        (froc_counts_twice, "found once"),
        (froc_alarms_twice, "no false alarm"),
        (froc_strict, ">="),
        (froc_closed, "half-open"),
        (froc_all_marks, "are not shown"),
        (froc_in_all, "divide by the number of images"),
        (froc_by_image, "share of lesions"),
    ],
    "15-cam": [
        (cam_not_cut, "cut off what is negative"),
        (cam_of_sums, "the mean of its gradient"),
        (cam_without_mean, "average the gradient"),
        (cam_absolute, "into a *yes*"),
        (cam_averaged, "you took their mean"),
    ],
    "15-pointing": [
        (pointing_turned, "rows are y"),
        (pointing_closed, "half-open"),
        (pointing_counts, "not their number"),
        (pointing_sums, "energy is a share"),
        (pointing_all_at_once, "map by map"),
    ],
    "15-holm": [
        (holm_bonferroni, "Bonferroni"),
        (holm_not_carried, "carry the largest"),
        (holm_sorted, "in the order of the question"),
        (holm_above_one, "cut it at 1"),
        (holm_nothing, "nothing is corrected"),
    ],
}
