"""Take a picture of a built page: assets/readme.png for the README.

    .venv/bin/python tools/screenshot.py                               (after make test)
    .venv/bin/python tools/screenshot.py --page chapters/evidence --to picture.png

Needs what the tests need (`make test`): Playwright and a Chromium.
"""

import argparse
import functools
import http.server
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The browser that GVLIB_CHROMIUM names, else the first one on the PATH."""
    named = os.environ.get("GVLIB_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, served while the block runs."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def main() -> None:
    """Open the page, scroll to what is asked for, take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", default="chapters/landscapes/good-and-bad-minima")
    parser.add_argument("--to", type=Path, default=ROOT / "assets/readme.png")
    parser.add_argument(
        "--show",
        default="[id^=gv-minefield]",
        help="scroll to the first element of this selector",
    )
    parser.add_argument("--size", default="1280x860", help="width x height")
    parser.add_argument("--scheme", default="light", choices=("light", "dark"))
    parser.add_argument("--full", action="store_true", help="the whole page")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no browser found: install chromium or set GVLIB_CHROMIUM")
    html = ROOT / "_build/html"
    if not (html / f"{options.page}.html").is_file():
        sys.exit(f"{options.page} is not built: run `make book`")
    with served(html) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme=options.scheme
        )
        page.goto(f"{address}/{options.page}.html", wait_until="networkidle")
        for widget in page.query_selector_all(".gv-static"):
            widget.scroll_into_view_if_needed()  # they draw when they are seen
        page.wait_for_timeout(800)
        page.add_style_tag(content="* { scroll-behavior: auto !important }")
        page.evaluate("scrollTo(0, 0)")
        if options.show:
            script = "s => document.querySelector(s)?.scrollIntoView({block: 'start'})"
            page.evaluate(script, options.show)
        page.wait_for_timeout(300)
        page.screenshot(path=options.to, full_page=options.full)
        browser.close()


if __name__ == "__main__":
    main()
