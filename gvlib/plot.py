"""Figures in one house style that follow light and dark mode and say what they show.

Draw with `curves`, `points`, `bars` or `images`, or with matplotlib or seaborn inside
`with style():`; end with `show(fig, alt=..., caption=...)`, which turns the figure into
SVG whose colours are variables of the page (gvlib/static/gv.css). Small tables go
through `table`. Importing this module changes no setting of matplotlib.
"""

import hashlib
import html
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from . import evidence
from ._display import emit, in_notebook, static_build
from ._mosaic import count_titles, image_grid, mosaic, to_unit
from ._svg import PIXELS_PER_INCH, TOKENS, render
from .intervals import Interval, number

__all__ = [
    "CATEGORIES",
    "STEPS",
    "bars",
    "curves",
    "figure",
    "images",
    "points",
    "reference",
    "show",
    "style",
    "svg",
    "table",
]

# Colours that tell categories apart, and steps of an ordered quantity, low to high.
CATEGORIES = tuple(TOKENS[f"c{i}"] for i in range(1, 9))
STEPS = tuple(TOKENS[f"s{i}"] for i in range(1, 10))

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)))
WIDTH, HEIGHT = 6.4, 3.5
# A figure's least width is half its full one (gv.css). Up to this full width it fits a
# phone of 360 px with 20 px of margin left and right, and needs no scrolling region.
NEVER_SCROLLS = 640

NAMES = {
    "epoch": "Epoch",
    "step": "Step",
    "train_accuracy": "Training accuracy",
    "test_accuracy": "Test accuracy",
    "train_loss": "Training loss",
    "test_loss": "Test loss",
    "lr": "Learning rate",
}

_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": TOKENS["muted"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": TOKENS["fg"],
    "axes.labelpad": 6,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": mpl.cycler(color=CATEGORIES)
    + mpl.cycler(linestyle=[*DASHES, *DASHES]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": TOKENS["fg"],
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 10.5,
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.figsize": (WIDTH, HEIGHT),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: same layout anywhere
    "font.size": 10,
    "grid.color": TOKENS["line"],
    "grid.linewidth": 0.8,
    "image.cmap": "gray",
    # Pixels go into the SVG as they are and the browser enlarges them.
    "image.composite_image": False,
    "image.interpolation": "none",
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.title_fontsize": 9.5,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "gvlib",
    "text.color": TOKENS["fg"],
    "xtick.color": TOKENS["muted"],
    "xtick.labelsize": 9.5,
    "ytick.color": TOKENS["muted"],
    "ytick.labelsize": 9.5,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


# --- style ---------------------------------------------------------------------------


def style() -> AbstractContextManager:
    """The house style, for a `with` block; outside it matplotlib is as before.

    Seaborn's axes-level functions draw in it too.

    >>> before = mpl.rcParams["axes.grid"]
    >>> with style():
    ...     mpl.rcParams["axes.grid"]
    True
    >>> mpl.rcParams["axes.grid"] == before
    True
    """
    return mpl.rc_context(_RC)


def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    width: float = WIDTH,
    height: float | None = None,
    **options: Any,
) -> tuple[Figure, Any]:
    """A styled figure and its axes: one Axes, or an array (rows, columns) squeezed.

    width, height: inches; 6.4 fills a page's column. The height grows with the rows
    unless it is given. options: those of `Figure.subplots` (sharex, sharey, ...).

    >>> fig, (left, right) = figure(1, 2, sharey=True)
    >>> len(fig.axes)
    2
    """
    height = height or (HEIGHT if rows == 1 else 0.5 + 2.4 * rows)
    with style():
        fig = Figure(figsize=(width, height))
        house = {"axes_class": _Axes, **options.pop("subplot_kw", {})}
        return fig, fig.subplots(rows, columns, subplot_kw=house, **options)


class _Axes(Axes):
    """Axes whose titles and legends look alike wherever they are made.

    Matplotlib reads their style when they are made, which is after the `with` block.
    """

    def set_title(self, *args: Any, **options: Any) -> Any:
        with style():
            return super().set_title(*args, **options)

    def legend(self, *args: Any, **options: Any) -> Any:
        with style():
            return super().legend(*args, **options)


