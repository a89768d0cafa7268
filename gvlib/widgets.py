"""Explorer: move through the computed points of a sweep, with or without a kernel.

The numbers are embedded as data and drawn by one ES module, `static/explorer.js`. Under
a kernel it is an anywidget; on a static page `static/host.js` mounts the same module
from JSON in the page, which also carries a picture and a table for a reader without
JavaScript; in a script its text is printed.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from . import _controls, _records, evidence
from ._packed import fine_step, pack
from ._still import still
from ._view import View, widget_class, words
from .playground import Playground
from .surface3d import Surface

__all__ = ["Explorer", "Playground", "Surface"]

TRAITS = {
    "spec": "Dict",
    "values": "Bytes",
    "picks": "List",
    "at": "List",
    "shown": "Int",
    "computed": "List",
    "status": "Dict",
}
STEP = 0.01  # of progress: below one per cent nobody sees it, and a message costs time


class Explorer(View):
    """A sweep behind sliders: mean, 95 % interval and n at every computed setting.

    Make one with `Explorer.lines` (curves with bands) or `Explorer.images` (heat maps),
    then call `show()`, or put it last in a cell.
    """

    module = "explorer"

    def __init__(
        self,
        spec: dict,
        values: np.ndarray,
        *,
        recipe: _records.Lines | _records.Images,
        scale: _controls.Scale,
        compute: Callable | None = None,
    ):
        """`spec` describes the view; `values` (settings, series, stats, points)."""
        self.spec, self.values = spec, values
        self.compute, self._recipe, self._scale = compute, recipe, scale
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
        formats: Mapping[str, str] | None = None,
        y_label: str | None = None,
        y_format: str | None = None,
        x_scale: str = "linear",
        y_scale: str = "linear",
        y_limits: tuple[float, float] | None = None,
        start: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        compute: Callable | None = None,
        id: str | None = None,
    ) -> "Explorer":
        """Curves of `y` against `x`, with one slider for each column in `sliders`.

        `records` is tidy: one row for each value of `over`, of every slider and of `x`
        (`Runs` will do). The line is the mean over the seeds at each x, the band its
        95 % Student t interval there. A run that ends early holds its last value, and
        the view says so. `labels` names columns; `formats` and `y_format` write slider
        values and y as "number" or "percent"; `start` is the first setting, such as
        {"corruption": 1, "epoch": 10}; `id` names the widget in the page's address.

        Under a kernel `compute(**setting)` returns records for a setting that is not in
        the sweep; an argument `progress`, if it has one, takes fractions in [0, 1].
        ValueError: a column or combination is missing, a row doubled, a value not
        finite. TypeError: no frame, or no numbers.

        >>> rows = [(s, e, e * (1 + s) / 10) for s in (0, 1) for e in (0, 1)]
        >>> frame = pd.DataFrame(rows, columns=["seed", "epoch", "loss"])
        >>> Explorer.lines(frame, y="loss", title="Loss", alt="It rises.").values.shape
        (1, 1, 3, 2)
        """
        recipe = _records.Lines(x, *map(_records.names, (y, sliders)), over)
        frame = recipe.checked(records)
        left_out = recipe.lay_grid(frame)
        stops = {name: _records.stops(frame[name]) for name in recipe.sliders}
        blocks = [recipe.block(part) for part in recipe.settings(frame, stops)]
        label = _labels(labels, list(getattr(records, "records", records).columns))
        y_label = y_label or _joint(list(map(label, recipe.series)))
        y_format = y_format or _share_or_number(frame, recipe.series)
        scale = _controls.Scale(y_label, y_format, y_scale, y_limits)
        spec = {
            **words(title, alt, caption, id, "explorer"),
            "kind": "lines",
            "sliders": _sliders(stops, label, formats),
            "cursors": [_controls.axis(x, label(x), recipe.grid, x_scale)],
            "notes": _notes(blocks, left_out, label(x), over),
            "provenance": evidence.provenance(seeds or frame[over].nunique()),
        }
        return cls._made(spec, blocks, recipe, scale, label, start, compute)

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
        formats: Mapping[str, str] | None = None,
        value_label: str = "value",
        value_format: str = "number",
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
        """Heat maps, such as loss surfaces or decision boundaries, behind sliders.

        `values` is an array (*slider lengths, height, width), or (seeds, *slider
        lengths, height, width) with over="seed", which shows the mean and its 95 %
        Student t interval at each cell; or a dict of such arrays, one panel each. `x`
        (width,) and `y` (height,) are the evenly spaced coordinates of the cells;
        `limits` the values at the ends of the colours; `center` (0.5 for a probability)
        asks for colours with two sides; origin "upper" puts row 0 on top; `points` (k,
        3) are x, y, class of data. `compute(**setting)` returns one such picture.

        >>> words = {"title": "Loss", "alt": "A slope."}
        >>> Explorer.images(np.ones((2, 3)), **words).spec["n"]
        [1]
        """
        stops = {n: _records.slider_values(n, v) for n, v in (sliders or {}).items()}
        panels = _records.as_panels(values, value_label)
        shape = _records.common_shape(panels, stops, over)
        recipe = _records.Images(tuple(panels), tuple(stops), over, shape[-2:])
        blocks = [recipe.block(part) for part in recipe.split(panels, stops)]
        label = _labels(labels, ["x", "y", *panels, *stops])
        scale = _controls.Scale(value_label, value_format, value_scale, limits, center)
        spec = {
            **words(title, alt, caption, id, "explorer"),
            "kind": "images",
            "sliders": _sliders(stops, label, formats),
            "cursors": [
                _controls.axis(name, label(name), _records.coordinates(name, *given))
                for name, *given in (("x", x, shape[-1]), ("y", y, shape[-2]))
            ],
            "notes": _notes(blocks, 0, "", over),
            "provenance": evidence.provenance(seeds or (shape[0] if over else None)),
            "origin": _controls.one_of("origin", origin, ("lower", "upper")),
            "points": _records.points(points),
        }
        return cls._made(spec, blocks, recipe, scale, label, start, compute)

    @classmethod
    def _made(
        cls,
        spec: dict,
        blocks: list[_records.Block],
        recipe: _records.Lines | _records.Images,
        scale: _controls.Scale,
        label: Callable[[str], str],
        start: Mapping[str, Any] | None,
        compute: Callable | None,
    ) -> "Explorer":
        """Complete the description with what both kinds share."""
        controls = [c["name"] for c in [*spec["sliders"], *spec["cursors"]]]
        if len(set(controls)) < len(controls):
            raise ValueError(f"two controls have one name: {', '.join(controls)}")
        if compute is not None:
            _check_compute(compute, recipe.sliders)
        values = np.stack([block.values for block in blocks]).astype("<f4")
        picks, at = _controls.start(start or {}, spec["sliders"], spec["cursors"])
        spec |= {
            "series": [{"name": n, "label": label(n)} for n in recipe.series],
            "value": scale.spec(values),
            "stats": values.shape[2],
            "over": recipe.over,
            "n": [block.n for block in blocks],
            "ended": [block.ended for block in blocks],
            "start": {"picks": picks, "at": at},
            "compute": compute is not None,
        }
        return cls(spec, values, recipe=recipe, scale=scale, compute=compute)

    # ---- where it is shown -----------------------------------------------------------

    def text(self) -> str:
        """Title, alt text and the values of the first setting, as plain text."""
        rows = [
            f"  {label}: {mean}" + (f" (95 % interval: {span})" if span else "")
            for label, mean, span in self._rows()
        ]
        head = [f"Explorer: {self.spec['title']}", self.spec["alt"]]
        tail = [*self.spec["notes"], self.spec["provenance"]]
        return "\n".join([*head, f"{self._where()}:", *rows, *tail])

    def html(self) -> str:
        """The static page's HTML: data, and a picture and table without JavaScript."""
        state = self._state()
        state["spec"] = state["spec"] | {"compute": False}  # there is no kernel to ask
        packed = {"values": pack(self.values, step=self._step())}
        picture = still(self.spec, self._block(), self._rows(), self._where())
        return self._page({"state": state, "packed": packed}, picture, "gvx")

    def _step(self) -> float:
        """How finely a static page holds values: a heat map's colours are few."""
        value = self.spec["value"]
        if isinstance(self._recipe, _records.Images) and value["scale"] == "linear":
            return fine_step(*value["limits"])
        return 0.0

    def widget(self) -> Any:
        """The anywidget (made once) that shows this under a kernel."""
        if self._widget is None:
            made = widget_class(self.module, ("explorer",), **TRAITS)
            self._widget = made(**self._state(), values=self.values.tobytes())
            self._widget.on_msg(self._on_message)
        return self._widget

    def _state(self) -> dict:
        empty = {"shown": -1, "computed": [], "status": {}}
        return {"spec": self.spec, **self.spec["start"], **empty}

    # ---- the first setting in words --------------------------------------------------

    def _index(self) -> int:
        sizes = [len(slider["values"]) for slider in self.spec["sliders"]]
        picks = self.spec["start"]["picks"]
        return int(np.ravel_multi_index(picks, sizes)) if sizes else 0

    def _block(self) -> np.ndarray:
        return self.values[self._index()]

    def _where(self) -> str:
        start, over = self.spec["start"], self.spec["over"]
        controls = [*self.spec["sliders"], *self.spec["cursors"]]
        chosen = zip(controls, [*start["picks"], *start["at"]], strict=True)
        where = ", ".join(f"{c['label']} {c['texts'][i]}" for c, i in chosen)
        n = self.spec["n"][self._index()]
        counted = {None: "", 1: f"; 1 {over}, no interval"}
        return f"At {where}" + counted.get(n if over else None, f"; {n} {over}s")

    def _rows(self) -> list[tuple[str, str, str]]:
        """(label, mean, interval or "") of each series at the cursor."""
        at, style = self.spec["start"]["at"], self.spec["value"]["format"]
        width = len(self.spec["cursors"][0]["values"])
        point = at[0] if len(at) == 1 else at[1] * width + at[0]
        rows = []
        for series, stats in zip(self.spec["series"], self._block(), strict=True):
            here = stats[:, point]
            mean, *ends = (_controls.measured_text(float(v), style) for v in here)
            known = bool(ends) and bool(np.isfinite(here).all())
            span = "all equal" if known and here[1] == here[2] else " to ".join(ends)
            rows.append((series["label"], mean, span if known else ""))
        return rows

    # ---- computing a setting that is not in the sweep --------------------------------

    def _on_message(self, widget: Any, content: Any, _buffers: Any) -> None:
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
        """Compute the setting that was asked for, and show it."""
        if self.compute is None:
            raise ValueError("this Explorer has no compute function")
        sliders = self.spec["sliders"]
        setting = _asked(asked, sliders)
        values = list(setting.values())
        if all(v in s["values"] for v, s in zip(values, sliders, strict=True)):
            widget.shown = -1
            widget.picks = [s["values"].index(setting[s["name"]]) for s in sliders]
            widget.status = {"state": "done", "text": "This is a point of the sweep."}
            return
        widget.status = {"state": "running", "fraction": 0.0}
        block = self._recipe.fresh(self._call(widget, setting))
        self._widen(widget, block.values)
        texts = [
            _controls.value_text(v, s["format"])
            for v, s in zip(values, sliders, strict=True)
        ]
        found = {"setting": values, "texts": texts, "n": block.n, "ended": block.ended}
        widget.computed = [*widget.computed, found | {"values": _listed(block.values)}]
        widget.shown = len(widget.computed) - 1
        widget.status = {"state": "done", "text": "Computed."}

    def _call(self, widget: Any, setting: dict) -> Any:
        if "progress" not in inspect.signature(self.compute).parameters:
            return self.compute(**setting)

        def progress(fraction: float) -> None:
            fraction = min(max(float(fraction), 0.0), 1.0)
            if fraction - widget.status.get("fraction", 0.0) >= STEP:
                widget.status = {"state": "running", "fraction": round(fraction, 3)}

        return self.compute(**setting, progress=progress)

    def _widen(self, widget: Any, values: np.ndarray) -> None:
        """Let the axis reach computed values that lie outside the sweep's."""
        known = [np.array(e["values"], dtype=float) for e in widget.computed]
        value = self._scale.spec([*self.values, *known, values])
        if value != widget.spec["value"]:
            widget.spec = {**widget.spec, "value": value}


