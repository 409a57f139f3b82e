"""Intervals, paired tests, Pareto fronts, ranks: scipy and statsmodels,
and resampling where they have no such interval."""

import numpy as np
from scipy import sparse, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

LEVEL, RESAMPLES = 0.95, 2000


def wilson(rate: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927): how sure n test images make a rate 0..1."""
    return proportion_confint(round(rate * n), n, alpha=1 - level, method="wilson")


def over_seeds(values, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean and t interval over seeds; the interval is empty (nan) for one seed.

    For a paired comparison, give the differences by seed.
    """
    values = np.asarray(values, dtype=float)
    mean, n = values.mean(), len(values)
    if n < 2:
        return float(mean), float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(mean), float(mean - half), float(mean + half)


def p_over_seeds(differences) -> float:
    """Two-sided p of the paired t test over seeds; nan where there is no spread to judge by
    (one seed, or equal values)."""
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def p_mcnemar(first, second) -> float:
    """Two-sided p of McNemar's exact test: are two trained networks right equally often on the same images?

    Parameters
    ----------
    first, second : (N,) bool, whether each is right
    """
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    return float(mcnemar(table, exact=True).pvalue)


def holm(p) -> np.ndarray:
    """Holm's (1979) step-down correction of all p values of one table; nan stays nan and is not counted."""
    p = np.asarray(p, dtype=float)
    known, corrected = ~np.isnan(p), np.full(p.shape, np.nan)
    if known.any():
        corrected[known] = multipletests(p[known], method="holm")[1]
    return corrected


