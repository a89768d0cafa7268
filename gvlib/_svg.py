"""A matplotlib figure as one small SVG element in the colours of the page."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

__all__ = ["PIXELS_PER_INCH", "TOKENS", "render"]

# Light-mode values of the tokens in gvlib/static/gv.css, where their reasons are told;
# in a figure each becomes var(--gv-..., value). A test holds the two in step.
TOKENS = {
    "fg": "#1f2328",
    "muted": "#57606a",
    "bg": "#ffffff",
    "line": "#d8dde3",
    "c1": "#2067dd",
    "c2": "#ec6500",
    "c3": "#00a271",
    "c4": "#b677c6",
    "c5": "#a75400",
    "c6": "#506c91",
    "c7": "#8180f2",
    "c8": "#757575",
    "s1": "#0a2f77",
    "s2": "#373184",
    "s3": "#58338a",
    "s4": "#773589",
    "s5": "#943980",
    "s6": "#af3e71",
    "s7": "#c5485b",
    "s8": "#d6583e",
    "s9": "#e06d00",
}
# In a page's column (about 700 px) an inch of figure is shown 100 px wide, so that
# 10-point text comes out at 14 px, nearly the size of the text around it.
PIXELS_PER_INCH = 100

_TOKEN_OF = {colour: name for name, colour in TOKENS.items()}
# What matplotlib takes by itself outside the style: for text, and a legend's frame.
_TOKEN_OF |= {"#000000": "fg", "#cccccc": "line"}
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"
_URL = re.compile(r"url\(#([^)]+)\)")
# Joins and caps as matplotlib means them; its own rule would set the whole page's.
_JOINS = "stroke-linejoin:round;stroke-linecap:butt"


def render(fig: Figure, alt: str, prefix: str, themed: bool) -> str:
    """The figure as an SVG element; see `gvlib.plot.svg`, which sets the style."""
    out = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    paper = "none" if themed else TOKENS["bg"]
    fig.savefig(out, format="svg", metadata=metadata, facecolor=paper)
    root = ET.fromstring(out.getvalue())
    _drop(root, (f"{_SVG}metadata", f"{_SVG}style"))
    names = _name_ids(root, prefix)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _rename(element, names)
        _restyle(element, themed)
        _shorten(element)
    _unwrap(root)
    _head(root, alt, None if themed else fig.get_size_inches())
    text = ET.tostring(root, encoding="unicode")
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _head(root: ET.Element, alt: str, inches: np.ndarray | None) -> None:
    """The attributes of the svg element itself; `inches` where it has a size."""
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("viewBox", box)
    root.set("role", "img")
    root.set("aria-label", alt)
    if inches is None:
        look = f"fill:{_variable(TOKENS['fg'])};font-family:var(--gv-font, sans-serif)"
    else:
        look = f"fill:{TOKENS['fg']};font-family:'DejaVu Sans',Verdana,sans-serif"
        root.set("width", f"{inches[0] * PIXELS_PER_INCH:.0f}")
        root.set("height", f"{inches[1] * PIXELS_PER_INCH:.0f}")
    root.set("style", f"{look};{_JOINS}")


def _drop(root: ET.Element, tags: tuple[str, ...]) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in tags:
                parent.remove(child)


def _name_ids(root: ET.Element, prefix: str) -> dict[str, str]:
    """New names for the ids that something refers to, in the order of first use."""
    names: dict[str, str] = {}
    for element in root.iter():
        link = element.get(f"{_XLINK}href", "")
        used = [link[1:]] if link.startswith("#") else []
        for value in element.attrib.values():
            if not value.startswith("data:"):
                used += _URL.findall(value)
        for name in used:
            names.setdefault(name, f"{prefix}-{len(names) + 1}")
    return names


def _rename(element: ET.Element, names: Mapping[str, str]) -> None:
    """Ids and references by their new names; an id that nothing refers to goes."""
    own = element.attrib.pop("id", None)
    if own in names:
        element.set("id", names[own])
    link = element.attrib.pop(f"{_XLINK}href", None)
    if link is not None:
        link = f"#{names[link[1:]]}" if link.startswith("#") else _small_png(link)
        element.set("href", link)
    for key, value in element.attrib.items():
        if "url(#" in value:
            element.set(key, _URL.sub(lambda m: f"url(#{names[m[1]]})", value))


def _restyle(element: ET.Element, themed: bool) -> None:
    """Colours become variables; text takes the page's font and grows on a phone."""
    style = element.attrib.pop("style", "")
    pairs = (part.split(":", 1) for part in style.split(";") if part.strip())
    look = {key.strip(): value.strip() for key, value in pairs}
    for key in ("fill", "stroke"):  # hatches write these as attributes of their own
        if key in element.attrib and key not in look:
            look[key] = element.attrib.pop(key)
    _split_font(look)
    if "DejaVu Sans" in look.get("font-family", ""):
        del look["font-family"]
    if themed:
        look = {key: _variable(value) for key, value in look.items()}
        # the parts of a formula stand at fixed places and cannot grow apart
        if "font-size" in look and element.tag == "text":
            look["font-size"] = f"calc({look['font-size']} * var(--gv-text, 1))"
    if look:
        element.set("style", ";".join(f"{k}:{v}" for k, v in look.items()))


def _split_font(look: dict[str, str]) -> None:
    """`font: bold 10px Family` (matplotlib before 3.11) as what 3.11 writes."""
    if "font" in look:
        before, size, family = re.split(r"([\d.]+px)", look.pop("font"), maxsplit=1)
        look |= {"font-size": size, "font-family": family}
        for word in before.split():
            slanted = word in ("italic", "oblique")
            look["font-style" if slanted else "font-weight"] = word


def _variable(value: str) -> str:
    token = _TOKEN_OF.get(value.lower())
    return value if token is None else f"var(--gv-{token}, {TOKENS[token]})"


def _shorten(element: ET.Element) -> None:
    """Round to hundredths of a point, which are finer than any screen."""
    for key in ("d", "x", "y", "points"):
        if key in element.attrib:
            value = re.sub(r"-?\d+\.\d+", _hundredths, element.get(key))
            element.set(key, " ".join(value.split()))


def _hundredths(found: re.Match) -> str:
    return f"{round(float(found[0]), 2) + 0:g}"  # + 0 makes a plain zero of -0.0


def _unwrap(parent: ET.Element) -> None:
    """Groups that say nothing give way to what is in them."""
    for child in list(parent):
        _unwrap(child)
        if child.tag in ("g", "defs") and not child.attrib and not len(child):
            parent.remove(child)
        elif child.tag == "g" and not child.attrib:
            at = list(parent).index(child)
            parent[at : at + 1] = list(child)


def _small_png(link: str) -> str:
    """The embedded PNG again, as grey where it is grey: half of the bytes or less."""
    from PIL import Image

    head, data = link.split(",", 1)
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")
    red, green, blue, alpha = (np.asarray(channel) for channel in image.split())
    grey = (red == green).all() and (green == blue).all()
    mode = "L" if grey else "RGB"
    if not (alpha == 255).all():
        mode += "A"
    out = io.BytesIO()
    image.convert(mode).save(out, format="PNG", optimize=True)
    return f"{head.strip()},{base64.b64encode(out.getvalue()).decode()}"
