"""Landscapes: loss and accuracy along directions in weight space.

    one, two = (gv.landscape.direction(net, seed=s) for s in (0, 1))
    surface = gv.landscape.surface(net, one, two, {"train": train, "test": test})
    surface.loss["train"]      # (51, 51), rows along two; surface.a, surface.b: axes

Directions, PCA planes, basin radii and volumes are here under one name; they live in
`gvlib.directions` and `gvlib.basins`. Everything takes a network or a population.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from ._points import (
    Evaluator,
    Loss,
    Nets,
    Sheet,
    as_sets,
    check_direction,
    member_set,
    nets_of,
    progress_bar,
    with_statistics,
)
from .basins import (
    Estimate,
    Radii,
    Volume,
    log_ball,
    log_ratio,
    log_volume,
    radii,
)
from .data import Dataset
from .directions import Direction, Plane, between, check_plane, direction, plane
from .losses import cross_entropy
from .population import Population

__all__ = [
    "Estimate",
    "Line",
    "Plane",
    "Radii",
    "Surface",
    "Volume",
    "between",
    "direction",
    "interpolation",
    "line",
    "log_ball",
    "log_ratio",
    "log_volume",
    "plane",
    "radii",
    "surface",
]

Sets = Dataset | Mapping[str, Dataset]
CHECKS = 32  # points at which a spline is held against the loss itself


@dataclass(frozen=True)
class _Landscape:
    """Arrays by data set; a population's have a leading axis of members.

    loss, accuracy: set -> array; NaN where the loss is not finite (a hole).
    holes: set -> how many such points there are.
    how: what was chosen, as text for a caption.
    members: the population's table, or one empty row for a single network.
    """

    loss: dict[str, np.ndarray]
    accuracy: dict[str, np.ndarray]
    holes: dict[str, int]
    how: str
    members: pd.DataFrame

    def _frame(self, **axes: np.ndarray) -> pd.DataFrame:
        """Tidy records: members' columns, coordinates, then each quantity."""
        columns = {k: a.ravel() for k, a in axes.items()}
        size = len(next(iter(columns.values())))
        rows = self.members.loc[self.members.index.repeat(size)].reset_index(drop=True)
        if len(self.members) > 1 or len(self.members.columns):
            rows.insert(0, "member", np.repeat(np.arange(len(self.members)), size))
        for name, values in columns.items():
            rows[name] = np.tile(values, len(self.members))
        for name in self.loss:
            rows[f"{name}_loss"] = self.loss[name].ravel()
            rows[f"{name}_accuracy"] = self.accuracy[name].ravel()
        return rows


@dataclass(frozen=True)
class Line(_Landscape):
    """Loss and accuracy along a line; arrays are (points,) or (members, points).

    t: (points,), the coordinate along the direction.
    """

    t: np.ndarray

    @property
    def records(self) -> pd.DataFrame:
        """A row a point: t, then train_loss, train_accuracy, ... as in `gv.Runs`."""
        return self._frame(t=self.t)


@dataclass(frozen=True)
class Surface(_Landscape):
    """Loss and accuracy on a plane; arrays are (b, a) or (members, b, a).

    a, b: (points,), coordinates along the first and the second direction; rows are b,
    as matplotlib's contour(a, b, loss) and images want it.
    spline_error: set -> {"max", "rms", "range", "checked"} of the loss where it was
    drawn from a coarse grid through a spline; None where every point was computed.
    """

    a: np.ndarray
    b: np.ndarray
    spline_error: dict[str, dict[str, float]] | None = None

    @property
    def records(self) -> pd.DataFrame:
        """A row a point: a, b, then train_loss, train_accuracy, ..."""
        a, b = np.meshgrid(self.a, self.b)
        return self._frame(a=a, b=b)


# --- along a line ---------------------------------------------------------------------


def line(
    net: nn.Module | Population,
    direction: Direction,
    sets: Sets,
    *,
    span: float | tuple[float, float] = 1.0,
    points: int = 51,
    loss: Loss = cross_entropy,
    statistics: str | None = None,
    precision: str = "float32",
    batch: int | None = None,
    chunk: int | None = None,
) -> Line:
    """f(t) = L(theta + t d): loss and accuracy along one direction.

    Args:
        net: a network, or a population with a direction for each member.
        direction: see `direction` and `between`.
        sets: a Dataset, or several by name: {"train": train, "test": test}. Weights of
            examples are not used, as in the records of `gv.train`.
        span: t runs over [-span, span], or over the given (low, high).
        points: how many, evenly spaced.
        loss: (logits, labels) -> one loss per sample.
        statistics: of BatchNorm: "running" (those of the network, held fixed as in Li
            et al. 2018) or "batch" (of the `batch` examples at hand, at each point; in
            batches of 1,000 by default). Must be chosen where there is BatchNorm.
        precision: "float32", in truth the network's own type, or "bf16": twice as fast
            for convnets on a CPU that has it, wrong by some 1e-3 of the loss; for
            pictures. Convnets on a CPU run in channels_last, which only rounds.
        batch: examples at a time.
        chunk: points at a time; by default what suits the device and its memory.

    Raises ValueError for a direction of other shapes, a chunk that does not fit memory,
    labels the network has no output for; TypeError for what is not a data set.

    >>> from gvlib import data, models
    >>> net, moons = models.MLP(2, 8, 2), data.moons(50, seed=0)
    >>> line(net, direction(net, seed=0), moons).loss["data"].shape
    (51,)
    """
    t = _axis(span, points)
    coordinates = torch.from_numpy(t)[:, None]
    nets, sets = nets_of(net), as_sets(sets)
    settings = _settings(loss, statistics, precision, batch, chunk)
    values = _everywhere(nets, [direction], sets, coordinates, settings)
    shaped = _shaped(values, nets, (points,))
    return Line(*shaped, _how(settings), nets.members, t)