def reference(ax: Axes, value: float, text: str, *, along: str = "y") -> None:
    """A thin dashed line with its name at `value` of the axis `along` ("x" or "y").

    For what a curve is to be held against: chance, a paper's number, the best baseline.
    Raises ValueError where `along` is neither.
    """
    if along not in ("x", "y"):
        raise ValueError(f'along is {along!r}; it must be "x" or "y"')
    look = {"color": TOKENS["muted"], "linewidth": 1, "linestyle": DASHES[1]}
    words = {"color": TOKENS["muted"], "fontsize": 9, "textcoords": "offset points"}
    if along == "y":
        ax.axhline(value, zorder=1, **look)
        place = {"xy": (1, value), "xycoords": ax.get_yaxis_transform()}
        ax.annotate(text, xytext=(-2, 3), ha="right", va="bottom", **place, **words)
    else:
        ax.axvline(value, zorder=1, **look)
        place = {"xy": (value, 1), "xycoords": ax.get_xaxis_transform()}
        ax.annotate(text, xytext=(0, 3), ha="center", va="bottom", **place, **words)


# --- records -------------------------------------------------------------------------


def _frame(records: Any, columns: Sequence[str]) -> pd.DataFrame:
    """The tidy frame behind `records` (a frame, or Runs), with these columns."""
    frame = getattr(records, "records", records)
    if not isinstance(frame, pd.DataFrame):
        kind = type(records).__name__
        raise TypeError(f"records is a {kind}; give a pandas DataFrame, or gv.Runs")
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise ValueError(
            f"records has no column {missing[0]!r}; it has {', '.join(frame.columns)}"
        )
    if frame.empty:
        raise ValueError("records has no rows: nothing to draw")
    return frame


