"""A surface without JavaScript: seen from one side, and as a map.

The same projection as in `static/surface.js`; colours are classes of `surface.css`, so
that the drawing follows the page's mode.
"""

import base64
import html
from collections.abc import Iterable

import numpy as np

from ._still import _png

__all__ = ["picture"]

# The picture's own space, as in surface.js: base [-1, 1] x [-1, 1], heights from 0.
TALL, FLOOR, MIDDLE, AWAY = 1.05, -0.5, 0.2, 5.5
WIDE, HIGH = 390, 330  # of the 3-D part, in pixels
MAP, LEFT, TOP = 250, 30, 25  # side of the map, and where it stands
CELLS = 25  # along each side: as many as the eye needs here, and 30 KB
TONES, SHADES = 17, 13  # steps of colour and of light, classes in surface.css
LIGHT = (-0.6, -0.35, 0.75)  # stands at the reader's left: right, back, up


def picture(spec: dict, fields: np.ndarray) -> str:
    """A surface, fields (1 + others, b, a), as two SVGs: from one side, and a map."""
    heights = _heights(spec["height"], fields[0])
    shades = heights
    if spec["colour"]:
        low, high = spec["colour"]["limits"]
        shades = (fields[1 + spec["colour"]["field"]] - low) / (high - low)
    eye = _Eye(spec["start"]["turn"], spec["start"]["tilt"])
    parts = [
        _svg(WIDE, HIGH, spec["alt"]),
        *_floor(spec, eye, heights),
        *_cells(heights, shades, eye),
        "</svg>",
        _svg(MAP + 2 * LEFT, MAP + TOP + 40, f"Map of {spec['height']['label']}"),
        *_map(spec, heights, shades),
        "</svg>",
    ]
    return f'<div class="gvs-stills">{"".join(parts)}</div>'


def _svg(width: int, height: int, label: str) -> str:
    return (
        f'<svg class="gvs-still" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-label="{html.escape(label)}">'
    )


