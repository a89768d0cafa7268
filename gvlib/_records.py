"""A sweep's records or pictures, checked and summed up: mean, interval and n."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from . import evidence
from ._controls import is_number, value_text

__all__ = [
    "Block",
    "Images",
    "Lines",
    "as_panels",
    "common_shape",
    "coordinates",
    "names",
    "points",
    "slider_values",
    "stops",
]


@dataclass
class Block:
    """One setting: values (series, stats, points), n seeds, and who ended early."""

    values: np.ndarray
    n: int
    ended: list[int] = field(default_factory=list)  # index of the last own value


@dataclass
class Lines:
    """How a tidy frame becomes curves."""

    x: str
    series: tuple[str, ...]
    sliders: tuple[str, ...]
    over: str
    grid: np.ndarray | None = None

    def checked(self, records: Any, sliders: bool = True) -> pd.DataFrame:
        """The columns that are used, or an error that names what is wrong with them."""
        frame = getattr(records, "records", records)
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(
                f"records is a {type(frame).__name__}: expected a pandas DataFrame (or "
                "Runs), one row for each seed, slider value and epoch"
            )
        names = [*(self.sliders if sliders else ()), self.over, self.x, *self.series]
        _check_names(names, frame)
        if frame.empty:
            raise ValueError("records has no rows: nothing to show")
        self._check_numbers(frame, names)
        return frame[names]

    def _check_numbers(self, frame: pd.DataFrame, names: list[str]) -> None:
        for name in names:
            column = frame[name]
            needed = name in (self.x, *self.series)
            if needed and not pd.api.types.is_numeric_dtype(column):
                raise TypeError(f"{name!r} holds {column.dtype}: expected numbers")
            bad = column.isna()
            if needed:
                bad |= np.isinf(column.to_numpy(dtype=float))
            if bad.any():
                here = [n for n in names if n not in self.series and n != name]
                first = frame.loc[bad, here].iloc[0]
                where = ", ".join(f"{n} {value_text(first[n])}" for n in here)
                raise ValueError(
                    f"{name!r} is not finite in {bad.sum()} of {len(frame)} rows, "
                    f"first at {where}. Leave such runs out, and say so in the caption"
                )

    def settings(self, frame: pd.DataFrame, stops: dict[str, list]) -> list:
        """The rows of every combination of slider values; an error if it has none."""
        if not stops:
            return [frame]
        parts = dict(iter(frame.groupby(list(stops), sort=False, observed=True)))
        wanted = list(itertools.product(*stops.values()))
        rows = {_key(key): part for key, part in parts.items()}
        missing = [w for w in wanted if _key(w) not in rows]
        if missing:
            named = [
                " and ".join(f"{n}={v}" for n, v in zip(stops, w, strict=True))
                for w in missing[:3]
            ]
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"the sweep has no rows for {'; '.join(named)}{more}: sliders need "
                "every combination. Run what is missing, or choose fewer values"
            )
        return [rows[_key(w)] for w in wanted]

    def lay_grid(self, frame: pd.DataFrame) -> int:
        """Keep the x that every run has until it ends; how many are left out.

        A run stopped at an epoch of its own adds no point to the others.
        """
        runs = [*self.sliders, self.over]
        twice = frame.duplicated([*runs, self.x])
        if twice.any():
            row = frame[twice].iloc[0]
            where = ", ".join(f"{n} {value_text(row[n])}" for n in [*runs, self.x])
            raise ValueError(
                f"more than one row for {where}: another column varies. Make it a "
                "slider, or select one of its values first"
            )
        counts = frame.groupby(self.x).size()
        lasts = frame.groupby(runs, observed=True)[self.x].max().to_numpy()
        running = (lasts[:, None] >= counts.index.to_numpy()).sum(axis=0)
        self.grid = counts.index.to_numpy(dtype=float)[counts.to_numpy() == running]
        if not len(self.grid) or lasts.min() < self.grid[0]:
            raise ValueError(
                f"no value of {self.x} is in all runs: record them at the same steps"
            )
        return len(counts) - len(self.grid)

    def block(self, part: pd.DataFrame) -> Block:
        """Mean, low and high over the runs of one setting, on the common grid of x."""
        runs, ended = [], []
        for seed, rows in part.groupby(self.over, sort=True, observed=True):
            values, last = self._held(rows.sort_values(self.x), seed)
            runs.append(values)
            if last < len(self.grid) - 1:
                ended.append(last)
        return Block(_stats(np.stack(runs)), len(runs), sorted(ended))

    def _held(self, rows: pd.DataFrame, seed: Any) -> tuple[np.ndarray, int]:
        """One run (series, len(grid)), its last value held, and where it ended."""
        x = rows[self.x].to_numpy(dtype=float)
        own = self.grid[self.grid <= x[-1]]
        lacking = np.setdiff1d(own, x)
        if len(lacking) or not len(own):
            where = lacking[0] if len(lacking) else self.grid[0]
            raise ValueError(f"{self.over} {seed} has no row for {self.x} {where:g}")
        values = rows[list(self.series)].to_numpy(dtype=float).T
        return values[:, np.searchsorted(x, self.grid, "right") - 1], len(own) - 1

    def fresh(self, records: Any) -> Block:
        """What `compute` gave for one setting, taken at the sweep's values of x."""
        frame = self.checked(records, sliders=False)
        if frame.duplicated([self.over, self.x]).any():
            raise ValueError(
                f"compute gave one {self.over} and {self.x} more than once"
            )
        return self.block(frame)


