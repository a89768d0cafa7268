"""A page's MyST as the plain Markdown that Colab and Jupyter show.

Roles and directives become what a reader of the site sees, as near as Markdown can. One
that is not known here is an error, so that no markup of ours reaches a reader as text.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, takewhile
from pathlib import PurePosixPath

from pybtex.database import BibliographyData, Entry

NOTES = ("note", "tip", "hint", "important", "warning", "caution", "attention",
         "seealso", "admonition")  # fmt: skip
PROOFS = ("theorem", "lemma", "corollary", "proposition", "definition", "proof",
          "remark", "example", "algorithm", "conjecture")  # fmt: skip
INVISIBLE = ("tableofcontents", "raw")
PASS_ON = ("grid", "grid-item", "tab-set", "container", "div")
_OPEN = re.compile(r"^ *(`{3,}|:{3,}) *\{([\w:-]+)\} *(.*)$")
_ROLE = re.compile(r"\{([\w:-]+)\}`([^`]+)`")
_LINK = re.compile(
    r"(!?\[[^\]]*\])\((?!https?:|#|mailto:|data:)([^)#\s]+)(#[^)\s]*)?\)"
)
_NAMED = re.compile(r"^(.*?)\s*<[^>]*>$", re.S)


@dataclass(frozen=True)
class Page:
    """What the conversion of one page needs to know.

    path: the page's own, as in _toc.yml. base: the address under which the files of the
    repository can be read. papers: references.bib. cited: the list of those that the
    page cites, as text.
    """

    path: str
    base: str
    papers: BibliographyData
    cited: str = ""


def plain(text: str, page: Page) -> str:
    """The Markdown of one cell."""
    out, lines = [], iter(text.split("\n"))
    for line in lines:
        opened = _OPEN.match(line)
        code = re.match(r"^ *(`{3,}|~{3,})", line)
        if opened:
            fence, name, argument = opened.groups()
            out.append(directive(name, argument, _until(fence, lines), page))
        elif code:
            out += [line, *_until(code[1], lines), code[1]]
        elif re.fullmatch(r"\([\w:.-]+\)=|%.*|\{[.#][^}]*\}", line):
            continue  # a label, a comment, attributes: nothing that is seen
        else:
            out.append(inline(line, page))
    return "\n".join(out)


def _until(fence: str, lines: Iterator[str]) -> list[str]:
    """The lines up to the one that closes this fence."""
    end = re.compile(f"{re.escape(fence)}{fence[0]}*")
    return list(takewhile(lambda line: not end.fullmatch(line.strip()), lines))


def split_options(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    """The body of a directive and its `:name: value` options.

    >>> split_options([":label: a", "", "text"])
    (['text'], {'label': 'a'})
    """
    options = {}
    while lines and (found := re.match(r"^ *:([\w-]+):(?: +(.*))?$", lines[0])):
        options[found[1]] = found[2] or ""
        lines = lines[1:]
    return list(dropwhile(lambda line: not line.strip(), lines)), options


def directive(name: str, argument: str, lines: list[str], page: Page) -> str:
    """One directive as Markdown; ValueError where it is not known."""
    lines, options = split_options(lines)
    raw = "\n".join(lines)
    body, title = plain(raw, page), inline(argument, page)
    kind = name.removeprefix("prf:")
    if name in NOTES:
        return quote(f"**{title or name.capitalize()}.** {body}")
    if name == "exercise":
        return f"**Exercise{f': {title}' if title else ''}.** {body}"
    if name in ("solution", "dropdown"):
        return details("Solution" if name == "solution" else title or "More", body)
    if kind in PROOFS:
        return quote(f"**{kind.capitalize()}{f' ({title})' if title else ''}.** {body}")
    if name == "math":
        return f"$$\n{raw}\n$$"
    if name in ("figure", "image"):
        return picture(argument, options, body, page)
    if name in ("footbibliography", "bibliography"):
        return page.cited
    if name in ("code-block", "code"):
        return f"```{argument}\n{raw}\n```"
    if name in ("tab-item", "grid-item-card", "card", "rubric"):
        return f"**{title}**\n\n{body}"
    if name in PASS_ON:
        return body
    if name in INVISIBLE:
        return ""
    raise unknown("directive", name, page)


def unknown(what: str, name: str, page: Page) -> ValueError:
    """The error for markup that a notebook's reader would see as it is typed."""
    return ValueError(
        f"{page.path}.md uses the {what} {{{name}}}, which tools/plain.py cannot turn "
        f"into Markdown for the notebook: use another, or teach it this one"
    )


