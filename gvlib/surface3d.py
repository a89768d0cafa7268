"""Surface: a loss surface in 3-D that the reader turns, its map, and a slice of it.

The heights are embedded as numbers and drawn by one ES module, `static/surface.js`, on
a plain canvas: under a kernel as an anywidget, on a static page mounted by
`static/host.js`. A reader without JavaScript finds the same surface from one side, its
map, and the losses along both axes.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from . import _controls, _relief, evidence
from ._packed import pack, rounded
from ._view import View, widget_class, words
from .landscape import Surface as Landscape

__all__ = ["Surface"]

TRAITS = {"spec": "Dict", "values": "Bytes", "at": "Dict"}
ANGLES = list(range(0, 180, 3))  # of the slice, in degrees: fine enough to drag
# How the picture is looked at: degrees about the vertical, degrees above the horizon,
# size in per cent; and the range that the module keeps each in.
VIEWS = {"turn": (0, 359, 325), "tilt": (0, 90, 36), "zoom": (50, 300, 100)}
ROWS = 11  # of the data table, along each axis
LARGEST = 1e38  # nearly the largest float32: a loss above it is as good as infinite


class Surface(View):
    """Loss surfaces on one grid: turned, cut along any line, and compared.

    Height is the loss on one data set, the same scale for all surfaces. The point, the
    slice through it and the surface are chosen by mouse, touch or keyboard; a mouse
    that passes over the surface, the map or the slice reads the values there.
    """

    module = "surface"

    def __init__(
        self,
        surfaces: Landscape | Mapping[str, Landscape],
        *,
        set: str = "train",
        title: str,
        alt: str,
        caption: str = "",
        labels: Mapping[str, str] | None = None,
        clip: float | None = None,
        log: bool = False,
        members: Sequence[int] | None = None,
        colour: str | None = None,
        marks: Mapping[str, tuple[float, float]] | None = None,
        start: Mapping[str, Any] | None = None,
        seeds: int | None = None,
        id: str | None = None,
    ):
        """Show `surfaces`, from `gv.landscape.surface`; several by name, on one grid.

        Args:
            surfaces: one, or {"with skip connections": ..., "without": ...}. Each
                member of a population's surface is a choice of its own, named by the
                columns in which the members differ ("seed 0", "seed 1").
            members: which of a population's members to show, by number; all if None.
            set: the data set whose loss (and accuracy) is shown.
            title, alt, caption: words; alt says what the picture shows.
            labels: other words for "a", "b", "loss", "accuracy" and "colour".
            clip: losses above it are cut off, which the view says and counts.
            log: height and the slice's loss on a log scale.
            colour: a set, such as "test", whose accuracy colours the surface: height
                is then what training sees, colour what it does not.
            marks: places with names, {"good": (0, 0), "bad": (1, 0)}.
            start: first setting, of "surface" (a name), "a", "b" (the nearest computed
                point), "angle" (degrees, to 3), "turn", "tilt", "zoom" (degrees and per
                cent) and "open" (cut open along the slice).
            seeds: how many, for the line that says where the numbers come from.
            id: names the view in the page's address.

        Raises TypeError for what is no surface; ValueError for unequal grids, a set
        that a surface lacks, no finite loss at all, a clip that leaves nothing, a log
        scale of losses that are not above 0, and words that are missing.

        >>> from gvlib import data, landscape, models
        >>> net, moons = models.MLP(2, 8, 2), data.moons(50, seed=0)
        >>> one, two = (landscape.direction(net, seed=s) for s in (0, 1))
        >>> found = landscape.surface(net, one, two, {"train": moons}, points=5)
        >>> Surface(found, title="A surface", alt="A bowl.").values.shape
        (1, 2, 5, 5)
        """
        known = _unfolded(surfaces, members)
        first = next(iter(known.values()))
        label = _labels(labels, set, colour)
        self.values, others = _packed(known, set, colour)
        self.spec = {
            **words(title, alt, caption, id, "surface"),
            "a": _axis("a", label, first.a),
            "b": _axis("b", label, first.b),
            "height": _height(self.values[:, 0], label["loss"], clip, log),
            "others": [label[key] for key in others],
            "colour": _colour(self.values, others) if colour else None,
        }
        self.spec["surfaces"] = self._surfaces(list(known))
        self.spec |= {
            "marks": self._marks(marks or {}),
            "start": self._start(start or {}),
            "notes": _notes(known),
            "provenance": evidence.provenance(seeds),
        }
        self._widget = None

    # ---- what is shown first ---------------------------------------------------------

    def _surfaces(self, names: list[str]) -> list[dict]:
        """Name and facts of each surface."""
        height, found = self.spec["height"], []
        for name, (loss, *_) in zip(names, self.values, strict=True):
            at = np.unravel_index(np.nanargmin(loss), loss.shape)
            place = self._place(at[1], at[0])
            low = _written(float(loss[at]))
            said = [f"Lowest computed {_lower(height['label'])}: {low} ({place})."]
            holes, cut = int(np.isnan(loss).sum()), int((loss > height["top"]).sum())
            if holes:
                said.append(
                    f"{holes:,} of {loss.size:,} points are no finite number: the "
                    "surface has holes there (× on the map)."
                )
            if cut:
                top = _written(height["top"])
                said.append(
                    f"{cut:,} of {loss.size:,} points lie above {top} and are cut off."
                )
            found.append({"name": name, "said": " ".join(said), "holes": holes})
        return found

    def _marks(self, marks: Mapping) -> list[list]:
        found = []
        for name, place in marks.items():
            a, b = map(float, place)
            for key, value in (("a", a), ("b", b)):
                low, high = self.spec[key]["limits"]
                if not low <= value <= high:
                    raise ValueError(
                        f"the mark {name!r} has {key} = {value:g}, outside the "
                        f"surface's {low:g} to {high:g}"
                    )
            found.append([str(name), a, b])
        return found

    def _start(self, start: Mapping) -> dict:
        """The first setting as indices, degrees and per cent."""
        known = ["surface", "a", "b", "angle", *VIEWS, "open"]
        if unknown := sorted(set(start) - set(known)):
            raise ValueError(f"start names {unknown}; the settings are {known}")
        names = [s["name"] for s in self.spec["surfaces"]]
        asked = start.get("surface", names[0])
        _controls.one_of("start: surface", asked, names)
        found = {"surface": names.index(asked)}
        for key in ("a", "b"):
            values = np.array(self.spec[key]["values"])
            low, high = self.spec[key]["limits"]
            value = _within(key, start.get(key, min(max(0, low), high)), low, high)
            found[key] = int(abs(values - value).argmin())
        angle = _within("angle", start.get("angle", 0), 0, 180)
        found["angle"] = round(angle / 3) % len(ANGLES)
        for key, (low, high, usual) in VIEWS.items():
            found[key] = round(_within(key, start.get(key, usual), low, high))
        return found | {"open": int(bool(start.get("open", False)))}

    # ---- where it is shown -----------------------------------------------------------

    def text(self) -> str:
        """Title, alt text and the values at the first point, as plain text."""
        spec, start = self.spec, self.spec["start"]
        shown = spec["surfaces"][start["surface"]]
        values = self.values[start["surface"], :, start["b"], start["a"]]
        rows = [f"  {label}: {text}" for label, text in self._measured(values)]
        name = f"{shown['name']}, " if shown["name"] else ""
        head = [f"Surface: {spec['title']}", spec["alt"], f"At {name}{self._where()}:"]
        return "\n".join(
            [*head, *rows, shown["said"], *spec["notes"], spec["provenance"]]
        )

    def _where(self) -> str:
        """The first point in words."""
        return self._place(self.spec["start"]["a"], self.spec["start"]["b"])

    def _place(self, *at: int) -> str:
        axes = zip((self.spec["a"], self.spec["b"]), at, strict=True)
        return ", ".join(f"{axis['label']} {axis['texts'][i]}" for axis, i in axes)

    def _measured(self, values: np.ndarray) -> list[tuple[str, str]]:
        """Label and text of loss and accuracies, values (fields,)."""
        labels = [self.spec["height"]["label"], *self.spec["others"]]
        return [
            (label, _written(v, percent=k > 0))
            for k, (label, v) in enumerate(zip(labels, values.tolist(), strict=True))
        ]

    def html(self) -> str:
        """The static page's HTML: data, and a picture and table without JavaScript."""
        content = {"state": self._state(), "packed": {"values": pack(self.values)}}
        return self._page(content, self._still(), "gvx gvs")

    def widget(self) -> Any:
        """The anywidget (made once) that shows this under a kernel."""
        if self._widget is None:
            made = widget_class(self.module, ("explorer", "surface"), **TRAITS)
            self._widget = made(**self._state(), values=self.values.tobytes())
        return self._widget

    def _state(self) -> dict:
        return {"spec": self.spec, "at": self.spec["start"]}

    # ---- without JavaScript ----------------------------------------------------------

    def _still(self) -> str:
        spec, start = self.spec, self.spec["start"]
        shown = spec["surfaces"][start["surface"]]
        picture = _relief.picture(spec, self.values[start["surface"]])
        several = len(spec["surfaces"])
        said = [
            "With JavaScript, the surface can be turned and cut along any line"
            + (f", and there are {several} to choose from." if several > 1 else "."),
            spec["caption"],
            shown["said"],
            *spec["notes"],
        ]
        return (
            f'<p class="gvx-title">{html.escape(spec["title"])}</p>{picture}'
            f"{self._table()}"
            f'<p class="gvx-caption">{html.escape(" ".join(filter(None, said)))} '
            f'<span class="gvx-source">{html.escape(spec["provenance"])}</span></p>'
        )

    def _table(self) -> str:
        """Loss and accuracy along both axes through the first point."""
        spec, start = self.spec, self.spec["start"]
        block = self.values[start["surface"]]
        name = spec["surfaces"][start["surface"]]["name"]
        lines = {"a": block[:, start["b"]], "b": block[:, :, start["a"]]}
        bodies = "".join(self._along(key, line) for key, line in lines.items())
        said = " · ".join(
            filter(None, [name, f"along both axes through {self._where()}"])
        )
        return (
            f'<div class="gvx-scroll" tabindex="0" role="region" '
            f'aria-label="Data table: {html.escape(spec["title"])}">'
            f'<table class="gvx-table"><caption>{html.escape(said)}</caption>'
            f"{bodies}</table></div>"
        )

    def _along(self, key: str, line: np.ndarray) -> str:
        """The table's body for the line (fields, n) along the axis `key`."""
        axis, labels = self.spec[key], [n for n, _ in self._measured(line[:, 0])]
        head = "".join(
            f'<th scope="col">{html.escape(text)}</th>'
            for text in [axis["label"], *labels]
        )
        chosen = np.unique(np.linspace(0, line.shape[1] - 1, ROWS).round())
        rows = [
            f'<tr><th scope="row">{html.escape(axis["texts"][i])}</th>'
            + "".join(f"<td>{text}</td>" for _, text in self._measured(line[:, i]))
            + "</tr>"
            for i in chosen.astype(int)
        ]
        return f"<tbody><tr>{head}</tr>{''.join(rows)}</tbody>"