@dataclass
class Images:
    """How arrays become heat maps."""

    series: tuple[str, ...]
    sliders: tuple[str, ...]
    over: str | None
    size: tuple[int, int]

    def split(self, panels: dict[str, np.ndarray], stops: dict) -> list[dict]:
        """One dict of panels, each (seeds, height, width), for every setting."""
        lead = () if self.over else (None,)
        shape = [len(values) for values in stops.values()]
        return [
            {
                name: p[lead][(slice(None), *index)] if index else p[lead]
                for name, p in panels.items()
            }
            for index in np.ndindex(*shape)
        ]

    def block(self, panels: dict[str, np.ndarray]) -> Block:
        """Statistics (panels, 1 or 3, height * width)."""
        flat = np.stack([p.reshape(len(p), -1) for p in panels.values()], axis=1)
        values = _stats(flat) if self.over else flat[0][:, None]
        return Block(values, flat.shape[0])

    def fresh(self, values: Any) -> Block:
        """What `compute` gave for one setting."""
        panels = as_panels(values, self.series[0])
        if tuple(panels) != self.series:
            raise ValueError(f"compute gave {list(panels)}, not {list(self.series)}")
        shape = common_shape(panels, {}, self.over)
        if shape[-2:] != self.size:
            raise ValueError(
                f"compute gave a picture of {shape[-2:]}, expected {self.size}"
            )
        return self.block(self.split(panels, {})[0])


def _stats(runs: np.ndarray) -> np.ndarray:
    """Mean, low, high: (n, series, points) -> (series, 3, points)."""
    return np.stack(evidence.band(runs), axis=1)


def names(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name, or several, as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def _key(values: Any) -> tuple:
    return values if isinstance(values, tuple) else (values,)


def _check_names(names: list[str], frame: pd.DataFrame) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"records has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, frame.columns))}"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{twice[0]!r} is used twice among x, y, sliders and over")


def stops(column: pd.Series) -> list:
    """A slider's values: numbers in order, anything else as it first appears."""
    values = column.unique().tolist()
    return sorted(values) if all(map(is_number, values)) else values


def slider_values(name: str, values: Any) -> list:
    """A slider's values as plain Python ones; an error for none, or one twice."""
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if not values or len(set(values)) < len(values):
        raise ValueError(
            f"slider {name!r} has values {values}: expected some, each once"
        )
    return values


def as_panels(values: Any, name: str) -> dict[str, np.ndarray]:
    """Finite arrays by panel name; a single array gets `name`."""
    panels = values if isinstance(values, Mapping) else {name: values}
    if not panels:
        raise ValueError("values is empty: expected an array, or a dict of arrays")
    return {str(key): _array(value, str(key)) for key, value in panels.items()}


def _array(values: Any, name: str) -> np.ndarray:
    if hasattr(values, "detach"):  # a tensor, perhaps on a GPU
        values = values.detach().cpu()
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name!r} is not finite, first at index {place}")
    return array


def common_shape(panels: dict, stops: dict, over: str | None) -> tuple[int, ...]:
    """The one shape of all panels, or an error that says what each axis must be."""
    lengths = [len(values) for values in stops.values()]
    names = [f"{n} ({k})" for n, k in zip(stops, lengths, strict=True)]
    expected = ", ".join([*([over] if over else []), *names, "height", "width"])
    lead = 1 if over else 0
    for name, panel in panels.items():
        right = panel.ndim == lead + len(lengths) + 2 and panel.size
        if not right or list(panel.shape[lead : lead + len(lengths)]) != lengths:
            raise ValueError(f"{name!r} has shape {panel.shape}, expected ({expected})")
    shapes = {panel.shape for panel in panels.values()}
    if len(shapes) > 1:
        raise ValueError(f"panels differ in shape: {sorted(shapes)}")
    return shapes.pop()


def coordinates(name: str, values: Any, length: int) -> np.ndarray:
    """The cells' evenly spaced coordinates (length,), or their numbers."""
    if values is None:
        return np.arange(length, dtype=float)
    array = _array(values, name)
    if array.shape != (length,):
        raise ValueError(f"{name} has shape {array.shape}, expected ({length},)")
    steps = np.diff(array)
    # A thousandth of a step is less than a pixel on any screen.
    if length > 1 and (steps[0] <= 0 or abs(steps - steps[0]).max() > 1e-3 * steps[0]):
        raise ValueError(f"{name} must rise in even steps, as numpy.linspace does")
    return array


def points(points: Any) -> list[list[float]]:
    """Points (k, 3) of x, y and class as a list."""
    if points is None:
        return []
    array = _array(points, "points")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"points has shape {array.shape}: expected x, y, class (k, 3)")
    return [[float(f"{v:.4g}") for v in row] for row in array]
