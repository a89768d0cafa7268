"""Evidence: which scale a page runs at, and what its numbers say about a claim.

    gv.page("memorization/random-labels")              # first: names page, starts clock
    n = gv.scale(quick=2_000, full=60_000)             # one switch, the same cells
    gv.claim("random-labels-fitted", "The network fits random labels.",
             paper="zhang2017", values=accuracy_per_seed, at_least=0.99)

A claim's verdict follows from a 95 % interval alone: *shown* when the whole interval
lies on the claimed side of the smallest effect that matters, *not shown* when all of it
lies on the other side, *undecided* otherwise. With GV_RECORD=<folder> each claim is
also written to <folder>/<page>.json; the recorded ones are kept in data/evidence/.
"""

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ._display import emit, in_notebook, resource, static_build
from .intervals import Interval, band, check_values, interval, proportion, verdict
from .papers import Paper, papers

__all__ = [
    "KEYS",
    "Interval",
    "Paper",
    "band",
    "claim",
    "claims",
    "compare",
    "interval",
    "ledger",
    "page",
    "papers",
    "proportion",
    "provenance",
    "scale",
    "scale_name",
    "table",
    "verdict",
    "write_json",
]

SCALES = ("quick", "full")
KEYS = (
    *("id", "page", "paper", "says", "paper_value"),
    *("estimate", "low", "high", "n", "verdict"),
    *("scale", "device", "versions", "commit", "seconds"),
)
SYMBOLS = {"shown": "✓", "not shown": "✗", "undecided": "?", "needs full scale": "○"}
MIN_VALUES = 5  # below five seeds the t interval is too wide to say anything


# ---- scale and page ------------------------------------------------------------------


def scale_name() -> str:
    """The scale this process runs at: "quick" (default) or "full", from GV_SCALE.

    Raises ValueError for any other value.
    """
    name = os.environ.get("GV_SCALE") or "quick"
    if name not in SCALES:
        raise ValueError(
            f"GV_SCALE is {name!r}, expected 'quick' or 'full'; unset it for quick"
        )
    return name


def scale(*, quick: Any, full: Any) -> Any:
    """The one of two values that belongs to the scale of this run.

    >>> scale(quick=2_000, full=2_000)
    2000
    """
    return quick if scale_name() == "quick" else full


class _Page:
    """The page that runs in this process, and all claims it has made so far."""

    name: str | None = None
    started: float = 0.0
    claims: ClassVar[dict[str, dict]] = {}


def page(name: str) -> None:
    """Name the page that runs from here on, and start its clock.

    `name` is the page's path below chapters/ without its ending, as in
    "memorization/random-labels". Run again, it forgets this page's claims: a new run.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*)*", str(name)):
        raise ValueError(
            f"page name {name!r}: expected its path below chapters/ without ending, "
            "in lower case, such as 'memorization/random-labels'"
        )
    scale_name()
    _Page.claims = {k: c for k, c in _Page.claims.items() if c["page"] != name}
    _Page.name, _Page.started = name, time.perf_counter()
    _record()
    if in_notebook() and not static_build():
        emit(f"<style>{_css()}</style>", "")


def _css() -> str:
    static = Path(__file__).parent / "static"
    sheets = [static / "gv.css", static / "claim.css"]
    return "\n".join(s.read_text("utf-8") for s in sheets if s.is_file())


def _require_page() -> str:
    if _Page.name is None:
        raise RuntimeError(
            "this page has no name yet; its first cell must call "
            "gv.page('chapter/page'), such as gv.page('memorization/random-labels')"
        )
    return _Page.name


# ---- provenance ----------------------------------------------------------------------


def provenance(seeds: int | None = None) -> str:
    """Where numbers come from, in one line: seeds, scale, device, versions, time.

    >>> provenance(seeds=5).split(" · ")[0]
    '5 seeds'
    """
    parts = [] if seeds is None else [f"{seeds} seed" + "s" * (seeds != 1)]
    parts += [f"{scale_name()} scale", _device()]
    parts += [f"{name} {version}" for name, version in _versions().items()]
    if _commit():
        parts.append(f"commit {_commit()}")
    if _Page.name is not None:
        parts.append(f"{_seconds():.0f} s")
    return " · ".join(parts)


def _source() -> dict:
    """The same for the ledger."""
    return {
        "scale": scale_name(),
        "device": _device(),
        "versions": _versions(),
        "commit": _commit(),
        "seconds": round(_seconds(), 1),
    }


def _seconds() -> float:
    return time.perf_counter() - _Page.started


def _device() -> str:
    import torch

    # initialized, not available: a GPU that nothing has touched did not do the work
    return torch.cuda.get_device_name() if torch.cuda.is_initialized() else "CPU"


@cache
def _versions() -> dict[str, str]:
    import torch

    from . import __version__

    return {
        "gvlib": __version__,
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "Python": platform.python_version(),
    }


@cache
def _commit() -> str | None:
    """Seven digits of the commit gvlib was taken from; "+" when files have changed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():  # installed: never ask a stranger's repository
        return _installed_commit()
    head = _git(root, "rev-parse", "--short=7", "HEAD")
    if head is None:
        return None
    changed = _git(root, "status", "--porcelain", "-uno", "--", "gvlib", "chapters")
    return head + "+" * bool(changed)