# ---- what the view is made from ------------------------------------------------------


def _unfolded(surfaces: Any, members: Sequence[int] | None) -> dict[str, Landscape]:
    """Name -> surface of one network (b, a); all on one grid."""
    given = surfaces if isinstance(surfaces, Mapping) else {"": surfaces}
    if not given:
        raise ValueError("surfaces is empty; give at least one")
    known = {}
    for name, found in given.items():
        if not isinstance(found, Landscape):
            raise TypeError(
                f"{name or 'surfaces'} is a {type(found).__name__}: expected what "
                "gv.landscape.surface returns, or a mapping from names to such"
            )
        known |= _members(str(name), found, members)
    (first, one), *others = known.items()
    for name, other in others:
        same = [
            x.shape == y.shape and np.allclose(x, y)
            for x, y in ((one.a, other.a), (one.b, other.b))
        ]
        if not all(same):
            raise ValueError(
                f"{first!r} and {name!r} have unequal grids; compute both with the "
                "same span and points"
            )
    return known


def _members(
    name: str, found: Landscape, members: Sequence[int] | None
) -> dict[str, Landscape]:
    """The surface of each chosen member of a population, or the one of a network."""
    if next(iter(found.loss.values())).ndim == 2:
        return {name: found}
    chosen = list(range(len(found.members)) if members is None else members)
    if not chosen or not set(chosen) <= set(range(len(found.members))):
        raise ValueError(
            f"members is {members}; expected some of 0 to {len(found.members) - 1}"
        )
    table, several = found.members.iloc[chosen], {}
    varied = [c for c in table.columns if table[c].nunique() > 1]
    for i, (_, row) in zip(chosen, table.iterrows(), strict=True):
        own = [f"{c.replace('_', ' ')} {_controls.value_text(row[c])}" for c in varied]
        if len(chosen) > 1 and not own:
            own = [f"member {i}"]
        said = ", ".join(filter(None, [name, *own]))
        said += f" (member {i})" if said in several else ""
        several[said] = replace(
            found,
            loss={k: v[i] for k, v in found.loss.items()},
            accuracy={k: v[i] for k, v in found.accuracy.items()},
        )
    return several


