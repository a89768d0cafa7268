"""Basins: how far a minimum reaches along random rays, and the volume that follows.

    radii = gv.landscape.radii(population, train, cutoff=0.1, rays=500)
    radii.volumes()            # one row a member: log10 of the volume, with intervals

The volume of a basin in n dimensions is V = w_n E[r^n] over rays of a fixed scale, w_n
the unit ball's volume; only its logarithm can be written down (Huang et al. 2019). In a
ratio of two volumes w_n cancels.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ._points import (
    Evaluator,
    Fan,
    Loss,
    Nets,
    Sheet,
    member_set,
    nets_of,
    progress_bar,
    with_statistics,
)
from .data import Dataset
from .directions import Direction, check_choices, moving, noise, scaled
from .losses import cross_entropy
from .population import Population

__all__ = [
    "Estimate",
    "Radii",
    "Volume",
    "log_ball",
    "log_ratio",
    "log_volume",
    "radii",
]

RESAMPLES = 2_000  # moves the ends of a bootstrap interval by a few percent of it
LN10 = math.log(10)


# --- radii ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Radii:
    """Distances at which rays leave a basin.

    radii: (rays,) or (members, rays), in units of the directions (filter-normalized: 1
    is the weights' own norm). still_inside: of the same shape, True where a ray did
    not reach the cut-off; its radius is then the largest distance tried, a lower bound.
    own_loss: () or (members,), the loss at the minimizers. dimensions: n, how many
    weights the rays move. tolerance: relative error of a radius.
    """

    radii: np.ndarray
    still_inside: np.ndarray
    own_loss: np.ndarray
    cutoff: float
    dimensions: int
    tolerance: float
    how: str
    members: pd.DataFrame
    _rays: tuple

    def ray(self, i: int) -> Direction:
        """The direction of ray i, (...) or (members, ...), as it was walked along."""
        nets, seed, normalize, biases = self._rays
        d = scaled(noise(nets, [_ray_seed(seed, i)], biases), nets, normalize, biases)
        return {k: v[0] for k, v in d.items()} if nets.single else d

    def volumes(self, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """A row a member: its columns, then log10 volumes with intervals.

        The columns are those of `log_volume`'s Volume, log10_mean, log10_mean_low,
        log10_mean_high, log10_median, ..., then median_radius, rays and still_inside.
        """
        rows = []
        inside = np.atleast_2d(self.still_inside)
        for r, open_rays in zip(np.atleast_2d(self.radii), inside, strict=True):
            v = log_volume(r, self.dimensions, level=level, seed=seed)
            row = {"dimensions": v.dimensions}
            for name in ("mean", "median"):
                row |= _columns(f"log10_{name}", getattr(v, name))
            row |= {"largest_ray_share": v.largest_ray_share}
            row |= {"median_radius": float(np.median(r)), "rays": len(r)}
            rows.append(row | {"still_inside": int(open_rays.sum())})
        table = pd.DataFrame(rows, index=self.members.index)
        return pd.concat([self.members, table], axis=1)


def _columns(name: str, found: "Estimate") -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def radii(
    net: nn.Module | Population,
    data: Dataset,
    *,
    cutoff: float,
    rays: int = 1000,
    seed: int = 0,
    normalize: str = "filter",
    biases: str = "zero",
    start: float = 1e-3,
    growth: float = 1.5,
    largest: float = 10.0,
    tolerance: float = 1e-3,
    loss: Loss = cross_entropy,
    statistics: str | None = None,
    precision: str = "float32",
    batch: int | None = None,
    chunk: int | None = None,
) -> Radii:
    """r(d) = min {r > 0: L(theta + r d) >= cutoff} along many random rays d.

    From `start` a ray grows by the factor `growth` until the mean loss reaches the
    cut-off, then the last step is halved (on a log scale) down to `tolerance`. A wall
    thinner than one step of growth can be stepped over: a smaller factor sees more.

    Args:
        net: a network or a population, whose members share their random numbers.
        data: the training set.
        cutoff: mean loss at which the basin ends (0.1 in Huang et al. 2019, as we
            recall it); it must lie above the minimizer's own loss.
        rays: how many; ray i depends on `seed` and i alone.
        normalize, biases: as for `direction`, but "unit", where the rays have length 1
            and radii are Euclidean, in place of None. Rays do not "copy" biases.
        start, growth, largest: the first distance, the factor and the last distance. A
            ray still inside at `largest` is counted in `still_inside`.
        tolerance: relative; n log r is then known to about n * tolerance / sqrt(rays).
        chunk: rays at a time.

    The other arguments are those of `line`. A loss that is not finite is outside.

    Raises ValueError for a cut-off not above the own loss of some member (it is named),
    and for settings out of range.

    >>> from gvlib import data, models
    >>> bowl = nn.Linear(2, 1, bias=False).double()
    >>> _ = nn.init.zeros_(bowl.weight)
    >>> axes = data.Dataset(2 * torch.eye(2).double(), torch.zeros(2).long())
    >>> half = lambda z, y: z[:, 0] ** 2 / 2          # L = |theta|^2, so r = 0.5
    >>> r = radii(bowl, axes, cutoff=0.25, rays=3, normalize="unit", loss=half)
    >>> np.round(r.radii, 3).tolist()
    [0.5, 0.5, 0.5]
    """
    search = _Search(cutoff, start, growth, largest, tolerance)
    search.check(rays, normalize, biases)
    nets = nets_of(net)
    options = {"loss": loss, "precision": precision, "batch": batch, "chunk": chunk}
    skeleton = with_statistics(nets.net, statistics)
    at = [
        Evaluator(skeleton, _merged(nets, i), member_set(data, nets, i), **options)
        for i in range(len(nets.members))
    ]
    own = np.array([_own_loss(one) for one in at])
    _check_cutoff(cutoff, own, nets)
    kept = nets._replace(params={k: p.clone() for k, p in nets.params.items()})
    made = (kept, seed, normalize, biases)  # so that `ray` holds when net trains on
    found = _walk(at, made, rays, search)
    still = np.isinf(found)
    found = np.where(still, largest, found)
    how = f"{rays} rays, cut-off {cutoff:g}" + _said(still, largest)
    shaped = (found[0], still[0], own[0]) if nets.single else (found, still, own)
    n = sum(nets.params[k][0].numel() for k in moving(nets, biases))
    return Radii(*shaped, cutoff, n, tolerance, how, nets.members, made)


def _walk(at: list[Evaluator], made: tuple, rays: int, search: "_Search") -> np.ndarray:
    """Radii (members, rays), a chunk of rays at a time; members share the noise."""
    nets, seed, normalize, biases = made
    found = np.empty((len(at), rays))
    size = min(one.points_at_once(rays, fan=True) for one in at)
    with progress_bar(rays * len(at), "rays") as tick:
        for first in range(0, rays, size):
            rows = range(first, min(first + size, rays))
            g = noise(nets, [_ray_seed(seed, i) for i in rows], biases)
            for i, one in enumerate(at):
                d = scaled(g, nets.only(i), normalize, biases)
                fan = Fan(one.weights, {k: d[k] for k in g})
                found[i, rows.start : rows.stop] = search.run(one, fan).cpu().numpy()
                tick(len(rows))
    return found


def _said(open_rays: np.ndarray, largest: float) -> str:
    """How many rays did not end, in words; nothing where all did."""
    count = int(open_rays.sum())
    return f", {count} still inside at {largest:g}" if count else ""


def _merged(nets: Nets, i: int) -> dict[str, Tensor]:
    params, buffers = nets.member(i)
    return params | buffers


def _own_loss(one: Evaluator) -> float:
    """The loss at theta itself: no step along a direction that is zero."""
    name = next(iter(one.weights))
    still = Sheet(one.weights, [{name: torch.zeros_like(one.weights[name])}])
    return float(one.along(still, torch.zeros(1, 1))[0])


def _check_cutoff(cutoff: float, own: np.ndarray, nets: Nets) -> None:
    high = np.flatnonzero(~(own < cutoff))
    if not len(high):
        return
    who = "the network" if nets.single else f"member {', '.join(map(str, high))}"
    losses = ", ".join(f"{loss:.3g}" for loss in own[high])
    raise ValueError(
        f"the cut-off {cutoff:g} is not above the own loss of {who} ({losses}), which "
        "lies in no basin. Raise the cut-off, train longer, or leave such members out"
    )


def _ray_seed(seed: int, i: int) -> int:
    return (
        seed * 1_000_003 + i + 1
    ) % 2**63  # a stream a ray, for up to 1,000,003 rays


class _Search(NamedTuple):
    """Bracketing by growth and bisection of a whole fan of rays at once."""

    cutoff: float
    start: float
    growth: float
    largest: float
    tolerance: float

    def check(self, rays: int, normalize: str | None, biases: str) -> None:
        """Refuse settings out of range."""
        if not math.isfinite(self.cutoff):
            raise ValueError(f"cutoff is {self.cutoff}; give a finite loss")
        if not (isinstance(rays, int) and rays >= 1):
            raise ValueError(f"rays is {rays!r}; use a whole number of at least 1")
        if not 0 < self.start < self.largest < math.inf:
            raise ValueError(
                f"start is {self.start} and largest {self.largest}; use "
                "0 < start < largest"
            )
        if not (1 < self.growth < math.inf and 0 < self.tolerance < 1):
            raise ValueError(
                f"growth is {self.growth} and tolerance {self.tolerance}; use a factor "
                "above 1 and a relative error between 0 and 1"
            )
        check_choices(normalize, biases)
        if normalize is None or biases == "copy":
            raise ValueError(
                f"normalize is {normalize!r} and biases {biases!r}: rays need a scale, "
                'and directions of their own; use "filter", "layer" or "unit", and '
                '"zero" or "random"'
            )

    def run(self, at: Evaluator, fan: Fan) -> Tensor:
        """Radii (rays,) in float64, infinite for rays still inside at `largest`.

        low is inside (or 0), high outside (or infinite).
        """
        rays = len(next(iter(fan.d.values())))
        low = torch.zeros(rays, dtype=torch.float64, device=at.device)
        high = torch.full_like(low, torch.inf)
        going = torch.ones_like(low, dtype=torch.bool)
        while going.any():
            r = self._next(low, high)
            inside = at.along(fan, r)[0] < self.cutoff
            low = torch.where(going & inside, r, low)
            high = torch.where(going & ~inside, r, high)
            done = (high / low < 1 + 2 * self.tolerance) | (low >= self.largest)
            # a ray that leaves within 1e-12 of the start has no radius to speak of
            going = ~(done | (high < 1e-12 * self.start))
        return (low * high).sqrt()  # the middle on a log scale

    def _next(self, low: Tensor, high: Tensor) -> Tensor:
        """Where to look next along each ray."""
        grow = torch.where(low == 0, self.start, low * self.growth)
        grow = grow.clamp(max=self.largest)
        shrink = high / 16  # not yet inside: a step of 16, since a start is rarely far
        halve = (low * high).sqrt()
        closed = torch.where(low == 0, shrink, halve)
        return torch.where(high.isinf(), grow, closed)


# --- volumes --------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float


class Volume(NamedTuple):
    """log10 E[r^n] two ways; add `log_ball(n)` for the volume itself.

    mean: log10 of the mean of r^n over the rays. median: n log10 of the median radius.
    largest_ray_share: the share of the mean that the one largest ray carries.
    """

    mean: Estimate
    median: Estimate
    dimensions: int
    largest_ray_share: float


def log_volume(
    radii: np.ndarray, dimensions: int, *, level: float = 0.95, seed: int = 0
) -> Volume:
    """log10 E[r^n] as log-mean-exp and by the median, with bootstrap intervals.

    mean = log10(1/m sum_i r_i^n), computed as a log-mean-exp; median = n log10 median r
    (Huang et al. 2019, without the unit ball, which cancels in ratios). In high
    dimension the mean is carried by the one largest ray (`largest_ray_share` near 1):
    it grows with the number of rays, and its percentile interval is too short. The
    median does not have that trouble, but it bounds the mean from below only.

    Args:
        radii: (rays,), above 0, at least 2.
        dimensions: n.
        level: of the percentile intervals, over rays drawn again with replacement.
        seed: of those draws.

    Raises ValueError for radii not positive and finite.

    >>> v = log_volume(np.full(10, 0.1), 1000)
    >>> round(v.mean.value), round(v.median.value)
    (-1000, -1000)
    """
    logs = _logs(radii, "radii")
    terms = dimensions * logs
    share = np.exp(terms.max() - _log_mean(terms)) / len(terms)
    drawn = _resampled(logs, seed)
    return Volume(
        *(
            _estimate(how(terms), how(dimensions * drawn), level)
            for how in (_log_mean, _log_median)
        ),
        dimensions,
        float(share),
    )


def log_ratio(
    a: np.ndarray,
    b: np.ndarray,
    dimensions: int,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Estimate, Estimate]:
    """log10(V_a / V_b), by log-mean-exp and by median radii: orders of magnitude.

    V_a / V_b = E[r_a^n] / E[r_b^n]; the unit ball cancels. Both basins must be measured
    alike: the same n, normalization and cut-off. The rays of a and b are drawn again
    independently, which makes the interval wide rather than narrow where they were
    shared. See `log_volume` for what the two numbers mean.

    >>> mean, median = log_ratio(np.full(5, 0.2), np.full(5, 0.1), 1000)
    >>> round(median.value), round(1000 * np.log10(2))
    (301, 301)
    """
    a, b = _logs(a, "a"), _logs(b, "b")
    drawn = _resampled(a, seed), _resampled(b, seed + 1)
    out = []
    for how in (_log_mean, _log_median):
        value = how(dimensions * a) - how(dimensions * b)
        spread = how(dimensions * drawn[0]) - how(dimensions * drawn[1])
        out.append(_estimate(value, spread, level))
    return tuple(out)


def log_ball(dimensions: int) -> float:
    """log10 of the unit ball's volume, pi^(n/2) / Gamma(1 + n/2).

    >>> round(10 ** log_ball(3), 6) == round(4 / 3 * math.pi, 6)
    True
    """
    half = dimensions / 2
    return (half * math.log(math.pi) - math.lgamma(1 + half)) / LN10


def _logs(radii: np.ndarray, name: str) -> np.ndarray:
    r = np.asarray(radii, dtype=float)
    if r.ndim != 1 or len(r) < 2:
        raise ValueError(
            f"{name} has shape {r.shape}; give the radii of 2 rays or more"
        )
    if not (np.isfinite(r) & (r > 0)).all():
        raise ValueError(
            f"{name} must be finite and above 0; the smallest is {r.min()}"
        )
    return np.log(r)


def _log_mean(terms: np.ndarray) -> np.ndarray:
    """Log of the mean of exp(terms) over the last axis, without overflow."""
    top = terms.max(axis=-1, keepdims=True)
    return np.log(np.exp(terms - top).mean(axis=-1)) + top[..., 0]


def _log_median(terms: np.ndarray) -> np.ndarray:
    return np.median(terms, axis=-1)


def _resampled(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return values[rng.integers(len(values), size=(RESAMPLES, len(values)))]


def _estimate(value: float, drawn: np.ndarray, level: float) -> Estimate:
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(*(float(v) / LN10 for v in (value, *ends)))