def quote(text: str) -> str:
    """A block quote."""
    return "\n".join(f"> {line}".rstrip() for line in text.rstrip().split("\n"))


def details(title: str, body: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def picture(path: str, options: dict[str, str], caption: str, page: Page) -> str:
    """An image, with its alt text, from the repository."""
    image = f"![{options.get('alt', '')}]({address(path, page)})"
    return f"{image}\n\n*{caption.strip()}*" if caption.strip() else image


def address(path: str, page: Page) -> str:
    """A path relative to the page, or from / to the book, as an address on the web."""
    if path.startswith("/"):
        parts = PurePosixPath(path[1:]).parts
    else:
        parts = (PurePosixPath(page.path).parent / path).parts
    clean: list[str] = []
    for part in parts:
        if part == "..":
            clean.pop()
        else:
            clean.append(part)
    return f"{page.base}/{'/'.join(clean)}"


def inline(line: str, page: Page) -> str:
    """One line's roles and links."""

    def link(found: re.Match) -> str:
        return f"{found[1]}({address(found[2], page)}{found[3] or ''})"

    line = _ROLE.sub(lambda found: role(found[1], found[2], page), line)
    return _LINK.sub(link, line)


def role(name: str, text: str, page: Page) -> str:
    """One role as Markdown; ValueError where it is not known."""
    named = _NAMED.match(text)
    if re.fullmatch(r"(foot)?cite(:(t|p|ps|ts))?", name):
        return cite(text, "t" in name.partition(":")[2], page.papers)
    if name == "math":
        return f"${text}$"
    if name in (
        "doc",
        "ref",
        "prf:ref",
        "exercise",
        "solution",
        "numref",
        "eq",
        "term",
    ):
        return named[1] if named else text.rpartition("/")[2].replace("-", " ")
    if name == "abbr":
        return text
    raise unknown("role", name, page)


def cite(keys: str, in_text: bool, papers: BibliographyData) -> str:
    """A citation by authors and year."""
    form: Callable[[str, str], str] = (
        (lambda who, year: f"{who} ({year})") if in_text else "{}, {}".format
    )
    cited = []
    for key in map(str.strip, keys.split(",")):
        entry = paper(key, papers)
        cited.append(form(authors(entry), entry.fields["year"]))
    return ", ".join(cited) if in_text else f"({'; '.join(cited)})"


def paper(key: str, papers: BibliographyData) -> Entry:
    """The entry of a key; ValueError where there is none."""
    if key not in papers.entries:
        raise ValueError(f"{key!r} is cited and is not in chapters/references.bib")
    return papers.entries[key]


def authors(entry: Entry, most: int = 2) -> str:
    """Last names: "A", "A and B", "A, B and C", "A et al."."""
    names = [_words(person.last_names) for person in entry.persons["author"]]
    if len(names) > most:
        return f"{names[0]} et al."
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _words(names: list[str]) -> str:
    return " ".join(names).replace("{", "").replace("}", "")


def keys_cited(text: str) -> list[str]:
    """The papers that a page cites, in their first order.

    >>> keys_cited("{footcite:t}`b` and {footcite:p}`a,b`")
    ['b', 'a']
    """
    groups = re.findall(r"\{(?:foot)?cite(?::\w+)?\}`([^`]+)`", text)
    return list(dict.fromkeys(k.strip() for group in groups for k in group.split(",")))


def bibliography(text: str, papers: BibliographyData) -> str:
    """The list of the papers that a page cites."""
    return "\n".join(f"1. {reference(paper(k, papers))}" for k in keys_cited(text))


def reference(entry: Entry) -> str:
    """One paper: authors, title with a link, where, when."""
    fields = {k.lower(): _words([v]) for k, v in entry.fields.items()}
    links = {"url": "", "doi": "https://doi.org/", "eprint": "https://arxiv.org/abs/"}
    link = next((links[k] + fields[k] for k in links if k in fields), None)
    title = f"[{fields['title']}]({link})" if link else fields["title"]
    venues = [fields[k] for k in ("journal", "booktitle", "publisher") if k in fields]
    place = ", ".join([*venues[:1], fields["year"]])
    return f"{authors(entry, most=8)}. {title}. {place}."
