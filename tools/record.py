"""Run pages as plain scripts and record what their claims found.

    python tools/record.py --scale quick                         all pages of _toc.yml
    python tools/record.py --scale full chapters/memorization/random-labels.md

Each page runs in its own process; its claims replace those of the same page in
data/evidence/<scale>.json as soon as it ends, so Ctrl-C loses nothing already finished.
A page that fails is named, keeps its old claims, and makes the exit status 1. Jupyter
is not needed: jupytext turns a page into a script, and where it is missing a page
already converted (random-labels.py beside random-labels.md, or given by name) is run.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout that is not installed

from gvlib.evidence import KEYS, write_json  # noqa: E402  needs the line above

# One thread a page: on a busy machine two threads for a tiny network cost ten times.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"
)
WORKERS = {"quick": 2, "full": 1}  # at full scale the pages would share one GPU
RUNNING: set[int] = set()  # process ids of pages, to end them on Ctrl-C
DIGITS = 6  # more would only differ from machine to machine


class Outcome(NamedTuple):
    """How one page's run ended."""

    page: str
    seconds: float  # of CPU, all threads
    claims: list[dict]
    error: str  # empty: it went well


def toc_pages(toc: Path) -> list[str]:
    """Pages of a Jupyter Book table of contents, in order, without ending."""
    if not toc.is_file():
        raise FileNotFoundError(f"{toc} is missing: name the pages to run instead")
    pattern = r"""(?m)^\s*(?:-\s+)?(?:root|file)\s*:\s*['"]?([^'"\s#]+)"""
    return [
        re.sub(r"\.md$", "", f) for f in re.findall(pattern, toc.read_text("utf-8"))
    ]


def find_page(given: str, root: Path) -> Path:
    """The .md (or converted .py) of a page given as path, with or without ending."""
    tries = [root / given, root / f"{given}.md", root / f"{given}.py", Path(given)]
    for path in tries:
        if path.suffix in (".md", ".py") and path.is_file():
            return path.resolve()
    raise FileNotFoundError(
        f"no page {given!r}: expected a path such as chapters/memorization/"
        f"random-labels.md, below {root}"
    )


def page_name(path: Path, root: Path) -> str:
    """What the page must give to gv.page: its path below chapters/, no ending."""
    try:
        return path.relative_to(root / "chapters").with_suffix("").as_posix()
    except ValueError:  # a converted page that lies elsewhere
        return path.stem


def as_script(path: Path, folder: Path) -> Path:
    """The page at `path` as a Python file; raises RuntimeError without a way there."""
    if path.suffix == ".py":
        return path
    try:
        import jupytext
    except ImportError:
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        raise RuntimeError(
            f"jupytext is not installed and {path.with_suffix('.py').name} is not "
            "there: pip install jupytext, or convert where it is installed with "
            f"`jupytext --to py {path.name}`"
        ) from None
    script = folder / "page.py"
    script.write_text(jupytext.writes(jupytext.read(path), "py:percent"), "utf-8")
    return script


def run_page(path: Path, scale: str, root: Path) -> Outcome:
    """Run one page in a process of its own and collect its claims."""
    name = page_name(path, root)
    with tempfile.TemporaryDirectory(prefix="gv-record-") as scratch:
        folder = Path(scratch)
        try:
            script = as_script(path, folder)
        except RuntimeError as error:
            return Outcome(name, 0.0, [], str(error))
        log = folder / "log.txt"
        status, seconds = _run(script, scale, folder, root, log)
        if status:
            tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
            return Outcome(name, seconds, [], f"exit status {status}\n{tail}")
        try:
            return Outcome(name, seconds, collect(folder / "claims", name), "")
        except ValueError as error:
            return Outcome(name, seconds, [], str(error))


