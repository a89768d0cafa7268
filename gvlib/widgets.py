"""Explorer: move through the computed points of a sweep, with or without a kernel.

The numbers are embedded as data and drawn by one ES module, `static/explorer.js`. Under
a kernel it is an anywidget; on a static page `static/host.js` mounts the same module
from JSON in the page, which also carries a picture and a table for a reader without
JavaScript; in a script its text is printed.
"""

import base64
import functools
import hashlib
import html
import inspect
import itertools
import json
import math
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import _display, evidence

__all__ = ["Explorer"]

STATIC = Path(__file__).parent / "static"
FORMATS = ("number", "percent")
SCALES = ("linear", "log")
# Colour maps that colour-blind readers can tell apart: cividis (Nuñez et al. 2018), and
# purple to orange through the page's background for values on two sides of a centre.
CIVIDIS = "#00224e #1a386f #434e6c #61656f #7d7c78 #9b9476 #bcae6c #dec958 #fee838"
DIVERGING = {
    "light": "#5f3a91 #9990bf #cfcfe5 #f7f7f6 #fed59f #ee9b39 #bd6109",
    "dark": "#b9a5e8 #8a6fc4 #513f78 #1e1e20 #6b4416 #c0781f #ffb659",
}


class Explorer:
    """A sweep behind sliders: mean, 95 % interval and n at every computed setting.

    Make one with `Explorer.lines` (curves with bands) or `Explorer.images` (heat maps),
    then call `show()`, or put it last in a cell.
    """

    def __init__(
        self,
        spec: dict,
        values: np.ndarray,
        recipe: "_Lines | _Images",
        compute: Callable | None = None,
    ):
        self.spec, self.values, self.recipe, self.compute = spec, values, recipe, compute
        self._widget = None

    @classmethod
    def lines(
        cls,
        records: pd.DataFrame,
        *,
        y: str | Sequence[str],
        sliders: str | Sequence[str] = (),
        title: str,
        alt: str,
        caption: str = "",
        x: str = "epoch",
        over: str = "seed",
        labels: Mapping[str, str] | None = None,
        y_label: str = "",
        y_format: str = "number",
        formats: Mapping[str, str] | None = None,
        x_scale: str = "linear",
        y_scale: str = "linear",
        y_limits: tuple[float, float] | None = None,
        start: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        compute: Callable | None = None,
        id: str | None = None,
    ) -> "Explorer":
        """Curves of `y` against `x`, one slider for each column in `sliders`.

        `records` is tidy: one row for each value of `over` (the seeds), of every slider
        and of `x`; a `Runs` does too. The line is the mean over the seeds at each x, the
        band its 95 % Student t interval, point by point. A run that ends early holds its
        last value, and the view says so. `labels` gives columns their names, `formats`
        ("number" or "percent") says how slider values are written, `y_format` likewise
        for y; `start` is the first setting, such as {"corruption": 1, "epoch": 10}.

        With a kernel, `compute(**setting)` (also `progress=`, to be called with a
        fraction in [0, 1], where it has that argument) returns records like these for a
        setting that is not in the sweep. `id` names the widget in the page's address.

        Raises ValueError for missing columns, doubled rows, NaN, gaps in x, and a
        combination of slider values without rows; TypeError for the wrong types.

        >>> rows = [(s, e, e * (1 + s) / 10) for s in (0, 1) for e in (0, 1)]
        >>> frame = pd.DataFrame(rows, columns=["seed", "epoch", "loss"])
        >>> Explorer.lines(frame, y="loss", title="Loss", alt="It rises.").values.shape
        (1, 1, 3, 2)
        """
        recipe = _Lines(x, _names(y), _names(sliders), over, dict(labels or {}))
        frame = recipe.checked(records)
        recipe.grid = np.unique(frame[x].to_numpy(dtype=float))
        stops = {name: _stops(frame[name]) for name in recipe.sliders}
        blocks = [recipe.block(part, at) for at, part in recipe.settings(frame, stops)]
        common = _common(title, alt, caption, start, id, compute, recipe)
        axis = _axis(x, recipe.label(x), recipe.grid, x_scale)
        value = _Scale(y_label or _joint(recipe), y_format, y_scale, y_limits)
        return cls._make(
            common, "lines", stops, formats, [axis], value, blocks,
            seeds or frame[over].nunique(),
        )  # fmt: skip

    @classmethod
    def images(
        cls,
        values: Any,
        *,
        sliders: Mapping[str, Sequence] | None = None,
        title: str,
        alt: str,
        caption: str = "",
        x: Sequence[float] | None = None,
        y: Sequence[float] | None = None,
        over: str | None = None,
        labels: Mapping[str, str] | None = None,
        value_label: str = "value",
        value_format: str = "number",
        formats: Mapping[str, str] | None = None,
        value_scale: str = "linear",
        limits: tuple[float, float] | None = None,
        center: float | None = None,
        origin: str = "lower",
        points: Any = None,
        start: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        compute: Callable | None = None,
        id: str | None = None,
    ) -> "Explorer":
        """Heat maps: loss surfaces or decision boundaries, one for each slider value.

        `values` is an array (*slider lengths, height, width), or (seeds, *slider
        lengths, height, width) with over="seed", which gives the mean with its 95 %
        Student t interval at each cell; or a dict of such arrays, one panel each.
        `x` (width,) and `y` (height,) are the evenly spaced coordinates of the cells.
        `center` asks for a map with two sides (0.5 for a probability); `limits` are the
        values at the ends of the colours; origin "upper" puts row 0 on top, as in
        photographs. `points` (k, 3) are x, y and class of data drawn on top.

        `compute(**setting)` returns (height, width), or (seeds, height, width) with
        `over`, or a dict of such arrays. The rest is as in `lines`.

        >>> surface = np.arange(12.0).reshape(2, 2, 3)
        >>> view = Explorer.images(surface, sliders={"epoch": [0, 5]}, title="Loss",
        ...                        alt="A slope.")
        >>> view.values.shape
        (2, 1, 1, 6)
        """
        stops = {name: _slider_values(name, v) for name, v in (sliders or {}).items()}
        panels = _panels(values, value_label)
        shape = _common_shape(panels, stops, over)
        recipe = _Images(
            tuple(panels), tuple(stops), over, dict(labels or {}), shape[-2:]
        )
        columns = _coordinates("x", x, shape[-1])
        rows = _coordinates("y", y, shape[-2])
        common = _common(title, alt, caption, start, id, compute, recipe)
        common["origin"] = _one_of("origin", origin, ("lower", "upper"))
        common["points"] = _points(points)
        axes = [
            _axis("x", recipe.label("x"), columns, "linear"),
            _axis("y", recipe.label("y"), rows, "linear"),
        ]
        value = _Scale(value_label, value_format, value_scale, limits, center)
        blocks = [recipe.block(part) for part in recipe.split(panels, stops)]
        count = seeds or (shape[0] if over else 1)
        return cls._make(common, "images", stops, formats, axes, value, blocks, count)

    @classmethod
    def _make(
        cls, common: dict, kind: str, stops, formats, axes, value, blocks, seeds
    ) -> "Explorer":
        recipe, compute, start = (common.pop(k) for k in ("recipe", "compute", "start"))
        sliders = _controls(stops, recipe, formats or {})
        picks, at = _start(start or {}, sliders, axes, last=kind == "lines")
        values = np.stack([block.values for block in blocks]).astype("<f4")
        spec = {
            **common,
            "kind": kind,
            "sliders": sliders,
            "cursors": axes,
            "value": value.spec([block.values for block in blocks]),
            "series": [{"name": n, "label": recipe.label(n)} for n in recipe.series],
            "stats": values.shape[2],
            "over": recipe.over,
            "n": [block.n for block in blocks],
            "ended": [block.ended for block in blocks],
            "notes": _notes(blocks, recipe),
            "provenance": evidence.provenance(seeds=int(seeds)),
            "start": {"picks": picks, "at": at},
            "compute": compute is not None,
        }
        explorer = cls(spec, values, recipe, compute)
        explorer._scale = value
        return explorer

    # ---- where it is shown ---------------------------------------------------------

    def show(self) -> None:
        """Show it here: the widget in a notebook, its text in a script."""
        if not _display.in_notebook():
            print(self.text())
            return
        from IPython.display import display

        display(self)

    def text(self) -> str:
        """Title, alt text and the values of the first setting, as plain text."""
        start = self.spec["start"]
        lines = [f"Explorer: {self.spec['title']}", self.spec["alt"]]
        lines.append(f"At {self._where(start['picks'], start['at'])}:")
        lines += [
            f"  {label}: {mean}{interval}"
            for label, mean, interval in self._numbers(start["picks"], start["at"])
        ]
        lines += [self._count(start["picks"]) + ".", *self.spec["notes"]]
        return "\n".join(filter(None, [*lines, self.spec["provenance"]]))

    def html(self) -> str:
        """The static page's HTML: data, and a picture and table without JavaScript."""
        state = {"spec": self.spec, **self._state()}
        data = base64.b64encode(self.values.tobytes()).decode()
        packed = json.dumps(
            {"state": state, "buffers": {"values": data}},
            separators=(",", ":"),
            allow_nan=False,
        ).replace("<", "\\u003c")  # nothing in the data can close the script element
        name = html.escape(self.spec["id"])
        return (
            f'<div class="gv-static" id="gv-{name}" data-module="explorer" '
            f'data-version="{_version("explorer.js")}">'
            f'<script type="application/json">{packed}</script>'
            f'<div class="gv-fallback gvx">{_fallback(self)}</div></div>'
        )

    def widget(self) -> Any:
        """The anywidget (made once) that shows this under a kernel."""
        if self._widget is None:
            state = {**self._state(), "values": self.values.tobytes()}
            self._widget = _widget_class()(spec=self.spec, **state)
            self._widget.on_msg(self._on_message)
        return self._widget

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str | None:
        return self.html() if _display.static_build() else None

    def _repr_mimebundle_(self, include=None, exclude=None) -> Any:
        text = {"text/plain": self.text()}
        if _display.static_build() or not _display.in_notebook():
            return text
        shown = self.widget()._repr_mimebundle_(include=include, exclude=exclude)
        data, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return {**data, **text}, metadata

    # ---- numbers in words ----------------------------------------------------------

    def _state(self) -> dict:
        start = self.spec["start"]
        return {
            "picks": start["picks"],
            "at": start["at"],
            "shown": -1,
            "computed": [],
            "status": {},
        }

    def _block(self, picks: Sequence[int]) -> tuple[int, np.ndarray]:
        sizes = [len(s["values"]) for s in self.spec["sliders"]]
        index = int(np.ravel_multi_index(picks, sizes)) if sizes else 0
        return index, self.values[index]

    def _where(self, picks: Sequence[int], at: Sequence[int]) -> str:
        chosen = zip(
            [*self.spec["sliders"], *self.spec["cursors"]], [*picks, *at], strict=True
        )
        return ", ".join(f"{c['label']} {c['texts'][i]}" for c, i in chosen)

    def _numbers(
        self, picks: Sequence[int], at: Sequence[int]
    ) -> list[tuple[str, str, str]]:
        block = self._block(picks)[1]
        width = len(self.spec["cursors"][0]["values"])
        point = at[0] if len(at) == 1 else at[1] * width + at[0]
        style = self.spec["value"]["format"]
        rows = []
        for series, stats in zip(self.spec["series"], block[:, :, point], strict=True):
            mean, *ends = (_write(float(v), style) for v in stats)
            interval = ""
            if ends and np.isfinite(stats).all():
                interval = f" (95 % interval {ends[0]} to {ends[1]})"
            rows.append((series["label"], mean, interval))
        return rows

    def _count(self, picks: Sequence[int]) -> str:
        n, over = self.spec["n"][self._block(picks)[0]], self.spec["over"]
        if over is None:
            return "One computed value each"
        return f"{n} {over}s" if n > 1 else f"1 {over}: no interval can be given"

    # ---- computing a setting that is not in the sweep ------------------------------

    def _on_message(self, widget: Any, content: dict, _buffers: Any) -> None:
        if not isinstance(content, dict) or content.get("kind") != "compute":
            return
        try:
            self._add(widget, content.get("setting"))
        # Whatever the page's own function raises (or Ctrl-C) belongs in the widget: in
        # a message handler it would vanish in the kernel's log.
        except (Exception, KeyboardInterrupt) as error:
            said = str(error) or "stopped before it was finished"
            text = f"{type(error).__name__}: {said}"
            widget.status = {"state": "error", "text": text}

    def _add(self, widget: Any, asked: Any) -> None:
        if self.compute is None:
            raise ValueError("this Explorer has no compute function")
        setting, texts, picks = _asked(asked, self.spec["sliders"])
        if picks is not None:
            widget.shown, widget.picks = -1, picks
            widget.status = {"state": "done", "text": "This is a point of the sweep."}
            return
        extra = {}
        widget.status = {"state": "running", "fraction": 0.0}
        if "progress" in inspect.signature(self.compute).parameters:
            extra["progress"] = functools.partial(_progress, widget)
        block = self.recipe.fresh(self.compute(**setting, **extra), setting)
        self._widen(widget, block)
        entry = {
            "texts": texts,
            "values": _listed(block.values),
            "n": block.n,
            "ended": block.ended,
        }
        widget.computed = [*widget.computed, entry]
        widget.shown = len(widget.computed) - 1
        text = f"Computed {self._named(texts)}."
        widget.status = {"state": "done", "text": text}

    def _named(self, texts: Sequence[str]) -> str:
        pairs = zip(self.spec["sliders"], texts, strict=True)
        return ", ".join(f"{slider['label']} {text}" for slider, text in pairs)

    def _widen(self, widget: Any, block: "_Block") -> None:
        """Let the axis reach a computed value that lies outside the sweep's."""
        if block.values.shape[1:] != self.values.shape[2:]:
            raise ValueError(
                f"compute gave an array of shape {block.values.shape}, expected "
                f"{self.values.shape[1:]}: as many seeds at least as give an interval"
            )
        known = [*self.values, *(_unlisted(e["values"]) for e in widget.computed)]
        value = self._scale.spec([*known, block.values])
        if value != widget.spec["value"]:
            widget.spec = {**widget.spec, "value": value}


