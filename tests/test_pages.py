"""Every page of the book: its verdicts, its words, and that it is a plain script."""

import json
import re
from html.parser import HTMLParser

import pytest
from page_scripts import CODED, PAGES, ROOT

TEXTS = {page: (ROOT / f"{page}.md").read_text() for page in PAGES}
TRAINED = [page for page in CODED if "gv.claim(" in TEXTS[page]]
LEDGER = json.loads((ROOT / "data/evidence/quick.json").read_text())


def name(page):
    """A page's name for gv.page."""
    return page.removeprefix("chapters/")


def test_there_are_pages_and_claims():
    assert TRAINED
    assert LEDGER


@pytest.mark.parametrize("page", TRAINED)
def test_verdicts_are_those_on_record(page, book):
    found = json.loads((book.claims / f"{name(page)}.json").read_text())
    recorded = {c["id"]: c["verdict"] for c in LEDGER if c["page"] == name(page)}
    assert {c["id"]: c["verdict"] for c in found} == recorded
    assert all(claim["n"] >= 5 for claim in found)


def test_every_recorded_claim_is_on_a_page(book):
    files = [json.loads(f.read_text()) for f in book.claims.rglob("*.json")]
    found = {claim["id"] for claims in files for claim in claims}
    assert {claim["id"] for claim in LEDGER} == found


@pytest.mark.parametrize("page", CODED)
def test_page_is_a_script_without_jupyter(page, scripts):
    done = scripts[page].result()
    assert done.status == 0, done.err[-4000:]
    found = {c["id"]: c["verdict"] for c in done.claims}
    expected = {c["id"]: c["verdict"] for c in LEDGER if c["page"] == name(page)}
    assert found == expected
    for claim in done.claims:
        assert claim["says"] in " ".join(done.out.split())


@pytest.mark.parametrize("page", TRAINED)
def test_page_states_its_times(page):
    text = TEXTS[page]
    assert re.search(r"\d+ minutes to read", text)
    assert re.search(r"\d+ (seconds|minutes) to run on 2 CPU cores", text)
    assert re.search(r"\d+ (seconds|minutes) on a GPU", text)


@pytest.mark.parametrize("page", TRAINED)
def test_page_has_its_parts(page):
    text = TEXTS[page]
    assert re.search(r"^## .*does not hold", text, re.M | re.I)
    assert re.search(r"^## Further reading", text, re.M | re.I)
    assert len(re.findall(r"^[:`]{3,}\{exercise\}", text, re.M)) >= 3
    labels = re.findall(r"^[:`]{3,}\{exercise\}[^\n]*\n:label: (\S+)", text, re.M)
    solved = re.findall(
        r"^[:`]{3,}\{solution\} (\S+)\n:class: dropdown", text, re.M
    )  # a solution is folded
    assert sorted(solved) == sorted(labels)
    assert text.index("{solution}") > text.rindex("{exercise}")  # and apart
    assert "{footcite" in text
    assert "{footbibliography}" in text


@pytest.mark.parametrize("page", CODED)
def test_page_takes_no_magics(page):
    cells = re.findall(r"^```\{code-cell\}.*?^```$", TEXTS[page], re.M | re.S)
    assert cells
    assert not re.search(r"^\s*[%!]", "\n".join(cells), re.M)


class Pictures(HTMLParser):
    """Collects what shows a picture, what stderr left, and the visible text."""

    def __init__(self):
        super().__init__()
        self.nameless, self.pictures, self.stderr, self.text = [], 0, 0, []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "img" or (tag == "svg" and attrs.get("role") == "img"):
            self.pictures += 1
            words = attrs.get("alt") or attrs.get("aria-label")
            if not (words or attrs.get("aria-labelledby")):
                self.nameless.append((tag, attrs))
        if "stderr" in (attrs.get("class") or "").split():
            self.stderr += 1

    def handle_data(self, data):
        self.text.append(data)


def parsed(book, page):
    """The main part of a built page."""
    html = (book.html / f"{page}.html").read_text()
    pictures = Pictures()
    pictures.feed(re.search(r"<article.*</article>", html, re.S)[0])
    return pictures


@pytest.mark.parametrize("page", PAGES)
def test_pictures_have_words(page, book):
    found = parsed(book, page)
    assert found.nameless == []
    if page in TRAINED:
        assert found.pictures > 0


@pytest.mark.parametrize("page", PAGES)
def test_page_shows_no_noise(page, book):
    found = parsed(book, page)
    assert found.stderr == 0  # warnings, progress bars
    text = "".join(found.text)
    assert not re.search(r"\[\^\w+\]", text)  # a footnote that has no text
    assert not re.search(r"<[\w.]+ (object )?at 0x|Text\(\d", text)  # a bare repr
