"""Write notebooks/**.ipynb from the pages, for Colab: `make notebooks`.

A notebook is its page without outputs, behind one cell that installs gvlib where it is
missing. The same page always gives the same bytes; tests/test_notebooks.py checks that
the committed notebooks are in step. With --check, nothing is written.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import book
import jupytext
import nbformat
import plain
import yaml
from pybtex.database import parse_file

FOLDER = book.ROOT / "notebooks"
INSTALL = """\
# Installs the book's helper library where it is missing, as on Colab.
try:
    import gvlib
except ModuleNotFoundError:
    import os

    source = os.environ.get("GVLIB_SOURCE", "git+{repository}")
    %pip install --quiet "{{source}}"
"""


def repository() -> dict[str, str]:
    """The address and branch that _config.yml names."""
    return yaml.safe_load((book.ROOT / "_config.yml").read_text())["repository"]


def notebook(page: str) -> str | None:
    """The text of a page's notebook; None where the page has no code."""
    if book.read_page(page) is None:
        return None
    made = jupytext.read(book.ROOT / f"{page}.md", fmt="md:myst")
    place = repository()
    text = INSTALL.format(repository=place["url"]).strip()
    install = nbformat.v4.new_code_cell(text)
    first = [cell.cell_type for cell in made.cells].index("code")
    made.cells.insert(first, install)
    show_plainly(made.cells, page, f"{place['url']}/blob/{place['branch']}")
    for number, cell in enumerate(made.cells):
        # An id that depends on nothing but the page: jupytext's own are random.
        cell.id = hashlib.sha256(f"{page} {number}".encode()).hexdigest()[:8]
    made.metadata = {
        "kernelspec": made.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    made.nbformat_minor = 5
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


def show_plainly(cells: list[nbformat.NotebookNode], page: str, base: str) -> None:
    """Turn the text cells, in place, into what Colab can show."""
    texts = [cell for cell in cells if cell.cell_type == "markdown"]
    papers = parse_file(book.ROOT / "chapters/references.bib")
    cited = plain.bibliography("\n".join(cell.source for cell in texts), papers)
    about = plain.Page(page, base, papers, cited)
    for cell in texts:
        cell.source = plain.plain(cell.source, about).strip()


def target(page: str) -> Path:
    """Where a page's notebook lies."""
    return FOLDER / f"{page.removeprefix('chapters/')}.ipynb"


def out_of_step() -> dict[Path, str | None]:
    """Each file that must change: its new text, or None where it must go."""
    texts = {target(page): notebook(page) for page in book.pages()}
    wanted = {path: text for path, text in texts.items() if text is not None}
    there = {path: path.read_text() for path in FOLDER.rglob("*.ipynb")}
    changed = {path: text for path, text in wanted.items() if there.get(path) != text}
    return changed | dict.fromkeys(there.keys() - wanted.keys())


def main() -> int:
    """Write what is out of step, or name it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="fail, and write nothing")
    check = parser.parse_args().check
    try:
        changes = out_of_step()
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path, text in changes.items():
        if check:
            print(f"{path} is not in step with its page: run `make notebooks`")
        elif text is None:
            path.unlink()
            print(f"removed {path}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path}")
    return 1 if check and changes else 0


if __name__ == "__main__":
    sys.exit(main())