@functools.cache
def _widget_class() -> type:
    """The anywidget class; made when first used, so that importing needs no widgets."""
    import anywidget
    import traitlets

    def synced(trait: Any) -> Any:
        return trait.tag(sync=True)

    class ExplorerWidget(anywidget.AnyWidget):
        # Colab shows every output in a frame of its own, so the house colours come
        # with the widget.
        _esm = (STATIC / "explorer.js").read_text("utf-8")
        _css = "\n".join(
            (STATIC / name).read_text("utf-8")
            for name in ("gv.css", "explorer.css")
            if (STATIC / name).is_file()
        )
        spec = synced(traitlets.Dict())
        values = synced(traitlets.Bytes())
        picks = synced(traitlets.List(traitlets.Int()))
        at = synced(traitlets.List(traitlets.Int()))
        shown = synced(traitlets.Int(-1))
        computed = synced(traitlets.List(traitlets.Dict()))
        status = synced(traitlets.Dict())

    return ExplorerWidget


def _progress(widget: Any, fraction: float) -> None:
    fraction = min(max(float(fraction), 0.0), 1.0)
    # Below one per cent nobody sees a step; a message each would slow the run.
    if fraction - widget.status.get("fraction", 0.0) >= 0.01:
        widget.status = {"state": "running", "fraction": round(fraction, 3)}


