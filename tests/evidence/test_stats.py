"""Each estimator against a truth: published examples, planted effects of known size, equal groups, known fronts."""

import numpy as np
import pytest
from scipy import stats as reference
from sklearn.metrics import f1_score

from lwnb.evidence import stats

SIMULATIONS = 1000
"""Experiments simulated for each share of them that a test states."""


def rng(seed=0):
    return np.random.default_rng(seed)


# --- Published examples ---


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20
    assert stats.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


SLEEP = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
"""Student 1908, The probable error of a mean: hours of sleep gained under two drugs,
ten patients (R's data set `sleep`)."""


def test_paired_differences_agree_with_students_own_example():
    # R, t.test(..., paired = TRUE) on `sleep`: mean 1.58, 95 % interval 0.7001 to 2.4599, p 0.002833
    gained = np.subtract(SLEEP[1], SLEEP[0])
    assert stats.over_seeds(gained) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=1e-6)
    assert stats.p_over_seeds(gained) == pytest.approx(0.002833, abs=5e-7)


def test_mcnemar_agrees_with_a_published_example():
    # Armitage and Berry 1994, Statistical Methods in Medical Research, p. 127: two media, 50 specimens, 20 grew on
    # both,
    # 12 on A alone, 2 on B alone, 16 on neither; exact two-sided P 0.0129 (so too StatsDirect's manual, after Liddell
    # 1983)
    on_a = np.repeat([True, True, False, False], [20, 12, 2, 16])
    on_b = np.repeat([True, False, True, False], [20, 12, 2, 16])
    assert stats.p_mcnemar(on_a, on_b) == pytest.approx(0.0129, abs=5e-5)
    assert stats.p_mcnemar(on_a, on_a) == 1.0


def test_holm_agrees_with_a_worked_example():
    # The example of Wikipedia's "Holm-Bonferroni method": by hand 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04 raised to
    # 0.06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.01, np.nan, 0.04])[[0, 2]] == pytest.approx([0.02, 0.04])  # what was not tested is not counted
    assert np.isnan(stats.holm([np.nan])).all()


def test_the_detectable_difference_agrees_with_a_published_sample_size():
    # G*Power (Faul et al. 2007): a paired t test, effect 0.5 standard deviations, alpha 0.05, power 0.8, needs 34 pairs
    assert stats.detectable(1.0, 34) < 0.5 < stats.detectable(1.0, 33)
    assert np.isnan(stats.detectable(1.0, 1))


def test_the_t_interval_over_seeds_worked_by_hand():
    # 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.3027, half width 4.3027 / sqrt(3)
    assert stats.over_seeds([1, 2, 3]) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_one_seed_has_no_interval_and_no_test():
    mean, low, high = stats.over_seeds([0.5])
    assert mean == 0.5 and np.isnan([low, high]).all()
    assert np.isnan(stats.p_over_seeds([0.5])) and np.isnan(stats.p_over_seeds([0.1, 0.1, 0.1]))


# --- The bootstrap against the library's, where the two should agree ---


def test_the_bootstrap_of_top1_agrees_with_scipys():
    first, second = rng(1).random(2000) < 0.8, rng(2).random(2000) < 0.75
    paired = first.astype(float) - second
    theirs = reference.bootstrap((paired,), np.mean, n_resamples=9999, method="percentile", rng=rng(3))
    ours = stats.difference(first, second, resamples=9999)
    assert ours[0] == pytest.approx(paired.mean())
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.001)


def test_macro_f1_and_its_bootstrap_agree_with_scikit_learn_and_scipy():
    labels = rng(1).integers(0, 3, 300)
    guesses = [np.where(rng(s).random(300) < 0.8, labels, rng(s + 9).integers(0, 3, 300)) for s in (2, 3)]

    def gap(own, a, b):
        return f1_score(own, a, average="macro") - f1_score(own, b, average="macro")

    data = (labels, *guesses)
    theirs = reference.bootstrap(data, gap, paired=True, vectorized=False, n_resamples=999, method="percentile", rng=3)
    ours = stats.f1_difference(*data)
    assert ours[0] == pytest.approx(gap(*data), abs=1e-12)
    assert ours[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.012)


def test_a_class_that_no_one_names_is_left_out_of_macro_f1():
    labels, perfect, poor = np.array([0, 0, 5, 5]), np.array([0, 0, 5, 5]), np.array([0, 5, 5, 5])
    assert stats.f1_difference(labels, perfect, poor)[0] == pytest.approx(1 - (2 / 3 + 4 / 5) / 2)


# --- Planted effects: how often the interval holds the truth ---


