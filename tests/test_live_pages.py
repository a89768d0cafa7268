"""What pages ship: experiments compiled from their cells, with torch's numbers."""

import gzip
import importlib.util
import shutil
from pathlib import Path

import pytest
import torch
from live_tools import check_settings, in_node, needs, same_bits

from gvlib import live
from gvlib.playground import Playground

CHAPTERS = Path(__file__).resolve().parent.parent / "chapters"
PAGES = [p for p in sorted(CHAPTERS.rglob("*.md")) if live.has_live_cells(p)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=PAGES, ids=lambda p: p.stem)
def shipped(request):
    """The Playgrounds of a page, made by its own cells."""
    values = live.experiments(request.param).values()
    found = [v for v in values if isinstance(v, Playground)]
    assert found, f"{request.param} has live cells, but no Playground"
    return found


def test_no_compiled_file_is_left_over():
    names = {
        e.name
        for page in PAGES
        for e in live.experiments(page).values()
        if isinstance(e, live.Experiment)
    }
    files = {f"{name}.live.{end}" for name in names for end in ("wasm", "json")}
    assert {p.name for p in live.STATIC.glob("*.live.*")} == files


def test_it_is_compiled_from_these_functions(shipped):
    """The hash in the committed file: this needs no compiler."""
    for view in shipped:
        _, same = view.lab.load()
        assert same, f"build it with {live.HOW}"


def test_a_rebuild_is_what_is_committed(shipped):
    needs("ziglang", importlib.util.find_spec("ziglang") is not None)
    for view in shipped:
        for name, content in view.lab.build().files().items():
            assert (live.STATIC / name).read_bytes() == content, name


def test_it_is_small(shipped):
    for view in shipped:
        assert len(gzip.compress(view.program.wasm, 9)) <= 10_000
        assert len(gzip.compress(view.html().encode(), 9)) <= 50_000


def test_100_steps_are_torch_s_for_20_random_settings(shipped):
    for view in shipped:
        check_settings(view, in_node)


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(live.STATIC, folder / "static")
    text = '<!doctype html><title>Test</title><link rel="icon" href="data:,">'
    (folder / "page.html").write_text(text, "utf-8")
    return folder, serve(folder)


def test_chromium_and_node_give_the_same_bits(shipped, site, tab):
    for view in shipped:
        same_bits(tab(f"{site[1]}/page.html"), view)


HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Test</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="static/gv.css">
<link rel="stylesheet" href="static/explorer.css">
<link rel="stylesheet" href="static/playground.css">
<script type="module" src="static/host.js"></script><main>"""


def test_it_trains_on_a_phone_and_nothing_sticks_out(shipped, site, tab):
    folder, address = site
    text = HEAD + "".join(view.html() for view in shipped)
    (folder / "phone.html").write_text(text, "utf-8")
    page = tab(f"{address}/phone.html", viewport={"width": 360, "height": 740})
    for view in shipped:
        shown = page.locator(f"#gv-{view.spec['id']} .gv-playground")
        shown.wait_for()
        before = shown.locator("canvas").first.evaluate("c => c.toDataURL()")
        shown.get_by_role("button", name="Step").click()
        page.wait_for_function(
            "old => document.querySelector('canvas').toDataURL() !== old", arg=before
        )
    out = page.evaluate(
        "() => [...document.querySelectorAll('.gv-playground *')].filter(e =>"
        " e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 99))"
    )
    assert (out, page.errors, page.outside) == ([], [], [])