def _asked(asked: Any, sliders: list[dict]) -> tuple[dict, list[str], list[int] | None]:
    """A wanted setting, its texts, and its place in the sweep if it is there."""
    names = [slider["name"] for slider in sliders]
    if not isinstance(asked, Mapping) or set(asked) != set(names):
        raise ValueError(f"the setting {asked!r} must give {', '.join(names)}")
    values = [_wanted(slider, asked[slider["name"]]) for slider in sliders]
    texts = [_value_text(v, s["format"]) for v, s in zip(values, sliders, strict=True)]
    known = all(v in s["values"] for v, s in zip(values, sliders, strict=True))
    picks = None
    if known:
        picks = [s["values"].index(v) for v, s in zip(values, sliders, strict=True)]
    return dict(zip(names, values, strict=True)), texts, picks


def _wanted(slider: dict, value: Any) -> Any:
    name, values = slider["label"], slider["values"]
    if not slider["numeric"]:
        if value not in values:
            raise ValueError(f"{name} {value!r}: expected one of {values}")
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(f"{name} {value!r}: expected a number")
    if not all(isinstance(v, int) for v in values):
        return float(value)
    if value != int(value):
        raise ValueError(f"{name} {value!r}: expected a whole number, as in the sweep")
    return int(value)


def _listed(values: np.ndarray) -> list:
    """A block as nested lists, None for NaN, which JSON cannot carry."""
    flat = [None if math.isnan(v) else float(f"{v:.6g}") for v in values.ravel()]
    nested = np.array(flat, dtype=object).reshape(values.shape)
    return nested.tolist()


