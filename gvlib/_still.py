"""A view's first setting without JavaScript: a picture, a sentence and a table."""

import base64
import html
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

__all__ = ["still"]

WIDTH, HEIGHT = 640, 320  # of a line picture, in CSS pixels


def still(
    spec: dict, block: np.ndarray, rows: Sequence[Sequence[str]], where: str
) -> str:
    """HTML for the block (series, stats, points) of the first setting.

    `rows` are the numbers there (series, mean, interval), `where` says which it is.
    """
    picture = (_lines if spec["kind"] == "lines" else _pictures)(spec, block)
    controls = [c["label"] for c in [*spec["sliders"], *spec["cursors"]]]
    said = [
        f"This is one of {len(spec['n'])} settings; with JavaScript, sliders move "
        f"through {', '.join(controls)}.",
        spec["caption"],
        *spec["notes"],
    ]
    return (
        f'<p class="gvx-title">{html.escape(spec["title"])}</p>{picture}'
        f"{_table(rows, where, bool(spec['over']))}"
        f'<p class="gvx-caption">{html.escape(" ".join(filter(None, said)))} '
        f'<span class="gvx-source">{html.escape(spec["provenance"])}</span></p>'
    )


def _table(rows: Sequence[Sequence[str]], where: str, seeds: bool) -> str:
    names = ("mean", "95 % interval") if seeds else ("value",)
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(c)}</td>" for c in row[1 : 1 + len(names)])
        + "</tr>"
        for row in rows
    )
    return (
        f'<table class="gvx-table"><caption>{html.escape(where)}</caption><thead><tr>'
        f"<td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


# ---- lines ---------------------------------------------------------------------------


def _lines(spec: dict, block: np.ndarray) -> str:
    """Lines and bands as SVG, in the classes that explorer.css draws."""
    (axis,), value = spec["cursors"], spec["value"]
    left, right, top, bottom = 56, WIDTH - 140, 24, HEIGHT - 40
    x, y = _placer(axis, left, right), _placer(value, bottom, top)
    parts = [
        f'<svg class="gvx-svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(spec["alt"])}">'
    ]
    for v, text in value["ticks"]:
        parts.append(f'<path class="gvx-grid" d="M{left} {y(v)}H{right}"/>')
        parts.append(_text(left - 8, y(v) + 4, text, "end"))
    parts += [_text(x(v), bottom + 18, text, "middle") for v, text in axis["ticks"]]
    parts.append(_text(right, bottom + 36, axis["label"], "end"))
    parts.append(_text(0, 14, value["label"], "start"))
    xs = [x(v) for v in axis["values"]]
    ends = _apart([y(float(stats[0][-1])) for stats in block])
    for k, stats in enumerate(block):
        label = spec["series"][k]["label"]
        parts += _curve(xs, [[y(float(v)) for v in s if v == v] for s in stats], k)
        parts.append(_text(right + 8, ends[k] + 4, label, "start"))
    return "".join([*parts, "</svg>"])


def _placer(axis: dict, first: float, last: float) -> Callable[[float], float]:
    """Value -> pixel, held inside the picture."""
    turn = math.log10 if axis["scale"] == "log" else float
    low, high = map(turn, axis["limits"])

    def place(value: float) -> float:
        value = max(value, axis["limits"][0])  # no logarithm of a band's end below 0
        share = (turn(value) - low) / (high - low)
        return round(first + (last - first) * min(share, 1.0), 1)

    return place


def _text(x: float, y: float, text: str, anchor: str) -> str:
    safe = html.escape(text)
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{safe}</text>'


def _curve(xs: list[float], ys: list[list[float]], k: int) -> list[str]:
    mean, *ends = ys
    tone, parts = f"gvx-s{k % 8 + 1}", []
    if ends and len(ends[0]) == len(xs):
        low, high = (list(zip(xs, end, strict=True)) for end in ends)
        around = _path([*high, *reversed(low)])
        parts.append(f'<path class="gvx-band {tone}" d="{around}Z"/>')
    line = _path(zip(xs, mean, strict=True))
    return [*parts, f'<path class="gvx-line {tone}" d="{line}"/>']


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _apart(places: list[float], gap: float = 16) -> list[float]:
    """Move labels down until they are a line of text apart.

    >>> _apart([10, 12, 60])
    [10, 26, 60]
    """
    moved, last = list(places), -math.inf
    for k in sorted(range(len(places)), key=places.__getitem__):
        last = moved[k] = max(places[k], last + gap)
    return moved


# ---- pictures ------------------------------------------------------------------------


def _pictures(spec: dict, block: np.ndarray) -> str:
    """Every panel as an embedded PNG."""
    columns, rows = (len(cursor["values"]) for cursor in spec["cursors"])
    figures = []
    for series, stats in zip(spec["series"], block, strict=True):
        shares = _shares(stats[0].reshape(rows, columns), spec["value"])
        if spec["origin"] == "lower":
            shares = shares[::-1]
        png = _png(_coloured(shares, spec["value"]["colours"]["light"]))
        data = base64.b64encode(png).decode()
        alt = html.escape(f"{spec['alt']} ({series['label']})")
        figures.append(
            f'<div class="gvx-panel"><p>{html.escape(series["label"])}</p>'
            f'<div class="gvx-still"><img alt="{alt}" width="{columns}" '
            f'height="{rows}" src="data:image/png;base64,{data}">'
            f"{_dots(spec)}</div></div>"
        )
    return f'<div class="gvx-panels">{"".join(figures)}</div>'


def _dots(spec: dict) -> str:
    """The data over a picture: discs for class 0, squares for the others."""
    if not spec["points"]:
        return ""
    x, y = spec["cursors"]
    ends = (100, 0) if spec["origin"] == "lower" else (0, 100)
    across, down = _placer(x, 0, 100), _placer(y, *ends)
    dots = [
        f'<rect class="gvx-point gvx-point1" x="{across(px) - 1:.1f}" '
        f'y="{down(py) - 1:.1f}" width="2" height="2"/>'
        if kind
        else f'<circle class="gvx-point gvx-point0" cx="{across(px):.1f}" '
        f'cy="{down(py):.1f}" r="1.1"/>'
        for px, py, kind in spec["points"]
    ]
    return (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(dots)}</svg>"
    )


def _shares(values: np.ndarray, value: dict) -> np.ndarray:
    """Where values lie between the limits, in [0, 1]."""
    low, high = value["limits"]
    if value["scale"] == "log":
        values = np.log(np.maximum(values, low))
        low, high = math.log(low), math.log(high)
    return np.clip((values - low) / (high - low), 0, 1)


def _coloured(shares: np.ndarray, colours: list[str]) -> np.ndarray:
    """(height, width) in [0, 1] -> (height, width, 3) bytes."""
    stops = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours])
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(shares, at, stops[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    """(height, width, 3) bytes -> a PNG file."""
    height, width, _ = pixels.shape
    # 8 bits, RGB, and the standard compression, filter and (no) interlacing.
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = np.insert(pixels.reshape(height, -1), 0, 0, axis=1).tobytes()
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
