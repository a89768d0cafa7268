"""Intervals: what n values say about the quantity behind them, and the verdict.

The mean of 5 to 20 seeds gets Student's t, another statistic a BCa bootstrap from 20
values on, a count an exact binomial interval. Simulated in tests/test_intervals.py:

    nominal 95 % covers           n = 5    10    20    40
    t, normal values                 95    95    95     -
    t, exponential values            88    90    92     -
    BCa, median of normal values      -     -    93    95
    BCa, deviation of normal ones     -     -    88    94
    exact binomial, at least         98    96    96     -
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "Interval",
    "band",
    "check_values",
    "interval",
    "number",
    "proportion",
    "verdict",
]

LEVEL = 0.95
MIN_BOOTSTRAP = 20  # below this it undercovers (tests/test_intervals.py)
RESAMPLES = 9_999  # moves the ends of an interval by about 1 % of its width


class Interval(NamedTuple):
    """An estimate with its interval; low == high means that all values were equal."""

    mean: float
    low: float
    high: float
    n: int
    method: str
    level: float = LEVEL

    def __str__(self) -> str:
        return self.text()

    def text(self, unit: str = "") -> str:
        """Estimate, interval and n in words; what a claim says wherever it is shown."""
        mean, low, high = number(self.mean), number(self.low), number(self.high)
        unit = unit and f" {unit}"
        if self.low == self.high:
            return f"all {self.n} values equal {mean}{unit}"
        around = f"{100 * self.level:g} % interval {low} to {high}"
        return f"{mean}{unit} ({around}, n = {self.n})"


def interval(
    values: Sequence[float],
    level: float = LEVEL,
    statistic: Callable | None = None,
) -> Interval:
    """Interval on the mean of `values` (n,), or on another `statistic` of them.

    The mean: Student's t, mean ± t_{n-1} s / sqrt(n); at 5 to 20 values it covers what
    it says, where a bootstrap does not. Another statistic, a function (values, axis):
    BCa bootstrap (Efron 1987), from 20 values on. All values equal: a single point,
    since their spread says nothing about the spread of the next value.

    Raises ValueError for fewer than 2 values, values not finite or not 1-D.

    >>> print(interval([0.97, 0.98, 0.99, 0.98, 0.98]))
    0.980 (95 % interval 0.971 to 0.989, n = 5)
    >>> print(interval([1.0] * 5))
    all 5 values equal 1.000
    """
    x = check_values(values, "values", at_least=2)
    if statistic is not None:
        return _bootstrap(x, level, statistic)
    if np.all(x == x[0]):
        return Interval(*[float(x[0])] * 3, len(x), "all equal", level)
    mean, low, high = (float(end) for end in band(x, level))
    return Interval(mean, low, high, len(x), "Student's t", level)


def band(
    values: np.ndarray, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, low and high, each (...), over the first axis of `values` (n, ...).

    Student's t at every point by itself. With one value there is no interval: NaN.
    """
    from scipy.special import stdtrit

    _check_level(level)
    x = np.asarray(_to_cpu(values), dtype=float)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"values of shape {x.shape}: expected (n, ...) with n >= 1")
    n, mean = len(x), x.mean(axis=0)
    if n == 1:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = stdtrit(n - 1, (1 + level) / 2) * x.std(axis=0, ddof=1) / np.sqrt(n)
    return mean, mean - half, mean + half


def proportion(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Exact binomial interval (Clopper and Pearson 1934) on a share of trials.

    >>> print(proportion(20, 20))
    1.000 (95 % interval 0.832 to 1.000, n = 20)
    """
    from scipy.stats import binomtest

    _check_level(level)
    if successes != int(successes) or trials != int(trials):
        raise ValueError(f"{successes} of {trials}: expected whole numbers")
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials}: expected 0 <= successes <= trials")
    test = binomtest(int(successes), int(trials))
    ends = test.proportion_ci(confidence_level=level, method="exact")
    low, high = float(ends.low), float(ends.high)
    return Interval(successes / trials, low, high, int(trials), "exact binomial", level)


def _bootstrap(x: np.ndarray, level: float, statistic: Callable) -> Interval:
    from scipy.stats import bootstrap

    _check_level(level)
    if len(x) < MIN_BOOTSTRAP:
        raise ValueError(
            f"{len(x)} values: an interval on a statistic other than the mean needs "
            f"at least {MIN_BOOTSTRAP}; use more seeds, or the mean"
        )
    name, value = statistic.__name__, float(statistic(x, axis=0))
    if np.all(x == x[0]):
        return Interval(value, value, value, len(x), "all equal", level)
    # BCa divides by how much the statistic moves when one value is left out
    without = [float(statistic(np.delete(x, i), axis=0)) for i in range(len(x))]
    kind = "percentile" if min(without) == max(without) else "BCa"
    ends = bootstrap(
        (x,),
        statistic,
        confidence_level=level,
        n_resamples=RESAMPLES,
        method=kind,
        random_state=np.random.default_rng(0),  # same numbers, same interval
    ).confidence_interval
    low, high, how = (
        float(ends.low),
        float(ends.high),
        f"{kind} bootstrap of the {name}",
    )
    if not np.isfinite([low, high]).all():
        raise ValueError(f"{how}: no interval on {len(x)} such values; use the mean")
    return Interval(value, low, high, len(x), how, level)


def _to_cpu(values: Any) -> Any:
    return values.detach().cpu() if hasattr(values, "detach") else values


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level {level}: expected between 0 and 1, such as 0.95")


def check_values(values: Any, name: str, at_least: int) -> np.ndarray:
    """`values` as a float array (n,), n >= `at_least`, all finite; else ValueError."""
    x = np.asarray(_to_cpu(values), dtype=float)
    if x.ndim != 1:
        raise ValueError(
            f"{name} of shape {x.shape}: expected one per seed, shape (n,)"
        )
    if len(x) < at_least:
        raise ValueError(f"{name}: {len(x)} given, at least {at_least} needed (seeds)")
    if not np.all(np.isfinite(x)):
        bad = np.flatnonzero(~np.isfinite(x)).tolist()
        raise ValueError(
            f"{name} at index {bad} not finite: a run diverged; find out why, or say "
            "on the page which runs the claim leaves out"
        )
    return x


def verdict(
    low: float,
    high: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> str:
    """What an interval [low, high] says about a claimed side, or a claimed range.

    >>> verdict(0.97, 0.99, at_least=0.95), verdict(0.97, 0.99, at_most=0.95)
    ('shown', 'not shown')
    >>> verdict(0.94, 0.99, at_least=0.95)
    'undecided'
    """
    floor = -np.inf if at_least is None else at_least
    ceiling = np.inf if at_most is None else at_most
    if floor <= low and high <= ceiling:
        return "shown"
    return "not shown" if high < floor or low > ceiling else "undecided"


def number(x: float) -> str:
    """Three decimals for numbers near 1; below 1,000 no whole number that it is not.

    >>> number(1.0), number(0.9996), number(0.0973), number(123.45), number(1e-13)
    ('1.000', '0.9996', '0.097', '123.5', '1.00e-13')
    >>> number(12345.6)
    '12,346'
    """
    size = abs(x)
    if size and not 1e-3 <= size < 1e5:
        return f"{x:.2e}"
    if size >= 1000:
        return f"{x:,.0f}"
    decimals = 3 - sum(size >= limit for limit in (10, 100))
    while float(f"{x:.{decimals}f}") == round(x) != x and decimals < 6:
        decimals += 1
    return f"{x:.{decimals}f}"