def _unlisted(nested: list) -> np.ndarray:
    return np.array(nested, dtype=float)


# ---- reading records -----------------------------------------------------------------


@dataclass
class _Block:
    """One setting: values (series, stats, points), n seeds, and who ended early."""

    values: np.ndarray
    n: int
    ended: list[int] = field(default_factory=list)  # index of the last own value


@dataclass
class _Lines:
    x: str
    series: tuple[str, ...]
    sliders: tuple[str, ...]
    over: str
    labels: dict[str, str]
    grid: np.ndarray | None = None

    def label(self, name: str) -> str:
        return str(self.labels.get(name, name.replace("_", " ")))

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
                where = ", ".join(f"{n} {_value_text(first[n])}" for n in here)
                raise ValueError(
                    f"{name!r} is not finite in {bad.sum()} of {len(frame)} rows, first "
                    f"at {where}. Leave such runs out, and say so in the caption"
                )

    def settings(self, frame: pd.DataFrame, stops: dict[str, list]) -> list:
        """Every combination of slider values with its rows; an error if one has none."""
        if not stops:
            return [((), frame)]
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
        return [(w, rows[_key(w)]) for w in wanted]

    def block(self, part: pd.DataFrame, at: tuple = ()) -> _Block:
        """Mean, low and high over the runs of one setting, on the common grid of x."""
        runs, ended = [], []
        for seed, rows in part.groupby(self.over, sort=True, observed=True):
            values, last = self._held(rows.sort_values(self.x), seed, at)
            runs.append(values)
            if last < len(self.grid) - 1:
                ended.append(last)
        return _Block(_stats(np.stack(runs)), len(runs), sorted(ended))

    def _held(self, rows: pd.DataFrame, seed: Any, at: tuple) -> tuple[np.ndarray, int]:
        """One run (series, len(grid)) with its last value held to the end."""
        x = rows[self.x].to_numpy(dtype=float)
        named = [f"{n} {_value_text(v)}" for n, v in zip(self.sliders, at, strict=False)]
        where = ", ".join([*named, f"{self.over} {seed}"])
        if len(np.unique(x)) < len(x):
            twice = x[1:][np.diff(x) == 0][0]
            raise ValueError(
                f"more than one row for {where}, {self.x} {twice:g}: another column "
                "varies. Make it a slider, or select one of its values first"
            )
        if not np.array_equal(x, self.grid[: len(x)]):
            lacking = np.setdiff1d(self.grid[self.grid <= x[-1]], x)
            raise ValueError(
                f"{where} has no row for {self.x} {lacking[0]:g}, which other runs "
                "have: a run may end early but not begin late or skip. Record all runs "
                "at the same steps"
            )
        values = rows[list(self.series)].to_numpy(dtype=float).T
        held = np.repeat(values[:, -1:], len(self.grid) - len(x), axis=1)
        return np.concatenate([values, held], axis=1), len(x) - 1

    def fresh(self, records: Any, setting: dict) -> _Block:
        """What `compute` gave for one setting, taken at the sweep's values of x."""
        frame = self.checked(records, sliders=False)
        frame = frame[frame[self.x].isin(self.grid)]
        if frame.empty:
            raise ValueError(
                f"compute gave no row at any {self.x} of the sweep "
                f"({self.grid[0]:g} to {self.grid[-1]:g})"
            )
        return self.block(frame, tuple(setting.values()))