def _list(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _once(frame: pd.DataFrame, keys: list[str], known: Sequence[str]) -> None:
    """Refuse rows that share their keys: a mean over them would mix conditions."""
    double = frame.duplicated(keys, keep=False)
    if not double.any():
        return
    first = frame[double].iloc[0]
    group = frame[(frame[keys] == first[keys]).all(axis=1)]
    results = ("train_", "test_", "seconds", *known)
    varied = [
        c for c in group if not str(c).startswith(results) and group[c].nunique() > 1
    ]
    where = ", ".join(f"{k} = {_level(first[k])}" for k in keys)
    what = f" They differ in {', '.join(varied)}." if varied else ""
    raise ValueError(
        f"records has {len(group)} rows for {where}.{what} Choose the rows to draw "
        "first, or name what tells them apart (hue=, or over= with several columns)"
    )


class _Band(NamedTuple):
    """A mean and its interval along x, all of shape (len(x),)."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _along(frame: pd.DataFrame, x: str, y: str, over: list[str], level: float) -> _Band:
    """Mean and interval of y at each x, members told apart by `over`."""
    frame = frame.assign(_seen=1.0)
    grid = frame.pivot(index=x, columns=over, values=[y, "_seen"]).sort_index()
    values, seen = grid[y].to_numpy(float), grid["_seen"].notna().to_numpy()
    last = len(seen) - 1 - seen[::-1].argmax(axis=0)  # each member's last record
    rows = np.arange(len(seen))[:, None]
    holes = ~seen & (rows < last)
    if holes.any():
        who = grid[y].columns[holes.any(axis=0)][0]
        raise ValueError(
            f"the member {', '.join(over)} = {_level(who)} has no {y} at some {x} "
            f"where others have one; record all members at the same {x}"
        )
    held = values[np.minimum(rows, last), np.arange(len(last))]
    return _Band(grid.index.to_numpy(), *_interval(held.T, level))


def _interval(values: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
    """Mean, low, high over axis 0 of (n, k); NaN where any member is NaN or n is 1."""
    mean = values.mean(axis=0)
    low, high = np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    whole = np.isfinite(values).all(axis=0)
    if len(values) > 1 and whole.any():
        mean[whole], low[whole], high[whole] = evidence.band(values[:, whole], level)
    return mean, low, high


# --- names and colours ---------------------------------------------------------------


def _level(value: Any) -> str:
    """A value of a column, as one would write it."""
    if isinstance(value, tuple):
        return ", ".join(map(_level, value))
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return str(value)


def _name(value: Any, labels: Mapping | None) -> str:
    """The label of a column or of a value: the caller's, ours, or the bare word."""
    if labels and value in labels:
        return labels[value]
    if not isinstance(value, str):
        return _level(value)
    return NAMES.get(value, value.replace("_", " "))


def _title(column: str, labels: Mapping | None) -> str:
    name = _name(column, labels)
    return name[:1].upper() + name[1:]


def _colours(levels: list, palette: str | Sequence | Mapping | None) -> list[str]:
    """One colour a level: steps for three numbers or more, else categories."""
    if isinstance(palette, Mapping):
        return [_token(palette[v]) for v in levels]
    if palette is not None and not isinstance(palette, str):
        palette = [_token(c) for c in palette]
        return _enough(palette, levels)[: len(levels)]
    if palette not in (None, "categories", "steps"):
        raise ValueError(
            f'palette is {palette!r}; give "categories", "steps", a list of colours, '
            "or a dict from level to colour"
        )
    number = all(
        isinstance(v, (int, float, np.number)) and not isinstance(v, bool)
        for v in levels
    )
    if palette == "steps" or (palette is None and number and len(levels) > 2):
        _enough(STEPS, levels)
        return [STEPS[i] for i in np.linspace(0, 8, len(levels)).round().astype(int)]
    return list(_enough(CATEGORIES, levels)[: len(levels)])


def _token(colour: str) -> str:
    """A token's name ("c1", "muted") as its colour; any other colour as it is."""
    return TOKENS.get(colour, colour)


def _enough(palette: Sequence[str], levels: list) -> Sequence[str]:
    if len(levels) > len(palette):
        raise ValueError(
            f"{len(levels)} levels cannot be told apart by {len(palette)} colours: "
            "draw fewer, or use several panels or gv.widgets.Explorer"
        )
    return palette


def _is_share(frame: pd.DataFrame, columns: Sequence[str]) -> bool:
    """True for accuracies and other shares: named so, and within [0, 1]."""
    named = all(re.search(r"accuracy|error|share|fraction", c) for c in columns)
    values = frame[list(columns)].to_numpy(float)
    return bool(named and np.nanmin(values) >= 0 and np.nanmax(values) <= 1)


def _percent() -> PercentFormatter:
    return PercentFormatter(xmax=1, decimals=None, symbol="\N{NO-BREAK SPACE}%")


# --- curves --------------------------------------------------------------------------


class _Series(NamedTuple):
    """One curve: its band, look, and what the legend calls it."""

    band: _Band
    colour: str
    marker: str
    dash: Any
    label: str


def curves(
    records: Any,
    *,
    x: str = "epoch",
    y: str | Sequence[str] = "train_accuracy",
    hue: str | None = None,
    over: str | Sequence[str] = "seed",
    ax: Axes | None = None,
    labels: Mapping | None = None,
    palette: str | Sequence | Mapping | None = None,
    level: float = 0.95,
    legend: str | bool = "auto",
) -> Axes:
    """Mean curves with a Student-t band over seeds, one curve a value of `hue`.

    At each x: mean ± t(level, n - 1) s / √n over the members (`evidence.band`). A
    member that stopped early keeps its last value up to the last x of its hue, so that
    a mean never jumps because a member left. Where a member is NaN (it diverged) mean
    and band are left out. One member has a curve and no band.

    records: tidy frame or gv.Runs, one row a member and x. y: a column, or several:
    then dashes tell them apart. over: the columns that tell members apart. labels:
    names for columns and for values of `hue`. palette: "categories", "steps", a list,
    or a dict from value to colour; by default steps for three or more numbers. legend:
    "auto" (names at the ends of the curves if they fit, else at the right), "ends",
    "right" or False. Returns the axes; a new styled figure unless `ax` is given.
    Raises ValueError for unknown columns, and where rows share hue, member and x.

    >>> runs = pd.DataFrame({"epoch": [0, 1] * 2, "seed": [0, 0, 1, 1],
    ...                      "train_accuracy": [0.1, 0.8, 0.1, 0.9]})
    >>> curves(runs).get_ylabel()
    'Training accuracy'
    """
    ys, members = _list(y), _list(over)
    frame = _frame(records, [x, *ys, *members, *_list(hue)])
    if legend not in ("auto", "ends", "right", False):
        raise ValueError(f'legend is {legend!r}; "auto", "ends", "right" or False')
    _once(frame, [*_list(hue), *members, x], known=[*ys])
    bands = {
        (key, y): _along(rows, x, y, members, level)
        for key, rows in _groups(frame, hue)
        for y in ys
    }
    series = _series(bands, hue is not None, labels, palette)
    with style():
        ax = figure()[1] if ax is None else ax
        for i, one in enumerate(series):
            _draw(ax, one, i / len(series))
        ax.set_xlabel(_title(x, labels))
        ax.set_ylabel(_title(ys[0], labels) if len(ys) == 1 else "")
        ax.grid(False, axis="x")
        if _is_share(frame, ys):
            ax.yaxis.set_major_formatter(_percent())
        measures = [_name(y, labels) for y in ys] if hue and len(ys) > 1 else []
        _name_curves(ax, series, _title(hue, labels) if hue else None, measures, legend)
    return ax


def _groups(frame: pd.DataFrame, column: str | None) -> list[tuple[Any, pd.DataFrame]]:
    """(value, its rows): sorted where values are numbers, else in given order."""
    if column is None:
        return [(None, frame)]
    found = list(frame[column].dropna().unique())
    if pd.api.types.is_numeric_dtype(frame[column]):
        found.sort()
    return [(value, frame[frame[column] == value]) for value in found]


def _series(
    bands: Mapping[tuple[Any, str], _Band],
    by_hue: bool,
    labels: Mapping | None,
    palette: str | Sequence | Mapping | None,
) -> list[_Series]:
    """Colour and marker by hue and dashes by measure; all by measure without a hue."""
    ys = list(dict.fromkeys(y for _, y in bands))
    keys = list(dict.fromkeys(key for key, _ in bands)) if by_hue else ys
    colours = _colours(keys, palette)
    looks = {k: (colours[i], MARKERS[i % len(MARKERS)]) for i, k in enumerate(keys)}
    return [
        _Series(
            band,
            *looks[key if by_hue else y],
            DASHES[ys.index(y) % len(DASHES)],
            _name(key if by_hue else y, labels),
        )
        for (key, y), band in bands.items()
    ]


def _draw(ax: Axes, one: _Series, phase: float) -> None:
    """Band, curve and about six markers, the last point always with one.

    The phase staggers the markers of curves that lie on one another: all are seen.
    """
    x, mean, low, high = one.band
    step = max(1, len(x) // 6)
    marks = {*range(int(phase * step), len(x), step), len(x) - 1}
    ax.fill_between(x, low, high, color=one.colour, alpha=0.16, linewidth=0, zorder=2)
    ax.plot(
        x,
        mean,
        color=one.colour,
        linestyle=one.dash,
        marker=one.marker,
        markevery=sorted(marks),
        zorder=3,
    )


def _name_curves(
    ax: Axes,
    series: list[_Series],
    title: str | None,
    measures: list[str],
    legend: str | bool,
) -> None:
    """Names at the ends of the curves or at the right; none for a single curve."""
    if legend is False or len(series) == 1:
        return
    if legend == "ends" or (legend == "auto" and not measures and _fits(ax, series)):
        for one in series:
            _end_label(ax, one)
        return
    handles = list({one.label: _handle(one) for one in series}.values())
    for name, dash in zip(measures, DASHES * len(measures), strict=False):
        grey = Line2D([], [], color=TOKENS["muted"], linestyle=dash, label=name)
        handles.append(grey)
    ax.legend(handles=handles, title=title, alignment="left", **_AT_RIGHT)


_AT_RIGHT = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02)}