def _git(root: Path, *args: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *args], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed_commit() -> str | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        origin = distribution("gvlib").read_text("direct_url.json") or "{}"
    except PackageNotFoundError:
        return None
    commit = json.loads(origin).get("vcs_info", {}).get("commit_id")
    return commit and commit[:7]


# ---- claims --------------------------------------------------------------------------


def claim(
    id: str,
    says: str,
    *,
    paper: str,
    paper_value: str | None = None,
    values: Sequence[float] | None = None,
    baseline: Sequence[float] | None = None,
    successes: int | None = None,
    trials: int | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    statistic: Callable | None = None,
    needs: str = "quick",
    unit: str = "",
) -> None:
    """Test one sentence of a paper against this run, and show the verdict.

    The quantity is one of
      values (n,)                 one per seed; the claim is about their mean
      values, baseline (n,) each  paired by seed; it is about mean(values - baseline)
      successes of trials         a count; it is about the share
      values, statistic           another statistic, of at least 20 values
    and the smallest effect that matters is `at_least`, `at_most`, or both (a range).

    id: unique in the book, lower case with dashes. says: the sentence. paper: its key
    in references.bib. paper_value: the paper's own number as text; None when its source
    is unknown; say "(as we recall it)" when unchecked. needs: the smallest scale at
    which the claim can be tested; at a smaller one the value is shown, not judged.
    unit: put behind the numbers; it does not rescale them.

    Raises ValueError for fewer than 5 values, values not finite, an id in use, an
    unknown paper; RuntimeError before gv.page(...): then nothing is recorded.
    """
    cited = _check_claim(id, says, paper, needs)
    bounds = _check_bounds(at_least, at_most)
    found = _measure(values, baseline, successes, trials, statistic)
    said = verdict(found.low, found.high, **bounds)
    if SCALES.index(needs) > SCALES.index(scale_name()):
        said = "needs full scale"
    entry = {
        "id": id,
        "page": _require_page(),
        "paper": paper,
        "says": says,
        "paper_value": paper_value,
        "estimate": found.mean,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "verdict": said,
        **_source(),
    }
    _Page.claims[id] = entry
    _record()
    facts = _facts(entry, found, baseline is not None, bounds, cited, unit)
    emit(_claim_html(entry, facts, cited), _claim_text(entry, facts))


def claims() -> list[dict]:
    """The ledger entries of the claims made so far in this process, oldest first."""
    return [dict(entry) for entry in _Page.claims.values()]


def _check_claim(id: str, says: str, paper: str, needs: str) -> Paper:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", str(id)):
        raise ValueError(
            f"claim id {id!r}: expected lower case with dashes, as 'a-b-1'"
        )
    if not isinstance(says, str) or not says.strip():
        raise ValueError(f"claim {id!r} says nothing: expected a sentence")
    if needs not in SCALES:
        raise ValueError(f"claim {id!r} needs {needs!r}: expected 'quick' or 'full'")
    before, here = _Page.claims.get(id), _require_page()
    if before and (before["page"], before["says"]) != (here, says):
        raise ValueError(
            f"claim id {id!r} is in use on page {before['page']!r} for "
            f"{before['says']!r}; give this claim another id, or run the page from its "
            "first cell if you changed the sentence"
        )
    if paper not in papers():
        raise ValueError(
            f"claim {id!r}: paper {paper!r} is not in chapters/references.bib; add it, "
            f"or use one of {', '.join(sorted(papers()))}"
        )
    return papers()[paper]