# ---- what a view is made from --------------------------------------------------------


def _labels(labels: Mapping[str, str] | None, known: list[str]) -> Callable[[str], str]:
    """Column -> the page's label, else the house's, else the bare word."""
    from .plot import NAMES

    unknown = sorted(set(labels or {}) - set(known))
    if unknown:
        raise ValueError(f"labels names {unknown}; the columns are {known}")
    given = {**NAMES, **(labels or {})}
    return lambda name: str(given.get(name, name.replace("_", " ")))


def _sliders(
    stops: dict[str, list], label: Callable, formats: Mapping[str, str] | None
) -> list[dict]:
    formats = formats or {}
    unknown = sorted(set(formats) - set(stops))
    if unknown:
        raise ValueError(f"formats names {unknown}; the sliders are {list(stops)}")
    return [
        _controls.slider(name, label(name), values, formats.get(name, "number"))
        for name, values in stops.items()
    ]


def _share_or_number(frame: pd.DataFrame, columns: Sequence[str]) -> str:
    """Accuracies and other shares are written in per cent, as in the book's figures."""
    from .plot import _is_share

    return "percent" if _is_share(frame, columns) else "number"


def _notes(
    blocks: list[_records.Block], left_out: int, x: str, over: str | None
) -> list[str]:
    notes = []
    ended, runs = sum(len(b.ended) for b in blocks), sum(b.n for b in blocks)
    if ended:
        notes.append(
            f"{ended} of {runs} runs ended early; from there on their last value is "
            "held."
        )
    if left_out:
        notes.append(f"{left_out} values of {x} that not all runs have are left out.")
    if over and all(block.n == 1 for block in blocks):
        notes.append(f"One {over} only: no interval can be given.")
    return notes