def _run(
    script: Path, scale: str, folder: Path, root: Path, log: Path
) -> tuple[int, float]:
    """Exit status and CPU seconds of `python script`, with its children."""
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    settings = {
        "GV_SCALE": scale,
        "GV_RECORD": str(folder / "claims"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONIOENCODING": "utf-8",
        "MPLBACKEND": "Agg",
        **(ONE_THREAD if scale == "quick" else {}),
    }
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=folder,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        RUNNING.add(process.pid)
        _, status, used = os.wait4(process.pid, 0)
        RUNNING.discard(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)  # so Popen need not wait
    return process.returncode, used.ru_utime + used.ru_stime


def collect(folder: Path, name: str) -> list[dict]:
    """The claims that page `name` wrote below `folder`, rounded and checked."""
    claims = []
    for file in sorted(folder.rglob("*.json")):
        claims += json.loads(file.read_text("utf-8"))
    for claim in claims:
        if claim["page"] != name:
            raise ValueError(
                f"claim {claim['id']!r} says it is on page {claim['page']!r}; the "
                f"page's first cell must call gv.page({name!r})"
            )
        if tuple(claim) != KEYS:
            raise ValueError(f"claim {claim['id']!r} has keys {list(claim)}")
    return [{key: rounded(value) for key, value in c.items()} for c in claims]


def rounded(value: object) -> object:
    """Floats to 6 significant digits, anything else as it is.

    >>> rounded(0.123456789), rounded("0.5"), rounded(3)
    (0.123457, '0.5', 3)
    """
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def merge(
    recorded: list[dict], name: str, claims: list[dict], known: Sequence[str]
) -> list[dict]:
    """`recorded` with page `name`'s claims replaced, sorted by page.

    Pages that are neither `known` nor `name` have left the book: they are dropped,
    unless `known` is empty. Order on a page stays order of appearance.
    Raises ValueError where an id would occur on two pages.
    """
    kept = [c for c in recorded if c["page"] != name]
    if known:
        kept = [c for c in kept if c["page"] in known]
    taken = {c["id"]: c["page"] for c in kept}
    for claim in claims:
        if claim["id"] in taken:
            raise ValueError(
                f"claim id {claim['id']!r} of page {name!r} is in use on page "
                f"{taken[claim['id']]!r}: ids are unique in the book"
            )
    return sorted([*kept, *claims], key=lambda c: c["page"])


def record(outcome: Outcome, file: Path, known: Sequence[str]) -> str:
    """Merge one page into the ledger `file`; what went wrong, or nothing."""
    if outcome.error:
        return outcome.error
    try:
        old = json.loads(file.read_text("utf-8")) if file.is_file() else []
        write_json(file, merge(old, outcome.page, outcome.claims, known))
    except ValueError as error:
        return str(error)
    return ""


def run_all(
    pages: list[Path], scale: str, workers: int, root: Path, known: Sequence[str]
) -> list[str]:
    """Run `pages`, record each as it ends, print its time; names of failed ones."""
    file, failed = root / "data" / "evidence" / f"{scale}.json", []
    with ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(run_page, path, scale, root): path for path in pages}
        waiting = set(jobs)
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for job in done:
                    outcome = settle(job, page_name(jobs[job], root))
                    error = record(outcome, file, known)
                    failed += [outcome.page] if error else []
                    print(report(outcome, error), flush=True)
        except KeyboardInterrupt:  # what is done is recorded
            for pid in RUNNING:
                os.kill(pid, signal.SIGTERM)
            pool.shutdown(cancel_futures=True)
            raise SystemExit(f"interrupted; finished pages are in {file}") from None
    return failed


def settle(job: Future, name: str) -> Outcome:
    """What a job found; an unforeseen error fails its own page only."""
    error = job.exception()
    if error is not None:
        return Outcome(name, 0.0, [], f"{type(error).__name__}: {error}")
    return job.result()


def report(outcome: Outcome, error: str) -> str:
    """One line on a page that went well; on another, why it did not."""
    head = f"{outcome.page}: {outcome.seconds:.1f} CPU-s"
    if error:
        return f"{head}, FAILED, its recorded claims are kept: {error}"
    verdicts = [claim["verdict"] for claim in outcome.claims]
    counts = [f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)]
    return f"{head}, {', '.join(counts) or 'no claims'}"


def main(argv: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command; 0 when every page went well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=("quick", "full"), default="quick")
    parser.add_argument("--workers", type=int, help="pages at once: 2, at full scale 1")
    parser.add_argument("pages", nargs="*", help="default: all pages of _toc.yml")
    args = parser.parse_args(argv)
    toc = root / "_toc.yml"
    try:
        listed = toc_pages(toc) if toc.is_file() or not args.pages else []
        pages = [find_page(p, root) for p in args.pages or listed]
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    known = [re.sub("^chapters/", "", p) for p in listed]
    workers = max(1, args.workers or WORKERS[args.scale])
    failed = run_all(pages, args.scale, workers, root, known)
    if failed:
        print(f"failed: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
