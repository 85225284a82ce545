"""Chapter 13: wrong answers that students really give, and a fragment of the hint each must earn."""

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import binom


def _parts(real, fake, ddof=1, root=lambda m: np.real(sqrtm(m))):
    """Squared distance of the means, sum of both spreads, trace of the root of the product."""
    gap = real.mean(0) - fake.mean(0)
    s1, s2 = (np.atleast_2d(np.cov(x.T, ddof=ddof)) for x in (real, fake))
    return gap @ gap, np.trace(s1 + s2), np.trace(root(s1 @ s2))


def frechet_with_a_last_root(real, fake):
    means, spread, root = _parts(real, fake)
    return np.sqrt(means + spread - 2 * root)


def frechet_root_once(real, fake):
    means, spread, root = _parts(real, fake)
    return means + spread - root


def frechet_plain_means(real, fake):
    means, spread, root = _parts(real, fake)
    return np.sqrt(means) + spread - 2 * root


def frechet_no_root(real, fake):
    means, spread, _ = _parts(real, fake)
    return means + spread


def frechet_by_n(real, fake):
    means, spread, root = _parts(real, fake, ddof=0)
    return means + spread - 2 * root


def frechet_root_of_entries(real, fake):
    means, spread, root = _parts(real, fake, root=lambda m: np.sqrt(np.abs(m)))
    return means + spread - 2 * root


def frechet_each_feature_alone(real, fake):
    return ((real.mean(0) - fake.mean(0)) ** 2).sum() + ((real.std(0, ddof=1) - fake.std(0, ddof=1)) ** 2).sum()


def _k(x, y, power=3):
    return (x @ y.T / x.shape[1] + 1) ** power


def _off(m):
    return (m.sum() - np.trace(m)) / (len(m) * (len(m) - 1))


def kernel_with_diagonals(x, y):
    return _k(x, x).mean() + _k(y, y).mean() - 2 * _k(x, y).mean()


def kernel_diagonal_still_in_the_sum(x, y):
    n, m = len(x), len(y)
    return _k(x, x).sum() / (n * (n - 1)) + _k(y, y).sum() / (m * (m - 1)) - 2 * _k(x, y).mean()


def kernel_by_all_pairs(x, y):
    n, m = len(x), len(y)
    return _off(_k(x, x)) * (n - 1) / n + _off(_k(y, y)) * (m - 1) / m - 2 * _k(x, y).mean()


def kernel_between_once(x, y):
    return _off(_k(x, x)) + _off(_k(y, y)) - _k(x, y).mean()


def kernel_without_d(x, y):
    return _off((x @ x.T + 1) ** 3) + _off((y @ y.T + 1) ** 3) - 2 * ((x @ y.T + 1) ** 3).mean()


def kernel_linear(x, y):
    return _off(_k(x, x, 1)) + _off(_k(y, y, 1)) - 2 * _k(x, y, 1).mean()


def _radius(x, k):
    return np.sort(cdist(x, x), 1)[:, k]


def _balls(guests, centers, radius):
    return (cdist(guests, centers) < radius).any(1).mean()


def balls_with_itself(real, fake, k):
    return _balls(fake, real, _radius(real, k - 1)), _balls(real, fake, _radius(fake, k - 1))


def balls_exchanged(real, fake, k):
    return _balls(real, fake, _radius(fake, k)), _balls(fake, real, _radius(real, k))


def balls_of_the_guest(real, fake, k):
    d = cdist(fake, real)
    return (d < _radius(fake, k)[:, None]).any(1).mean(), (d < _radius(real, k)).any(0).mean()


def balls_of_the_nearest(real, fake, k):
    d, at_real, at_fake = cdist(fake, real), _radius(real, k), _radius(fake, k)
    return (d.min(1) < at_real[d.argmin(1)]).mean(), (d.min(0) < at_fake[d.argmin(0)]).mean()


def balls_precision_twice(real, fake, k):
    share = _balls(fake, real, _radius(real, k))
    return share, share


def balls_coverage_for_recall(real, fake, k):
    d = cdist(fake, real)
    return _balls(fake, real, _radius(real, k)), (d.min(0) < _radius(real, k)).mean()


def infinity_slope(sizes, values):
    return np.polyfit(1 / np.array(sizes), values, 1)[0]


def infinity_in_n(sizes, values):
    return np.polyfit(sizes, values, 1)[1]


def infinity_root(sizes, values):
    return np.polyfit(np.array(sizes) ** -0.5, values, 1)[1]


def infinity_last(sizes, values):
    return values[-1]


def _unit(a, center=True):
    a = np.asarray(a, float).ravel()
    a = a - a.mean() if center else a
    return a / np.linalg.norm(a)


