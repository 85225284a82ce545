"""Chapter 14: wrong answers that students really give, and a fragment of the hint each must earn."""

import numpy as np
from scipy.special import ndtri


def _auc(real, synthetic, tie=0.5, turned=False, share=True):
    real, synthetic = np.asarray(real), np.asarray(synthetic)
    if turned:
        real, synthetic = synthetic, real
    wins = sum(synthetic[a] * (real[a + 1 :].sum() + tie * real[a]) for a in range(5))
    return wins / (real.sum() * synthetic.sum() if share else 1)


def auc_without_ties(real, synthetic):
    return _auc(real, synthetic, tie=0)


def auc_ties_won(real, synthetic):
    return _auc(real, synthetic, tie=1)


def auc_turned(real, synthetic):
    return _auc(real, synthetic, turned=True)


def auc_counted(real, synthetic):
    return _auc(real, synthetic, share=False)


def auc_of_the_decided(real, synthetic):
    real, synthetic = np.asarray(real), np.asarray(synthetic)
    ties = (real * synthetic).sum()
    return _auc(real, synthetic, tie=0, share=False) / max(1, real.sum() * synthetic.sum() - ties)


def _delong(scores, synthetic, ddof=1, divide=True, swap=False, root=True, parts=(1, 1)):
    gap = scores[synthetic][:, None] - scores[~synthetic][None]
    won = (gap > 0) + 0.5 * (gap == 0)
    v, w = won.mean(1), won.mean(0)
    n, m = (len(w), len(v)) if swap else (len(v), len(w))
    variance = parts[0] * v.var(ddof=ddof) / (n if divide else 1) + parts[1] * w.var(ddof=ddof) / (m if divide else 1)
    return np.sqrt(variance) if root else variance


def delong_variance(scores, synthetic):
    return _delong(scores, synthetic, root=False)


def delong_population(scores, synthetic):
    return _delong(scores, synthetic, ddof=0)


def delong_of_one_case(scores, synthetic):
    return _delong(scores, synthetic, divide=False)


def delong_swapped(scores, synthetic):
    return _delong(scores, synthetic, swap=True)


def delong_half(scores, synthetic):
    return _delong(scores, synthetic, parts=(1, 0))


def delong_added(scores, synthetic):
    return _delong(scores, synthetic, parts=(1, 0)) + _delong(scores, synthetic, parts=(0, 1))


def verdict_not_different(value, se, margin):
    return "different" if abs(value - 0.5) > 1.96 * se else "equal"


def verdict_of_the_value(value, se, margin):
    return "equal" if abs(value - 0.5) < margin else "different"


def verdict_two_sided(value, se, margin):
    if abs(value - 0.5) + 1.96 * se < margin:
        return "equal"
    return "different" if abs(value - 0.5) > 1.96 * se else "cannot tell"


def verdict_difference_first(value, se, margin):
    if abs(value - 0.5) > 1.96 * se:
        return "different"
    return "equal" if abs(value - 0.5) + 1.645 * se < margin else "cannot tell"


def verdict_one_side(value, se, margin):
    if abs(value - 0.5) + 1.645 * se < margin:
        return "equal"
    return "different" if value - 0.5 > 1.96 * se else "cannot tell"


def verdict_narrow(value, se, margin):
    if abs(value - 0.5) + 1.645 * se < margin:
        return "equal"
    return "different" if abs(value - 0.5) > 1.645 * se else "cannot tell"


def verdict_in_other_words(value, se, margin):
    return "not significant"


def _size(margin, power, alpha=0.05, halve=2, factor=6):
    return (ndtri(1 - alpha) + ndtri(1 - (1 - power) / halve)) ** 2 / (factor * margin**2)


def size_rounded_down(margin, power):
    return int(_size(margin, power))


def size_not_rounded(margin, power):
    return _size(margin, power)


def size_one_way(margin, power):
    return int(np.ceil(_size(margin, power, halve=1)))


def size_two_sided(margin, power):
    return int(np.ceil(_size(margin, power, alpha=0.025)))