def interpolation(
    a: nn.Module | Population,
    b: nn.Module | Population,
    sets: Sets,
    *,
    span: tuple[float, float] = (-0.5, 1.5),
    points: int = 51,
    statistics: str | None = None,
    **options,
) -> Line:
    """The line through two solutions: L((1 - t) theta_a + t theta_b), a at 0, b at 1.

    All parameters move; with statistics="running" BatchNorm's running statistics move
    along with them (Goodfellow et al. 2015; Li et al. 2018). Else as `line`.
    """
    d = between(a, b, statistics=statistics == "running")
    return line(a, d, sets, span=span, points=points, statistics=statistics, **options)


# --- on a plane -----------------------------------------------------------------------


def surface(
    net: nn.Module | Population,
    one: Direction,
    two: Direction,
    sets: Sets,
    *,
    span: float | tuple[tuple[float, float], tuple[float, float]] = 1.0,
    points: int = 51,
    loss: Loss = cross_entropy,
    statistics: str | None = None,
    precision: str = "float32",
    spline: int | None = None,
    batch: int | None = None,
    chunk: int | None = None,
) -> Surface:
    """f(a, b) = L(theta + a d_1 + b d_2) on points x points points (Li et al. 2018).

    Args:
        one, two: directions d_1 (coordinate a) and d_2 (coordinate b).
        span: both coordinates run over [-span, span], or ((a low, a high), (b low,
            b high)), as `Plane.span` gives it.
        points: how many along each axis.
        spline: compute only spline x spline points and draw the rest from a cubic
            spline. Its error is measured at 32 further points and returned: say it
            beside the picture. Kinks and cliffs between coarse points are lost.

    The other arguments and errors are those of `line`; also ValueError where the two
    directions are parallel, and where a spline meets a hole.

    >>> from gvlib import data, models
    >>> net, moons = models.MLP(2, 8, 2), data.moons(50, seed=0)
    >>> one, two = direction(net, seed=0), direction(net, seed=1)
    >>> surface(net, one, two, moons, points=5).loss["data"].shape
    (5, 5)
    """
    spans = (span, span) if isinstance(span, (int, float)) else span
    a, b = (_axis(s, points) for s in spans)
    nets, sets = nets_of(net), as_sets(sets)
    for i in range(len(nets.members)):
        check_plane(*(_of_member(d, nets, i) for d in (one, two)), nets)
    settings = _settings(loss, statistics, precision, batch, chunk)
    if spline is None:
        values = _everywhere(nets, [one, two], sets, _pairs(a, b), settings)
        shaped = _shaped(values, nets, (points, points))
        return Surface(*shaped, _how(settings), nets.members, a, b)
    return _splined(nets, [one, two], sets, (a, b), spline, settings)


def _pairs(a: np.ndarray, b: np.ndarray) -> torch.Tensor:
    """Coordinates (len(b) * len(a), 2), a running fastest."""
    grid = np.stack(np.meshgrid(a, b), axis=-1)
    return torch.from_numpy(grid.reshape(-1, 2))


def _axis(span: float | tuple[float, float], points: int) -> np.ndarray:
    low, high = (-span, span) if isinstance(span, (int, float)) else span
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            f"span is {span}; give a number above 0, or (low, high) with low < high"
        )
    if not (isinstance(points, int) and points >= 2):
        raise ValueError(f"points is {points!r}; give a whole number of at least 2")
    return np.linspace(low, high, points)


def _settings(loss, statistics, precision, batch, chunk) -> dict:  # noqa: ANN001
    for name, value in (("batch", batch), ("chunk", chunk)):
        if value is not None and not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{name} is {value!r}; use a whole number of at least 1")
    if statistics == "batch" and batch is None:
        batch = 1000
    return {
        "loss": loss,
        "statistics": statistics,
        "precision": precision,
        "batch": batch,
        "chunk": chunk,
    }


def _how(settings: dict) -> str:
    """What was chosen, for a caption; empty where nothing is worth saying."""
    said = []
    if settings["statistics"]:
        said.append(f"BatchNorm with {settings['statistics']} statistics")
    if settings["precision"] == "bf16":
        said.append("computed in bfloat16")
    return ", ".join(said)


