"""Playground: the page's own network, trained live in the reader's browser.

The step is compiled from torch by `gvlib.live`; data, first weights and indices come
from Python as bytes, so the browser's numbers are torch's. `static/playground.js` shows
it: under a kernel as an anywidget, on a static page mounted by `static/host.js`. A
reader without JavaScript, or without WebAssembly, finds the picture after some steps.
"""

import base64
import functools
import hashlib
import html
import importlib.util
import inspect
import itertools
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import _controls, _display, live
from ._still import _png
from ._view import View, widget_class, words

__all__ = ["Playground"]

TRAITS = {"spec": "Dict", "wasm": "Bytes", "data": "Bytes", "picks": "List"}
CHUNK = 512  # points of the picture that go through the network at once: fits a cache
PICTURE = 64  # points of the picture along each side, as in playground.js
GUIDE = {"shape": [3], "dtype": "f32"}
SPEEDS = ["5", "30", "200", "1000", "max"]  # steps a second, as in playground.js
DTYPES = {"f32": np.float32, "i32": np.int32}


class Playground(View):
    """An `Experiment` behind Play, Step, Reset and sliders, with its boundary.

    The experiment's functions have names with a meaning:

    - `train(...)` is one step; its single numbers are watched, and one that is no
      number stops the run;
    - `predict(..., grid)`, with grid "g 2", returns {"score": (g,)}: positive for class
      1, with |score| as its sureness; it colours the plane;
    - every other function measures; its single numbers are shown as curves, and its
      other results may be shown as points.

    A slider is an argument "" of the functions and acts while the network trains, or an
    argument of `initial`, and then starts it anew. `initial(**those)` returns the
    tensors that training starts from, in trees like the functions' arguments.
    """

    module = "playground"

    def __init__(
        self,
        lab: live.Experiment,
        *,
        initial: Callable[..., Mapping],
        sliders: Mapping[str, Sequence],
        points: tuple[str, str],
        title: str,
        alt: str,
        caption: str = "",
        test_points: tuple[str, ...] | None = None,
        curves: Mapping[str, Sequence[str]] | None = None,
        labels: Mapping[str, str] | None = None,
        formats: Mapping[str, str] | None = None,
        lines: Sequence[float] | str = (),
        guide: str | None = None,
        start: Mapping[str, Any] | None = None,
        compare: Mapping[str, Any] | None = None,
        speed: float | str = 200,
        extent: tuple[float, float, float, float] | None = None,
        log_time: bool = False,
        steps: int = 300,
        id: str | None = None,
    ):
        """Check everything, and compute the first tensors of every restarting setting.

        `points` and `test_points` name the tensors of places (n, 2) and classes (n,);
        the latter are hollow, shown when asked for, and may have a third word: their
        name;
        `curves` {"title": names} groups the single numbers (else: accuracies together,
        others alone); `formats` writes sliders and numbers as "percent" or "number";
        `lines` are scores that get a thin line beside the boundary, or the name of a
        number m for lines at -m and m; `guide` names a tensor (a, b, c) whose line
        a x + b y + c = 0 is dotted in; `start` is where the sliders stand at first, and
        `compare` {slider: value} what a second run beside it differs in; `speed` is in
        steps a second, or "max"; `extent` is left, right, bottom, top; `log_time` draws
        steps on a log axis; the static picture is taken after `steps`.

        Raises ValueError, TypeError or FileNotFoundError that say what doesn't fit.
        """
        self.lab, self.steps = lab, steps
        self.program, notes = _program(lab)
        self._labels, self._formats = dict(labels or {}), dict(formats or {})
        self._check_functions()
        restarts = _parameters(initial)
        self.sliders = [self._slider(n, v, restarts) for n, v in sliders.items()]
        picks, _ = _controls.start(start or {}, self.sliders, [])
        variants, self.data = self._variants(initial)
        self.spec = {
            **words(title, alt, caption, id, "playground"),
            "notes": notes,
            "provenance": self._provenance(),
            "live": self.program.spec,
            "step": "train",
            "predict": self._predict(),
            "measures": self._measures(),
            "watched": self._numbers("train"),
            "sliders": self.sliders,
            "panels": self._panels(curves),
            "points": self._points(points, test_points),
            "lines": self._lines(lines),
            "guide": self._guide(guide),
            "log": log_time,
            **variants,
            "start": picks,
            "other": self._other(compare),
            "speed": _controls.one_of("speed", str(speed), SPEEDS),
        }
        self._check_names()
        self.spec["extent"] = self._extent(extent)
        self._widget = None

    # ---- what the functions offer ----------------------------------------------------

    def _check_functions(self) -> None:
        functions = self.program.spec["functions"]
        if missing := sorted({"train", "predict"} - set(functions)):
            raise ValueError(
                f"{self.lab.name} has no function {missing[0]}; it has "
                f"{', '.join(functions)}"
            )
        shapes = {n: t["shape"] for n, t in self.program.spec["tensors"].items()}
        grid, score = shapes.get("grid"), shapes.get("score")
        if not (grid and score and grid[1:] == [2] and score == grid[:1]):
            raise ValueError(
                "predict must take grid, declared as 'g 2', and return score of shape "
                f"(g,); here grid is {grid} and score {score}"
            )

    def _predict(self) -> dict:
        size = self.program.spec["tensors"]["grid"]["shape"][0]
        return {
            "name": "predict",
            "input": "grid",
            "output": "score",
            "sizes": {size: CHUNK},
        }

    def _measures(self) -> list[str]:
        return [
            n for n in self.program.spec["functions"] if n not in ("train", "predict")
        ]

    def _numbers(self, function: str) -> list[str]:
        """The single real numbers that a function returns anew."""
        tensors, fn = (
            self.program.spec["tensors"],
            self.program.spec["functions"][function],
        )
        return [
            n
            for n in fn["outputs"]
            if tensors[n] == {"shape": [], "dtype": "f32"} and n not in fn["inputs"]
        ]

    def _panels(self, curves: Mapping[str, Sequence[str]] | None) -> list[dict]:
        functions = ["train", *self._measures()]
        known = [n for f in functions for n in self._numbers(f)]
        if curves is None:
            shares = [n for n in known if self._format(n) == "percent"]
            curves = {"Accuracy": shares} if shares else {}
            curves |= {_upper(self._label(n)): [n] for n in known if n not in shares}
        panels = []
        for title, names in curves.items():
            if unknown := sorted(set(names) - set(known)):
                raise ValueError(
                    f"curves names {unknown}; the functions return {known}"
                )
            series = [{"name": n, "label": _upper(self._label(n))} for n in names]
            panels.append(
                {"title": title, "series": series, "format": self._format(names[0])}
            )
        return panels

    def _label(self, name: str) -> str:
        from .plot import NAMES

        return str({**NAMES, **self._labels}.get(name, name.replace("_", " ")))

    def _format(self, name: str) -> str:
        usual = "percent" if re.search("accuracy|share", name) else "number"
        return self._formats.get(name, usual)

    def _points(self, points: Any, tests: Any) -> list[dict]:
        tensors, found = self.program.spec["tensors"], []
        for pair, optional in ((points, False), (tests, True)):
            if pair is None:
                continue
            x, y, *words = pair
            shapes = [tensors.get(n, {}).get("shape") for n in (x, y)]
            if None in shapes or shapes[0] != [*shapes[1], 2]:
                raise ValueError(
                    f"points ({x}, {y}) have the shapes {shapes[0]} and {shapes[1]}: "
                    "expected names of tensors (n, 2) and (n,)"
                )
            found.append({"x": x, "y": y, "optional": optional})
            if optional:
                found[-1]["label"] = words[0] if words else "test points"
        return found

    def _lines(self, lines: Sequence[float] | str) -> list[float] | str:
        if isinstance(lines, str):
            known = [n for f in self._measures() for n in self._numbers(f)]
            return _controls.one_of("lines", lines, known)
        return [float(v) for v in lines]

    def _guide(self, name: str | None) -> str | None:
        fitting = [n for n, t in self.program.spec["tensors"].items() if t == GUIDE]
        return name and _controls.one_of("guide", name, fitting)

    def _slider(self, name: str, values: Sequence, restarts: Sequence[str]) -> dict:
        tensor = self.program.spec["tensors"].get(name)
        acts = tensor == {"shape": [], "dtype": "f32"}
        if not acts and name not in restarts:
            raise ValueError(
                f"the slider {name} is neither an argument '' of the functions nor one "
                "of initial"
            )
        values = [v.item() if hasattr(v, "item") else v for v in values]
        if len(values) < 2 or len(set(values)) < len(values):
            raise ValueError(f"the slider {name} needs two or more different values")
        made = _controls.slider(name, self._label(name), values, self._format(name))
        if acts and name not in restarts and not made["numeric"]:
            raise ValueError(
                f"the slider {name} is a number of the step, but has words"
            )
        return made | {"restarts": name in restarts}

    def _other(self, compare: Mapping[str, Any] | None) -> dict | None:
        """The slider in which a second run differs at first, and where it stands."""
        if not compare:
            return None
        if len(compare) > 1:
            raise ValueError(
                f"compare is {dict(compare)}: two runs side by side differ in one "
                "slider"
            )
        names = [s["name"] for s in self.sliders]
        (name,) = compare
        which = names.index(_controls.one_of("compare", name, names))
        picks, _ = _controls.start(compare, self.sliders, [])
        return {"which": which, "pick": picks[which]}

    def _check_names(self) -> None:
        names = {s["name"] for s in self.sliders}
        names |= {s["name"] for panel in self.spec["panels"] for s in panel["series"]}
        for what, given in (("labels", self._labels), ("formats", self._formats)):
            if unknown := sorted(set(given) - names):
                raise ValueError(
                    f"{what} names {unknown}; expected some of {sorted(names)}"
                )
        for at in range(len(self.spec["variants"]["items"])):
            tensors = self._tensors(at)
            for pair in self.spec["points"]:
                y = tensors.get(pair["y"])
                if y is not None and not set(y.unique().tolist()) <= {0, 1}:
                    raise ValueError(f"{pair['y']} has classes other than 0 and 1")

    # ---- what training starts from ---------------------------------------------------

    def _needed(self) -> list[str]:
        """Tensors that `initial` must give."""
        spec = self.program.spec["functions"].values()
        moving = {s["name"] for s in self.sliders if not s["restarts"]}
        made = {n for f in spec for n in f["outputs"] if n not in f["inputs"]}
        wanted = dict.fromkeys(n for f in spec for n in f["inputs"])
        return [n for n in wanted if n not in moving | made | {"grid"}]

    def _variants(self, initial: Callable) -> tuple[dict, bytes]:
        """The first tensors of every setting of the restarting sliders, as one block.

        Arrays that are equal are kept once, zeros not at all.
        """
        axes = [s for s in self.sliders if s["restarts"]]
        items, arrays, known, blocks = [], [], {}, []
        for values in itertools.product(*(s["values"] for s in axes)):
            setting = dict(zip((s["name"] for s in axes), values, strict=True))
            found = self._checked(live.flatten(initial(**setting)), setting)
            tensors = {}
            for name, array in found[0].items():
                raw = array.tobytes()
                key = (len(raw), hashlib.sha256(raw).digest())
                if key not in known:
                    known[key] = len(arrays)
                    zero = not any(raw)
                    size = sum(map(len, blocks))
                    arrays.append([-1 if zero else size, array.size])
                    blocks += [] if zero else [raw]
                tensors[name] = known[key]
            items.append({"sizes": found[1], "tensors": tensors})
        names = [s["name"] for s in axes]
        layout = {"variants": {"axes": names, "items": items}, "arrays": arrays}
        return layout, b"".join(blocks)

    def _checked(self, found: dict, setting: dict) -> tuple[dict, dict[str, int]]:
        """The needed tensors as arrays, and the sizes that they have."""
        needed = self._needed()
        if missing := [n for n in needed if n not in found]:
            raise ValueError(f"initial({setting}) gives no {', '.join(missing)}")
        if unknown := sorted(set(found) - set(self.program.spec["tensors"])):
            raise ValueError(f"initial({setting}) gives {unknown}, which nothing takes")
        arrays, sizes = {}, {}
        for name in needed:
            tensor = self.program.spec["tensors"][name]
            value = torch.as_tensor(found[name])
            self._check_one(name, tensor, value, sizes)
            arrays[name] = value.detach().cpu().numpy().astype(DTYPES[tensor["dtype"]])
        free = set(self.program.spec["sizes"]) - set(self._predict()["sizes"])
        if rest := sorted(free - set(sizes)):
            raise ValueError(
                f"no tensor that training starts from tells the size {rest}"
            )
        return arrays, sizes

    def _check_one(self, name: str, tensor: dict, value: Tensor, sizes: dict) -> None:
        expected = [sizes.get(s, s) for s in tensor["shape"]]
        fits = len(expected) == value.ndim and all(
            isinstance(want, str) or want == have
            for want, have in zip(expected, value.shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(expected)}"
            )
        if value.is_floating_point() != (tensor["dtype"] == "f32"):
            raise TypeError(f"{name} is {value.dtype}, expected {tensor['dtype']}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} has values that are not finite")
        for word, size in zip(tensor["shape"], value.shape, strict=True):
            if isinstance(word, str):
                least = self.program.spec["sizes"][word]
                if size < least:
                    raise ValueError(
                        f"the size {word} is {size}: expected {least} or more"
                    )
                sizes[word] = size

    def _tensors(self, at: int) -> dict[str, Tensor]:
        """The tensors of one variant, as the browser gets them."""
        item, spec, found = self.spec["variants"]["items"][at], self.program.spec, {}
        for name, k in item["tensors"].items():
            offset, length = self.spec["arrays"][k]
            dtype = DTYPES[spec["tensors"][name]["dtype"]]
            flat = np.zeros(length, dtype)
            if offset >= 0:
                flat = np.frombuffer(self.data, dtype, length, offset).copy()
            shape = [item["sizes"].get(s, s) for s in spec["tensors"][name]["shape"]]
            tensor = torch.from_numpy(flat).reshape(shape)
            kind = self.lab.tensors[name].kind
            found[name] = {"int": tensor.long(), "bool": tensor.bool()}.get(
                kind, tensor
            )
        return found

    def tensors(self, **setting: Any) -> dict[str, Tensor]:
        """All tensors at step 0 with the sliders at `setting`, else at their start."""
        picks, _ = _controls.start(setting, self.sliders, [])
        first = dict(
            zip([s["name"] for s in self.sliders], self.spec["start"], strict=True)
        )
        chosen = {
            s["name"]: pick if s["name"] in setting else first[s["name"]]
            for s, pick in zip(self.sliders, picks, strict=True)
        }
        at = 0
        for slider in (s for s in self.sliders if s["restarts"]):
            at = at * len(slider["values"]) + chosen[slider["name"]]
        found = self._tensors(at)
        for slider in (s for s in self.sliders if not s["restarts"]):
            value = slider["values"][chosen[slider["name"]]]
            found[slider["name"]] = torch.tensor(float(value))
        return found

    def _extent(self, extent: Sequence[float] | None) -> list[float]:
        """The square around all points, with some room."""
        if extent is not None:
            left, right, bottom, top = map(float, extent)
            if not (left < right and bottom < top):
                raise ValueError(
                    f"extent {extent}: expected left < right, bottom < top"
                )
            return [left, right, bottom, top]
        places = [
            tensors[pair["x"]]
            for at in range(len(self.spec["variants"]["items"]))
            for tensors in [self._tensors(at)]
            for pair in self.spec["points"]
        ]
        low = torch.stack([p.amin(0) for p in places]).amin(0)
        high = torch.stack([p.amax(0) for p in places]).amax(0)
        half = 0.56 * float(
            (high - low).max()
        )  # the points fill 1 / 1.12 of the picture
        x, y = ((low + high) / 2).tolist()
        return [round(v, 4) for v in (x - half, x + half, y - half, y + half)]

    # ---- where it is shown -----------------------------------------------------------

    def text(self) -> str:
        """Title, alt text and the numbers after some steps, as plain text."""
        rows = [f"  {label}: {value}" for label, value in self._rows()]
        head = [f"Playground: {self.spec['title']}", self.spec["alt"]]
        tail = [*self.spec["notes"], self.spec["provenance"]]
        return "\n".join([*head, f"{self._where()}:", *rows, *tail])

    def html(self) -> str:
        """The static page's HTML: module and data, and a picture without JavaScript."""
        # Deflated, since base64 of plain bytes compresses badly on its way to a reader.
        blocks = {"wasm": self.program.wasm, "data": self.data}
        coded = {k: base64.b64encode(zlib.compress(v, 9)) for k, v in blocks.items()}
        content = {
            "state": self._state() | {"deflated": True},
            "buffers": {k: v.decode() for k, v in coded.items()},
        }
        return self._page(content, self._still(), "gvx gvp")

    def widget(self) -> Any:
        """The anywidget (made once) that shows this under a kernel."""
        if self._widget is None:
            made = widget_class(self.module, ("explorer", "playground"), **TRAITS)
            blocks = {"wasm": self.program.wasm, "data": self.data}
            self._widget = made(**self._state(), **blocks)
        return self._widget

    def _state(self) -> dict:
        return {"spec": self.spec, "picks": self.spec["start"]}

    def _provenance(self) -> str:
        size = len(zlib.compress(self.program.wasm, 9)) / 1000
        return (
            f"Trains in your browser: {size:.0f} KB of WebAssembly, compiled from this "
            "page's own train step"
        )

    # ---- the picture after some steps, by torch --------------------------------------

    @functools.cached_property
    def _after(self) -> dict[str, Tensor]:
        """All tensors after `steps` steps of torch, with the score on the grid."""
        tensors = self.tensors()
        for _ in range(self.steps):
            tensors |= self.lab.call("train", tensors)
        for name in self._measures():
            tensors |= self.lab.call(name, tensors)
        left, right, bottom, top = self.spec["extent"]
        x, y = (
            torch.linspace(left, right, PICTURE),
            torch.linspace(top, bottom, PICTURE),
        )
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        tensors["grid"] = torch.stack([columns.flatten(), rows.flatten()], 1)
        return tensors | self.lab.call("predict", tensors)

    def _where(self) -> str:
        chosen = zip(self.sliders, self.spec["start"], strict=True)
        setting = ", ".join(f"{s['label']} {s['texts'][i]}" for s, i in chosen)
        return f"After {self.steps:,} steps at {setting}"

    def _rows(self) -> list[tuple[str, str]]:
        return [
            (
                s["label"],
                _controls.measured_text(float(self._after[s["name"]]), p["format"]),
            )
            for p in self.spec["panels"]
            for s in p["series"]
        ]

    def _still(self) -> str:
        spec, rows = self.spec, self._rows()
        cells = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th>'
            f"<td>{html.escape(value)}</td></tr>"
            for label, value in rows
        )
        said = "With JavaScript, the network trains here and sliders change it."
        words = " ".join(filter(None, [said, spec["caption"], *spec["notes"]]))
        return (
            f'<p class="gvx-title">{html.escape(spec["title"])}</p>{self._picture()}'
            f'<table class="gvx-table"><caption>{html.escape(self._where())}</caption>'
            f"<tbody>{cells}</tbody></table>"
            f'<p class="gvx-caption">{html.escape(words)} '
            f'<span class="gvx-source">{html.escape(spec["provenance"])}</span></p>'
        )

    def _picture(self) -> str:
        """The coloured plane and the training points as SVG."""
        score = np.tanh(self._after["score"].numpy()).reshape(PICTURE, PICTURE)
        sure = 0.42 * np.abs(np.nan_to_num(score))[..., None]
        classes = np.where(score[..., None] > 0, [236, 101, 0], [32, 103, 221])
        image = base64.b64encode(_png((255 + sure * (classes - 255)).astype(np.uint8)))
        left, right, bottom, top = self.spec["extent"]
        pair = self.spec["points"][0]
        places, labels = self._after[pair["x"]], self._after[pair["y"]]
        dots = []
        for (x, y), label in zip(places.tolist(), labels.tolist(), strict=True):
            px, py = 200 * (x - left) / (right - left), 200 * (top - y) / (top - bottom)
            shape = (
                f'<rect x="{px - 1.8:.1f}" y="{py - 1.8:.1f}" width="3.6" height="3.6"'
                if label
                else f'<circle cx="{px:.1f}" cy="{py:.1f}" r="2"'
            )
            dots.append(f'{shape} class="gvp-dot gvx-s{2 if label else 1}"/>')
        return (
            f'<svg class="gvp-still" viewBox="0 0 200 200" role="img" '
            f'aria-label="{html.escape(self.spec["alt"])}">'
            '<image width="200" height="200" '
            f'href="data:image/png;base64,{image.decode()}"/>'
            f"{''.join(dots)}</svg>"
        )


# ---- helpers -------------------------------------------------------------------------


def _program(lab: live.Experiment) -> tuple[live.Program, list[str]]:
    """The committed program; a changed experiment is compiled here if that can be."""
    compiler = importlib.util.find_spec("ziglang") is not None
    try:
        program, same = lab.load()
    except FileNotFoundError:
        if _display.static_build() or not compiler:
            raise
        return lab.build(), []
    if same:
        return program, []
    if _display.static_build():
        raise ValueError(
            f"{lab.name} was changed after it was compiled: build it with {live.HOW}"
        )
    if compiler:
        return lab.build(), []
    return program, [
        "You changed the code: this still trains the page's original step. Run pip "
        "install ziglang and this cell again to train yours."
    ]


def _parameters(initial: Any) -> list[str]:
    if not callable(initial):
        raise TypeError(f"initial is a {type(initial).__name__}: expected a function")
    return list(inspect.signature(initial).parameters)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
