"""A sweep: independent jobs, run in parallel, whose results are kept.

For runs that can't share one batch as a `Population` does: other architectures, a GPU
each. Jobs run by joblib: in processes of this machine, or wherever
`joblib.parallel_config` says, one torch thread each.

    runs = gv.sweep(fit, gv.grid(width=[8, 32], seed=range(5)))   # this machine's cores
    with joblib.parallel_config("dask"):                          # or a cluster's
        runs = gv.sweep(fit, gv.grid(width=[8, 32], seed=range(5)))

A job is a frozen specification: the function (its code and what it reads of its own
module), the setting, gvlib, GV_SCALE and `version`. Its SHA-256 names the file of its
result, so a finished job is not run again and an interrupted sweep resumes. Nothing is
seeded: `seed` in a setting is an argument like others.
"""

import functools
import importlib
import inspect
import json
import os
import re
import sys
import threading
import time
import traceback
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch

from . import _display, _fingerprint, _tables

__all__ = ["Failure", "Sweep", "SweepError", "sweep"]


@dataclass(frozen=True)
class Failure:
    """A job that raised: its setting, the error in one line, the whole traceback."""

    setting: dict
    error: str
    traceback: str

    def __str__(self) -> str:
        setting = (f"{n}={_tables.short(v)}" for n, v in self.setting.items())
        return f"{', '.join(setting)}: {self.error}"


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What a sweep gives.

    records: tidy frame; every column of the settings, then those of the results.
    failures: the jobs that raised (with on_error="return").
    files: the result files of the finished jobs, in the order of the settings.
    ran, cached: how many jobs ran now, and how many results were there already.
    seconds: what the finished jobs took, added up, whenever they ran.
    """

    records: pd.DataFrame
    failures: tuple[Failure, ...]
    files: tuple[Path, ...]
    ran: int
    cached: int
    seconds: float

    def __repr__(self) -> str:
        return (
            f"Sweep({len(self.records)} records; {self.ran} jobs run, "
            f"{self.cached} from the cache, {len(self.failures)} failed)"
        )


class SweepError(RuntimeError):
    """Some jobs failed. `sweep` has the others' records, and all failures."""

    def __init__(self, message: str, sweep: Sweep) -> None:
        super().__init__(message)
        self.sweep = sweep


def sweep(
    fn: Callable,
    settings: pd.DataFrame | Iterable[Mapping],
    *,
    cache: str | os.PathLike | bool | None = None,
    name: str | None = None,
    jobs: int | None = None,
    version: str | int = "",
    progress: bool = True,
    on_error: str = "raise",
) -> Sweep:
    """Runs fn(**setting) for every setting, in parallel, and keeps each result.

    Args:
        fn: returns a dict of numbers (one row), a dict with lists of one length (a row
            an entry), or a frame of records. What it imports from modules other than
            its own and gvlib is not hashed: change `version` when that changes.
        settings: dicts, or a frame (see `gvlib.grid`), of numbers, text, true/false,
            None and tuples of these (lists become tuples).
        cache: folder of the results; None: $GVLIB_CACHE/sweeps, or the user's cache
            folder; False: keep nothing.
        name: folder in the cache, label of the progress bar (default: fn's name).
        jobs: processes at a time (default: as parallel_config says, else all cores).
        version: any text; part of the hash.
        progress: show a bar (never while the book is built).
        on_error: "raise" a SweepError after the other jobs have finished, or "return".

    Raises:
        SweepError: jobs failed; it names them and has what the others gave.
        ValueError, TypeError: settings or function can't be swept; nothing ran.
        PermissionError: the cache can't be written; nothing ran.

    >>> def area(width, height):
    ...     return {"area": width * height}
    >>> sweep(area, [{"width": 2, "height": 3}], cache=False, jobs=1).records
       width  height  area
    0      2       3     6
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error is {on_error!r}; use 'raise' or 'return'")
    plan = _plan(fn, settings, cache, name, str(version))
    result = _run(plan, jobs, progress)
    if result.failures and on_error == "raise":
        raise SweepError(_message(result, plan), result)
    return result


# --- what is to be done ---------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What decides a result. Its hash names the result's file."""

    function: str
    code: str  # SHA-256 of the compiled function and what it reads of its module
    setting: str  # JSON
    gvlib: str
    scale: str  # gvlib.scale(...) inside the function follows it
    version: str


@dataclass(frozen=True)
class _Task:
    """A job on its way to a worker: the function by name where it can be imported."""

    index: int
    fn: Callable | tuple[str, str]
    job: _Job
    setting: dict
    names: tuple[str, ...]  # of all settings' columns


@dataclass(frozen=True)
class _Plan:
    """A sweep, checked: every task, and the file of its result (None: not kept)."""

    name: str
    folder: Path | None
    tasks: list[_Task]
    names: tuple[str, ...]

    def path(self, task: _Task) -> Path | None:
        key = _tables.digest(asdict(task.job))
        return self.folder / f"{key}.json" if self.folder else None


