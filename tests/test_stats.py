import numpy as np
import pytest

from lwnb import stats


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3: 81 of 263 and 0 of 20
    assert stats.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert stats.wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_t_interval_over_seeds_worked_by_hand():
    # 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.3027, half width 4.3027 / sqrt(3)
    assert stats.over_seeds([1, 2, 3]) == pytest.approx((2, 2 - 2.48414, 2 + 2.48414), abs=1e-4)


def test_one_seed_has_no_interval():
    mean, low, high = stats.over_seeds([0.5])
    assert mean == 0.5 and np.isnan([low, high]).all()


def test_a_known_front():
    cost = [1, 2, 3, 2, 4, 1]
    gain = [5, 6, 6, 4, 9, 5]
    assert stats.front(cost, gain).tolist() == [True, True, False, False, True, True]