def covered(intervals, truth) -> float:
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.parametrize("n", [359, 2000, 10000])
@pytest.mark.parametrize(("only_first", "only_second"), [(0.03, 0.02), (0.10, 0.07), (0.25, 0.20), (0.02, 0.02)])
@pytest.mark.slow
def test_the_interval_of_a_planted_difference_in_top1_covers_it(n, only_first, only_second):
    found = []
    draws = rng(7).multinomial(n, [only_first, only_second, 1 - only_first - only_second], size=SIMULATIONS)
    for s, both in enumerate(draws):
        first, second = np.repeat([True, False, True], both), np.repeat([False, True, True], both)
        found.append(stats.difference(first, second, seed=s)[1:])
    assert 0.93 <= covered(found, only_first - only_second) <= 0.97


@pytest.mark.slow
def test_half_an_image_in_each_cell_mends_the_interval_where_few_images_divide_two_networks():
    """About 3.6 of 359, all the same way: the figures that `stats.HALF` and the page on methods quote."""
    plain, ours = [], []
    for s, only_first in enumerate(rng(7).binomial(359, 0.01, size=SIMULATIONS)):
        first = np.arange(359) < only_first
        means = rng(s).binomial(359, only_first / 359, size=2000) / 359
        plain.append(np.quantile(means, [0.025, 0.975]))
        ours.append(stats.difference(first, np.zeros(359, bool), seed=s)[1:])
    print(covered(plain, 0.01), covered(ours, 0.01))
    assert covered(plain, 0.01) == pytest.approx(0.87, abs=0.02) and 0.94 <= covered(ours, 0.01) <= 0.99


def planted(classes, hits):
    """(K, K, K) chance of (label, first guess, second guess); each right with a chance of its own,
    in class 0 more often."""
    chances = np.zeros((classes,) * 3)
    for label in range(classes):
        rates = [hit + (0.05 if label == 0 else 0) for hit in hits]
        one, two = (np.full(classes, (1 - rate) / (classes - 1)) for rate in rates)
        one[label], two[label] = rates
        chances[label] = np.outer(one, two) / classes
    return chances


def true_f1(chances, guess):
    own, guessed = chances.sum(axis=(1, 2)), chances.sum(axis=(0, 3 - guess))
    hits = np.einsum("iij->i" if guess == 1 else "iji->i", chances)
    return np.mean(2 * hits / (own + guessed))


@pytest.mark.parametrize(
    ("n", "hits"), [(359, (0.92, 0.90)), (359, (0.6, 0.5)), (2000, (0.8, 0.77)), (10000, (0.7, 0.69))]
)
@pytest.mark.slow
def test_the_interval_of_a_planted_difference_in_macro_f1_covers_it(n, hits):
    classes = 4
    chances = planted(classes, hits)
    truth = true_f1(chances, 1) - true_f1(chances, 2)
    cells = np.indices(chances.shape).reshape(3, -1)
    draws = rng(5).multinomial(n, chances.ravel(), size=SIMULATIONS)
    found = [  # fewer resamples than in use: the ends of the intervals are rougher, and the test is quicker
        stats.f1_difference(*np.repeat(cells, draw, axis=1), resamples=600, seed=s)[1:] for s, draw in enumerate(draws)
    ]
    assert 0.93 <= covered(found, truth) <= 0.97


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_a_planted_difference_over_seeds_covers_it(seeds):
    draws = rng(4).normal(0.02, 0.01, (4 * SIMULATIONS, seeds))
    assert 0.93 <= covered([stats.over_seeds(draw)[1:] for draw in draws], 0.02) <= 0.97


@pytest.mark.parametrize("n", [359, 2000, 10000])
def test_the_interval_of_one_accuracy_covers_it(n):
    hits = rng(6).binomial(n, 0.9, 4 * SIMULATIONS)
    assert 0.93 <= covered([stats.wilson(hit / n, n) for hit in hits], 0.9) <= 0.97


# --- Equal groups, and effects as large as the design could find ---


@pytest.mark.parametrize(("n", "least"), [(359, 0.02), (2000, 0.03), (10000, 0.035)])
def test_mcnemar_finds_no_more_than_five_in_a_hundred_equal_networks_different(n, least):
    """The exact test is conservative: below 5 %, and the more so the fewer images divide the two."""
    first = rng(8).random((SIMULATIONS, n)) < 0.9
    second = np.where(rng(9).random((SIMULATIONS, n)) < 0.3, rng(10).random((SIMULATIONS, n)) < 0.9, first)
    rate = np.mean([stats.p_mcnemar(a, b) < 0.05 for a, b in zip(first, second, strict=True)])
    assert least <= rate <= 0.06


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_test_over_seeds_finds_five_in_a_hundred_equal_networks_different(seeds):
    p = [stats.p_over_seeds(draw) for draw in rng(11).normal(0, 0.01, (3 * SIMULATIONS, seeds))]
    assert 0.04 <= np.mean(np.array(p) < 0.05) <= 0.06