def _plan(
    fn: Callable,
    settings: pd.DataFrame | Iterable[Mapping],
    cache: str | os.PathLike | bool | None,
    name: str | None,
    version: str,
) -> _Plan:
    """Everything checked and hashed, nothing run or written."""
    settings = _settings(settings)
    _check_function(fn, settings)
    name = name or re.sub(r"[^\w.-]+", "_", fn.__qualname__).strip("._")
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise ValueError(f"name is {name!r}; use letters, digits, '_', '-' and '.'")
    folder = None if cache is False else _root(cache) / name
    function, code = f"{fn.__module__}.{fn.__qualname__}", _fingerprint.code_hash(fn)
    gvlib, scale = _fingerprint.gvlib_hash(), os.environ.get("GV_SCALE") or "quick"
    names = tuple(dict.fromkeys(n for setting in settings for n in setting))
    reference = _reference(fn)
    tasks = []
    for i, setting in enumerate(settings):
        text = _tables.dump(_json(setting))
        job = _Job(function, code, text, gvlib, scale, version)
        tasks.append(_Task(i, reference, job, setting, names))
    return _Plan(name, folder, tasks, names)


def _settings(settings: pd.DataFrame | Iterable[Mapping]) -> list[dict]:
    """The settings as plain dicts of JSON values; lists become tuples."""
    if isinstance(settings, pd.DataFrame):
        columns = [settings[name].tolist() for name in settings.columns]
        rows = zip(*columns, strict=True)
        settings = [dict(zip(settings.columns, row, strict=True)) for row in rows]
    plain = [_plain(setting) for setting in settings]
    if not plain:
        raise ValueError("settings is empty; give one or more, as gvlib.grid(seed=[0])")
    seen: dict[str, int] = {}
    for i, setting in enumerate(plain):
        first = seen.setdefault(_tables.dump(_json(setting)), i)
        if first != i:
            raise ValueError(
                f"settings {first} and {i} are the same: {setting}; remove one, or "
                "tell them apart by a seed"
            )
    return plain


def _plain(setting: Mapping) -> dict:
    """One setting, checked: text names, values that JSON can hold."""
    if not isinstance(setting, Mapping):
        raise TypeError(
            f"a setting is {_tables.short(setting)}; give dicts such as {{'seed': 0}}, "
            "or a frame from gvlib.grid"
        )
    plain = {}
    for name, value in setting.items():
        if not isinstance(name, str):
            raise TypeError(f"a setting has the name {name!r}; names are text")
        try:
            if getattr(value, "ndim", 0) > 0:  # an array's bytes are no setting
                raise TypeError(f"{_tables.short(value)} of {type(value)}")
            plain[name] = _tables.from_json(_tables.to_json(value), tuple)
        except TypeError as error:
            raise TypeError(
                f"setting {name!r} holds {error}; use a number, text, true/false, "
                "None, or lists of these, and make the rest from it inside the function"
            ) from None
    return plain


def _json(setting: dict) -> dict:
    return {name: _tables.to_json(value) for name, value in setting.items()}


def _check_function(fn: Callable, settings: list[dict]) -> None:
    """Raises where `fn` has no code to hash, or doesn't take a setting's names."""
    if not isinstance(fn, types.FunctionType):
        raise TypeError(
            f"fn is {_tables.short(fn)} of type {type(fn).__name__}; give a function "
            "made by def or lambda, since its code names its results"
        )
    signature = inspect.signature(fn)
    for setting in settings:
        try:
            signature.bind(**setting)
        except TypeError as error:
            raise TypeError(
                f"{fn.__qualname__}{signature} can't take the setting {setting}: "
                f"{error}; settings and arguments must have the same names"
            ) from None


def _reference(fn: types.FunctionType) -> Callable | tuple[str, str]:
    """The name to import `fn` by in a worker; `fn` itself (sent by value) if none."""
    found: object = sys.modules.get(fn.__module__)
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    importable = found is fn and fn.__module__ != "__main__"
    return (fn.__module__, fn.__qualname__) if importable else fn


# --- one job, in a worker -------------------------------------------------------------


@dataclass(frozen=True)
class _Outcome:
    """What came back: packed records, or an error with its traceback."""

    index: int
    records: dict | None = None
    seconds: float = 0.0
    error: str = ""
    traceback: str = ""

    @classmethod
    def failed(cls, index: int, error: BaseException) -> "_Outcome":
        """An exception as text; its type may not exist where the sweep was started."""
        line = traceback.format_exception_only(error)[-1].strip().split("\n")[0]
        lines = traceback.format_exception(error)
        return cls(index, error=line, traceback="".join(lines))