def _packed(
    known: Mapping[str, Landscape], name: str, colour: str | None
) -> tuple[np.ndarray, list[str]]:
    """(surfaces, fields, b, a) float32, and what the fields after the loss are.

    These are the accuracy, where all surfaces have it, and the colour's accuracy.
    """
    fields, others = [[_loss(which, found, name) for which, found in known.items()]], []
    accuracies = [found.accuracy.get(name) for found in known.values()]
    if all(a is not None and np.isfinite(a).any() for a in accuracies):
        fields, others = [*fields, accuracies], ["accuracy"]
    if colour == name and not others:
        raise ValueError(f"colour is {colour!r}, of which no accuracy is known")
    if colour not in (None, name):
        for which, found in known.items():
            _check_set(which, colour, found.accuracy)
        fields.append([found.accuracy[colour] for found in known.values()])
        others.append("colour")
    exact = np.stack([np.stack(f) for f in fields], axis=1).astype("<f4")
    return rounded(np.where(np.isfinite(exact), exact, np.float32("nan"))), others


def _loss(which: str, found: Landscape, name: str) -> np.ndarray:
    """The losses (b, a) on one set; NaN where they are not finite."""
    _check_set(which, name, found.loss)
    loss = np.asarray(found.loss[name], dtype=float)
    where = f" of {which!r}" if which else ""
    expected = (len(found.b), len(found.a))
    if loss.shape != expected or min(loss.shape) < 2:
        raise ValueError(
            f"the loss{where} has shape {loss.shape}; expected (b, a) = {expected}, at "
            "least 2 x 2"
        )
    known = abs(np.nan_to_num(loss, nan=np.inf)) < LARGEST
    if not known.any():
        raise ValueError(f"no loss{where} is a finite number: nothing to show")
    return np.where(known, loss, np.nan)


