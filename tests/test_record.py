"""tools/record.py: pages as scripts, merged into the ledger."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from gvlib.evidence import KEYS

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("record", ROOT / "tools" / "record.py")
record = importlib.util.module_from_spec(spec)
spec.loader.exec_module(record)

HEAD = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A page

```{code-cell}
import gvlib as gv

gv.page("%s")
```

Words between the cells.

```{code-cell}
%s
```
"""
CLAIM = 'gv.claim("%s", "It fits.", paper="zhang2017", values=%s, at_least=0.5)'
VALUES = [0.9, 0.8, 0.9, 1.0, 2 / 3]


def entry(id, page, verdict="shown"):
    return dict.fromkeys(KEYS) | {"id": id, "page": page, "verdict": verdict}


@pytest.fixture
def book(tmp_path):
    """A small book: `add(name, code)` writes a page, `ledger()` reads the claims."""
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_toc.yml").write_text("format: jb-book\n")

    class Book:
        root = tmp_path

        def add(self, name, code, named=None):
            path = tmp_path / "chapters" / f"{name}.md"
            path.parent.mkdir(exist_ok=True)
            path.write_text(HEAD % (named or name, code), "utf-8")
            with open(tmp_path / "_toc.yml", "a") as toc:
                toc.write(f"- file: chapters/{name}  # a page\n")

        def run(self, *args):
            return record.main(args, root=tmp_path)

        def ledger(self, scale="quick"):
            file = tmp_path / "data" / "evidence" / f"{scale}.json"
            return json.loads(file.read_text("utf-8"))

        def write(self, entries):
            (tmp_path / "data" / "evidence").mkdir(parents=True)
            file = tmp_path / "data" / "evidence" / "quick.json"
            file.write_text(json.dumps(entries))

    return Book()


@pytest.fixture(autouse=True)
def find_gvlib(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_pages_of_the_contents_are_recorded_and_a_failing_one_named(book, capfd):
    book.write([entry("old", "b/bad"), entry("stale", "a/good"), entry("x", "c/left")])
    book.add("b/bad", "gv.claim('never')\nraise SystemExit(3)")
    book.add("a/good", CLAIM % ("z", VALUES) + "\n" + CLAIM % ("a", VALUES))
    assert book.run("--scale", "quick") == 1
    # good: both new, in order of appearance; bad: its old claim kept; left: dropped
    assert [(c["page"], c["id"]) for c in book.ledger()] == [
        ("a/good", "z"),
        ("a/good", "a"),
        ("b/bad", "old"),
    ]
    found = book.ledger()[0]
    assert tuple(found) == KEYS
    assert found["estimate"] == 0.853333  # six significant digits
    assert found["scale"] == "quick"
    out, err = capfd.readouterr()
    assert "a/good: " in out
    assert "CPU-s, 2 shown" in out
    assert "b/bad" in out
    assert "missing" in out  # the end of what the page itself printed
    assert err.strip() == "failed: b/bad"


def test_one_page_at_full_scale_leaves_the_others(book):
    book.add("a/one", CLAIM % ("one", VALUES))
    book.add("a/two", "raise ValueError('not asked for')")
    assert book.run("--scale", "full", "chapters/a/one.md") == 0
    assert [(c["id"], c["scale"]) for c in book.ledger("full")] == [("one", "full")]


def test_page_that_calls_itself_otherwise_fails(book, capfd):
    book.add("a/one", CLAIM % ("one", VALUES), named="a/other")
    assert book.run() == 1
    assert "must call gv.page('a/one')" in capfd.readouterr().out


def test_quick_pages_have_one_thread_and_an_empty_folder(book):
    code = "import os, torch; assert torch.get_num_threads() == 1; "
    code += "assert not os.path.exists('_toc.yml')"
    book.add("a/one", code)
    assert book.run() == 0
    assert book.ledger() == []


def test_without_jupytext_a_converted_page_runs_or_the_way_is_told(
    book, monkeypatch, capfd
):
    monkeypatch.setitem(sys.modules, "jupytext", None)  # as if it were not installed
    book.add("a/one", CLAIM % ("one", VALUES))
    assert book.run() == 1
    assert "pip install jupytext" in capfd.readouterr().out
    script = "import gvlib as gv\ngv.page('a/one')\n" + CLAIM % ("one", VALUES)
    (book.root / "chapters" / "a" / "one.py").write_text(script)
    assert book.run() == 0
    assert book.ledger()[0]["id"] == "one"


def test_id_on_two_pages_is_refused(book, capfd):
    book.add("a/one", CLAIM % ("same", VALUES))
    book.add("a/two", CLAIM % ("same", VALUES))
    assert book.run("--workers", "1") == 1
    assert "ids are unique in the book" in capfd.readouterr().out
    assert len(book.ledger()) == 1


def test_unknown_page_and_missing_contents_are_named(book, capsys):
    assert book.run("chapters/nowhere") == 2
    assert "no page 'chapters/nowhere'" in capsys.readouterr().err
    (book.root / "_toc.yml").unlink()
    assert book.run() == 2
    assert "_toc.yml is missing" in capsys.readouterr().err


def test_contents_of_this_book_are_found():
    pages = record.toc_pages(ROOT / "_toc.yml")
    assert "chapters/evidence" in pages
    assert len(set(pages)) == len(pages)


def test_merge_keeps_everything_where_the_contents_are_unknown():
    old = [entry("b", "b"), entry("a", "a")]
    ids = [c["id"] for c in record.merge(old, "a", [entry("c", "a")], known=())]
    assert ids == ["c", "b"]


def test_unforeseen_error_fails_its_own_page_only(book, monkeypatch, capfd):
    book.add("a/one", CLAIM % ("one", VALUES))
    book.add("a/two", CLAIM % ("two", VALUES))
    real = record.run_page

    def sometimes(path, *args):
        if path.stem == "one":
            raise LookupError("unforeseen")
        return real(path, *args)

    monkeypatch.setattr(record, "run_page", sometimes)
    assert book.run() == 1
    assert "LookupError: unforeseen" in capfd.readouterr().out
    assert [c["id"] for c in book.ledger()] == ["two"]