def _check_bounds(at_least: float | None, at_most: float | None) -> dict:
    given = [b for b in (at_least, at_most) if b is not None]
    if not given or not np.all(np.isfinite(given)):
        raise ValueError(
            f"at_least={at_least}, at_most={at_most}: a claim needs a finite at_least "
            "or at_most, the smallest effect that matters"
        )
    if len(given) == 2 and at_least > at_most:
        raise ValueError(f"at_least={at_least} lies above at_most={at_most}")
    return {"at_least": at_least, "at_most": at_most}


def _measure(
    values: Sequence[float] | None,
    baseline: Sequence[float] | None,
    successes: int | None,
    trials: int | None,
    statistic: Callable | None,
) -> Interval:
    """The interval on the quantity that the arguments of `claim` describe."""
    counted = successes is not None or trials is not None
    extra = baseline is not None or statistic is not None
    if counted == (values is not None) or (counted and extra):
        raise ValueError(
            "a claim needs either values (with baseline or statistic where wanted) or "
            "successes and trials"
        )
    if counted:
        if successes is None or trials is None or trials < MIN_VALUES:
            raise ValueError(
                f"successes={successes}, trials={trials}: expected both, and at least "
                f"{MIN_VALUES} trials"
            )
        return proportion(successes, trials)
    x = check_values(values, "values", at_least=MIN_VALUES)
    if baseline is not None:
        base = check_values(baseline, "baseline", at_least=MIN_VALUES)
        if len(base) != len(x):
            raise ValueError(
                f"{len(x)} values but {len(base)} in baseline: a paired claim needs "
                "one of each per seed, in the same order"
            )
        x = x - base
    return interval(x, statistic=statistic)


# ---- what a claim looks like ---------------------------------------------------------


def _words(entry: dict, unit: str = "") -> str:
    """A recorded estimate with interval and n."""
    ends = (entry[key] for key in ("estimate", "low", "high", "n"))
    return Interval(*ends, method="").text(unit)


def _side(at_least: float | None, at_most: float | None, unit: str) -> str:
    unit = unit and f" {unit}"
    if at_least is not None and at_most is not None:
        return f"between {at_least:g} and {at_most:g}{unit}"
    if at_least is not None:
        return f"at least {at_least:g}{unit}"
    return f"at most {at_most:g}{unit}"


def _facts(
    entry: dict, found: Interval, paired: bool, bounds: dict, cited: Paper, unit: str
) -> list[tuple[str, str]]:
    """The rows of a claim's box, the same on a page and in a script."""
    measured = found.text(unit)
    how = "" if found.method == "all equal" else f"; {found.method}"
    how += ", paired differences" * paired
    if found.method == "all equal":
        how += "; no interval can be drawn from that"
    if entry["verdict"] == "needs full scale":
        how += "; too small a scale to judge by (GV_SCALE=full)"
    rows = [
        ("Measured", measured + how),
        ("Claimed", _side(**bounds, unit=unit)),
        (cited.label, entry["paper_value"] or "no number given here"),
    ]
    for name in SCALES:
        for old in ledger(name):
            if old["id"] == entry["id"]:
                rows.append((f"Recorded ({name})", _recorded(old, entry, unit)))
    return rows


def _recorded(old: dict, entry: dict, unit: str) -> str:
    text = f"{SYMBOLS.get(old['verdict'], '')} {old['verdict']}: {_words(old, unit)}"
    text += f", {old['device']}"
    if old["scale"] == entry["scale"] and old["verdict"] != entry["verdict"]:
        text += "; this run says otherwise"
    return text


def _claim_text(entry: dict, facts: list[tuple[str, str]]) -> str:
    said = entry["verdict"]
    head = f"[{SYMBOLS[said]} {said}] {entry['says']}"
    rows = [f"    {name}: {text}" for name, text in facts]
    return "\n".join([head, *rows, f"    {provenance()}"])


def _badge(said: str) -> str:
    return (
        f'<span class="gv-verdict" data-verdict="{escape(said)}">'
        f'<span aria-hidden="true">{SYMBOLS.get(said, "")}</span> {escape(said)}</span>'
    )


def _claim_html(entry: dict, facts: list[tuple[str, str]], cited: Paper) -> str:
    said, anchor = entry["verdict"], f"claim-{entry['id']}"
    rows = ""
    for name, text in facts:
        term = cited.html() if name == cited.label else escape(name)
        rows += f"<div><dt>{term}</dt><dd>{escape(text)}</dd></div>"
    return (
        f'<div class="gv-claim" id="{anchor}" data-verdict="{escape(said)}" '
        f'role="group" aria-labelledby="{anchor}-says">'
        f'<p class="gv-claim-head">{_badge(said)} '
        f'<strong id="{anchor}-says">{escape(entry["says"])}</strong></p>'
        f'<dl class="gv-claim-facts">{rows}</dl>'
        f'<p class="gv-provenance">{escape(provenance())}</p></div>'
    )


