"""The notebooks for Colab: in step, without markup of ours, and they run there."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from pybtex.database import parse_string

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
COLAB = ROOT / ".venv/colab/bin/python"
sys.path.insert(0, str(ROOT / "tools"))

import plain  # noqa: E402

import notebooks  # noqa: E402


def test_notebooks_are_in_step():
    assert NOTEBOOKS
    assert notebooks.out_of_step() == {}, "run `make notebooks`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_what_colab_can_show(path):
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    codes = [cell for cell in made.cells if cell.cell_type == "code"]
    settings = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert "%pip install" in codes[0].source
    assert f"git+{settings['repository']['url']}" in codes[0].source
    assert all(cell.outputs == [] for cell in codes)
    assert not any(cell.source.startswith("%") for cell in codes[1:])
    for cell in made.cells:
        if cell.cell_type == "markdown":
            assert not re.search(
                r"\{[\w:-]+\}`|^ *(`{3,}|:{3,}) *\{", cell.source, re.M
            )


def test_the_repository_is_named_once():
    place = notebooks.repository()["url"]
    listed = ["git", "grep", "-l", "-F", place.removeprefix("https://"), "--", "."]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True).stdout
    others = [f for f in found.split() if not f.startswith("notebooks/")]
    assert others == ["_config.yml"]


PAPERS = parse_string(
    "@article{a1, author={Ann Bell and Bo Cox and Di Eng}, title={T}, journal={J},"
    " year={2001}, eprint={1.2}}"
    "@article{b2, author={Fay Gil}, title={U}, year={2002}}",
    "bibtex",
)
PAGE = plain.Page("chapters/x/page", "https://e.org/r", PAPERS, "the list")


@pytest.mark.parametrize(
    ("myst", "markdown"),
    [
        ("by {footcite:t}`a1`", "by Bell et al. (2001)"),
        ("so {footcite:p}`a1,b2`", "so (Bell et al., 2001; Gil, 2002)"),
        ("[e](../evidence.md#top)", "[e](https://e.org/r/chapters/evidence.md#top)"),
        ("[e](/README.md)", "[e](https://e.org/r/README.md)"),
        ("[e](https://x.org)", "[e](https://x.org)"),
        ("(label)=\n% note to self\ntext", "text"),
        (":::{note}\nOne\ntwo.\n:::", "> **Note.** One\n> two."),
        (
            "::::{solution} ex\n:class: dropdown\n\n:::{tip}\nYes.\n:::\n::::",
            "<details><summary>Solution</summary>\n\n> **Tip.** Yes.\n\n</details>",
        ),
        ("```{math}\n:label: m\nx\n```", "$$\nx\n$$"),
        ("```python\n{ref}`x`\n```", "```python\n{ref}`x`\n```"),
        (
            "```{prf:theorem} Fit\n:label: t\nAny labels.\n```",
            "> **Theorem (Fit).** Any labels.",
        ),
        ("```{footbibliography}\n```", "the list"),
        (
            "```{figure} ../a.png\n:alt: A cat\nOurs.\n```",
            "![A cat](https://e.org/r/chapters/a.png)\n\n*Ours.*",
        ),
    ],
)
def test_myst_becomes_plain_markdown(myst, markdown):
    assert plain.plain(myst, PAGE) == markdown


@pytest.mark.parametrize("myst", ["{nosuch}`x`", "```{nosuch}\n```"])
def test_unknown_markup_is_refused(myst):
    with pytest.raises(ValueError, match=r"chapters/x/page.md uses .*nosuch"):
        plain.plain(myst, PAGE)


def test_unknown_paper_is_refused():
    with pytest.raises(ValueError, match="'c3' is cited and is not in"):
        plain.plain("{footcite:t}`c3`", PAGE)


def test_bibliography_lists_what_is_cited():
    text = "{footcite:t}`b2` {footcite:p}`a1`"
    first, second = plain.bibliography(text, PAPERS).split("\n")
    assert first == "1. Gil. U. 2002."
    assert second == "1. Bell, Cox and Eng. [T](https://arxiv.org/abs/1.2). J, 2001."


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of what a clone of the repository holds, away from the checkout."""
    copy = tmp_path_factory.mktemp("clone") / "book"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture
