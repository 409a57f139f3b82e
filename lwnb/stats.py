"""Intervals and Pareto fronts."""

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint


def wilson(rate: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927): how sure n test images make a rate 0..1."""
    return proportion_confint(round(rate * n), n, alpha=1 - level, method="wilson")


def over_seeds(values, level: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval over seeds; the interval is empty (nan) for one seed."""
    values = np.asarray(values, dtype=float)
    mean, n = values.mean(), len(values)
    if n < 2:
        return float(mean), float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return float(mean), float(mean - half), float(mean + half)


def front(cost, gain) -> np.ndarray:
    """Which points no other beats: none has lower or equal cost and higher or equal gain, one of them strictly.

    Parameters
    ----------
    cost, gain : (N,) numbers, lower and higher is better

    Returns
    -------
    (N,) bool
    """
    cost, gain = np.asarray(cost, float), np.asarray(gain, float)
    no_worse = (cost[None] <= cost[:, None]) & (gain[None] >= gain[:, None])
    better = (cost[None] < cost[:, None]) | (gain[None] > gain[:, None])
    return ~(no_worse & better).any(axis=1)