class _Conditions:
    """One torch thread and the sweep's GV_SCALE, while a job runs in this process.

    A worker may run jobs in several threads: the last one to leave restores both.
    """

    lock = threading.Lock()
    inside = 0
    before: tuple[int, str | None] = (1, None)

    @classmethod
    @contextmanager
    def held(cls, scale: str) -> Iterator[None]:
        with cls.lock:
            if not cls.inside:
                cls.before = torch.get_num_threads(), os.environ.get("GV_SCALE")
            cls.inside += 1
            # On a busy machine two threads for a tiny network take ten times as long.
            torch.set_num_threads(1)
            os.environ["GV_SCALE"] = scale  # a cluster's worker may have its own
        try:
            yield
        finally:
            with cls.lock:
                cls.inside -= 1
                if not cls.inside:
                    cls.restore(*cls.before)

    @staticmethod
    def restore(threads: int, scale: str | None) -> None:
        torch.set_num_threads(threads)
        os.environ.pop("GV_SCALE")
        if scale is not None:
            os.environ["GV_SCALE"] = scale


@functools.cache
def _import(module: str, qualname: str, code: str, gvlib: str) -> Callable:
    """The function of that name, if it is the one that the sweep was started with."""
    fn: Any = importlib.import_module(module)
    for part in qualname.split("."):
        fn = getattr(fn, part)
    mine = _fingerprint.code_hash(fn), _fingerprint.gvlib_hash()
    if mine != (code, gvlib):
        raise RuntimeError(
            f"this worker has another {module}.{qualname} or gvlib than the process "
            "that started the sweep: one of them is old, or a global was changed; "
            "restart both"
        )
    return fn


def _work(task: _Task) -> _Outcome:
    """Runs one job. An error comes back as an outcome, so that the others go on."""
    start, job = time.perf_counter(), task.job
    try:
        with _Conditions.held(job.scale):
            fn = task.fn
            if isinstance(fn, tuple):
                fn = _import(*fn, job.code, job.gvlib)
            frame = _tables.records(fn(**task.setting))
        frame = _tables.without_setting(frame, task.setting, task.names)
        records = _tables.pack(frame)
    except (Exception, SystemExit) as error:
        return _Outcome.failed(task.index, error)
    return _Outcome(task.index, records, time.perf_counter() - start)


# --- where jobs run -------------------------------------------------------------------


def _outcomes(tasks: list[_Task], jobs: int | None) -> Iterator[_Outcome]:
    """Runs the tasks where joblib.parallel_config says; yields them as they finish."""
    backend, configured = joblib.parallel.get_active_backend()
    if jobs is None and configured is None:
        jobs = -1
    if type(backend).__name__ == "DaskDistributedBackend":
        return _on_dask(backend, tasks)
    if not backend.supports_return_generator:
        return _in_rounds(tasks, jobs)
    return _on_pool(tasks, jobs)


def _on_pool(tasks: list[_Task], jobs: int | None) -> Iterator[_Outcome]:
    """By joblib. A worker that dies ends its pool: what was out runs again, alone."""
    waiting, out = deque(tasks), {}

    def hand_out() -> Iterator:
        while waiting:
            task = waiting.popleft()
            out[task.index] = task
            yield joblib.delayed(_work)(task)

    while waiting:
        parallel = joblib.Parallel(jobs, batch_size=1, return_as="generator_unordered")
        try:
            for outcome in parallel(hand_out()):
                del out[outcome.index]
                yield outcome
        except BrokenProcessPool:
            suspects = list(out.values())
            out.clear()
            yield from map(_alone, suspects)


def _alone(task: _Task) -> _Outcome:
    """One task in a pool of its own (of 2: joblib runs a pool of 1 in this process)."""
    try:
        return joblib.Parallel(2, batch_size=1)([joblib.delayed(_work)(task)])[0]
    except BrokenProcessPool as error:
        return _Outcome(
            task.index,
            error="its process died twice: killed, out of memory, or crashed",
            traceback=f"The second time, this job was alone.\n{error}",
        )


def _in_rounds(tasks: list[_Task], jobs: int | None) -> Iterator[_Outcome]:
    """By backends that return all at once (Ray, multiprocessing), in rounds.

    Four jobs a worker and round: few waits at the ends, little lost by an interruption.
    """
    with joblib.Parallel(jobs, batch_size=1) as parallel:
        size = 4 * joblib.effective_n_jobs(-1 if jobs is None else jobs)
        for first in range(0, len(tasks), size):
            batch = tasks[first : first + size]
            yield from parallel(joblib.delayed(_work)(task) for task in batch)


