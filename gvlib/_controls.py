"""Sliders, axes and colours of a view, as the plain data its module draws from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Scale",
    "axis",
    "is_number",
    "measured_text",
    "one_of",
    "slider",
    "start",
    "ticks",
    "value_text",
]

FORMATS = ("number", "percent")
SCALES = ("linear", "log")
# Colour maps that colour-blind readers can tell apart: cividis (Nuñez et al. 2018), and
# purple to orange through the page's background for values on two sides of a centre.
CIVIDIS = "#00224e #1a386f #434e6c #61656f #7d7c78 #9b9476 #bcae6c #dec958 #fee838"
SEQUENTIAL = {"light": CIVIDIS, "dark": CIVIDIS}
DIVERGING = {
    "light": "#5f3a91 #9990bf #cfcfe5 #f7f7f6 #fed59f #ee9b39 #bd6109",
    "dark": "#b9a5e8 #8a6fc4 #513f78 #1e1e20 #6b4416 #c0781f #ffb659",
}


def is_number(value: Any) -> bool:
    """True for a Python number that is neither a truth value nor NaN nor infinite."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def slider(name: str, label: str, values: list, style: str) -> dict:
    """A control that moves through `values`, written as "number" or "percent"."""
    one_of(f"formats[{name!r}]", style, FORMATS)
    clean = [_plain(value) for value in values]
    return {
        "name": name,
        "label": label,
        "values": clean,
        "texts": [value_text(value, style) for value in clean],
        "numeric": all(map(is_number, clean)),
        "format": style,
    }


def _plain(value: Any) -> Any:
    """A slider value that JSON can carry; float32's 0.1 becomes 0.1."""
    if not is_number(value):
        return str(value)
    return value if isinstance(value, int) else float(f"{value:.6g}")


def axis(name: str, label: str, values: np.ndarray, scale: str = "linear") -> dict:
    """A cursor over `values` (n,), ascending, with the ticks of its axis."""
    one_of("x_scale", scale, SCALES)
    low, high = float(values[0]), float(values[-1])
    if scale == "log" and low <= 0:
        raise ValueError(f"{name!r} begins at {low:g}: a log scale starts above 0")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return {
        "name": name,
        "label": label,
        "values": [float(f"{v:.6g}") for v in values],
        "texts": [value_text(float(v)) for v in values],
        "numeric": True,
        "scale": scale,
        "limits": [low, high],
        "ticks": ticks(low, high, scale, "number"),
    }


@dataclass
class Scale:
    """The axis, or the colours, of the values."""

    label: str
    format: str
    scale: str
    limits: tuple[float, float] | None
    center: float | None = None

    def __post_init__(self):
        one_of("format", self.format, FORMATS)
        one_of("scale", self.scale, SCALES)
        if self.limits is not None:
            low, high = map(float, self.limits)
            if not low < high or (self.scale == "log" and low <= 0):
                raise ValueError(
                    f"limits {self.limits}: expected low < high (log: 0 <)"
                )

    def spec(self, blocks: Iterable[np.ndarray]) -> dict:
        """Limits, ticks and colours that suit blocks (series, stats, points)."""
        low, high = self.limits or self._range(list(blocks))
        colours = SEQUENTIAL if self.center is None else DIVERGING
        return {
            "label": self.label,
            "format": self.format,
            "scale": self.scale,
            "limits": [float(low), float(high)],
            "ticks": ticks(float(low), float(high), self.scale, self.format),
            "colours": {mode: text.split() for mode, text in colours.items()},
        }

    def _range(self, blocks: list[np.ndarray]) -> tuple[float, float]:
        means = np.concatenate([b[:, 0].ravel() for b in blocks])
        low, high = float(means.min()), float(means.max())
        if self.scale == "log":
            if low <= 0:
                raise ValueError(f"a value is {low:g}: a log scale starts above 0")
            return (low, high) if low < high else (low / 2, high * 2)
        if self.center is not None:
            reach = max(high - self.center, self.center - low) or 1.0
            return self.center - reach, self.center + reach
        if self.format == "percent" and low >= 0 and high <= 1:
            return 0.0, 1.0
        return self._with_bands(blocks, low, high)

    def _with_bands(
        self, blocks: list[np.ndarray], low: float, high: float
    ) -> tuple[float, float]:
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


def ticks(low: float, high: float, scale: str, style: str) -> list[list]:
    """About five round values in [low, high], each with its text.

    >>> [text for _, text in ticks(0, 1, "linear", "percent")]
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
    return [[float(f"{v:.6g}"), value_text(float(f"{v:.6g}"), style)] for v in values]


def start(
    wanted: Mapping[str, Any], sliders: list[dict], cursors: list[dict]
) -> tuple[list[int], list[int]]:
    """Indices of the first setting: what is wanted, else a slider's first value.

    A cursor over a line begins at its end, one over a picture in its middle.
    """
    controls = [*sliders, *cursors]
    unknown = sorted(set(wanted) - {c["name"] for c in controls})
    if unknown:
        names = [c["name"] for c in controls]
        raise ValueError(f"start names {unknown}; the controls are {names}")
    begins = {c["name"]: 0 for c in sliders}
    for cursor in cursors:
        last = len(cursor["values"]) - 1
        begins[cursor["name"]] = last if len(cursors) == 1 else (last + 1) // 2
    begins |= {c["name"]: _index(c, wanted) for c in controls if c["name"] in wanted}
    indices = [begins[c["name"]] for c in controls]
    return indices[: len(sliders)], indices[len(sliders) :]


def _index(control: dict, wanted: Mapping[str, Any]) -> int:
    value = wanted[control["name"]]
    plain = _plain(value.item() if hasattr(value, "item") else value)
    if plain not in control["values"]:
        known = ", ".join(control["texts"])
        raise ValueError(f"start: {control['name']} {value!r} is not among {known}")
    return control["values"].index(plain)


def one_of(name: str, value: str, known: Sequence[str]) -> str:
    """The value, if it is known."""
    if value not in known:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(known)}")
    return value


def value_text(value: Any, style: str = "number") -> str:
    """A slider's or axis's value as people write it.

    >>> value_text(0.25, "percent"), value_text(64.0), value_text("sgd")
    ('25 %', '64', 'sgd')
    """
    value = value.item() if isinstance(value, np.generic) else value
    if not is_number(value):
        return str(value)
    if style == "percent":
        return f"{100 * value:.4g} %"
    return f"{value:.0f}" if value == int(value) < 1e6 else f"{value:.4g}"


def measured_text(value: float, style: str) -> str:
    """A measured value: one decimal of a per cent, or three digits; as explorer.js.

    >>> measured_text(0.98765, "percent"), measured_text(0.0123456, "number")
    ('98.8 %', '0.0123')
    """
    return f"{100 * value:.1f} %" if style == "percent" else f"{value:.3g}"
