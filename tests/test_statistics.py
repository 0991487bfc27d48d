"""Wilson intervals against published values and their own definition."""

import math

import pytest

from reinforcegen_envs.statistics import wilson_interval


def test_known_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(40, 50) == pytest.approx((0.6696, 0.8876), abs=1e-4)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


@pytest.mark.parametrize("n", [1, 7, 100])
def test_ends_are_exact_and_symmetric(n):
    assert wilson_interval(0, n)[0] == 0.0
    assert wilson_interval(n, n)[1] == 1.0
    for successes in range(n + 1):
        low, high = wilson_interval(successes, n)
        assert 0.0 <= low <= successes / n <= high <= 1.0
        assert wilson_interval(n - successes, n) == pytest.approx((1 - high, 1 - low))


def test_ends_solve_the_score_equation():
    z, n, rate = 1.959963984540054, 50, 0.8
    for end in wilson_interval(40, n):
        assert abs(rate - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n))


def test_confidence_widens_and_nothing_known_is_everything():
    assert wilson_interval(5, 10, 0.99)[0] < wilson_interval(5, 10, 0.9)[0]
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("arguments", [(-1, 10), (11, 10), (1, -1), (1, 2, 1.0), (1, 2, 0.0)])
def test_refuses_nonsense(arguments):
    with pytest.raises(ValueError):
        wilson_interval(*arguments)
