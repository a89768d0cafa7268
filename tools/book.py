"""Execute every page of _toc.yml and build the site: `make book` and `make full`.

Pages run in parallel, each in a kernel of its own with one torch thread. A finished
page is kept at once, under _build/cache/<scale>-<hash of all that its results depend
on>, so neither an error in another page nor Ctrl-C loses it. Sphinx finds the results
there and executes nothing. The claims of the pages lie beside them, in evidence/.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.readers import get_reader
from nbclient import NotebookClient
from nbformat import NotebookNode
from sphinx_external_toc.parsing import parse_toc_yaml
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
DOCTREES = BUILD / ".doctrees"
STAMP = BUILD / "site.json"  # there only while _build/html is whole
SCALES = ("quick", "full")
# What a page's results depend on, beside its own code.
RESULTS = ("gvlib", "data", "requirements.txt", "chapters/references.bib")
# What the site depends on, beside the pages.
SITE = (*RESULTS, "_config.yml", "_toc.yml", "assets", "tools")
# A cell that runs longer than this hangs: a page takes two minutes, minutes at full.
CELL_SECONDS = 3600
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Outcome(NamedTuple):
    """What became of one page: its executed notebook or what stopped it."""

    page: str
    notebook: NotebookNode | None
    problem: str
    times: dict[str, float]  # wall and cpu, in seconds
    claims: str | None  # the file that gv.claim wrote, as text


def scale_name() -> str:
    """GV_SCALE, checked before anything is done."""
    name = os.environ.get("GV_SCALE", "quick")
    if name not in SCALES:
        sys.exit(f"error: GV_SCALE is {name!r}; it must be one of {', '.join(SCALES)}")
    return name


def files_below(names: Iterable[str]) -> Iterator[Path]:
    """The files of these folders and files of the book, in a fixed order."""
    for name in names:
        path = ROOT / name
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (f for f in found if f.is_file() and "__pycache__" not in f.parts)


def digest(names: Iterable[str], *more: str) -> str:
    """A hash of these files' names and contents, and of some words more."""
    total = hashlib.sha256("\n".join(more).encode())
    for path in files_below(names):
        total.update(f"\n{path.relative_to(ROOT)}\n".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def cache_folder(scale: str) -> Path:
    """Where results are kept; another folder as soon as they could be others."""
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    return BUILD / "cache" / f"{scale}-{digest(RESULTS, scale, version)}"


def origin() -> str:
    """The address of the clone's remote, or nothing."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git: an unpacked archive
        return ""


def pages() -> list[str]:
    """Every page of _toc.yml, as its path without the ending."""
    return list(parse_toc_yaml(ROOT / "_toc.yml"))


def read_page(page: str) -> NotebookNode | None:
    """A page as the notebook that Sphinx sees in it; None where it has no code."""
    path = ROOT / f"{page}.md"
    if not path.is_file():
        sys.exit(f"error: _toc.yml names {page}, and there is no {page}.md")
    if not re.match(r"---\n.*?format_name: myst\n.*?---\n", path.read_text(), re.S):
        return None
    return get_reader({"type": "plugin", "name": "myst_nb_md"})(str(path))


def kernel_environment(scale: str, record: Path) -> dict[str, str]:
    """What every page runs under. One thread each: the pages share the machine."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "GV_SCALE": scale,
        "GV_STATIC": "1",
        "GV_RECORD": str(record),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        **({"OMP_NUM_THREADS": "1"} if scale == "quick" else {}),
    }


def run_page(job: tuple[str, str, Path]) -> Outcome:
    """Execute one page in its own kernel, in the page's folder."""
    page, scale, record = job
    notebook, problem = read_page(page), ""
    folder = record / page.replace("/", ".")
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        record_timing=False,  # else Sphinx would not know the cells again
        config=Config(KernelManager={"transport_encryption": "auto"}),
        resources={"metadata": {"path": str((ROOT / page).parent)}},
    )
    started, cpu = time.perf_counter(), _children_seconds()
    try:
        client.execute(env=kernel_environment(scale, folder))
    except Exception as error:  # any: it is this page's, the others go on
        notebook, problem = None, f"{error or type(error).__name__}"
    times = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": _children_seconds() - cpu,
    }
    claims = [f.read_text() for f in sorted(folder.rglob("*.json"))]
    return Outcome(page, notebook, problem, times, claims[0] if claims else None)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def execute(names: list[str], scale: str, folder: Path) -> list[str]:
    """Execute these pages, keep each as it finishes; the names of those that failed."""
    record = folder / "running"
    shutil.rmtree(record, ignore_errors=True)
    jobs = [(page, scale, record) for page in names]
    at_once = min(len(jobs), os.cpu_count() if scale == "quick" else 1)
    what = f"{len(jobs)} page{'s' * (len(jobs) > 1)}"
    print(f"executing {what} at {scale} scale, {at_once} at a time", flush=True)
    cache, failed = get_cache(str(folder)), []
    # Each page in a process of its own: its kernel's CPU time is then its own too.
    # Spawned: a fork that a thread of the pool makes may inherit a lock that is held.
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(at_once, maxtasksperchild=1) as pool:
        for outcome in pool.imap_unordered(run_page, jobs):
            if outcome.problem:
                failed.append(outcome.page)
                report_failure(outcome)
            else:
                keep(cache, outcome)
                print(f"  {describe(outcome.page, outcome.times)}", flush=True)
    shutil.rmtree(record, ignore_errors=True)
    return failed