class _Eye:
    """The projection for one turn and tilt, in degrees."""

    def __init__(self, turn: float, tilt: float):
        self.sides = np.sin(np.radians([turn, tilt])), np.cos(np.radians([turn, tilt]))
        (st, sp), (ct, cp) = self.sides
        self.place = AWAY * np.array([-cp * st, -cp * ct, sp]) + [0, 0, MIDDLE]
        right, back, up = np.array(LIGHT) / np.linalg.norm(LIGHT)
        self.light = np.array([right * ct + back * st, back * ct - right * st, up])
        box = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (FLOOR, TALL)]
        seen = self._seen(np.array(box))
        self.middle = (seen.max(0) + seen.min(0)) / 2
        self.size = ((WIDE - 40, HIGH - 30) / np.ptp(seen, axis=0)).min()

    def project(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) -> pixels (n, 2), such that the box fits."""
        off = (self._seen(points) - self.middle) * self.size
        return off * [1, -1] + [WIDE / 2, HIGH / 2]

    def _seen(self, points: np.ndarray) -> np.ndarray:
        """(n, 3) -> right and up (n, 2) in perspective."""
        (st, sp), (ct, cp) = self.sides
        x, y, z = points.T
        across, back, z = x * ct - y * st, x * st + y * ct, z - MIDDLE
        scale = AWAY / (AWAY + back * cp - z * sp)
        return np.stack([across, z * cp + back * sp], axis=1) * scale[:, None]


def _heights(height: dict, loss: np.ndarray) -> np.ndarray:
    """Losses as shares of the shown range; what is cut lies above 1."""
    low, high = height["limits"]
    loss = loss.astype(float)
    if height["scale"] == "log":
        low, high, loss = np.log(low), np.log(high), np.log(loss)
    return (loss - low) / (high - low)


def _path(points: Iterable, kind: str, close: str = "") -> str:
    text = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path class="{kind}" d="M{text}{close}"/>'


def _base(n: int) -> np.ndarray:
    return np.linspace(-1, 1, n)


def _lines(spec: dict, heights: np.ndarray) -> Iterable[tuple[float, np.ndarray]]:
    """(height, line (n, 2) in the base's coordinates) for every contour line."""
    from contourpy import contour_generator

    rows, columns = heights.shape
    masked = np.ma.masked_invalid(heights)
    found = contour_generator(_base(columns), _base(rows), masked)
    levels = _heights(spec["height"], np.array(spec["height"]["levels"]))
    for level in levels:
        for line in found.lines(level):
            yield float(level), line


def _floor(spec: dict, eye: _Eye, heights: np.ndarray) -> list[str]:
    """The floor with its contour lines and the names of the axes."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    flat = lambda xy: np.column_stack([xy, np.full(len(xy), FLOOR)])  # noqa: E731
    parts = [_path(eye.project(flat(corners)), "gvs-floor", "Z")]
    for level, line in _lines(spec, heights):
        parts.append(_path(eye.project(flat(line)), f"gvs-contour {_tone(level)}"))
    near = np.where(eye.place[:2] > 0, 1.16, -1.16)
    places = eye.project(flat(np.array([[0, near[1]], [near[0], 0]])))
    for key, (x, y) in zip("ab", places, strict=True):
        parts.append(
            _text(x, y, "end" if x < WIDE / 2 else "start", spec[key]["label"])
        )
    return parts


def _cells(heights: np.ndarray, shades: np.ndarray, eye: _Eye) -> list[str]:
    """The surface's cells, far ones first; what is cut or a hole is left out."""
    rows, columns = (
        np.unique(np.linspace(0, n - 1, CELLS + 1).round().astype(int))
        for n in heights.shape
    )
    x, y = _base(heights.shape[1])[columns], _base(heights.shape[0])[rows]
    h, tones = (v[np.ix_(rows, columns)] for v in (heights, shades))
    order = [
        np.argsort(-abs((at[1:] + at[:-1]) / 2 - eye.place[k]), kind="stable")
        for k, at in enumerate((x, y))
    ]
    ring = ((0, 0), (1, 0), (1, 1), (0, 1))
    parts = []
    for j in order[1]:
        for i in order[0]:
            corners = np.array([[x[i + p], y[j + q], h[j + q, i + p]] for p, q in ring])
            if not (corners[:, 2].min() < 1 and np.isfinite(corners).all()):
                continue
            shape = _under(corners) * [1, 1, TALL]
            corners[:, 2] *= TALL
            tone = np.nan_to_num(tones[j : j + 2, i : i + 2]).mean()
            kind = f"{_tone(tone)} gvs-l{_shade(corners, eye)}"
            parts.append(_path(eye.project(shape), kind, "Z"))
    return parts


def _under(corners: np.ndarray) -> np.ndarray:
    """The part of a polygon (n, 3) with heights up to 1."""
    kept = []
    for p, q in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if p[2] <= 1:
            kept.append(p)
        if (p[2] <= 1) != (q[2] <= 1):
            kept.append(p + (1 - p[2]) / (q[2] - p[2]) * (q - p))
    return np.array(kept)


def _shade(corners: np.ndarray, eye: _Eye) -> int:
    """How light a cell lies, 0 to SHADES - 1; seen from below it is dark, as in JS."""
    normal = np.cross(corners[2] - corners[0], corners[3] - corners[1])
    normal /= np.linalg.norm(normal)
    if normal @ (eye.place - corners.mean(0)) < 0:
        return 0
    lit = min(max(0.8 * (normal @ eye.light - 0.6), -0.42), 0.3)
    return round((lit + 0.42) / 0.72 * (SHADES - 1))


def _tone(height: float) -> str:
    """The class of a height's colour, gvs-h0 ... gvs-h16."""
    return f"gvs-h{round((TONES - 1) * min(max(height, 0), 1))}"


def _map(spec: dict, heights: np.ndarray, shades: np.ndarray) -> list[str]:
    """Heights from above as a PNG, with contour lines and the ends of the axes."""
    from ._svg import TOKENS

    stops = np.array([_rgb(TOKENS[f"s{k}"]) for k in range(1, 10)])
    shares = np.clip(np.nan_to_num(shades[::-1]), 0, 1)
    pixels = np.stack(
        [np.interp(shares, np.linspace(0, 1, 9), stops[:, c]) for c in range(3)], -1
    )
    pixels[heights[::-1] > 1] = 0.65 * 255 + 0.35 * np.array(_rgb(TOKENS["muted"]))
    pixels[np.isnan(heights[::-1])] = 255
    image = base64.b64encode(_png(pixels.round().astype(np.uint8))).decode()
    left, top = LEFT, TOP
    parts = [
        f'<image x="{left}" y="{top}" width="{MAP}" height="{MAP}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{image}"/>'
    ]
    for _, line in _lines(spec, heights):
        at = (line * [1, -1] + 1) / 2 * MAP + [left, top]
        parts.append(_path(at, "gvs-iso"))
    a, b = (spec[k] for k in "ab")
    texts = [
        (left, top + MAP + 16, "start", a["texts"][0]),
        (left + MAP, top + MAP + 16, "end", a["texts"][-1]),
        (left + MAP, top + MAP + 33, "end", f"→ {a['label']}, ↑ {b['label']}"),
        (left - 6, top + MAP, "end", b["texts"][0]),
        (left - 6, top + 10, "end", b["texts"][-1]),
    ]
    return parts + [_text(*text) for text in texts]


def _text(x: float, y: float, anchor: str, text: str) -> str:
    said = html.escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