def _handle(one: _Series) -> Line2D:
    return Line2D([], [], color=one.colour, marker=one.marker, label=one.label)


# Points between the names at the ends of two curves: a line of 9.5-point text.
_LINE = 12.5


def _ends(ax: Axes, values: Sequence[float]) -> np.ndarray:
    """Heights in points, above the bottom of the figure, of these y values."""
    places = ax.transData.transform([(0.5, v) for v in values])[:, 1]
    return places * 72 / ax.figure.dpi


def _fits(ax: Axes, series: Sequence[_Series]) -> bool:
    """True if names at the ends need be moved by less than a line each."""
    ends = [one.band.mean[-1] for one in series]
    if not np.isfinite(ends).all():
        return False
    heights = _ends(ax, ends)
    return bool(np.abs(_spread(heights, _LINE) - heights).max() < 0.75 * _LINE)


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """The nearest heights (least squares) of which any two are `gap` or more apart.

    With the order kept this is isotonic regression of heights - gap * rank, solved by
    pooling adjacent violators.

    >>> _spread(np.array([0.0, 0.0, 50.0]), 10.0).tolist()
    [-5.0, 5.0, 50.0]
    """
    order = np.argsort(heights, kind="stable")
    ranks = gap * np.arange(len(heights))
    pools: list[list[float]] = []
    for value in heights[order] - ranks:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    apart = np.empty(len(heights))
    apart[order] = ranks + np.concatenate([[np.mean(p)] * len(p) for p in pools])
    return apart