def _on_dask(backend: Any, tasks: list[_Task]) -> Iterator[_Outcome]:
    """By the Dask client of joblib's backend, and not through joblib.Parallel.

    That one (joblib 1.6) waits for ever when a task ends in an error of Dask's own, as
    one that has killed several workers does. Dask runs a lost worker's jobs elsewhere.
    """
    from distributed import as_completed

    client = backend.client
    futures = client.map(_work, tasks, pure=False, **backend.submit_kwargs)
    pending = dict(zip(futures, tasks, strict=True))
    del futures  # what is done is let go, so that the cluster needn't hold it
    try:
        for future in as_completed(list(pending)):
            task = pending.pop(future)
            try:
                yield future.result()
            except Exception as error:  # Dask's own: a job that killed its workers
                yield _Outcome.failed(task.index, error)
    finally:
        client.cancel(list(pending))


# --- the sweep and its cache ----------------------------------------------------------


def _run(plan: _Plan, jobs: int | None, progress: bool) -> Sweep:
    """Reads what is kept, runs what is missing, keeps each result as it arrives."""
    found = {task.index: _kept(plan.path(task), task.job) for task in plan.tasks}
    done = {i: outcome for i, outcome in found.items() if outcome}
    missing = [task for task in plan.tasks if task.index not in done]
    failures: dict[int, Failure] = {}
    cached = len(done)
    if missing and plan.folder:
        _check_writable(plan.folder)
    with _bar(plan, cached, progress) as bar:
        for outcome in _outcomes(missing, jobs) if missing else ():
            task = plan.tasks[outcome.index]
            if outcome.records is not None:
                done[task.index] = outcome
                outcome = _keep(plan.path(task), task.job, outcome)
            if outcome.error:
                failure = Failure(task.setting, outcome.error, outcome.traceback)
                failures[task.index] = failure
            bar.update()
    order = sorted(done)
    return Sweep(
        records=_tables.assemble(
            [plan.tasks[i].setting for i in order],
            [_tables.unpack(done[i].records) for i in order],
            plan.names,
        ),
        failures=tuple(failures[i] for i in sorted(failures)),
        files=_files(plan, [i for i in order if i not in failures]),
        ran=len(missing),
        cached=cached,
        seconds=sum(done[i].seconds for i in order),
    )


def _files(plan: _Plan, indices: list[int]) -> tuple[Path, ...]:
    return tuple(plan.path(plan.tasks[i]) for i in indices) if plan.folder else ()


def _message(result: Sweep, plan: _Plan) -> str:
    """Names the failed jobs: ten at most, since all are in the failures."""
    failed, total = result.failures, len(plan.tasks)
    kept = f" and kept in {plan.folder}: a new call runs only what is missing"
    lines = [
        f"{len(failed)} of {total} jobs of the sweep {plan.name!r} failed; the others "
        f"are finished (see .sweep.records){kept if plan.folder else ''}",
        *(f"- {failure}" for failure in failed[:10]),
    ]
    if len(failed) > 10:
        lines.append(f"- and {len(failed) - 10} more (see .sweep.failures)")
    return "\n".join([*lines, "", "The first one's traceback:", failed[0].traceback])


def _bar(plan: _Plan, cached: int, progress: bool) -> Any:
    """A progress bar that vanishes, shown where a sweep takes over two seconds."""
    from tqdm import tqdm

    return tqdm(
        total=len(plan.tasks),
        initial=cached,
        desc=plan.name,
        leave=False,
        delay=2,
        disable=not progress or _display.static_build(),
    )


def _root(cache: str | os.PathLike | None) -> Path:
    """The folder that holds a folder for each sweep."""
    if cache is not None:
        return Path(cache).expanduser()
    import pooch

    return Path(os.environ.get("GVLIB_CACHE") or pooch.os_cache("gvlib")) / "sweeps"


def _check_writable(folder: Path) -> None:
    """Raises where no result could be kept, before anything has run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{uuid.uuid4().hex}.part"
        _write(probe, "")
        probe.unlink()
    except OSError as error:
        raise PermissionError(
            f"can't write results to {folder} ({error.strerror}); set GVLIB_CACHE (or "
            "cache=) to a folder that you may write to, or keep none by cache=False"
        ) from error


def _write(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a crash after the rename leaves no empty file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _keep(path: Path | None, job: _Job, outcome: _Outcome) -> _Outcome:
    """Keeps a result; where the disk refuses, says so (it stays in the records)."""
    stored = {"job": asdict(job), "torch": torch.__version__}
    stored |= {"seconds": outcome.seconds, "records": outcome.records}
    try:
        if path:
            _write(path, _tables.dump(stored))
    except OSError as error:
        return _Outcome.failed(outcome.index, error)
    return outcome


def _kept(path: Path | None, job: _Job) -> _Outcome | None:
    """The result in `path`, or None where there is none or it is no such job's."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if not stored or stored["job"] != asdict(job):
            return None
        _tables.unpack(stored["records"])
        return _Outcome(-1, stored["records"], float(stored["seconds"]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        return None  # altered by something else: the job runs again and replaces it