# ---- ledger --------------------------------------------------------------------------


def ledger(name: str | None = None) -> list[dict]:
    """The recorded claims at scale `name` (default: this run's), as committed."""
    name = scale_name() if name is None else name
    if name not in SCALES:
        raise ValueError(f"scale {name!r}: expected 'quick' or 'full'")
    path = resource("data") / "evidence" / f"{name}.json"
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not JSON ({error}); restore it from git, or record it again"
        ) from error


def compare(recorded: list[dict], measured: list[dict]) -> list[str]:
    """How measured claims differ from the recorded ones: one sentence each, or none.

    Only pages that occur in `measured` are compared; numbers may move, verdicts not.
    """
    pages = {c["page"] for c in measured}
    old = {c["id"]: c for c in recorded if c["page"] in pages}
    new = {c["id"]: c for c in measured}
    found = [f"{i} is recorded but was not measured" for i in old if i not in new]
    found += [f"{i} was measured but is not recorded" for i in new if i not in old]
    for i in old.keys() & new.keys():
        before, now = old[i], new[i]
        if before["verdict"] != now["verdict"]:
            found.append(
                f"{i} was {before['verdict']} ({_words(before)}), "
                f"now {now['verdict']} ({_words(now)})"
            )
    return sorted(found)


def write_json(path: Path, entries: list[dict]) -> None:
    """Write a list of claims whole or not at all, one key a line for readable diffs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
        draft.write_text(text + "\n", "utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _record() -> None:
    """Write this page's claims below $GV_RECORD, where that is set."""
    folder = os.environ.get("GV_RECORD")
    if not folder:
        return
    mine = [c for c in _Page.claims.values() if c["page"] == _Page.name]
    path = Path(folder) / f"{_Page.name}.json"
    try:
        write_json(path, mine)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror}); set GV_RECORD to a folder that "
            "can be written, or unset it"
        ) from error


# ---- the table of all claims ---------------------------------------------------------

_NO_CLAIMS = "Nothing is recorded yet: `make record` runs the pages and records them."

# Without a script the table stands whole and the filter, which could do nothing, is
# not there. Nothing is fetched. In a live notebook a second run finds its own table.
_FILTER = """
document.querySelectorAll(".gv-evidence:not([data-ready])").forEach((root) => {
  root.dataset.ready = "";
  const form = root.querySelector("form");
  const rows = [...root.querySelectorAll("tbody tr")];
  const count = root.querySelector("[role=status]");
  const none = root.querySelector(".gv-evidence-empty");
  const matches = (row, { text, verdict, chapter, paper }) =>
    text.toLowerCase().split(/\\s+/).every((word) => row.dataset.text.includes(word))
    && (!verdict || row.dataset.verdicts.split("|").includes(verdict))
    && (!chapter || row.dataset.chapter === chapter)
    && (!paper || row.dataset.paper === paper);
  const update = () => {
    const wanted = Object.fromEntries(new FormData(form));
    rows.forEach((row) => { row.hidden = !matches(row, wanted); });
    const left = rows.filter((row) => !row.hidden).length;
    count.textContent = `${left} of ${rows.length} claims`;
    none.hidden = left > 0;
    root.querySelector(".gv-evidence-scroll").hidden = left === 0;
  };
  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update));
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});
"""


def table() -> None:
    """Show all recorded claims: quick beside full beside paper, with a filter."""
    rows = _table_rows()
    emit(_table_html(rows), _table_text(rows))


def _table_rows() -> list[dict]:
    """One row per claim, by page, then in order of appearance; quick and full beside.

    Sentence, page and paper are taken from quick, which is recorded more often.
    """
    both = {name: {c["id"]: c for c in ledger(name)} for name in SCALES}
    ids = dict.fromkeys([*both["quick"], *both["full"]])
    rows = [{name: both[name].get(i) for name in SCALES} for i in ids]
    for row in rows:
        row |= row["quick"] or row["full"]
    return sorted(rows, key=lambda row: row["page"])  # stable: keeps order on a page