def colab(tmp_path):
    """A new environment over Colab's packages; it cannot fetch any other."""
    assert COLAB.exists(), "run `make test`, which makes .venv/colab"
    venv = tmp_path / "venv"
    subprocess.run([COLAB, "-m", "venv", "--without-pip", venv], check=True)
    site = next((venv / "lib").glob("python3.*/site-packages"))
    base = next((ROOT / ".venv/colab/lib").glob("python3.*/site-packages"))
    (site / "colab.pth").write_text(f"{base}\n")
    return venv / "bin/python"


def offline(tmp_path, **more):
    """Colab's environment variables, in short: none of ours, and no package index."""
    keep = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}
    return keep | {
        "HOME": str(tmp_path),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as: do not isolate
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
        "GVLIB_CACHE": str(tmp_path / "data"),
        **more,
    }


RUN = """
import sys, nbformat
from nbclient import NotebookClient
nb = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(nb, timeout=1200, kernel_name="python3").execute()
nbformat.write(nb, sys.argv[2])
"""


def frozen(python, env):
    """What pip sees: name==version, one a line."""
    command = [python, "-m", "pip", "list", "--format=freeze"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def run_notebook(path, python, env, folder):
    """Execute a notebook as Colab does, in a folder that is no checkout."""
    out = folder / "out.ipynb"
    kernel = ["-m", "ipykernel", "install", "--prefix", python.parent.parent]
    subprocess.run([python, *kernel], env=env, check=True, capture_output=True)
    done = subprocess.run(
        [python, "-c", RUN, path, out], cwd=folder, env=env, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return nbformat.read(out, as_version=4)


# The cells of a notebook are those of its page, which tests/test_pages.py runs; what is
# Colab's own (install cell, older packages, data from the wheel) is the same in each.
ON_COLAB = ("index", "evidence", "random-labels")


@pytest.mark.parametrize(
    "path", [p for p in NOTEBOOKS if p.stem in ON_COLAB], ids=lambda p: p.stem
)
def test_notebook_runs_on_colab(path, colab, repository, tmp_path):
    folder = tmp_path / "content"
    folder.mkdir()
    claims = tmp_path / "claims"
    env = offline(tmp_path, GVLIB_SOURCE=str(repository), GV_RECORD=str(claims))
    before = frozen(colab, env)
    assert {"ipywidgets==7.7.1", "anywidget==0.9.21"} <= before
    made = run_notebook(path, colab, env, folder)
    after = frozen(colab, env)
    assert {line.partition("==")[0] for line in after - before} == {"gvlib"}
    assert before <= after
    page = path.relative_to(ROOT / "notebooks").with_suffix("")
    ledger = json.loads((ROOT / "data/evidence/quick.json").read_text())
    recorded = {c["id"]: c["verdict"] for c in ledger if c["page"] == str(page)}
    found = [json.loads(f.read_text()) for f in claims.rglob("*.json")]
    assert {c["id"]: c["verdict"] for page in found for c in page} == recorded
    stderr = [o for c in made.cells for o in c.get("outputs", ()) if "stderr" in str(o)]
    assert [o for o in stderr if o.get("name") == "stderr"] == []


def test_wheel_holds_data_and_papers(colab, repository, tmp_path):
    env = offline(tmp_path)
    pip = [colab, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path]
    subprocess.run([*pip, repository], env=env, check=True, cwd=tmp_path)
    wheel = next(tmp_path.glob("gvlib-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "gvlib/static/gv.css",
        "gvlib/static/explorer.js",
        "gvlib/_chapters/references.bib",
        "gvlib/_data/evidence/quick.json",
    } <= set(names)
    assert not [n for n in names if n.split("/")[0] not in ("gvlib", wheel_info(names))]
    pip = [colab, "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(pip, env=env, check=True, cwd=tmp_path)
    code = (
        "import gvlib as gv\n"
        "train, test = gv.data.load('fashion-mnist', device='cpu')\n"
        "print(tuple(train.x.shape), tuple(test.x.shape), gv.__file__)"
    )
    done = subprocess.run(
        [colab, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert "(10000, 1, 28, 28) (10000, 1, 28, 28)" in done.stdout, done.stderr
    assert str(ROOT) not in done.stdout


def wheel_info(names):
    """The wheel's own folder of metadata."""
    return next(n.split("/")[0] for n in names if ".dist-info/" in n)