@dataclass
class _Images:
    series: tuple[str, ...]
    sliders: tuple[str, ...]
    over: str | None
    labels: dict[str, str]
    size: tuple[int, int]
    x, y = "x", "y"

    def label(self, name: str) -> str:
        return str(self.labels.get(name, name.replace("_", " ")))

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

    def block(self, panels: dict[str, np.ndarray]) -> _Block:
        """Statistics (panels, 1 or 3, height * width)."""
        flat = np.stack([p.reshape(len(p), -1) for p in panels.values()], axis=1)
        values = _stats(flat) if self.over else flat[0][:, None]
        return _Block(values, flat.shape[0])

    def fresh(self, values: Any, _setting: dict) -> _Block:
        """What `compute` gave for one setting."""
        panels = _panels(values, self.series[0])
        if tuple(panels) != self.series:
            raise ValueError(f"compute gave {list(panels)}, not {list(self.series)}")
        shape = _common_shape(panels, {}, self.over)
        if shape[-2:] != self.size:
            raise ValueError(
                f"compute gave a picture of {shape[-2:]}, expected {self.size}"
            )
        return self.block(self.split(panels, {})[0])


def _stats(runs: np.ndarray) -> np.ndarray:
    """(n, series, points) -> (series, 3, points): mean, low, high over the first axis."""
    return np.stack(evidence.band(runs), axis=1)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


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


def _stops(column: pd.Series) -> list:
    """A slider's values: numbers in order, anything else as it first appears."""
    values = column.unique().tolist()
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return sorted(values) if numbers else values


def _slider_values(name: str, values: Any) -> list:
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if not values or len(set(values)) < len(values):
        raise ValueError(f"slider {name!r} has values {values}: expected some, no twice")
    return values


def _panels(values: Any, name: str) -> dict[str, np.ndarray]:
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


def _common_shape(panels: dict, stops: dict, over: str | None) -> tuple[int, ...]:
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


def _coordinates(name: str, values: Any, length: int) -> np.ndarray:
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


def _points(points: Any) -> list[list[float]]:
    if points is None:
        return []
    array = _array(points, "points")
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"points has shape {array.shape}, expected (k, 3): x, y, class")
    return [[float(f"{v:.4g}") for v in row] for row in array]


# ---- the description that the module draws from --------------------------------------


def _common(title, alt, caption, start, id, compute, recipe) -> dict:
    """What both kinds share, checked."""
    for name, text in (("title", title), ("alt", alt)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{name} is {text!r}: expected a sentence. The alt text says what the "
                "picture shows, for those who do not see it"
            )
    names = [*recipe.sliders, *((recipe.x,) if recipe.over else ("x", "y"))]
    if len(set(names)) < len(names):
        raise ValueError(f"two controls have one name: {', '.join(names)}")
    known = {*names, *recipe.series, recipe.over, "x", "y"}
    unknown = sorted(set(recipe.labels) - known)
    if unknown:
        raise ValueError(f"labels names {unknown}; known are {sorted(filter(None, known))}")
    if compute is not None:
        _check_compute(compute, recipe.sliders)
    slug = re.sub(r"[^a-z0-9]+", "-", str(id or title).lower()).strip("-")
    return {
        "id": slug or "explorer",
        "title": title,
        "alt": alt,
        "caption": caption,
        "start": start,
        "compute": compute,
        "recipe": recipe,
    }


