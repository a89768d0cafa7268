"""The built site in a real browser that can reach nothing but the site."""

import gzip
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import report
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = list(parse_toc_yaml(ROOT / "_toc.yml"))
TEXTS = {page: (ROOT / f"{page}.md").read_text() for page in PAGES}
WITH_MATH = [p for p in PAGES if re.search(r"\$[^$]+\$", TEXTS[p])]
WITH_WIDGET = [p for p in PAGES if "widgets.Explorer." in TEXTS[p]]
WITH_SURFACE = [p for p in PAGES if "widgets.Surface(" in TEXTS[p]]
SIDEWAYS = """() => [...document.querySelectorAll('article *')].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(
        'pre, .cell_output, .gv-figure, .pst-scrollable-table-container, table,'
        + 'mjx-container, mjx-assistive-mml')).map((e) => e.outerHTML.slice(0, 120))"""
# What is set, what is wrong in it, and what is not set.
FORMULAS = ("mjx-container", "mjx-merror", ".math:not(:has(mjx-container))")
PACKED = (".css", ".html", ".js", ".svg", ".json")  # fonts and images are packed


@pytest.fixture(scope="module")
def site(book, serve):
    """The address of the built site."""
    return serve(book.html)


def settle(page):
    """Wait until fonts, widgets that come into view, and MathJax are there."""
    page.evaluate("() => document.fonts.ready.then(() => 0)")
    for widget in page.query_selector_all(".gv-static, .gv-explorer"):
        widget.scroll_into_view_if_needed()
    page.evaluate("() => window.MathJax?.startup?.promise?.then(() => 0)")
    page.wait_for_load_state("networkidle")


class Visit(NamedTuple):
    """What one look at a page found."""

    outside: list[str]
    errors: list[str]
    formulas: dict[str, int]
    sizes: dict[str, int]  # address -> bytes as a server with gzip sends them


@pytest.fixture(scope="module")
def visits():
    """Path -> Visit: a page is loaded once for all that only look at it."""
    return {}


@pytest.fixture
def visit(site, tab, visits):
    """`visit(path)` loads a page, the first time, and looks at all of it."""

    def look(path: str) -> Visit:
        if path not in visits:
            page, sizes = tab("about:blank"), {}
            page.on("response", lambda r: sizes.update({r.url: packed(r)}))
            page.goto(f"{site}/{path}.html", wait_until="load")
            settle(page)
            formulas = {s: page.locator(s).count() for s in FORMULAS}
            visits[path] = Visit(page.outside, page.errors, formulas, sizes)
        return visits[path]

    return look


@pytest.mark.parametrize("path", [*PAGES, "search", "genindex"])
def test_page_asks_nobody_else_and_has_no_errors(path, visit):
    found = visit(path)
    assert found.outside == []
    assert found.errors == []


def test_root_leads_to_the_first_page(site, tab):
    page = tab(f"{site}/index.html")
    page.wait_for_url(f"{site}/{PAGES[0]}.html")
    assert page.errors == []


def test_links_inside_the_book_lead_somewhere(site, tab, book):
    page = tab(f"{site}/{PAGES[0]}.html")
    links = page.eval_on_selector_all("a[href]", "links => links.map(a => a.href)")
    inside = {link.split("#")[0] for link in links if link.startswith(site)}
    assert len(inside) >= len(PAGES)
    for link in inside:
        assert (book.html / link.removeprefix(f"{site}/")).is_file(), link


@pytest.mark.parametrize("path", WITH_MATH)
def test_formulas_are_set(path, visit):
    made, wrong, unset = visit(path).formulas.values()
    assert made > 0
    assert wrong == 0
    assert unset == 0


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_without_barriers(path, scheme, site, tab):
    page = tab(f"{site}/{path}.html", color_scheme=scheme, reduced_motion="reduce")
    settle(page)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    light = page.evaluate(
        "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
        ".slice(0, 3).reduce((a, b) => +a + +b, 0)"
    )
    assert (light > 600) == (scheme == "light")
    found = Axe().run(page, context="article")
    problems = [
        (v["id"], [n["target"] for n in v["nodes"]])
        for v in found.response["violations"]
    ]
    assert problems == []
    assert found.response["passes"]  # it did look


@pytest.mark.parametrize("path", PAGES)
def test_no_sideways_scroll(path, site, tab):
    page = tab(f"{site}/{path}.html", viewport={"width": 768, "height": 740})
    for width in (768, 360):
        page.set_viewport_size({"width": width, "height": 740})
        settle(page)
        page.wait_for_timeout(300)  # until widgets have taken their new size
        assert page.evaluate(SIDEWAYS) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("path", WITH_WIDGET)
def test_explorers_move(path, site, tab):
    page = tab(f"{site}/{path}.html")
    settle(page)
    explorers = page.locator(".gv-explorer")
    assert explorers.count() == TEXTS[path].count("widgets.Explorer.")
    for number in range(explorers.count()):
        move(page, explorers.nth(number))
    assert page.errors == []


