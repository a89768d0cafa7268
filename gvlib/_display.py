"""Where output goes: rich in a notebook, plain in a script; and where files lie."""

import os
import sys
from pathlib import Path

__all__ = ["emit", "in_notebook", "resource", "static_build"]


def in_notebook() -> bool:
    """True where a Jupyter kernel (a notebook, Colab, the book build) shows output."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and getattr(shell, "kernel", None) is not None


def static_build() -> bool:
    """True while the book is built: output must work without a kernel."""
    return os.environ.get("GV_STATIC") == "1"


def emit(html: str, text: str) -> None:
    """Show `html` in a notebook; print `text`, which says the same, in a script."""
    if not in_notebook():
        print(text)
        return
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)


def resource(folder: str) -> Path:
    """The folder "data" or "chapters": inside the installed package, or the checkout.

    >>> resource("data").name in ("data", "_data")
    True
    """
    package = Path(__file__).resolve().parent
    installed = package / f"_{folder}"
    return installed if installed.is_dir() else package.parent / folder
