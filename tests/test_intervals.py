"""Intervals: against scipy, by simulated coverage at the n used, and the verdicts."""

import numpy as np
import pytest
import torch
from scipy import stats

from gvlib import intervals
from gvlib.intervals import Interval, band, interval, number, proportion, verdict

REPEATS = 20_000  # standard error of a coverage near 95 %: 0.15 points


def covered(draws, true_mean):
    """Share of t intervals, one per column of draws (n, repeats), over the mean."""
    _, low, high = band(draws)
    return np.mean((low <= true_mean) & (true_mean <= high))


@pytest.mark.parametrize("n", [2, 5, 8, 20])
def test_interval_equals_scipys_student_t(n):
    x = np.random.default_rng(n).normal(3, 2, size=n)
    low, high = stats.t.interval(0.9, n - 1, loc=x.mean(), scale=stats.sem(x))
    found = interval(x, level=0.9)
    assert (found.mean, found.low, found.high) == pytest.approx((x.mean(), low, high))
    assert (found.n, found.method, found.level) == (n, "Student's t", 0.9)


def test_band_is_the_interval_at_every_point():
    x = np.random.default_rng(0).normal(size=(6, 3, 4))
    mean, low, high = band(x)
    one = interval(x[:, 2, 1])
    assert mean.shape == low.shape == high.shape == (3, 4)
    assert (mean[2, 1], low[2, 1], high[2, 1]) == pytest.approx(one[:3])


def test_band_of_one_value_has_no_interval():
    mean, low, high = band(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1, 2]
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_tensors_are_taken():
    x = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    assert interval(x).mean == pytest.approx(7 / 3)
    assert band(x)[0] == pytest.approx(7 / 3)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_t_covers_95_percent_of_normal_values(n):
    draws = np.random.default_rng(n).normal(2, 3, size=(n, REPEATS))
    assert covered(draws, 2) == pytest.approx(0.95, abs=0.007)


@pytest.mark.parametrize("n, least", [(5, 0.93), (10, 0.94), (20, 0.945)])
def test_t_covers_nearly_95_percent_of_uniform_values(n, least):
    draws = np.random.default_rng(n).uniform(size=(n, REPEATS))
    assert least < covered(draws, 0.5) < 0.96


# Honest about skew: an accuracy near its ceiling is like beta(9, 1), a time to fit at
# worst like an exponential. Then 95 % is a promise that five seeds do not keep.
@pytest.mark.parametrize("n, share", [(5, 0.883), (10, 0.900), (20, 0.920)])
def test_t_undercovers_exponential_values_by_as_much_as_the_docs_say(n, share):
    draws = np.random.default_rng(n).exponential(size=(n, REPEATS))
    assert covered(draws, 1) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("n, share", [(5, 0.898), (10, 0.915), (20, 0.928)])
def test_t_undercovers_values_near_a_ceiling_by_less(n, share):
    draws = np.random.default_rng(n).beta(9, 1, size=(n, REPEATS))
    assert covered(draws, 0.9) == pytest.approx(share, abs=0.01)


def test_a_bootstrap_of_five_values_covers_much_less_than_t():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(5, 2_000))
    means = [draws[rng.integers(5, size=5)].mean(axis=0) for _ in range(1_000)]
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    assert np.mean((low <= 0) & (high >= 0)) < 0.87 < covered(draws, 0)


@pytest.mark.parametrize("n, least", [(5, 0.97), (10, 0.96), (20, 0.955)])
def test_binomial_covers_at_least_95_percent_at_every_share(n, least):
    ends = [proportion(k, n) for k in range(n + 1)]
    low, high = np.array([(e.low, e.high) for e in ends]).T
    for p in np.linspace(0.02, 0.98, 49):
        chance = stats.binom.pmf(np.arange(n + 1), n, p)
        assert chance[(low <= p) & (p <= high)].sum() >= least


def test_binomial_equals_the_beta_quantiles():
    found = proportion(7, 10)
    low, high = stats.beta.ppf(0.025, 7, 4), stats.beta.ppf(0.975, 8, 3)
    assert found[:3] == pytest.approx((0.7, low, high))