def _check_set(which: str, name: str, sets: Mapping[str, np.ndarray]) -> None:
    if name not in sets:
        where = f" of {which!r}" if which else ""
        raise ValueError(
            f"the surface{where} has no set {name!r}; it has {', '.join(sets)}"
        )


def _colour(values: np.ndarray, others: list[str]) -> dict:
    """Which of the fields after the loss colours the surface, and its range."""
    field = len(others) - 1
    shares = values[:, 1 + field]
    low, high = float(np.nanmin(shares)), float(np.nanmax(shares))
    if low == high:
        low, high = 0.0, 1.0
    return {"field": field, "limits": [round(low, 4), round(high, 4)]}


def _axis(name: str, label: Mapping[str, str], values: np.ndarray) -> dict:
    """A control over the coordinates, which must rise in even steps."""
    steps = np.diff(values)
    if not (steps > 0).all() or np.ptp(steps) > 1e-3 * steps[0]:
        raise ValueError(f"{name} must rise in even steps, as numpy.linspace does")
    # linspace leaves 1e-17 where 0 is meant
    values = np.where(abs(values) < 1e-9 * np.ptp(values), 0.0, values)
    return _controls.axis(name, label[name], values)


def _height(losses: np.ndarray, label: str, clip: float | None, log: bool) -> dict:
    """Limits, ticks and contour levels of the height, for losses (surfaces, b, a)."""
    low, high = float(np.nanmin(losses)), float(np.nanmax(losses))
    if clip is not None:
        if not (_controls.is_number(clip) and clip > 0):
            raise ValueError(f"clip is {clip!r}; give a loss above 0, or None")
        if clip <= low:
            raise ValueError(
                f"clip is {clip:g}, but the lowest loss is {low:.3g}: nothing would be "
                "left; give a clip above it"
            )
        high = min(high, float(clip))
    if log and low <= 0:
        raise ValueError(
            f"the lowest loss is {low:g}: a log height needs losses above 0; leave "
            "log out"
        )
    if not log and 0 < low < (high - low) / 10:
        low = 0.0  # the floor of a surface that nearly reaches 0 is 0
    if low == high:
        low, high = low - 0.5, high + 0.5
    scale = "log" if log else "linear"
    return {
        "label": label,
        "scale": scale,
        "limits": [low, high],
        "top": high,
        "ticks": _controls.ticks(low, high, scale, "number"),
        "levels": _levels(low, high, log),
    }