def _cite(key: str) -> Paper:
    """The paper of a recorded claim; its bare key if the paper has left the list."""
    return papers().get(key) or Paper(key, (key,), "not in references.bib", key, "")


def _chapter(page: str) -> str:
    return page.split("/")[0].replace("-", " ").capitalize()


def _table_text(rows: list[dict]) -> str:
    if not rows:
        return _NO_CLAIMS
    lines = []
    for row in rows:
        lines.append(f"{row['says']} [{row['page']}]")
        lines.append(f"    {_cite(row['paper']).label}: {row['paper_value'] or '-'}")
        for name in SCALES:
            old = row[name]
            found = old and f"{old['verdict']}, {_words(old)}"
            lines.append(f"    {name}: {found or 'not recorded yet'}")
    return "\n".join([*lines, _sources(rows)])


def _table_html(rows: list[dict]) -> str:
    if not rows:
        return f'<p class="gv-evidence gv-evidence-empty">{escape(_NO_CLAIMS)}</p>'
    heads = ("Claim", "Paper", "The paper's number", "Quick scale", "Full scale")
    n = len(rows)
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_row_html(row) for row in rows)
    return (
        f'<div class="gv-evidence" id="gv-evidence">{_form_html(rows)}'
        f'<p class="gv-evidence-count" role="status">{n} of {n} claims</p>'
        '<p class="gv-evidence-empty" hidden>No claim matches. Clear the filter, or '
        "ask for less.</p>"
        '<div class="gv-evidence-scroll" role="region" tabindex="0" '
        'aria-labelledby="gv-evidence-caption"><table>'
        '<caption id="gv-evidence-caption">All claims of this book, as recorded'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f'<p class="gv-provenance">{escape(_sources(rows))}</p>'
        f"<script>{_FILTER}</script></div>"
    )


def _sources(rows: list[dict]) -> str:
    """Where the recorded numbers of each scale come from, in a sentence each."""
    said = []
    for name in SCALES:
        runs = [row[name] for row in rows if row[name]]
        found = dict.fromkeys(
            f"{run['device']}, torch {run['versions']['torch']}, commit {run['commit']}"
            for run in runs
        )
        said.append(f"Recorded at {name} scale: {'; '.join(found) or 'nothing yet'}.")
    return " ".join(said)


def _form_html(rows: list[dict]) -> str:
    verdicts = {row[s]["verdict"] for row in rows for s in SCALES if row[s]}
    chapters = {_chapter(row["page"]) for row in rows}
    cited = {row["paper"]: _cite(row["paper"]).label for row in rows}
    return (
        '<form class="gv-evidence-filter" role="search" aria-label="Claims" hidden>'
        '<label>Words <input type="search" name="text" autocomplete="off"></label>'
        + _select("verdict", "Verdict", {v: v for v in SYMBOLS if v in verdicts})
        + _select("chapter", "Chapter", {c: c for c in sorted(chapters)})
        + _select("paper", "Paper", dict(sorted(cited.items(), key=lambda kv: kv[1])))
        + '<button type="reset">Clear</button></form>'
    )


def _select(name: str, label: str, options: dict[str, str]) -> str:
    inner = "".join(
        f'<option value="{escape(v)}">{escape(t)}</option>' for v, t in options.items()
    )
    return (
        f'<label>{label} <select name="{name}"><option value="">all</option>'
        f"{inner}</select></label>"
    )


def _row_html(row: dict) -> str:
    cited, said = _cite(row["paper"]), [row[s]["verdict"] for s in SCALES if row[s]]
    words = " ".join([row["says"], row["page"], row["id"], cited.label, cited.title])
    claim = escape(row["says"])
    if static_build():  # the claim's own box; elsewhere there is no page to link to
        claim = f'<a href="{row["page"]}.html#claim-{row["id"]}">{claim}</a>'
    cells = "".join(f"<td>{_cell(row[name])}</td>" for name in SCALES)
    return (
        f'<tr data-text="{escape(words.lower())}" data-verdicts="{"|".join(said)}" '
        f'data-chapter="{escape(_chapter(row["page"]))}" '
        f'data-paper="{escape(row["paper"])}">'
        f'<th scope="row">{claim}</th><td>{cited.html()}</td>'
        f"<td>{escape(row['paper_value'] or 'not given')}</td>{cells}</tr>"
    )


def _cell(old: dict | None) -> str:
    if old is None:
        return "not recorded yet"
    return f"{_badge(old['verdict'])}<br>{escape(_words(old))}"
