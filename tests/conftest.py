"""What the tests share: a browser cut off from the world, and a local server."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import page_scripts
import pytest

from tools.screenshot import find_chromium, served

ROOT = Path(__file__).resolve().parent.parent
HOW = "install chromium, or set GVLIB_CHROMIUM to the browser's path"
FLAGS = [
    "--no-sandbox",  # CI runs as root, where Chromium's sandbox does not start
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]
report = []  # lines for the terminal summary


class Book(NamedTuple):
    """The book as it was built, once, for all tests."""

    html: Path
    claims: Path  # what gv.claim wrote while the pages ran: <page>.json


BUILD = [sys.executable, ROOT / "tools/book.py"]
GIVES_WAY = ["nice", "-n", "10"] if shutil.which("nice") else []  # to the tests
building = []  # the process that builds the book, from the first test on
begun = {}  # page -> the future of its script
beside = ThreadPoolExecutor(1)  # runs one script after the other beside the tests


def pytest_collection_modifyitems(items):
    """What waits for the book comes late, for the pages' scripts last: minutes each."""

    def waits(item):
        names = getattr(item, "fixturenames", ())
        return 2 * ("scripts" in names) + ("book" in names)

    items.sort(key=waits)


def pytest_collection_finish(session):
    """Begin to build the book and then to run the scripts, where a test wants them."""
    wanted = {n for i in session.items for n in getattr(i, "fixturenames", ())}
    if session.config.option.collectonly:
        return
    if "book" in wanted:
        building.append(
            subprocess.Popen(
                [*GIVES_WAY, *BUILD],
                env=os.environ | {"GV_SCALE": "quick"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    if "scripts" in wanted:
        folder = Path(tempfile.mkdtemp(prefix="gv-scripts-"))
        session.config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        for page in page_scripts.CODED:
            begun[page] = beside.submit(_script, page, folder)


def _script(page, folder):
    """A page's script, once the book is built: both at once would be too much."""
    for process in building:
        process.wait()
    return page_scripts.run_script(page, folder)


def pytest_sessionfinish():
    """Tests that end early leave nothing behind."""
    beside.shutdown(wait=False, cancel_futures=True)
    for process in building:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # what is finished is kept
            process.wait()
        process.stdout.close()
    page_scripts.stop()


@pytest.fixture(scope="session")
def scripts():
    """Every page run as a script: the futures of page_scripts.Script by page."""
    return begun


@pytest.fixture(scope="session")
def book() -> Book:
    """The book at quick scale, built (or found unchanged) by the project's own tool."""
    said, _ = building[0].communicate()
    assert building[0].returncode == 0, said
    report.append(said.rstrip())
    env = os.environ | {"GV_SCALE": "quick"}
    where = subprocess.run([*BUILD, "--claims"], env=env, capture_output=True)
    return Book(ROOT / "_build/html", Path(where.stdout.decode().strip()))


@pytest.fixture(scope="session")
def serve():
    """`serve(folder)` serves a folder on a free local port and returns its address."""
    with ExitStack() as stack:
        yield functools.cache(lambda folder: stack.enter_context(served(folder)))


# One browser a module, not a session: while Playwright's loop is alive in this
# thread, no other test could start an event loop of its own.
@pytest.fixture(scope="module")
def browser():
    """A headless Chromium (Playwright's sync API); it can reach 127.0.0.1 only."""
    path = find_chromium()
    if path is None:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"no browser found: {HOW}")
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, headless=True, args=[*FLAGS, rules]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser):
    """`tab(url, **options)` opens a page; its `.outside` and `.errors` must stay empty.

    The options are those of Playwright's `new_context`: viewport, color_scheme, ...
    """
    contexts = []

    def open_tab(url: str, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.outside, page.errors = [], []
        page.on("console", lambda m: _note(page, m.type, m.text))
        page.on("pageerror", lambda e: page.errors.append(str(e)))
        page.on("response", lambda r: _failed(page, r))
        page.route(lambda u: not u.startswith("http://127.0.0.1:"), _refuse(page))
        page.goto(url, wait_until="load")
        return page

    yield open_tab
    for context in contexts:
        context.close()


def _refuse(page):
    def refuse(route):
        page.outside.append(route.request.url)
        route.abort()

    return refuse


def _note(page, kind, text):
    if kind == "error":
        page.errors.append(text)


def _failed(page, response):
    if response.status >= 400:
        page.errors.append(f"{response.status} {response.url}")


def pytest_terminal_summary(terminalreporter):
    if find_chromium() is None:
        line = f"NO BROWSER FOUND: the site and the widgets were NOT tested. {HOW}."
        terminalreporter.write_line(line, red=True, bold=True)
    for line in report:
        terminalreporter.write_line(line)