def _table(image, training, moves, **options):
    return np.array([
        [np.linalg.norm(_unit(move(image), **options) - _unit(one, **options)) for one in training] for move in moves
    ])  # fmt: skip


def copy_without_moves(image, training, moves):
    far = _table(image, training, moves)[0]
    return int(far.argmin()), far.min()


def copy_squared(image, training, moves):
    table = _table(image, training, moves) ** 2
    return int(table.min(0).argmin()), table.min()


def copy_as_correlation(image, training, moves):
    table = 1 - _table(image, training, moves) ** 2 / 2
    return int(table.max(0).argmax()), table.max()


def copy_without_mean(image, training, moves):
    table = _table(image, training, moves, center=False)
    return int(table.min(0).argmin()), table.min()


def copy_in_gray_levels(image, training, moves):
    table = np.array([[np.sqrt(((move(image).astype(float) - one) ** 2).mean()) for one in training] for move in moves])
    return int(table.min(0).argmin()), table.min()


def copy_with_the_move(image, training, moves):
    table = _table(image, training, moves)
    return int(table.argmin()), table.min()


def copy_by_the_last_move(image, training, moves):
    far = _table(image, training, moves)[-1]
    return int(far.argmin()), far.min()


def _allowed(count, rate, confidence):
    return int((binom.cdf(np.arange(count), count, rate) <= 1 - confidence).sum())


def alarm_without_enough(suspicion, rate, confidence):
    return np.sort(suspicion)[-max(_allowed(len(suspicion), rate, confidence), 1)]


def alarm_far(suspicion, rate, confidence):
    k = _allowed(len(suspicion), rate, confidence)
    return np.sort(suspicion)[k - 1] if k else np.inf


def alarm_one_too_many(suspicion, rate, confidence):
    k = _allowed(len(suspicion), rate, confidence)
    return np.sort(suspicion)[-k - 1] if k else np.inf


def alarm_one_too_few(suspicion, rate, confidence):
    k = _allowed(len(suspicion), rate, confidence)
    return np.sort(suspicion)[-max(k - 1, 1)] if k else np.inf


def alarm_on_average(suspicion, rate, confidence):
    k = int(np.floor(rate * (len(suspicion) + 1) + 1e-9))
    return np.sort(suspicion)[-k] if _allowed(len(suspicion), rate, confidence) else np.inf


def alarm_quantile(suspicion, rate, confidence):
    return np.quantile(suspicion, 1 - rate) if _allowed(len(suspicion), rate, confidence) else np.inf


WRONG = {
    "13-frechet": [
        (frechet_with_a_last_root, "its square, without the last root"),
        (frechet_root_once, "the root counts twice"),
        (frechet_plain_means, "by the square of their distance"),
        (frechet_no_root, "the last term is missing"),
        (frechet_by_n, "references divide by n - 1"),
        (frechet_root_of_entries, "the root of each entry"),
        (frechet_each_feature_alone, "the whole covariance"),
    ],
    "13-kernel": [
        (kernel_with_diagonals, "leave the diagonals out"),
        (kernel_diagonal_still_in_the_sum, "take it off"),
        (kernel_by_all_pairs, "there are n (n - 1) of them"),
        (kernel_between_once, "counts twice"),
        (kernel_without_d, "divide the inner product by d"),
        (kernel_linear, "has the power 1"),
    ],
    "13-balls": [
        (balls_with_itself, "its own nearest neighbor"),
        (balls_exchanged, "exchanged"),
        (balls_of_the_guest, "belongs to the center"),
        (balls_of_the_nearest, "any ball will do"),
        (balls_precision_twice, "came out equal"),
        (balls_coverage_for_recall, "precision is right"),
    ],
    "13-infinity": [
        (infinity_slope, "returned the slope"),
        (infinity_in_n, "straight in 1/n"),
        (infinity_root, "falls like 1/n"),
        (infinity_last, "its share of the bias"),
    ],
    "13-copy": [
        (copy_without_moves, "passed unseen"),
        (copy_squared, "take the root"),
        (copy_as_correlation, "this is the correlation"),
        (copy_without_mean, "take each image's mean off"),
        (copy_in_gray_levels, "a darker copy is a copy"),
        (copy_with_the_move, "the distance is right"),
        (copy_by_the_last_move, "only the last move"),
    ],
    "13-alarm": [
        (alarm_without_enough, "too few for"),
        (alarm_far, "the most suspicious"),
        (alarm_one_too_many, "one too many"),
        (alarm_one_too_few, "one too strict"),
        (alarm_on_average, "on average"),
        (alarm_quantile, "a guess of the true one"),
    ],
}
