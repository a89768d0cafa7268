"""The commands: what they need, what they keep, and that a failure is one."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# {title}

```{{code-cell}} ipython3
{code}
```
"""
CLAIM = """\
import os, pathlib
import gvlib
path = pathlib.Path(os.environ["GV_RECORD"], "one.json")
path.parent.mkdir(parents=True, exist_ok=True)
_ = path.write_text('["a claim"]')
print("answer", gvlib.ANSWER, os.environ["GV_SCALE"], os.environ.get("OMP_NUM_THREADS"))
pathlib.Path("../runs.txt").open("a").write("x")"""


@pytest.fixture
def small(tmp_path):
    """A small book with the project's own tools, in a folder with a space."""
    root = tmp_path / "a small book"
    for name in ("tools", "assets"):
        shutil.copytree(ROOT / name, root / name)
    for name in ("_config.yml", "requirements.txt"):
        shutil.copy(ROOT / name, root)
    static = root / "gvlib" / "static"
    static.mkdir(parents=True)
    for name in ("gv.css", "claim.css", "explorer.css", "host.js"):
        (static / name).touch()
    (root / "gvlib" / "__init__.py").write_text("ANSWER = 41\n")
    (root / "data").mkdir()
    (root / "chapters").mkdir()
    (root / "chapters" / "references.bib").touch()
    write_page(root, "one", CLAIM)
    (root / "chapters" / "index.md").write_text("# Small\n\nTo [one](one.md).\n")
    write_toc(root, "one")
    return root


def write_page(root, name, code):
    text = PAGE.format(title=name.capitalize(), code=code)
    (root / "chapters" / f"{name}.md").write_text(text)


def write_toc(root, *names):
    chapters = "".join(f"  - file: chapters/{name}\n" for name in names)
    text = f"format: jb-book\nroot: chapters/index\nchapters:\n{chapters}"
    (root / "_toc.yml").write_text(text)


def build(root, *arguments, **env):
    return subprocess.run(
        [sys.executable, root / "tools/book.py", *arguments],
        env=os.environ | {"GV_SCALE": "quick"} | env,
        capture_output=True,
        text=True,
    )


def shown(root, page="one"):
    return (root / f"_build/html/chapters/{page}.html").read_text()


def runs(root):
    return len((root / "runs.txt").read_text())


def test_results_are_kept_and_never_stale(small):
    done = build(small)
    assert done.returncode == 0, done.stderr
    assert "answer 41 quick 1" in shown(small)
    assert str(small / "_build/html/index.html") in done.stdout
    assert runs(small) == 1  # and Sphinx did not run the page once more
    claims = Path(build(small, "--claims").stdout.strip())
    assert json.loads((claims / "one.json").read_text()) == ["a claim"]

    assert "nothing changed" in build(small).stdout

    text = (small / "chapters/one.md").read_text()
    (small / "chapters/one.md").write_text(text + "\nMore words.\n")
    assert build(small).returncode == 0
    assert "More words" in shown(small)
    assert runs(small) == 1

    (small / "gvlib/__init__.py").write_text("ANSWER = 42\n")
    assert build(small).returncode == 0
    assert "answer 42 quick 1" in shown(small)
    assert runs(small) == 2
    assert len(list((small / "_build/cache").glob("quick-*"))) == 1  # no old results

    assert build(small, GV_SCALE="full").returncode == 0
    assert "answer 42 full" in shown(small)
    assert build(small).returncode == 0
    assert "answer 42 quick" in shown(small)
    assert runs(small) == 3  # quick was still kept


def test_a_page_that_changes_meanwhile_is_named(small):
    code = "p = open('one.md', 'r+'); t = p.read().replace('7 * 6', '6 * 7'); p.seek(0)"
    write_page(small, "one", f"{code}; p.write(t); p.close()\n7 * 6")
    done = build(small)
    assert done.returncode == 1
    assert "chapters/one changed while the book was built" in done.stderr
    assert not (small / "_build/html").exists()
    done = build(small)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path",
    ["gvlib/deep.py", "data/new.xz", "requirements.txt", "chapters/references.bib"],
)
def test_key_sees_every_source_of_results(small, path):
    before = build(small, "--claims").stdout
    (small / path).write_text("# changed")
    assert build(small, "--claims").stdout != before


def test_key_does_not_see_what_python_writes(small):
    before = build(small, "--claims").stdout
    (small / "gvlib/__pycache__").mkdir()
    (small / "gvlib/__pycache__/x.pyc").write_text("x")
    assert build(small, "--claims").stdout == before