def _end_label(ax: Axes, one: _Series) -> None:
    end = (one.band.x[-1], one.band.mean[-1])
    text = ax.annotate(
        one.label, end, (8, 0), textcoords="offset points", va="center", fontsize=9.5
    )
    text.set_gid("gv-end")


def _settle(fig: Figure) -> None:
    """Move apart the names at the ends of curves, once the axes have their place."""
    fig.draw_without_rendering()
    for ax in fig.axes:
        ends = [text for text in ax.texts if text.get_gid() == "gv-end"]
        if ends:
            heights = _ends(ax, [text.xy[1] for text in ends])
            for text, move in zip(ends, _spread(heights, _LINE) - heights, strict=True):
                text.set_position((8, move))


# --- categories ----------------------------------------------------------------------


def points(
    records: Any,
    *,
    y: str,
    x: str | Sequence[str] = "test_accuracy",
    over: str | Sequence[str] = "seed",
    ax: Axes | None = None,
    labels: Mapping | None = None,
    palette: str | Sequence | Mapping | None = None,
    level: float = 0.95,
) -> Axes:
    """Dot plot: a line a category, mean with Student-t interval, a tick a member.

    records: tidy frame or gv.Runs, one row a category and member. y: the column of the
    categories, drawn from the top in sorted (numbers) or given order. x: a column of
    results, or several: then colour and marker tell them apart. Else as for `curves`.

    >>> done = pd.DataFrame({"data": ["true", "true", "random", "random"],
    ...                      "seed": [0, 1, 0, 1], "test_accuracy": [.8, .9, .1, .2]})
    >>> [t.get_text() for t in points(done, y="data").get_yticklabels()]
    ['true', 'random']
    """
    return _categories(_dots, records, y, x, over, ax, labels, palette, level)


def bars(
    records: Any,
    *,
    y: str,
    x: str | Sequence[str] = "test_accuracy",
    over: str | Sequence[str] = "seed",
    ax: Axes | None = None,
    labels: Mapping | None = None,
    palette: str | Sequence | Mapping | None = None,
    level: float = 0.95,
) -> Axes:
    """Bars from zero with Student-t intervals; all else as for `points`."""
    return _categories(_bars, records, y, x, over, ax, labels, palette, level)


def _categories(
    draw: Callable,
    records: Any,
    y: str,
    x: str | Sequence[str],
    over: str | Sequence[str],
    ax: Axes | None,
    labels: Mapping | None,
    palette: str | Sequence | Mapping | None,
    level: float,
) -> Axes:
    """What dot plots and bars share: all but the mark of a category."""
    xs, members = _list(x), _list(over)
    frame = _frame(records, [y, *xs, *members])
    _once(frame, [y, *members], known=xs)
    groups = _groups(frame, y)
    # of a category's room; what is left parts it from the next
    thick = (0.7 if draw is _bars else 0.5) / len(xs)
    with style():
        ax = ax or figure(height=0.9 + 0.12 * len(groups) * (len(xs) + 1.6))[1]
        for j, (column, colour) in enumerate(
            zip(xs, _colours(xs, palette), strict=True)
        ):
            at = np.arange(len(groups)) + (j - (len(xs) - 1) / 2) * thick
            values = [rows[column].to_numpy(float) for _, rows in groups]
            stats = np.concatenate([_interval(v[:, None], level) for v in values], 1)
            mark = _Mark(at, values, *stats, colour, MARKERS[j], thick)
            draw(ax, mark)
        _category_axes(ax, [_name(key, labels) for key, _ in groups])
        ax.set_xlabel(_title(xs[0], labels) if len(xs) == 1 else "")
        if _is_share(frame, xs):
            ax.xaxis.set_major_formatter(_percent())
        if len(xs) > 1:
            _category_legend(ax, [_title(column, labels) for column in xs])
    return ax


class _Mark(NamedTuple):
    """One measure over all categories: heights, values, and mean, low, high (k,)."""

    at: np.ndarray
    values: list[np.ndarray]
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colour: str
    marker: str
    thick: float