def _of_member(d: Direction, nets: Nets, i: int) -> Direction:
    """A member's part of a direction (members, ...), or the direction of a network."""
    if nets.single:
        return d
    count = len(nets.members)
    if any(len(t) != count for t in d.values()):
        raise ValueError(
            f"the direction is not one for each of {count} members; make it from the "
            "population, with gv.landscape.direction or between"
        )
    return {k: t[i] for k, t in d.items()}


def _everywhere(
    nets: Nets,
    directions: list[Direction],
    sets: dict[str, Dataset],
    coordinates: torch.Tensor,
    settings: dict,
) -> dict[str, np.ndarray]:
    """Set -> (2, members, points): loss and accuracy at all coordinates."""
    settings = dict(settings)
    net = with_statistics(nets.net, settings.pop("statistics"))
    own = [
        [_of_member(d, nets, i) for d in directions] for i in range(len(nets.members))
    ]
    for d in own:
        for one in d:
            check_direction(one, nets)
    out = {name: [] for name in sets}
    total = len(coordinates) * len(own) * len(sets)
    with progress_bar(total, "landscape") as tick:
        for i, along in enumerate(own):
            params, buffers = nets.member(i)
            for name, data in sets.items():
                at = Evaluator(
                    net, params | buffers, member_set(data, nets, i), **settings
                )
                found = at.along(Sheet(at.weights, along), coordinates, tick)
                out[name].append(torch.stack(found).double().cpu().numpy())
    return {name: np.stack(values, axis=1) for name, values in out.items()}


def _shaped(
    values: dict[str, np.ndarray], nets: Nets, shape: tuple[int, ...]
) -> tuple[dict, dict, dict]:
    """Loss and accuracy with holes as NaN, and the number of holes."""
    lead = () if nets.single else (len(nets.members),)
    loss, accuracy, holes = {}, {}, {}
    for name, both in values.items():
        hole = ~np.isfinite(both[0])
        both = np.where(hole, np.nan, both)
        loss[name], accuracy[name] = (v.reshape(*lead, *shape) for v in both)
        holes[name] = int(hole.sum())
    return loss, accuracy, holes


# --- a coarse grid and a spline -------------------------------------------------------


def _splined(
    nets: Nets,
    directions: list[Direction],
    sets: dict[str, Dataset],
    axes: tuple[np.ndarray, np.ndarray],
    coarse: int,
    settings: dict,
) -> Surface:
    """A surface from coarse x coarse points, and its error at points between them."""
    points = len(axes[0])
    if not (isinstance(coarse, int) and 4 <= coarse < points):
        raise ValueError(
            f"spline is {coarse!r}; give a whole number of at least 4 (it is cubic) "
            f"and below points = {points}, or None"
        )
    rough = [np.linspace(axis[0], axis[-1], coarse) for axis in axes]
    fine = _pairs(*axes)
    chosen = np.random.default_rng(0).choice(len(fine), CHECKS, replace=False)
    asked = torch.cat([_pairs(*rough), fine[chosen]])
    values = _everywhere(nets, directions, sets, asked, settings)
    drawn, errors = {}, {}
    for name, both in values.items():
        if holes := int((~np.isfinite(both[0])).sum()):
            raise ValueError(
                f"{holes} of {both[0].size} points of the coarse grid are not finite "
                f"on {name!r}: a spline cannot cross holes; leave spline out"
            )
        known, checks = both[..., : coarse**2], both[..., coarse**2 :]
        drawn[name] = _interpolate(known, rough, axes)
        off = drawn[name][0][:, chosen] - checks[0]
        errors[name] = {
            "max": float(abs(off).max()),
            "rms": float(np.sqrt((off**2).mean())),
            "range": float(np.ptp(known[0])),
            "checked": CHECKS,
        }
    shaped = _shaped(drawn, nets, (points, points))
    how = _how(settings)
    worst = max(e["max"] for e in errors.values())
    said = (
        f"cubic spline through {coarse} × {coarse} points, off by at most {worst:.1g} "
    )
    how = ", ".join(filter(None, [how, f"{said}at {CHECKS} points checked"]))
    return Surface(*shaped, how, nets.members, *axes, errors)


def _interpolate(
    known: np.ndarray, rough: list[np.ndarray], axes: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Values (2, members, coarse^2) on the coarse grid -> (2, members, points^2)."""
    from scipy.interpolate import RectBivariateSpline

    shape = [len(axis) for axis in rough]
    out = np.empty((*known.shape[:2], len(axes[0]) * len(axes[1])))
    for index in np.ndindex(*known.shape[:2]):
        spline = RectBivariateSpline(rough[1], rough[0], known[index].reshape(shape))
        out[index] = spline(axes[1], axes[0]).ravel()
    out[1] = out[1].clip(0, 1)  # accuracies
    return out