def test_failing_page_is_named_and_stays_failing(small):
    assert build(small).returncode == 0
    write_page(small, "two", "values = [1, 2]\nvalues[7]")
    write_toc(small, "one", "two")
    for _ in range(2):
        done = build(small)
        assert done.returncode == 1
        assert "FAILED: chapters/two.md" in done.stderr
        assert "values[7]" in done.stderr
        assert "IndexError" in done.stderr
        assert not (small / "_build/html").exists()  # nothing that looks like success
    write_page(small, "two", "values = [1, 2]\nvalues[1]")
    assert build(small).returncode == 0
    assert runs(small) == 1  # the page that had finished was kept


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("See [there](nowhere.md).", "nowhere.md"),
        ("```{nothing}\n```", "nothing"),
        ("{footcite:t}`nobody1900`", "nobody1900"),
        ("{ref}`no-such-label`", "no-such-label"),
    ],
)
def test_warnings_fail_every_time(small, line, message):
    index = small / "chapters/index.md"
    index.write_text(f"# Small\n\n{line}\n\n```{{footbibliography}}\n```\n")
    for _ in range(2):
        done = build(small)
        assert done.returncode == 1
        assert message in done.stderr
        assert not (small / "_build/html").exists()


def test_a_page_that_is_not_there(small):
    write_toc(small, "one", "three")
    done = build(small)
    assert done.returncode == 1
    assert "there is no chapters/three.md" in done.stderr


def test_misspelt_scale_changes_nothing(small):
    done = build(small, GV_SCALE="qiuck")
    assert done.returncode == 1
    assert "'qiuck'; it must be one of quick, full" in done.stderr
    assert not (small / "_build/cache").exists()


def test_interrupted_build_keeps_what_had_finished(small):
    wait = "import time\ntime.sleep(600)"
    write_page(small, "slow", wait)
    write_toc(small, "one", "slow")
    command = [sys.executable, small / "tools/book.py"]
    env = os.environ | {"GV_SCALE": "quick", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=env, stdout=-1, stderr=-1, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if "chapters/one" in line:
                break
        os.killpg(process.pid, 2)  # what Ctrl-C does
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "every page that had finished is kept" in errors
    write_toc(small, "one")
    assert build(small).returncode == 0
    assert runs(small) == 1


def run_make(folder, *arguments, **env):
    """Run make as from a terminal, although `make test` may be running this."""
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFL"))}
    return subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=outer | env,
        capture_output=True,
        text=True,
    )


def test_help_explains_every_command():
    text = (ROOT / "Makefile").read_text()
    declared = set(re.search(r"\.PHONY: (.*)", text)[1].split())
    shown_lines = run_make(ROOT, "help").stdout.strip().splitlines()
    explained = {re.match(r" *make (\w+) +\S", line)[1] for line in shown_lines}
    assert explained == declared


@pytest.fixture
def checkout(tmp_path):
    """The commands without .venv, in a folder with a space."""
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "tools", root / "tools")
    for name in ("Makefile", *(f.name for f in ROOT.glob("requirements*.txt"))):
        shutil.copy(ROOT / name, root)
    return root


def fake_python(folder, text):
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)
    return str(path)


def test_old_python_is_named(checkout, tmp_path):
    python = fake_python(
        tmp_path, '[ "$1" = --version ] && echo Python 3.8.1 && exit 0; exit 1\n'
    )
    done = run_make(checkout, "book", PYTHON=python)
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "Python 3.8.1" in done.stderr
    assert "apt install python3" in done.stderr
    assert not (checkout / ".venv").exists()


def test_missing_venv_module_is_named(checkout, tmp_path):
    hide = tmp_path / "sitecustomize.py"
    hide.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'ensurepip' else find(n, *a)\n"
    )
    done = run_make(checkout, "book", PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_full_disk_is_named(checkout):
    done = run_make(checkout, "book", PYTHON=sys.executable, GVLIB_ROOM_GB="1000000")
    assert done.returncode != 0
    assert "GB are free" in done.stderr
    assert "free some room" in done.stderr
    assert not (checkout / ".venv").exists()


def test_no_function_is_longer_than_a_screen():
    """At most 60 lines of signature and code; the docstring may take what it needs."""
    import ast

    found = {}
    for path in [*(ROOT / "gvlib").glob("*.py"), *(ROOT / "tools").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                says = ast.get_docstring(node, clean=False) or ""
                lines = (
                    node.end_lineno - node.lineno + 1 - (says.count("\n") + bool(says))
                )
                found[f"{path.name}:{node.name}"] = lines
    assert len(found) > 50
    assert {name: n for name, n in found.items() if n > 60} == {}


def test_ruff_finds_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", ROOT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
