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
    return serve(folder)


def test_chromium_and_node_give_the_same_bits(shipped, site, tab):
    for view in shipped:
        same_bits(tab(f"{site}/page.html"), view)
