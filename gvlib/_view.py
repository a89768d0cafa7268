"""What moving views share: words, a widget under a kernel, HTML on a static page."""

import functools
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

from . import _display

STATIC = Path(__file__).parent / "static"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./parts\.js";$', re.MULTILINE)


class View:
    """A view with `spec`, `text()`, `html()` and `widget()`, shown wherever it is.

    `module` names the ES module in `static/` that draws it, and its style sheet.
    """

    module: str
    spec: dict

    def text(self) -> str:
        """The view in words; each view's own."""
        raise NotImplementedError

    def html(self) -> str:
        """What the static page holds; each view's own."""
        raise NotImplementedError

    def widget(self) -> Any:
        """The anywidget (made once) that shows this under a kernel; each view's own."""
        raise NotImplementedError

    def show(self) -> None:
        """Show it here: the widget in a notebook, its text in a script."""
        if not _display.in_notebook():
            print(self.text())
            return
        from IPython.display import display

        display(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str | None:
        return self.html() if _display.static_build() else None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        text = {"text/plain": self.text()}
        if _display.static_build() or not _display.in_notebook():
            return text
        # anywidget also tells Colab here where to find its widget manager.
        data, metadata = self.widget()._repr_mimebundle_()
        return {**data, **text}, metadata

    def _page(self, content: dict, still: str, style: str) -> str:
        """HTML that `static/host.js` mounts: JSON, and a picture without JavaScript.

        content: "state", and "buffers" or "packed" (see host.js); still: HTML;
        style: classes of the picture.
        """
        packed = json.dumps(content, separators=(",", ":"), allow_nan=False)
        packed = packed.replace("<", "\\u003c")  # no data can close the script element
        return (
            f'<div class="gv-static" id="gv-{html.escape(self.spec["id"])}" '
            f'data-module="{self.module}" data-version="{_version(self.module)}">'
            f'<script type="application/json">{packed}</script>'
            f'<div class="gv-fallback {style}">{still}</div></div>'
        )


def words(title: str, alt: str, caption: str, id: str | None, kind: str) -> dict:
    """Checked title and alt text, and the view's name in the page's address."""
    for name, text in (("title", title), ("alt", alt)):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{name} is {text!r}: expected words. The alt text says what the "
                "picture shows, for those who do not see it"
            )
    slug = re.sub(r"[^a-z0-9]+", "-", str(id or title).lower()).strip("-")
    return {"id": slug or kind, "title": title, "alt": alt, "caption": caption}


@functools.cache
def widget_class(module: str, sheets: tuple[str, ...], **traits: str) -> type:
    """The anywidget class of `static/<module>.js`, with synced traits by their type.

    Made when first used, so that a script needs no widgets. Colab shows every output in
    a frame of its own, so the house colours come with the widget.

    >>> widget_class("surface", ("surface",), at="Dict").__name__
    'SurfaceWidget'
    """
    import anywidget
    import traitlets

    styles = [(STATIC / f"{name}.css").read_text("utf-8") for name in ("gv", *sheets)]
    synced = {k: getattr(traitlets, t)().tag(sync=True) for k, t in traits.items()}
    source = {
        "_esm": one_module(module),
        "_css": "\n".join(styles),
    }
    name = f"{module.capitalize()}Widget"
    return type(name, (anywidget.AnyWidget,), {**source, **synced})


def one_module(module: str) -> str:
    """`static/<module>.js` with what it imports from parts.js in it."""
    parts, own = ((STATIC / f"{n}.js").read_text("utf-8") for n in ("parts", module))
    shared = re.sub(r"^export ", "", parts, flags=re.MULTILINE)
    whole, count = IMPORT.subn(lambda _: shared, own)
    if count != 1:
        raise ValueError(f"{module}.js imports parts.js {count} times: expected once")
    return whole


@functools.cache
def _version(module: str) -> str:
    """Eight digits that change with a module, so that no old copy of it is used."""
    return hashlib.sha256(one_module(module).encode()).hexdigest()[:8]