def keep(cache: JupyterCacheAbstract, outcome: Outcome) -> None:
    """Put an executed page into the cache, with its times and claims."""
    data = outcome.times | {"claims": outcome.claims}
    data["execution_seconds"] = outcome.times["seconds"]
    path = str(ROOT / f"{outcome.page}.md")
    bundle = CacheBundleIn(outcome.notebook, path, data=data)
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def describe(page: str, times: dict[str, float]) -> str:
    """One line: a page and what it took."""
    return f"{page:40} {times['seconds']:6.1f} s ({times['cpu_seconds']:.1f} s CPU)"


def report_failure(outcome: Outcome) -> None:
    """Name the page that failed and show its cell and traceback."""
    text = outcome.problem
    if not sys.stderr.isatty():
        text = _ANSI.sub("", text)
    print(f"\nFAILED: {outcome.page}.md\n{text}\n", file=sys.stderr, flush=True)


def matches(names: list[str], folder: Path) -> dict[str, object | None]:
    """The kept result of each page that has code, None where it must be executed."""
    cache, found = get_cache(str(folder)), {}
    for page in names:
        notebook = read_page(page)
        if notebook is not None:
            try:
                found[page] = cache.match_cache_notebook(notebook)
            except KeyError:
                found[page] = None
    return found


def write_claims(found: dict[str, object], folder: Path) -> None:
    """Lay the claims of exactly these pages into evidence/, whatever ran before."""
    shutil.rmtree(folder / "evidence", ignore_errors=True)
    for page, record in found.items():
        if record.data["claims"] is not None:
            name = page.removeprefix("chapters/")
            path = folder / "evidence" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(record.data["claims"])


def run_sphinx(folder: Path, state: dict[str, str]) -> bool:
    """Build _build/html from the kept results; a warning, a loose link, is an error."""
    last = json.loads(STAMP.read_text()) if STAMP.is_file() else {}
    # A warning is given once, when its page is read: after a build that failed or was
    # cut short, or when more than pages changed, all of them are read again.
    if last.get("site") != state["site"]:
        remove_site()
    STAMP.unlink(missing_ok=True)
    log = BUILD / "sphinx.log"
    # Not .venv/bin/jupyter-book: that breaks when the checkout is moved.
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(ROOT)]
    with log.open("w") as out:
        done = subprocess.run(
            [*command, "-W", "-n", "--keep-going", "-q"],
            env=os.environ | {"GV_CACHE": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=out,
        )
    whole = done.returncode == 0 and (HTML / "index.html").is_file()
    if whole:
        STAMP.write_text(json.dumps(state))
    else:
        print(log.read_text()[-4000:], file=sys.stderr)
        remove_site()
    return whole


def remove_site() -> None:
    """Leave no site behind that is not what the sources say."""
    STAMP.unlink(missing_ok=True)
    shutil.rmtree(DOCTREES, ignore_errors=True)
    shutil.rmtree(HTML, ignore_errors=True)


def remove_old_caches(folder: Path) -> None:
    """Remove results of this scale that belong to other sources."""
    for old in folder.parent.glob(f"{folder.name.split('-')[0]}-*"):
        if old != folder:
            shutil.rmtree(old)


@contextlib.contextmanager
def one_build_at_a_time() -> Iterator[None]:
    """Wait for another build of this checkout to end."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of this book to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(scale: str) -> int:
    """Build the book at a scale; the exit status."""
    started, folder = time.perf_counter(), cache_folder(scale)
    state = {
        "site": digest(SITE, scale, sys.version, origin()),
        "pages": digest(["chapters"]),
        "cache": folder.name,
    }
    if STAMP.is_file() and json.loads(STAMP.read_text()) == state:
        print("nothing changed since the last build")
        return say_where(started)
    remove_old_caches(folder)
    names = pages()
    missing = [page for page, record in matches(names, folder).items() if not record]
    failed = execute(missing, scale, folder) if missing else []
    if failed:
        remove_site()
        print(f"error: {len(failed)} of {len(names)} pages failed, no site was built: "
              f"{', '.join(sorted(failed))}", file=sys.stderr)  # fmt: skip
        return 1
    found = matches(names, folder)
    if changed := [page for page, record in found.items() if not record]:
        remove_site()
        print(f"error: {', '.join(changed)} changed while the book was built, no site "
              "was built: build it again", file=sys.stderr)  # fmt: skip
        return 1
    write_claims(found, folder)
    if not run_sphinx(folder, state):
        print("error: the site was not built; see the warnings above", file=sys.stderr)
        return 1
    if not missing:
        for page, record in found.items():
            print(f"  {describe(page, record.data)}, kept")
    return say_where(started)


def say_where(started: float) -> int:
    """Say where the site is and how long it took."""
    seconds = time.perf_counter() - started
    print(f"the book is at {HTML / 'index.html'} ({seconds:.1f} s)")
    return 0


def main() -> int:
    """Read the command line, build the book."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--claims", action="store_true", help="print where the pages' claims are"
    )
    if parser.parse_args().claims:
        print(cache_folder(scale_name()) / "evidence")
        return 0
    with one_build_at_a_time():
        return unless_stopped(build, scale_name())


def unless_stopped(work: Callable[[str], int], scale: str) -> int:
    """What `work(scale)` returns; 130 after Ctrl-C, whatever came of it.

    A Ctrl-C reaches the pages' processes too, and may come back as their failure.
    """
    stopped = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        status = work(scale)
    except BaseException:
        if not stopped:
            raise
    if not stopped:
        return status
    print("\nstopped; every page that had finished is kept", file=sys.stderr)
    return 130


if __name__ == "__main__":
    sys.exit(main())