def _check_compute(compute: Any, sliders: Sequence[str]) -> None:
    if not callable(compute):
        raise TypeError(f"compute is a {type(compute).__name__}: expected a function")
    if not sliders:
        raise ValueError("compute needs at least one slider to ask it for")
    try:
        inspect.signature(compute).bind_partial(**dict.fromkeys(sliders))
    except TypeError as error:
        raise TypeError(
            f"compute must take {', '.join(sliders)} as keyword arguments: {error}"
        ) from None


def _controls(stops: dict, recipe: Any, formats: Mapping[str, str]) -> list[dict]:
    unknown = sorted(set(formats) - set(stops))
    if unknown:
        raise ValueError(f"formats names {unknown}; the sliders are {list(stops)}")
    return [
        _slider(name, recipe.label(name), values, formats.get(name, "number"))
        for name, values in stops.items()
    ]


def _slider(name: str, label: str, values: list, style: str) -> dict:
    _one_of(f"formats[{name!r}]", style, FORMATS)
    clean = [_plain(value) for value in values]
    numeric = all(isinstance(v, (int, float)) for v in clean)
    return {
        "name": name,
        "label": label,
        "values": clean,
        "texts": [_value_text(v, style) for v in clean],
        "numeric": numeric,
        "format": style,
    }


def _plain(value: Any) -> Any:
    """A slider value that JSON can carry; float32's 0.1 becomes 0.1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _axis(name: str, label: str, values: np.ndarray, scale: str) -> dict:
    _one_of("x_scale", scale, SCALES)
    low, high = float(values[0]), float(values[-1])
    if scale == "log" and low <= 0:
        raise ValueError(f"{name!r} begins at {low:g}: a log scale needs values above 0")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return {
        "name": name,
        "label": label,
        "values": [float(f"{v:.6g}") for v in values],
        "texts": [_value_text(float(v)) for v in values],
        "numeric": True,
        "scale": scale,
        "limits": [low, high],
        "ticks": _ticks(low, high, scale, "number"),
    }


@dataclass
class _Scale:
    """The axis (or colours) of the values."""

    label: str
    format: str
    scale: str
    limits: tuple[float, float] | None
    center: float | None = None

    def __post_init__(self):
        _one_of("format", self.format, FORMATS)
        _one_of("scale", self.scale, SCALES)
        if self.limits is not None:
            low, high = map(float, self.limits)
            if not low < high or (self.scale == "log" and low <= 0):
                raise ValueError(f"limits {self.limits}: expected low < high (log: > 0)")

    def spec(self, blocks: Iterable[np.ndarray]) -> dict:
        low, high = self.limits or self._range(list(blocks))
        colours = {"light": CIVIDIS, "dark": CIVIDIS}
        if self.center is not None:
            colours = DIVERGING
        return {
            "label": self.label,
            "format": self.format,
            "scale": self.scale,
            "limits": [float(low), float(high)],
            "ticks": _ticks(float(low), float(high), self.scale, self.format),
            "colours": {mode: text.split() for mode, text in colours.items()},
        }

    def _range(self, blocks: list[np.ndarray]) -> tuple[float, float]:
        means = np.concatenate([b[:, 0].ravel() for b in blocks])
        low, high = float(means.min()), float(means.max())
        if self.scale == "log":
            if low <= 0:
                raise ValueError(f"a value is {low:g}: a log scale needs values above 0")
            return (low, high) if low < high else (low / 2, high * 2)
        if self.center is not None:
            reach = max(high - self.center, self.center - low) or 1.0
            return self.center - reach, self.center + reach
        if self.format == "percent" and low >= 0 and high <= 1:
            return 0.0, 1.0
        return self._with_bands(blocks, low, high)

    def _with_bands(self, blocks, low: float, high: float) -> tuple[float, float]:
        """Room for the bands, but at most half the span of the means on either side.

        With two seeds, t = 12.7: one such band would flatten all lines.
        """
        span = (high - low) or abs(high) or 1.0
        ends = np.concatenate([b[:, 1:].ravel() for b in blocks])
        ends = ends[np.isfinite(ends)]
        bottom, top = low, high
        if len(ends):
            bottom = max(min(low, ends.min()), low - span / 2)
            top = min(max(high, ends.max()), high + span / 2)
        if low >= 0 and bottom < span / 4:  # close to zero: show the zero
            return 0.0, top or 1.0
        return (bottom, top) if bottom < top else (low - span / 2, high + span / 2)


def _ticks(low: float, high: float, scale: str, style: str) -> list[list]:
    """About five round values in [low, high], each with its text.

    >>> [text for _, text in _ticks(0, 1, "linear", "percent")]
    ['0 %', '20 %', '40 %', '60 %', '80 %', '100 %']
    """
    if scale == "log":
        powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        values = [10.0**p for p in powers][:: max(1, len(powers) // 6)]
        if len(values) < 2:
            values = [low, math.sqrt(low * high), high]
    else:
        raw = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9)) * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        values = [k * step for k in range(first, last + 1)]
    return [[float(f"{v:.6g}"), _value_text(float(f"{v:.6g}"), style)] for v in values]


def _start(
    start: Mapping[str, Any], sliders: list[dict], axes: list[dict], last: bool
) -> tuple[list[int], list[int]]:
    """Indices of the first setting; the cursor begins at the end, or the middle."""
    controls = [*sliders, *axes]
    unknown = sorted(set(start) - {c["name"] for c in controls})
    if unknown:
        names = [c["name"] for c in controls]
        raise ValueError(f"start names {unknown}; the controls are {names}")
    picks = [_index(c, start[c["name"]]) if c["name"] in start else 0 for c in sliders]
    at = []
    for axis in axes:
        default = len(axis["values"]) - 1 if last else len(axis["values"]) // 2
        chosen = axis["name"] in start
        at.append(_index(axis, start[axis["name"]]) if chosen else default)
    return picks, at


def _index(control: dict, value: Any) -> int:
    plain = _plain(value.item() if hasattr(value, "item") else value)
    if plain not in control["values"]:
        values = ", ".join(control["texts"])
        raise ValueError(f"start: {control['name']} {value!r} is not among {values}")
    return control["values"].index(plain)


def _notes(blocks: list[_Block], recipe: Any) -> list[str]:
    notes = []
    ended, runs = sum(len(b.ended) for b in blocks), sum(b.n for b in blocks)
    if ended:
        notes.append(
            f"{ended} of {runs} runs ended before the last {recipe.label(recipe.x)}; "
            "from there on their last value is held."
        )
    if recipe.over and all(b.n == 1 for b in blocks):
        notes.append(f"One {recipe.over} only: no interval can be given.")
    return notes


def _joint(recipe: _Lines) -> str:
    """A label for an axis that several series share: the words they end with."""
    words = [recipe.label(name).split() for name in recipe.series]
    shared = []
    for same in zip(*(reversed(w) for w in words), strict=False):
        if len(set(same)) > 1:
            break
        shared.insert(0, same[0])
    return " ".join(shared)


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(known)}")
    return value


def _value_text(value: Any, style: str = "number") -> str:
    """A slider's or axis's value as people write it.

    >>> _value_text(0.25, "percent"), _value_text(64.0), _value_text("sgd")
    ('25 %', '64', 'sgd')
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.number)
    ):
        return str(value)
    if style == "percent":
        return f"{100 * value:.4g} %"
    return f"{value:.0f}" if value == int(value) < 1e6 else f"{value:.4g}"