def size_of_all(margin, power):
    return int(np.ceil(_size(margin, power, factor=3)))


def size_not_squared(margin, power):
    return int(np.ceil((ndtri(0.95) + ndtri(1 - (1 - power) / 2)) / (6 * margin)))


def _pairs(covariance):
    return covariance[~np.eye(len(covariance), dtype=bool)].mean()


def panel_readers(aucs, covariance):
    return np.sqrt(aucs.var(ddof=1) / len(aucs))


def panel_cases(aucs, covariance):
    return np.sqrt(covariance.mean())


def panel_with_diagonal(aucs, covariance):
    return np.sqrt(aucs.var(ddof=1) / len(aucs) + covariance.mean())


def panel_divided(aucs, covariance):
    return np.sqrt((aucs.var(ddof=1) + max(_pairs(covariance), 0)) / len(aucs))


def panel_population(aucs, covariance):
    return np.sqrt(aucs.var() / len(aucs) + max(_pairs(covariance), 0))


def panel_not_a_mean(aucs, covariance):
    return np.sqrt(aucs.var(ddof=1) + max(_pairs(covariance), 0))


def panel_variance(aucs, covariance):
    return aucs.var(ddof=1) / len(aucs) + max(_pairs(covariance), 0)


def panel_below_zero(aucs, covariance):
    return np.sqrt(aucs.var(ddof=1) / len(aucs) + _pairs(covariance))


def _kappa(first, second, power=2):
    cost = np.abs(np.subtract.outer(first, second)).astype(float)
    cost = np.sign(cost) if power == 0 else cost**power
    return np.diag(cost).mean(), cost.mean()


def kappa_unweighted(first, second):
    seen, chance = _kappa(first, second, 0)
    return 1 - seen / chance


def kappa_linear(first, second):
    seen, chance = _kappa(first, second, 1)
    return 1 - seen / chance


def kappa_disagreement(first, second):
    seen, chance = _kappa(first, second)
    return seen / chance


def kappa_without_chance(first, second):
    return 1 - _kappa(first, second)[0] / 16


def kappa_even_chance(first, second):
    return 1 - _kappa(first, second)[0] / 4


WRONG = {
    "14-auc": [
        (auc_without_ties, "you left them out"),
        (auc_ties_won, "counted them as won"),
        (auc_turned, "the wrong way round"),
        (auc_counted, "number of pairs"),
        (auc_of_the_decided, "another measure"),
    ],
    "14-delong": [
        (delong_variance, "its root"),
        (delong_population, "ddof=1"),
        (delong_of_one_case, "divide by n, and by m"),
        (delong_swapped, "exchanged"),
        (delong_half, "the other one"),
        (delong_added, "add the variances"),
    ],
    "14-verdict": [
        (verdict_not_different, "shows no equality"),
        (verdict_of_the_value, "shows no equality"),
        (verdict_two_sided, "one-sided"),
        (verdict_difference_first, "equality first"),
        (verdict_one_side, "below 0.5"),
        (verdict_narrow, "shows no difference"),
        (verdict_in_other_words, "return"),
    ],
    "14-size": [
        (size_rounded_down, "round up"),
        (size_not_rounded, "round up"),
        (size_one_way, "two ways to fail"),
        (size_two_sided, "one-sided"),
        (size_of_all, "EACH kind"),
        (size_not_squared, "square both"),
    ],
    "14-panel": [
        (panel_readers, "luck of the readers alone"),
        (panel_cases, "luck of the cases alone"),
        (panel_with_diagonal, "leave the diagonal out"),
        (panel_divided, "divide only MS"),
        (panel_population, "ddof=1"),
        (panel_not_a_mean, "error of a mean"),
        (panel_variance, "its root"),
        (panel_below_zero, "take 0 for it"),
    ],
    "14-kappa": [
        (kappa_unweighted, "a disagreement as it is"),
        (kappa_linear, "the distance as it is"),
        (kappa_disagreement, "1 minus it"),
        (kappa_without_chance, "by chance"),
        (kappa_even_chance, "not the same for all"),
    ],
}