@pytest.mark.parametrize(
    "statistic, true, share", [(np.median, 0.0, 0.93), (np.std, 1.0, 0.87)]
)
def test_bca_coverage_at_twenty_values(monkeypatch, statistic, true, share):
    monkeypatch.setattr(intervals, "RESAMPLES", 499)  # enough for the share, and fast
    rng = np.random.default_rng(1)
    found = [interval(rng.normal(size=20), statistic=statistic) for _ in range(600)]
    hits = np.mean([i.low <= true <= i.high for i in found])
    # standard error 1.0 to 1.4 points; np.std divides by n, so falls short by 2.5 %
    assert hits == pytest.approx(share, abs=0.035)
    assert found[0].method == f"BCa bootstrap of the {statistic.__name__}"


def test_bootstrap_gives_the_same_interval_each_time():
    x = np.random.default_rng(0).normal(size=25)
    assert interval(x, statistic=np.median) == interval(x, statistic=np.median)


def test_bootstrap_where_bca_is_degenerate_says_which_it_is():
    x = np.array([0.0] * 5 + [1.0] * 20)  # no single value moves the median
    assert interval(x, statistic=np.median).method.startswith("percentile")


def test_all_equal_is_said_and_has_no_width():
    for found in (interval([0.5] * 5), interval([0.5] * 20, statistic=np.median)):
        assert found[:3] == (0.5, 0.5, 0.5)
        assert found.method == "all equal"
        assert str(found) == f"all {found.n} values equal 0.500"


def test_words_with_unit_and_level():
    found = Interval(2.5, 2.0, 3.0, 5, "Student's t", 0.9)
    assert found.text("epochs") == "2.500 epochs (90 % interval 2.000 to 3.000, n = 5)"


def test_number_never_rounds_onto_a_whole_number():
    assert number(0.99996) == "0.99996"
    assert number(-0.0004) == "-4.00e-04"
    assert number(0.0) == "0.000"
    assert number(999.9996) == "999.9996"
    assert number(12345.0) == "12,345"
    assert number(-2000.4) == "-2,000"
    assert number(1e6) == "1.00e+06"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: interval([1.0]), "at least 2"),
        (lambda: interval([1.0, np.nan, np.inf]), r"index \[1, 2\] not finite"),
        (lambda: interval([[1.0, 2.0]]), r"shape \(1, 2\)"),
        (lambda: interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: interval(range(19), statistic=np.median), "at least 20"),
        (lambda: band(np.float64(1)), "n >= 1"),
        (lambda: proportion(6, 5), "6 of 5"),
        (lambda: proportion(-1, 5), "-1 of 5"),
        (lambda: proportion(0, 0), "0 of 0"),
        (lambda: proportion(1.5, 5), "whole numbers"),
    ],
)
def test_bad_values_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "low, high, bounds, said",
    [
        (0.5, 0.6, {"at_least": 0.5}, "shown"),
        (0.4, 0.6, {"at_least": 0.5}, "undecided"),
        (0.4, 0.5, {"at_least": 0.5}, "undecided"),  # touches the line
        (0.3, 0.4, {"at_least": 0.5}, "not shown"),
        (0.3, 0.5, {"at_most": 0.5}, "shown"),
        (0.4, 0.6, {"at_most": 0.5}, "undecided"),
        (0.6, 0.7, {"at_most": 0.5}, "not shown"),
        (0.1, 0.2, {"at_least": 0.1, "at_most": 0.2}, "shown"),
        (0.0, 0.3, {"at_least": 0.1, "at_most": 0.2}, "undecided"),
        (0.15, 0.3, {"at_least": 0.1, "at_most": 0.2}, "undecided"),
        (0.3, 0.4, {"at_least": 0.1, "at_most": 0.2}, "not shown"),
        (0.0, 0.05, {"at_least": 0.1, "at_most": 0.2}, "not shown"),
        (1.0, 1.0, {"at_least": 1.0}, "shown"),  # all equal, on the line
    ],
)
def test_verdict(low, high, bounds, said):
    assert verdict(low, high, **bounds) == said