def _write(value: float, style: str) -> str:
    """A measured value: one decimal of a per cent, or three digits; as explorer.js.

    >>> _write(0.98765, "percent"), _write(0.0123456, "number")
    ('98.8 %', '0.0123')
    """
    return f"{100 * value:.1f} %" if style == "percent" else f"{value:.3g}"


@functools.cache
def _version(name: str) -> str:
    """Eight digits that change with a static file, so that no old copy is used."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:8]


# ---- without JavaScript --------------------------------------------------------------


def _fallback(explorer: Explorer) -> str:
    """A picture, a sentence and a table of the first setting."""
    spec = explorer.spec
    start = spec["start"]
    draw = _svg if spec["kind"] == "lines" else _pictures
    picture = draw(spec, explorer._block(start["picks"])[1])
    rows = "".join(
        f"<tr><th scope='row'>{html.escape(label)}</th><td>{html.escape(mean)}</td>"
        f"<td>{html.escape(interval.strip(' ()').removeprefix('95 % interval '))}</td>"
        "</tr>"
        for label, mean, interval in explorer._numbers(start["picks"], start["at"])
    )
    where = html.escape(explorer._where(start["picks"], start["at"]))
    told = ", ".join(c["label"] for c in [*spec["sliders"], *spec["cursors"]])
    return (
        f'<p class="gvx-title">{html.escape(spec["title"])}</p>{picture}'
        f'<div class="gvx-scroll"><table class="gvx-table"><caption>At {where}; '
        f"{html.escape(explorer._count(start['picks']))}</caption><thead><tr><td></td>"
        "<th scope='col'>mean</th><th scope='col'>95 % interval</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
        f'<p class="gvx-caption">This is the first of {len(spec["n"])} settings. With '
        f"JavaScript, sliders move through {html.escape(told)}. "
        f"{html.escape(' '.join([spec['caption'], *spec['notes']]).strip())} "
        f'<span class="gvx-source">{html.escape(spec["provenance"])}</span></p>'
    )


def _placer(axis: dict, first: float, last: float) -> Callable[[float], float]:
    """Value -> pixel, held inside the picture."""
    turn = math.log10 if axis["scale"] == "log" else float
    low, high = map(turn, axis["limits"])

    def place(value: float) -> float:
        if axis["scale"] == "log" and value <= 0:
            return round(first, 1)
        share = (turn(value) - low) / (high - low)
        return round(first + (last - first) * min(max(share, 0.0), 1.0), 1)

    return place


def _svg(spec: dict, block: np.ndarray, width: int = 640, height: int = 320) -> str:
    """Lines and bands of one setting as SVG."""
    (axis,), value = spec["cursors"], spec["value"]
    left, right, top, bottom = 56, width - 140, 24, height - 40
    x, y = _placer(axis, left, right), _placer(value, bottom, top)
    parts = [
        f'<svg class="gvx-svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(spec["alt"])}">'
    ]
    for v, text in value["ticks"]:
        parts.append(f'<path class="gvx-grid" d="M{left} {y(v)}H{right}"/>')
        parts.append(_label(left - 8, y(v) + 4, text, "end"))
    parts += [_label(x(v), bottom + 18, text, "middle") for v, text in axis["ticks"]]
    parts.append(_label(right, bottom + 36, axis["label"], "end"))
    parts.append(_label(0, 14, value["label"], "start"))
    xs = [x(v) for v in axis["values"]]
    ends = _apart([y(float(stats[0][-1])) for stats in block])
    for k, stats in enumerate(block):
        parts += _curve(xs, [[y(float(v)) for v in s if v == v] for s in stats], k)
        parts.append(_label(right + 8, ends[k] + 4, spec["series"][k]["label"], "start"))
    return "".join([*parts, "</svg>"])


def _label(x: float, y: float, text: str, anchor: str) -> str:
    safe = html.escape(text)
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{safe}</text>'


def _curve(xs: list[float], ys: list[list[float]], k: int) -> list[str]:
    def path(points: Iterable) -> str:
        return "M" + "L".join(f"{a} {b}" for a, b in points)

    mean, *ends = ys
    parts = []
    if ends and len(ends[0]) == len(xs):
        there, back = zip(xs, ends[1], strict=True), zip(xs, ends[0], strict=True)
        around = path([*there, *reversed(list(back))])
        parts.append(f'<path class="gvx-band gvx-s{k % 8 + 1}" d="{around}Z"/>')
    line = path(zip(xs, mean, strict=True))
    return [*parts, f'<path class="gvx-line gvx-s{k % 8 + 1}" d="{line}"/>']


def _apart(places: list[float], gap: float = 16) -> list[float]:
    """Move labels down until they are a line of text apart.

    >>> _apart([10, 12, 60])
    [10, 26, 60]
    """
    moved, last = list(places), -math.inf
    for k in sorted(range(len(places)), key=places.__getitem__):
        last = moved[k] = max(places[k], last + gap)
    return moved


def _pictures(spec: dict, block: np.ndarray) -> str:
    """Every panel of one setting as an embedded PNG."""
    columns, rows = (len(axis["values"]) for axis in spec["cursors"])
    figures = []
    for series, stats in zip(spec["series"], block, strict=True):
        shares = _shares(stats[0].reshape(rows, columns), spec["value"])
        if spec["origin"] == "lower":
            shares = shares[::-1]
        png = _png(_colour(shares, spec["value"]["colours"]["light"]))
        data = base64.b64encode(png).decode()
        label = html.escape(series["label"])
        alt = html.escape(f"{spec['alt']} ({series['label']})")
        figures.append(
            f'<figure class="gvx-panel"><figcaption>{label}</figcaption>'
            f'<img alt="{alt}" src="data:image/png;base64,{data}"></figure>'
        )
    return f'<div class="gvx-panels">{"".join(figures)}</div>'


def _shares(values: np.ndarray, value: dict) -> np.ndarray:
    """Where values lie between the limits, in [0, 1]."""
    low, high = value["limits"]
    if value["scale"] == "log":
        values, low, high = np.log(np.maximum(values, low)), math.log(low), math.log(high)
    return np.clip((values - low) / (high - low), 0, 1)


def _colour(shares: np.ndarray, colours: list[str]) -> np.ndarray:
    """(height, width) in [0, 1] -> (height, width, 3) bytes."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(shares, at, stops[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    """(height, width, 3) bytes -> a PNG file."""
    height, width, _ = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    # 8 bits, RGB, and the standard compression, filter and (no) interlacing.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.insert(pixels.reshape(height, -1), 0, 0, axis=1).tobytes()
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")