def _levels(low: float, high: float, log: bool) -> list[float]:
    """About a dozen round losses between the limits, for contour lines."""
    if log:
        decades = np.log10(high / low)
        parts = (1, 2, 5) if decades < 3 else (1, 3) if decades < 7 else (1,)
        powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        levels = [m * 10.0**p for p in powers for m in parts]
    else:
        raw = (high - low) / 12
        power = 10.0 ** np.floor(np.log10(raw))
        step = power * next(m for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
        levels = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    margin = 1e-6 * (high - low)
    return [float(f"{v:.6g}") for v in levels if low + margin < v < high - margin]


def _labels(
    labels: Mapping[str, str] | None, name: str, colour: str | None
) -> dict[str, str]:
    from .plot import NAMES

    usual = {"a": "a", "b": "b"}
    for key, of in (("loss", name), ("accuracy", name), ("colour", colour)):
        kind = "loss" if key == "loss" else "accuracy"
        usual[key] = NAMES.get(f"{of}_{kind}", f"{kind} ({of})".capitalize())
    if unknown := sorted(set(labels or {}) - set(usual)):
        raise ValueError(f"labels names {unknown}; expected some of {list(usual)}")
    return {k: str(v) for k, v in {**usual, **(labels or {})}.items()}


def _notes(known: Mapping[str, Landscape]) -> list[str]:
    """How the surfaces were computed, once where it is the same for all."""
    hows = {name: found.how for name, found in known.items() if found.how}
    notes = []
    if len(set(hows.values())) == 1 and len(hows) == len(known):
        notes.append(f"{_upper(next(iter(hows.values())))}.")
    else:
        notes += [f"{_upper(name)}: {how}." for name, how in hows.items()]
    said = "Between computed points, surface and slice are interpolated."
    return [*notes, said]


def _within(name: str, value: Any, low: float, high: float) -> float:
    value = value.item() if hasattr(value, "item") else value
    if not (_controls.is_number(value) and low <= value <= high):
        raise ValueError(
            f"start: {name} is {value!r}; expected a number from {low:g} to {high:g}"
        )
    return value


def _written(value: float, percent: bool = False) -> str:
    """A measured number, as surface.js writes it.

    >>> _written(0.98765, percent=True), _written(1234.5), _written(0.0000123456)
    ('98.8 %', '1230', '1.23e-05')
    """
    if np.isnan(value):
        return "no number"
    if percent:
        return f"{100 * value:.1f} %"
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{float(f'{value:.3g}'):.12g}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