def test_holm_keeps_a_table_of_ten_equal_pairs_near_five_in_a_hundred(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels calls it each time, which takes longer than all the rest
    tables = rng(12).random((SIMULATIONS, 10))
    wrong = np.mean([(stats.holm(p) < 0.05).any() for p in tables])
    assert 0.035 <= wrong <= 0.065 and np.mean((tables < 0.05).any(axis=1)) > 0.35


@pytest.mark.parametrize("n", [359, 2000])
def test_a_difference_called_detectable_is_found_four_times_in_five(n):
    """By McNemar's exact test, which is a little weaker than the t test of the calculation."""
    both = rng(13).random(n) < 0.9
    second = np.where(rng(14).random(n) < 0.06, ~both, both)
    gap = stats.detectable(stats.spread(both, second), n)
    chance = (0.06 + gap) / 2
    tables = rng(15).multinomial(n, [chance, 0.06 - chance, 0.94], size=SIMULATIONS)
    p = [stats.p_mcnemar(np.repeat([1, 0, 1], t).astype(bool), np.repeat([0, 1, 1], t).astype(bool)) for t in tables]
    assert 0.7 <= np.mean(np.array(p) < 0.05) <= 0.87


def test_a_difference_called_detectable_with_three_seeds_is_found_four_times_in_five():
    gap = stats.detectable(0.01, 3)
    p = [stats.p_over_seeds(draw) for draw in rng(16).normal(gap, 0.01, (SIMULATIONS, 3))]
    assert 0.76 <= np.mean(np.array(p) < 0.05) <= 0.84


def test_networks_that_never_differ_still_have_an_interval():
    right = np.ones(359, bool)
    estimate, low, high = stats.difference(right, right)
    assert estimate == 0 and low < 0 < high and high - low < 0.02


# --- Fronts, ranks, scores ---


def test_a_known_front():
    cost = [1, 2, 3, 2, 4, 1]
    gain = [5, 6, 6, 4, 9, 5]
    assert stats.front(cost, gain).tolist() == [True, True, False, False, True, True]
    many = stats.front(cost, [gain, [1, 0, 0, 0, 0, 0]])
    assert many[0].tolist() == stats.front(cost, gain).tolist()
    assert many[1].tolist() == [True, False, False, False, False, False]


def right(rates, n, seeds=1, seed=0):
    return rng(seed).random((seeds, len(rates), n)) < np.array(rates)[:, None]


def test_membership_is_sure_where_the_front_is_and_a_coin_s_toss_between_equals():
    """The cheapest is always on; the second beats it clearly; the third costs more and loses;
    the last two are equal."""
    images = right([0.5, 0.8, 0.6], 2000)
    images = np.concatenate([images, images[:, 1:2]], axis=1)  # the fourth is the second again, at a higher cost
    assert stats.on_front([1, 2, 3, 4], stats.resample_top1(images)).tolist() == [1, 1, 0, 0]
    shares = [stats.on_front([1, 2], stats.resample_top1(right([0.7, 0.7], 400, seed=s), 200))[1] for s in range(60)]
    assert 0.38 <= np.mean(shares) <= 0.62


def test_membership_counts_every_seed():
    """The dearer network is better with two of the three seeds, far beyond the noise of the images."""
    low, high = right([0.5, 0.9], 1000)[0], right([0.9, 0.5], 1000)[0]
    assert stats.on_front([1, 2], stats.resample_top1([low, low, high])) == pytest.approx([1, 2 / 3])


def test_resampled_top1_scatters_as_a_proportion_does():
    tops = stats.resample_top1(right([0.9, 0.6], 1000))
    assert tops.shape == (stats.RESAMPLES, 2)
    assert tops.std(axis=0) == pytest.approx(np.sqrt([0.9 * 0.1 / 1000, 0.6 * 0.4 / 1000]), rel=0.15)


def test_ranks_are_sure_where_networks_lie_apart_and_open_where_they_do_not():
    apart = stats.ranks(stats.resample_top1(right([0.5, 0.9, 0.7], 2000)))
    assert apart.tolist() == [[3, 3, 3], [1, 1, 1], [2, 2, 2]]
    equal = right([0.7, 0.7, 0.2], 2000)
    assert stats.ranks(stats.resample_top1(equal))[:2, 1:].tolist() == [[1, 2], [1, 2]]
    assert stats.ranks([[0.5, 0.5]])[:, 0].tolist() == [1.5, 1.5]


def test_a_score_worked_by_hand():
    gains = [[0.9, -10.0], [0.7, -1.0], [0.8, -1.0]]
    assert stats.score(gains, [0.5, 0.5]) == pytest.approx([0.5, 0.5, 0.75])
    assert stats.score(gains, [1.0, 0.0]) == pytest.approx([1.0, 0.0, 0.5])
    with pytest.raises(ValueError, match="their sum must be 1"):
        stats.score(gains, [1.0, 1.0])