def detectable(sd: float, n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a paired comparison of `n` would have found with this power (two-sided t test).

    Parameters
    ----------
    sd : standard deviation of the paired differences, over seeds or over images
    n : seeds or images; fewer than two detect nothing (nan)
    """
    return float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power) * sd) if n > 1 else float("nan")


def spread(first, second) -> float:
    """Standard deviation over images of the paired difference, `HALF` an image added: for `detectable`."""
    values, counts = _differences(first, second)
    return float(np.sqrt(np.cov(values, aweights=counts, ddof=0)))


HALF = np.array([0.5, 0.5, 0.5, 0.5])
"""Pseudo-images in each cell of the 2 x 2 table (only the first right, only the second, both, neither), as Agresti and
Min (2005, Statistics in Medicine 24:729) add them. Without them the percentile interval of 359 images that 3.6 of them
divide, all the same way, covers the truth 87 times in 100 (1,000 simulations; with them 97; bootstrap-t 66, BCa 94)."""


def difference(first, second, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0):
    """Top-1 of the first minus the second on the same images, with the percentile bootstrap interval over the images.

    Images with the same difference are exchangeable: to draw how often each value occurs (a multinomial) is to draw
    images with replacement, and takes no time. `HALF` an image is added to each cell.

    Parameters
    ----------
    first, second : (N,) or (S, N) bool, whether each is right; S seeds are averaged image by image

    Returns
    -------
    difference, lower and upper end
    """
    values, counts = _differences(first, second)
    means = _resampled(counts, resamples, seed) @ values
    estimate = np.mean(first, dtype=float) - np.mean(second, dtype=float)
    return float(estimate), *map(float, np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def _differences(first, second) -> tuple[np.ndarray, np.ndarray]:
    """The values that the paired difference of an image takes, and how many images have each,
    pseudo-images included."""
    images = np.atleast_2d(first).mean(axis=0, dtype=float) - np.atleast_2d(second).mean(axis=0, dtype=float)
    values, counts = np.unique(images, return_counts=True)
    return np.append(values, [1.0, -1.0, 0.0, 0.0]), np.append(counts, HALF)


def _resampled(counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples, G) shares of G groups of images in samples as large as the first, drawn with replacement."""
    n = round(counts.sum() - HALF.sum())
    return np.random.default_rng(seed).multinomial(n, counts / counts.sum(), size=resamples) / n


def f1_difference(labels, first, second, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0):
    """Macro F1 of the first minus the second on the same images, with the interval as in `difference`.

    Parameters
    ----------
    labels, first, second : (N,) integers, the true class and the two guesses
    """
    cells, counts = np.unique(np.stack([labels, first, second], axis=1).astype(int), axis=0, return_counts=True)
    classes = cells.max() + 1
    own, other = np.arange(classes), np.roll(np.arange(classes), 1)
    pseudo = [np.stack([own, a, b], axis=1) for a, b in ((own, other), (other, own), (own, own), (other, other))]
    every = np.concatenate([cells, *pseudo])
    shares = _resampled(np.append(counts, np.repeat(HALF / classes, classes)), resamples, seed)
    means = _macro_f1(shares, every[:, 0], every[:, 1]) - _macro_f1(shares, every[:, 0], every[:, 2])
    seen = np.append(counts, np.zeros(len(every) - len(cells)))[None]
    estimate = _macro_f1(seen, every[:, 0], every[:, 1]) - _macro_f1(seen, every[:, 0], every[:, 2])
    return float(estimate[0]), *map(float, np.quantile(means, [(1 - level) / 2, (1 + level) / 2]))


def macro_f1(labels, guesses) -> float:
    """Macro F1, 0..1, of guesses (N,) against labels (N,), both integers; classes that never occur are left out."""
    labels, guesses = np.asarray(labels, int), np.asarray(guesses, int)
    return float(_macro_f1(np.ones((1, len(labels))), labels, guesses)[0])


def _macro_f1(weights: np.ndarray, labels: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """Macro F1 of each row of `weights` (B, G) over groups of equal label and guess;
    classes that never occur left out."""
    row, one = np.arange(len(labels)), np.ones(len(labels))
    shape = len(row), max(labels.max(), guesses.max()) + 1
    own, guessed = (sparse.csr_array((one, (row, of)), shape=shape) for of in (labels, guesses))
    hits, both = weights @ (own * guessed), weights @ (own + guessed)
    return np.nanmean(np.divide(2 * hits, both, out=np.full_like(hits, np.nan), where=both > 0), axis=1)


def front(cost, gain) -> np.ndarray:
    """Which points no other beats: none has lower or equal cost and higher or equal gain, one of them strictly.

    Parameters
    ----------
    cost : (N,) numbers, lower is better
    gain : (..., N) numbers, higher is better: a front for each of the leading dimensions

    Returns
    -------
    (..., N) bool
    """
    cost, gain = np.asarray(cost, float), np.asarray(gain, float)
    higher, equal = gain[..., None, :] > gain[..., :, None], gain[..., None, :] == gain[..., :, None]
    beaten = (cost[None] <= cost[:, None]) & higher | (cost[None] < cost[:, None]) & equal
    return ~beaten.any(axis=-1)


def resample_top1(correct, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Top-1 of M networks over resampled test images, for each seed by itself: what one training each might have shown.

    Parameters
    ----------
    correct : (S, M, N) bool, whether network m, trained with seed s, is right about image n

    Returns
    -------
    (S * resamples, M): the same resampled images for all networks of a row
    """
    correct = np.asarray(correct, bool)
    patterns, counts = np.unique(correct.reshape(-1, correct.shape[-1]), axis=1, return_counts=True)
    n = counts.sum()
    shares = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples) / n
    return np.concatenate([shares @ one.T for one in patterns.reshape(*correct.shape[:2], -1)])


def on_front(cost, tops) -> np.ndarray:
    """(M,) how often, 0..1, each network is on the front of cost (M,) against resampled top-1 (R, M)."""
    return front(cost, tops).mean(axis=0)


def ranks(tops, level: float = LEVEL) -> np.ndarray:
    """(M, 3) mean rank by resampled top-1 (R, M), 1 being the highest, and the interval that holds it;
    ties share a rank."""
    found = stats.rankdata(-np.asarray(tops), axis=1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([found.mean(axis=0), low, high], axis=1)


def score(gains, weights) -> np.ndarray:
    """A trade-off: the weighted sum of each quantity, put on 0 (the worst of these networks) to 1 (the best).

    It says nothing without its weights, and changes with the networks compared.

    Parameters
    ----------
    gains : (..., M, Q) quantities of M networks, higher is better
    weights : (Q,), their sum 1

    Returns
    -------
    (..., M)

    Raises
    ------
    ValueError
        The weights do not add up to 1, or one is negative.
    """
    gains, weights = np.asarray(gains, float), np.asarray(weights, float)
    if weights.min() < 0 or not np.isclose(weights.sum(), 1):
        raise ValueError(f"weights: {weights.tolist()} is not possible: none may be negative, and their sum must be 1")
    low, high = gains.min(axis=-2, keepdims=True), gains.max(axis=-2, keepdims=True)
    return ((gains - low) / np.where(high > low, high - low, 1.0)) @ weights