def _category_axes(ax: Axes, names: list[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", labelcolor=TOKENS["fg"])
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(False, axis="y")
    ax.grid(True, axis="x")
    ax.spines["left"].set_visible(False)


def _category_legend(ax: Axes, names: list[str]) -> None:
    """The means, in the order drawn: among the lines those that have no line."""
    handles = [line for line in ax.lines if line.get_gid() == "gv-mean"]
    ax.legend(handles, names, **_AT_RIGHT)


def _dots(ax: Axes, mark: _Mark) -> None:
    for height, values in zip(mark.at, mark.values, strict=True):
        heights = np.full(len(values), height)
        look = {"color": mark.colour, "alpha": 0.6, "zorder": 2}
        ax.plot(values, heights, ls="", marker="|", ms=10, mew=1.2, **look)
    _mean(ax, mark, size=6)


def _bars(ax: Axes, mark: _Mark) -> None:
    look = {"color": mark.colour, "alpha": 0.3, "zorder": 2}
    ax.barh(mark.at, mark.mean, 0.9 * mark.thick, **look)
    _mean(ax, mark, size=5)


def _mean(ax: Axes, mark: _Mark, size: float) -> None:
    """The mean on its interval."""
    look = {"color": mark.colour, "zorder": 3}
    ax.hlines(mark.at, mark.low, mark.high, linewidth=1.8, **look)
    (line,) = ax.plot(mark.mean, mark.at, ls="", marker=mark.marker, ms=size, **look)
    line.set_gid("gv-mean")


# --- images --------------------------------------------------------------------------


def images(
    x: Any,
    titles: Sequence[str] | None = None,
    *,
    row_titles: Sequence[str] | None = None,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of images, pixel for pixel.

    x: tensor or array (n, H, W), (n, 1 or 3, H, W), or with two leading axes
    (rows, columns, 1 or 3, H, W); any scale. titles: one an image, or one a column
    where there are rows. row_titles: one a row. columns: images in a line (default 8 at
    most). limits: values shown as black and white; by default the 0.5 and 99.5 % points
    of each row where there are row titles, else of all images, so that standardized
    images and noise both show. Raises ValueError for other shapes, NaN, or a wrong
    number of titles.

    >>> len(images(np.zeros((3, 8, 8)), ["a", "b", "c"]).texts)
    3
    """
    grid, count = image_grid(x, columns)
    rows, width = grid.shape[:2]
    by_row = np.ndim(x) == 5
    count_titles("titles", titles, width if by_row else count)
    count_titles("row_titles", row_titles, rows)
    grid = to_unit(grid, limits, each_row=row_titles is not None)
    tall, wide = grid.shape[2:4]
    gap = max(1, wide // 14)
    # 0.22 of a cell holds a line of titles at the usual 6 to 8 cells a line
    head = 0 if by_row or titles is None or rows == 1 else round(0.22 * tall)
    canvas = mosaic(grid, gap, head, count)
    with style():
        ax = _image_axes(canvas, titles, row_titles) if ax is None else ax
        ax.imshow(canvas)
        ax.set_axis_off()
        for k, title in enumerate(titles or ()):
            i, j = divmod(k, width)
            place = j * (wide + gap) + wide / 2, i * (tall + gap + head) - 1
            _image_title(ax, title, place, ha="center", va="bottom")
        for i, title in enumerate(row_titles or ()):
            place = -gap - 1, i * (tall + gap) + tall / 2
            _image_title(ax, title, place, ha="right", va="center")
    return ax


def _image_axes(
    canvas: np.ndarray, titles: Sequence[str] | None, row_titles: Sequence[str] | None
) -> Axes:
    """Axes that fill a figure but for the room that the titles need."""
    # a letter of 9.5 points is at most 0.09 inch wide on average; a line takes 0.25
    left = 0.05 + 0.09 * max(map(len, row_titles or [""]))
    head = 0.25 if titles is not None else 0.05
    wide = WIDTH - left - 0.05
    tall = wide * canvas.shape[0] / canvas.shape[1]
    height = head + tall + 0.05
    fig = Figure(figsize=(WIDTH, height), layout="none")
    box = (left / WIDTH, 0.05 / height, wide / WIDTH, tall / height)
    return fig.add_axes(box)


def _image_title(ax: Axes, title: str, place: tuple[float, float], **align) -> None:
    ax.text(*place, title, fontsize=9.5, **align)


# --- showing -------------------------------------------------------------------------


def svg(
    fig: Figure, *, alt: str, prefix: str | None = None, themed: bool = True
) -> str:
    """The figure as one SVG element with text as text and no metadata.

    themed: in the page's colours, and as wide as the page lets it; else in plain
    colours on white at its own size, for slides and print. prefix: goes in front of all
    ids; by default it is a hash of the figure. The same figure gives the same SVG.
    Raises ValueError for an empty `alt`.
    """
    if not alt.strip():
        raise ValueError(f"alt is empty; {_ADVICE['alt']}")
    with style():
        _settle(fig)
        drawing = render(fig, alt, _PREFIX, themed)
    digest = hashlib.sha256(drawing.encode()).hexdigest()[:8]
    return drawing.replace(_PREFIX, prefix or f"gv{digest}")


_PREFIX = "gv00000000"  # stands for the prefix until the drawing is known
_shown: Counter = Counter()  # of this process, so that no two share an id or a file


def _number(name: str) -> str:
    """The name itself the first time, then with -2, -3, ... behind it."""
    _shown[name] += 1
    return name if _shown[name] == 1 else f"{name}-{_shown[name]}"


def show(
    fig: Figure | Axes, *, alt: str, caption: str, seeds: int | None = None
) -> None:
    """Show the figure with its caption and where its numbers come from; close it.

    fig: the figure, or any of its axes. alt: what one would tell somebody who cannot
    see it: what is drawn and what is to be seen in it. caption: what the reader reads
    below. seeds: how many, for the line of provenance. In a notebook or the book the
    figure is SVG in the page's colours; a script prints "Figure: <alt>". Where
    GV_FIGURES names a folder, the figure is written there too, as SVG in plain colours.
    Raises ValueError where alt or caption is empty or both say the same, before
    anything is shown.
    """
    _check_words(alt, caption)
    fig = fig.get_figure() if isinstance(fig, Axes) else fig
    if not isinstance(fig, Figure):
        kind = type(fig).__name__
        raise TypeError(f"fig is a {kind}; give a matplotlib Figure or Axes")
    text = f"Figure: {alt}"
    if os.environ.get("GV_FIGURES"):
        text += f"\n  {_write(fig, alt, caption, Path(os.environ['GV_FIGURES']))}"
    emit(_figure_html(fig, alt, caption, seeds) if in_notebook() else "", text)
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)


def _check_words(alt: str, caption: str) -> None:
    for name, text in (("alt", alt), ("caption", caption)):
        if not isinstance(text, str):
            raise TypeError(f"{name} is a {type(text).__name__}; expected a sentence")
        if not text.strip():
            raise ValueError(f"{name} is empty; {_ADVICE[name]}")
    if _letters(alt) == _letters(caption):
        raise ValueError(f"alt repeats the caption; {_ADVICE['alt']}")


_ADVICE = {
    "alt": "tell somebody who cannot see the figure what is drawn and what it shows",
    "caption": "say below the figure what the reader should take from it",
}


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _figure_html(fig: Figure, alt: str, caption: str, seeds: int | None) -> str:
    drawing = svg(fig, alt=alt, prefix=_PREFIX)
    digest = hashlib.sha256(drawing.encode()).hexdigest()[:8]
    drawing = drawing.replace(_PREFIX, _number(f"gv{digest}"))
    width = round(fig.get_figwidth() * PIXELS_PER_INCH)
    region = ""
    if width > NEVER_SCROLLS:
        name = html.escape(f"Figure, scrolls sideways: {caption}")
        region = f' role="region" tabindex="0" aria-label="{name}"'
    return (
        f'{_sheet()}<figure class="gv-figure" style="--gv-width:{width}px">\n'
        f'<div class="gv-scroll"{region}>{drawing}</div>\n'
        f"{_caption(caption, seeds)}</figure>"
    )


def _caption(caption: str, seeds: int | None) -> str:
    return (
        f'<figcaption><span class="gv-caption">{html.escape(caption)}</span>\n'
        f'<span class="gv-provenance">{html.escape(evidence.provenance(seeds))}</span>'
        "</figcaption>\n"
    )


def _sheet() -> str:
    """The style sheet, where the page does not bring it.

    Colab shows each output in a frame of its own, which nothing that an earlier cell
    has shown can reach; so each figure brings the sheet with it.
    """
    if static_build() or not in_notebook():
        return ""
    sheet = (Path(__file__).parent / "static" / "gv.css").read_text(encoding="utf-8")
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.DOTALL)
    return f"<style>{' '.join(sheet.split())}</style>\n"


def _write(fig: Figure, alt: str, caption: str, folder: Path) -> Path:
    """Write the figure there, whole or not at all."""
    name = re.sub(r"[^a-z0-9]+", "-", caption.casefold()).strip("-") or "figure"
    path = folder / f"{_number(name[:60].rstrip('-'))}.svg"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(svg(fig, alt=alt, themed=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise OSError(
            f"cannot write figures into GV_FIGURES={folder}: {error}. Name a folder "
            "that can be written to, or unset GV_FIGURES"
        ) from error
    finally:
        if folder.is_dir():
            part.unlink(missing_ok=True)
    return path


# --- tables --------------------------------------------------------------------------


def table(
    frame: pd.DataFrame,
    *,
    caption: str,
    alt: str | None = None,
    formats: Mapping[str, str | Callable[[Any], str]] | None = None,
    labels: Mapping | None = None,
    seeds: int | None = None,
) -> None:
    """Show a small table with caption and provenance; a script prints the same.

    A cell may be an interval (`evidence.interval`): it reads "0.97 [0.95, 0.99]". The
    first column, or the index where it has a name, heads its row. alt: a name for the
    table where the caption is no good one. formats: per column a format such as
    "{:.1%}" or a function of one value; it is applied to an interval's three numbers.
    labels: names for the columns. Raises ValueError for an empty frame or caption, or a
    format for a column that is not there.
    """
    if not caption.strip():
        raise ValueError(f"caption is empty; {_ADVICE['caption']}")
    if frame.empty:
        raise ValueError("the table has no cells; give a frame with rows and columns")
    if frame.index.names != [None]:
        frame = frame.reset_index()
    formats = dict(formats or {})
    unknown = [c for c in formats if c not in frame.columns]
    if unknown:
        has = ", ".join(map(str, frame.columns))
        raise ValueError(f"formats names {unknown[0]!r}; the columns are {has}")
    columns = [
        _column(frame[c], _title(str(c), labels), formats.get(c)) for c in frame.columns
    ]
    rich = _table_html(columns, alt or caption, _caption(caption, seeds))
    emit(rich, f"{_table_text(columns)}\n{caption}\n{evidence.provenance(seeds)}")


class _Column(NamedTuple):
    """A column as it is written: head, (value, what stands small behind it), side."""

    head: str
    cells: list[tuple[str, str]]
    left: bool


def _column(values: pd.Series, head: str, form: str | Callable | None) -> _Column:
    intervals = all(isinstance(v, Interval) for v in values)
    numbers = pd.api.types.is_numeric_dtype(values)
    left = not (intervals or numbers)
    if form is None and numbers and (values.dropna() % 1 == 0).all():
        form = "{:.0f}"  # counts, which a missing one has made floats
    return _Column(head, [_cell(value, form) for value in values], left)


def _cell(value: Any, form: str | Callable | None) -> tuple[str, str]:
    """A value as text; of an interval the mean, and the interval as a second text."""
    write = form if callable(form) else (form or "{}").format
    if form is None and isinstance(value, (float, np.floating, Interval)):
        write = number
    if isinstance(value, Interval):
        if value.low == value.high:  # not to be read as certainty
            return write(value.mean), f"(all {value.n} equal)"
        return write(value.mean), f"[{write(value.low)}, {write(value.high)}]"
    missing = isinstance(value, (float, np.floating)) and np.isnan(value)
    return ("–" if missing else write(value)), ""


def _table_html(columns: list[_Column], name: str, caption: str) -> str:
    heads = "".join(
        f'<th scope="col"{_side(c, j)}>{html.escape(c.head)}</th>'
        for j, c in enumerate(columns)
    )
    rows = [
        "".join(_cell_html(c, i, j) for j, c in enumerate(columns))
        for i in range(len(columns[0].cells))
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'{_sheet()}<figure class="gv-figure">\n<div class="gv-scroll" role="region" '
        f'tabindex="0" aria-label="{html.escape(name)}"><table class="gv-table">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
        f"{caption}</figure>"
    )


def _side(column: _Column, place: int) -> str:
    return ' class="gv-left"' if column.left or place == 0 else ""


def _cell_html(column: _Column, row: int, place: int) -> str:
    value, small = map(html.escape, column.cells[row])
    if small:
        value += f' <span class="gv-interval">{small}</span>'
    tag, scope = ("th", ' scope="row"') if place == 0 else ("td", "")
    return f"<{tag}{scope}{_side(column, place)}>{value}</{tag}>"


def _table_text(columns: list[_Column]) -> str:
    written = []
    for place, column in enumerate(columns):
        lines = [column.head, *(" ".join(filter(None, c)) for c in column.cells)]
        width = max(map(len, lines))
        side = "<" if _side(column, place) else ">"
        written.append([f"{line:{side}{width}}" for line in lines])
    return "\n".join("  ".join(row).rstrip() for row in zip(*written, strict=True))