@pytest.mark.parametrize("path", WITH_SURFACE)
def test_surfaces_turn(path, site, tab):
    page = tab(f"{site}/{path}.html")
    settle(page)
    surfaces = page.locator(".gv-surface")
    assert surfaces.count() == TEXTS[path].count("widgets.Surface(")
    for surface in surfaces.all():
        before = picture(surface)
        surface.get_by_role("application").press("ArrowLeft")
        page.wait_for_timeout(400)
        assert picture(surface) != before
    assert page.errors == []


def picture(explorer):
    """What the widget draws, as text; canvases by their pixels.

    Without the faint trace of the setting before, which a reload does forget.
    """
    return explorer.evaluate(
        "e => [...e.querySelectorAll('svg, canvas')].map(p => {"
        " if (p.toDataURL) return p.toDataURL(); p = p.cloneNode(true);"
        " p.querySelectorAll('.gvx-ghost').forEach(g => g.remove());"
        " return p.innerHTML; }).join()"
    )


def move(page, explorer):
    """Move the first slider with keys, then with the mouse; reload; compare."""
    explorer.scroll_into_view_if_needed()
    slider = explorer.locator("input[type=range]").first
    seen = [picture(explorer)]
    slider.focus()
    before = slider.input_value()
    page.keyboard.press("ArrowRight" if before == slider_min(slider) else "ArrowLeft")
    assert slider.input_value() != before
    page.wait_for_timeout(400)
    seen.append(picture(explorer))
    box = slider.bounding_box()
    share = 0.98 if seen_low(slider) else 0.02
    page.mouse.click(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)
    page.wait_for_timeout(400)
    seen.append(picture(explorer))
    assert seen[0] != seen[1] != seen[2], "the picture did not change"
    value, number = slider.input_value(), explorer.get_attribute("id")
    page.reload(wait_until="load")
    settle(page)
    assert explorer.get_attribute("id") == number
    assert slider.input_value() == value
    assert picture(explorer) == seen[-1]


def slider_min(slider):
    return slider.get_attribute("min") or "0"


def seen_low(slider):
    """True where the slider is in the lower half of its way."""
    low, high = float(slider_min(slider)), float(slider.get_attribute("max"))
    return float(slider.input_value()) <= (low + high) / 2


def test_evidence_table_can_be_filtered(site, tab):
    page = tab(f"{site}/chapters/evidence.html")
    settle(page)
    table = page.locator("article table:has(tbody tr)").first
    field = page.locator("article input[type=search]").first
    rows = table.locator("tbody tr:visible")
    everything = rows.count()
    assert everything > 0
    field.fill("no claim says this")
    assert rows.count() == 0
    words = table.locator("tbody tr").first.inner_text().split()[0]
    field.fill(words)
    assert 0 < rows.count() <= everything
    field.fill("")
    assert rows.count() == everything


def test_launch_button_opens_the_notebook(book):
    for path in PAGES:
        if "{code-cell}" in TEXTS[path]:
            html = (book.html / f"{path}.html").read_text()
            address = re.search(r'href="([^"]*colab\.research[^"]*)"', html)[1]
            notebook = f"notebooks/{path.removeprefix('chapters/')}.ipynb"
            assert address.endswith(f"/{notebook}")
            assert (ROOT / notebook).is_file()


def test_icons_are_drawn(site, tab):
    page = tab(f"{site}/{PAGES[0]}.html")
    settle(page)
    widths = page.evaluate(
        "() => [...document.querySelectorAll('[class*=fa-]')].filter(e =>"
        " e.offsetParent && /\\b(fas|far|fab|fa-solid|fa-regular|fa-brands)\\b/"
        ".test(e.className)).map(e => [e.className, e.offsetWidth, getComputedStyle("
        "e, '::before').content])"
    )
    assert len(widths) > 3
    assert [w for w in widths if w[1] == 0 or w[2] in ("none", "normal")] == []
    loaded = "() => [...document.fonts].filter(f => /Awesome/.test(f.family)"
    assert page.evaluate(f"{loaded} && f.status == 'error').length") == 0
    assert page.evaluate(f"{loaded} && f.status == 'loaded').length") > 0


def test_report_page_weight(visit):
    weights = {}
    for path in PAGES:
        sizes = visit(path).sizes
        weights[path] = sum(sizes.values())
        top = sorted(sizes.items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{u.rpartition('/')[2][:24]} {s / 1e3:.0f}" for u, s in top)
        report.append(f"{path}: {weights[path] / 1e3:.0f} KB compressed ({shown})")
    # The aim is 600 KB; the rest is room for a page with many figures.
    assert max(weights.values()) < 700_000


def packed(response):
    """The size of a response as a server with gzip sends it."""
    body = response.body()
    name = response.url.partition("?")[0]
    return len(gzip.compress(body, 9)) if name.endswith(PACKED) else len(body)