def _joint(labels: list[str]) -> str:
    """A label for an axis that several series share: the words they end with.

    >>> _joint(["Training accuracy", "Test accuracy"])
    'Accuracy'
    """
    shared = []
    for same in zip(*(reversed(label.split()) for label in labels), strict=False):
        if len(set(same)) > 1:
            break
        shared.insert(0, same[0])
    text = " ".join(shared)
    return text[:1].upper() + text[1:]


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


def _asked(asked: Any, sliders: list[dict]) -> dict:
    """The wanted setting with values of the sliders' kinds, or an error."""
    names = [slider["name"] for slider in sliders]
    if not isinstance(asked, Mapping) or set(asked) != set(names):
        raise ValueError(f"the setting {asked!r} must give {', '.join(names)}")
    return {
        slider["name"]: _wanted(slider, asked[slider["name"]]) for slider in sliders
    }


def _wanted(slider: dict, value: Any) -> Any:
    name, values = slider["label"], slider["values"]
    if not slider["numeric"]:
        return _controls.one_of(name, value, values)
    if not _controls.is_number(value):
        raise ValueError(f"{name} is {value!r}: expected a number")
    if not all(isinstance(v, int) for v in values):
        return float(value)
    if value != int(value):
        raise ValueError(
            f"{name} is {value!r}: expected a whole number, as in the sweep"
        )
    return int(value)


def _listed(values: np.ndarray) -> list:
    """A block as nested lists, None for NaN, which JSON cannot carry."""
    flat = [None if math.isnan(v) else float(f"{v:.6g}") for v in values.ravel()]
    return np.array(flat, dtype=object).reshape(values.shape).tolist()
