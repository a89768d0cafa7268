"""The papers of the book, read from chapters/references.bib.

A page needs only keys, names, years and titles; the book's build reads the same file
with pybtex. A test holds the two against each other.
"""

import re
from functools import cache
from html import escape
from pathlib import Path
from typing import NamedTuple

from ._display import resource

__all__ = ["Paper", "papers"]


class Paper(NamedTuple):
    """One entry of references.bib, as far as a page needs it."""

    key: str
    authors: tuple[str, ...]  # family names
    year: str
    title: str
    url: str

    @property
    def label(self) -> str:
        """As in "Zhang et al. (2017)".

        >>> Paper("k", ("Byrd", "Lipton"), "2019", "", "").label
        'Byrd and Lipton (2019)'
        """
        names = self.authors
        who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        return f"{who} ({self.year})"

    def html(self) -> str:
        """The label, linked to the paper where an address is known."""
        if not self.url:
            return escape(self.label)
        where, title = escape(self.url), escape(self.title)
        return f'<a href="{where}" title="{title}">{escape(self.label)}</a>'


def papers() -> dict[str, Paper]:
    """All papers of chapters/references.bib by key."""
    path = resource("chapters") / "references.bib"
    return _read_bib(path, path.stat().st_mtime_ns)


@cache
def _read_bib(path: Path, _changed: int) -> dict[str, Paper]:
    found: dict[str, Paper] = {}
    for entry in re.split(r"(?m)^@", path.read_text("utf-8"))[1:]:
        head = re.match(r"\w+\s*\{\s*([^,\s]+)\s*,", entry)
        if head is None:
            raise ValueError(f"{path}: no key in the entry @{entry[:40]!r}")
        if head[1] in found:
            raise ValueError(f"{path}: key {head[1]!r} occurs twice")
        found[head[1]] = _paper(head[1], _fields(entry), path)
    return found


def _fields(entry: str) -> dict[str, str]:
    """Read the name = {value} pairs of one BibTeX entry; inner braces are dropped.

    >>> _fields("misc{k, title = {A {CNN} test}, year = 2017}")
    {'title': 'A CNN test', 'year': '2017'}
    """
    fields, nested = {}, r"\{((?:[^{}]|\{[^{}]*\})*)\}"
    for name, braced, bare in re.findall(rf"(\w+)\s*=\s*(?:{nested}|(\d+))", entry):
        text = re.sub(r"\s+", " ", braced or bare)
        fields[name.lower()] = text.replace("{", "").replace("}", "").strip()
    return fields


def _paper(key: str, fields: dict[str, str], path: Path) -> Paper:
    missing = [f for f in ("author", "title", "year") if not fields.get(f)]
    if missing:
        raise ValueError(f"{path}: entry {key!r} has no {', '.join(missing)}")
    names = fields["author"].split(" and ")  # "Family, Given" or "Given Family"
    family = tuple(n.split(",")[0] if "," in n else n.split()[-1] for n in names)
    url = fields.get("url", "")
    if not url and fields.get("eprint"):
        url = f"https://arxiv.org/abs/{fields['eprint']}"
    return Paper(key, family, fields["year"], fields["title"], url)
