import json
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import sweep_jobs as jobs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gvlib as gv
from gvlib import _fingerprint, _tables, sweeps
from gvlib.sweeps import SweepError

HERE = Path(__file__).parent


def xs(n, **fixed):
    return [{"x": x, **fixed} for x in range(n)]


@pytest.fixture
def log(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def run(fn, settings, cache, **options):
    options = {"jobs": 1, "progress": False} | options
    return gv.sweep(fn, settings, cache=cache, **options)


# --- results --------------------------------------------------------------------------


def test_records_are_tidy_and_in_the_order_of_the_settings(cache):
    settings = gv.grid(x=[3, 1, 2])
    found = run(jobs.curve, settings, cache).records
    assert list(found.columns) == ["x", "epoch", "loss", "final"]
    assert found["x"].tolist() == [3, 3, 1, 1, 2, 2]
    assert found["loss"].tolist() == [3.0, 1.5, 1.0, 0.5, 2.0, 1.0]
    assert found["final"].tolist() == [1.5, 1.5, 0.5, 0.5, 1.0, 1.0]
    assert found["loss"].dtype == np.float32


def test_results_do_not_depend_on_where_they_ran(cache):
    settings = gv.grid(seed=range(6))
    here = run(jobs.uniform, settings, cache, jobs=1).records
    apart = run(jobs.uniform, settings, False, jobs=2).records
    pd.testing.assert_frame_equal(here, apart)
    alone = [torch.rand((), generator=torch.Generator().manual_seed(s)).item()
             for s in range(6)]  # fmt: skip
    assert here["u"].tolist() == alone


def test_results_read_back_equal_results_fresh(cache):
    fresh = run(jobs.many, xs(2), cache)
    again = run(jobs.many, xs(2), cache)
    assert (fresh.ran, fresh.cached) == (2, 0)
    assert (again.ran, again.cached) == (0, 2)
    assert again.seconds == fresh.seconds
    pd.testing.assert_frame_equal(fresh.records, again.records, check_exact=True)


def test_a_result_keeps_its_values_and_dtypes(cache):
    found = run(jobs.many, xs(2), cache).records.drop(columns="x")
    direct = pd.concat([jobs.many(0), jobs.many(1)], ignore_index=True)
    pd.testing.assert_frame_equal(found, direct, check_exact=True)
    assert np.signbit(found["exact"][1])


def test_files_are_strict_json(cache):
    (file,) = run(jobs.many, xs(1), cache).files

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    stored = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    assert json.loads(stored["job"]["setting"]) == {"x": 0}
    assert stored["job"]["function"] == "sweep_jobs.many"


cells = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text()
)
floats = st.sampled_from([np.float16, np.float32, np.float64])
ints = st.sampled_from([np.int8, np.uint16, np.int64])


@st.composite
def frames(draw):
    n = draw(st.integers(0, 5))
    kind, whole = draw(floats), draw(ints)
    width = np.dtype(kind).itemsize * 8
    low, high = np.iinfo(whole).min, np.iinfo(whole).max
    exact = st.lists(st.floats(width=width), min_size=n, max_size=n)
    counts = st.lists(st.integers(int(low), int(high)), min_size=n, max_size=n)
    mixed = st.lists(cells | st.lists(cells, max_size=3), min_size=n, max_size=n)
    words = st.lists(st.text(), min_size=n, max_size=n)
    return pd.DataFrame(
        {
            "float": np.array(draw(exact), dtype=kind),
            "int": np.array(draw(counts), dtype=whole),
            "any": pd.Series(draw(mixed), dtype=object),
            "text": pd.Series(draw(words), dtype=str),
        }
    )


@given(frames())
@settings(deadline=None, max_examples=200)
def test_any_table_survives_json(frame):
    text = _tables.dump(_tables.pack(frame))
    back = _tables.unpack(json.loads(text))
    assert back.dtypes.tolist() == frame.dtypes.tolist()
    for name in frame:  # repr: NaN equals itself, -0.0 is not 0.0
        assert list(map(repr, back[name])) == list(map(repr, frame[name]))


@pytest.mark.parametrize("dtype", ["Int64", "boolean", "Float64", "string"])
def test_nullable_dtypes_survive(dtype):
    one = {"boolean": True, "string": "1"}.get(dtype, 1)
    frame = pd.DataFrame({"a": pd.array([one, None], dtype=dtype)})
    back = _tables.unpack(json.loads(_tables.dump(_tables.pack(frame))))
    pd.testing.assert_frame_equal(back, frame)


def joined(*results):
    frames = [_tables.records(result) for result in results]
    settings = [{"i": i} for i in range(len(frames))]
    return _tables.assemble(settings, frames, ("i",)).drop(columns="i")


def test_results_of_different_kinds_join():
    steps = joined({"steps": None}, {"steps": 7}, {"steps": 2.5})["steps"]
    assert steps.dtype == float
    np.testing.assert_array_equal(steps, [np.nan, 7, 2.5])
    both = joined({"a": 1}, {"b": "text"})
    assert both["a"].isna().tolist() == [False, True]
    assert both["b"].tolist()[1] == "text"
    mixed = joined({"a": 1}, {"a": True})["a"].tolist()
    assert [type(value) for value in mixed] == [int, bool]  # 1 is not made of True
    assert joined({"a": 1}, {"a": 2})["a"].dtype == int


def test_large_integers_are_not_rounded():
    assert joined({"a": 2**53 + 1}, {"a": 2**60})["a"].tolist() == [2**53 + 1, 2**60]


def test_a_job_without_rows_and_one_with():
    found = joined({"loss": []}, {"loss": [0.5]})
    assert found["loss"].tolist() == [0.5]
    assert list(joined({"loss": []}).columns) == ["loss"]


def test_a_result_may_be_runs_or_a_frame_with_a_named_index():
    frame = pd.DataFrame({"acc": [0.5, 0.6]}, index=pd.Index([10, 20], name="epoch"))
    assert _tables.records(frame).columns.tolist() == ["epoch", "acc"]
    assert _tables.records(types.SimpleNamespace(records=frame)).shape == (2, 2)


def test_a_surface_is_a_list_in_each_row():
    found = _tables.records({"row": [0, 1], "z": np.eye(2)})
    assert found["z"].tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    "result, error, says",
    [
        (None, TypeError, "None of type NoneType; return a dict"),
        ({}, ValueError, "returned {}"),
        ({"a": [1, 2], "b": [1]}, ValueError, "differ in length"),
        ({1: 2}, TypeError, "name each by text"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "not unique"),
    ],
)
def test_results_that_are_no_table_are_refused(result, error, says):
    with pytest.raises(error, match=says):
        _tables.records(result)


@pytest.mark.parametrize(
    "values", [[{1: 2}], [1 + 2j], pd.Categorical(["a"]), [pd.Timestamp(0)]]
)
def test_values_that_json_lacks_are_refused_by_column(values):
    with pytest.raises(TypeError, match="column 'odd' of the result"):
        _tables.pack(pd.DataFrame({"odd": values}))


def test_a_result_that_can_not_be_kept_is_a_failed_job(cache):
    with pytest.raises(SweepError, match="x=0: TypeError: column 'when'"):
        run(jobs.bad, xs(1), cache)


def test_a_result_may_repeat_its_setting_but_not_contradict_it(cache):
    found = run(lambda x: {"x": x, "y": 2}, xs(2), cache).records
    assert found.columns.tolist() == ["x", "y"]
    with pytest.raises(SweepError, match="a column 'x' that differs from"):
        run(lambda x: {"x": x + 1}, xs(1), cache)


# --- settings and functions -----------------------------------------------------------


def test_settings_may_be_numpy_and_torch_scalars():
    setting = {"a": np.int64(3), "b": torch.tensor(0.5), "c": np.bool_(1), "d": [1, 2]}
    plain = {"a": 3, "b": 0.5, "c": True, "d": (1, 2)}
    (found,) = sweeps._settings([setting])
    assert found == plain
    assert [type(value) for value in found.values()] == [int, float, bool, tuple]
    with pytest.raises(ValueError, match="settings 0 and 1 are the same"):
        sweeps._settings([setting, plain])


def test_a_frame_of_settings_keeps_each_columns_type():
    found = sweeps._settings(pd.DataFrame({"seed": [1, 2], "lr": [0.1, 1], "on": True}))
    assert found[1] == {"seed": 2, "lr": 1.0, "on": True}
    assert [type(value) for value in found[1].values()] == [int, float, bool]


@pytest.mark.parametrize(
    "value", [object(), {"a": 1}, {1, 2}, np.zeros(2), torch.zeros(2), Path("x"), 1j]
)
def test_other_setting_values_are_refused_by_name(value, cache):
    with pytest.raises(TypeError, match=r"setting 'x' holds .*; use a number, text"):
        run(jobs.square, [{"x": value}], cache)
    assert not cache.exists()


@pytest.mark.parametrize(
    "settings, error, says",
    [
        ([], ValueError, "settings is empty"),
        ([{"x": 1}, {"x": 2}, {"x": 1}], ValueError, "settings 0 and 2 are the same"),
        (["x"], TypeError, "a setting is 'x'; give dicts"),
        ([{1: 2}], TypeError, "has the name 1; names are text"),
        ([{"y": 1}], TypeError, r"square\(x, log=''\) can't take the setting .*'y'"),
        ([{}], TypeError, "missing a required argument: 'x'"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(settings, error, says, cache):
    with pytest.raises(error, match=says):
        run(jobs.square, settings, cache)
    assert not cache.exists()


@pytest.mark.parametrize("fn", [len, print, jobs, type("C", (), {"__call__": len})()])
def test_only_functions_are_swept(fn, cache):
    with pytest.raises(TypeError, match="give a function made by def or lambda"):
        run(fn, xs(1), cache)


@pytest.mark.parametrize(
    "option, says",
    [({"on_error": "pass"}, "use 'raise' or 'return'"), ({"name": "../a"}, "letters")],
)
def test_bad_options_are_refused(option, says, cache):
    with pytest.raises(ValueError, match=says):
        run(jobs.square, xs(1), cache, **option)


def test_missing_arguments_leave_holes_in_the_frame(cache):
    found = run(jobs.square, [{"x": 1}, {"x": 2, "log": ""}], cache).records
    assert found["log"].isna().tolist() == [True, False]


# --- the cache ------------------------------------------------------------------------


def test_a_job_is_run_once(cache, log):
    run(jobs.square, xs(3, log=str(log)), cache)
    more = run(jobs.square, xs(5, log=str(log)), cache)
    assert (more.ran, more.cached) == (2, 3)
    assert jobs.runs(log) == dict.fromkeys(range(5), 1)
    assert more.records["square"].tolist() == [0, 1, 4, 9, 16]
    assert sorted(more.files) == sorted(cache.rglob("*.json"))
    assert len(set(more.files)) == 5


def test_without_a_cache_nothing_is_kept(cache, log, monkeypatch):
    monkeypatch.setenv("GVLIB_CACHE", str(cache))
    for _ in range(2):
        assert run(jobs.square, xs(1, log=str(log)), False).files == ()
    assert jobs.runs(log) == {0: 2}
    assert not cache.exists()


def test_the_cache_is_where_the_variable_says(cache, monkeypatch):
    monkeypatch.setenv("GVLIB_CACHE", str(cache))
    (file,) = run(jobs.square, xs(1), None, name="mine").files
    assert file.parent == cache / "sweeps" / "mine"


def key(fn=jobs.square, x=1, version=""):
    return sweeps._plan(fn, [{"x": x}], "unused", "name", version).tasks[0].job


def test_the_key_follows_setting_version_scale_and_gvlib(monkeypatch):
    keys = [key(), key(x=2), key(x=1.0), key(x=True), key(x="1"), key(version="2")]
    monkeypatch.setenv("GV_SCALE", "full")
    keys.append(key())
    monkeypatch.setattr(_fingerprint, "gvlib_hash", lambda: "9.9.9")
    keys.append(key())
    assert len({_tables.digest(sweeps.asdict(k)) for k in keys}) == len(keys)
    monkeypatch.undo()
    assert key() == keys[0]


def test_what_only_draws_is_no_part_of_a_result():
    names = {p.stem for p in Path(_fingerprint.__file__).parent.glob("*.py")}
    assert names >= _fingerprint._NO_PART_OF_A_RESULT
    computing = {"data", "losses", "models", "population", "train", "sweeps"}
    assert not computing & _fingerprint._NO_PART_OF_A_RESULT


def made(source, name="job"):
    """A function out of source text, as a module of its own."""
    module = types.ModuleType("made")
    exec(compile(source, "made.py", "exec"), vars(module))
    return vars(module)[name]


JOB = """
import torch
from functools import wraps, partial, lru_cache
from dataclasses import dataclass
WIDTH = 3
TABLE = {"a": [1, 2], "b": {3}}
WEIGHTS = torch.ones(2)
NET = torch.nn.Linear(1, 1, bias=False)
torch.nn.init.ones_(NET.weight)
def outer(f):
    @wraps(f)
    def inner(*a): return f(*a)
    return inner
class Model:
    depth = 2
    @staticmethod
    def size(x): return x * 2
    @property
    def half(self): return 1
@lru_cache
def cached(x): return x + 1
@torch.no_grad()
def helper(x): return x + WIDTH
@outer
def wrapped(x): return x + 5
add = partial(helper, 3)
def job(x, k=4):
    # a comment
    return {"y": [helper(x), wrapped(x), cached(x), Model.size(x), TABLE, WEIGHTS,
                  NET, add, [v for v in range(k) if v in {7, 8}]]}
"""


@pytest.mark.parametrize(
    "old, new",
    [
        ("range(k)", "range(1, k)"),
        ("k=4", "k=5"),
        ("in {7, 8}", "in {7, 9}"),
        ("WIDTH = 3", "WIDTH = 4"),
        ("[1, 2]", "[2, 1]"),
        ("torch.ones(2)", "torch.ones(2, dtype=torch.bfloat16)"),
        ("torch.ones(2)", "torch.ones(2) * 2"),
        ("init.ones_", "init.zeros_"),
        ("x + WIDTH", "x - WIDTH"),
        ("x + 5", "x + 6"),
        ("return f(*a)", "return 2 * f(*a)"),
        ("depth = 2", "depth = 3"),
        ("return x * 2", "return x * 3"),
        ("half(self): return 1", "half(self): return 2"),
        ("return x + 1", "return x + 2"),
        ("partial(helper, 3)", "partial(helper, 4)"),
    ],
)
def test_the_key_follows_the_source_and_what_it_reads(old, new):
    assert old in JOB
    assert key(made(JOB)) != key(made(JOB.replace(old, new)))


@pytest.mark.parametrize(
    "old, new",
    [
        ("# a comment", "# another comment"),
        ("WIDTH = 3", "\n\nWIDTH = 3"),
        ("WIDTH = 3", "WIDTH = 3\nNOT_READ = 1"),
    ],
)
def test_the_key_does_not_follow_what_does_not_matter(old, new):
    assert key(made(JOB)) == key(made(JOB.replace(old, new)))


def test_the_key_is_the_same_in_every_process():
    script = "import test_sweeps as t; print(t.key(t.made(t.JOB)).code)"
    found = set()
    for seed in "12":  # of str hashes: the order of sets
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path()}
        call = [sys.executable, "-c", script]
        found.add(subprocess.run(call, env=env, capture_output=True, text=True).stdout)
    assert found == {key(made(JOB)).code + "\n"}


def path():
    return os.pathsep.join([str(HERE.parent), str(HERE)])


def closure(width):
    return lambda x: {"y": x * width}


def test_closures_are_told_apart_by_what_they_enclose(cache):
    assert key(closure(2)) == key(closure(2)) != key(closure(3))
    assert run(closure(2), xs(3), cache, jobs=2).records["y"].tolist() == [0, 2, 4]
    assert run(closure(3), xs(3), cache, jobs=2).records["y"].tolist() == [0, 3, 6]


@pytest.mark.parametrize(
    "state", ["torch.Generator()", "open('/dev/null')", "object()", "iter([1])"]
)
def test_hidden_state_is_refused(state, cache):
    fn = made(f"import torch\nSTATE = {state}\ndef job(x): return {{'y': STATE}}")
    with pytest.raises(TypeError, match=r"job uses .*whose state can't be hashed"):
        run(fn, xs(1), cache)
    if hasattr(fn.__globals__["STATE"], "close"):
        fn.__globals__["STATE"].close()


def test_a_worker_with_another_source_says_so(monkeypatch):
    monkeypatch.setattr(jobs, "FACTOR", 2)  # here, but in no worker
    with pytest.raises(SweepError, match=r"this worker has another sweep_jobs.helped"):
        run(jobs.helped, xs(2), False, jobs=2)


@pytest.mark.parametrize("change", ["cut", "text", "other job", "no table"])
def test_an_altered_result_is_run_again_and_replaced(change, cache, log):
    settings = xs(2, log=str(log))
    first, second = run(jobs.square, settings, cache).files
    whole = first.read_text()
    changed = {
        "cut": whole[:-20],
        "text": "",
        "other job": second.read_text(),
        "no table": whole.replace('"rows":1', '"rows":7'),
    }
    first.write_text(changed[change])
    again = run(jobs.square, settings, cache)
    assert again.records["square"].tolist() == [0, 1]
    assert jobs.runs(log) == {0: 2, 1: 1}
    assert json.loads(first.read_text())["records"] == json.loads(whole)["records"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_result_is_written_whole_or_not_at_all(step, cache, log, monkeypatch):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    real, settings = sweeps._check_writable, xs(2, log=str(log))

    def then_full(folder):
        real(folder)
        monkeypatch.setattr(os, step, refuse)

    monkeypatch.setattr(sweeps, "_check_writable", then_full)
    with pytest.raises(SweepError, match=r"x=0.*No space left on device") as caught:
        run(jobs.square, settings, cache)
    assert list(cache.rglob("*.*")) == []  # neither a result nor a part of one
    assert caught.value.sweep.records["square"].tolist() == [0, 1]
    monkeypatch.undo()
    assert run(jobs.square, settings, cache).ran == 2


def test_a_cache_in_the_way_of_a_file_is_named(tmp_path, log):
    (tmp_path / "file").touch()
    with pytest.raises(PermissionError, match=r"can't write results to .*GVLIB_CACHE"):
        run(jobs.square, xs(1, log=str(log)), tmp_path / "file" / "cache")
    assert jobs.runs(log) == {}


def test_a_read_only_cache_is_named_but_may_be_read(cache, log, monkeypatch):
    settings = xs(2, log=str(log))
    run(jobs.square, settings[:1], cache)

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sweeps, "_write", refuse)  # root may write everywhere
    with pytest.raises(
        PermissionError, match=r"\(Permission denied\); set GVLIB_CACHE"
    ):
        run(jobs.square, settings, cache)
    assert jobs.runs(log) == {0: 1}
    assert run(jobs.square, settings[:1], cache).cached == 1


# --- running --------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_job_is_named_and_the_others_finish(workers, cache, log):
    settings = xs(5, log=str(log))
    with pytest.raises(SweepError) as caught:
        run(jobs.fails_at_2, settings, cache, jobs=workers)
    says = str(caught.value)
    assert "1 of 5 jobs of the sweep 'fails_at_2' failed" in says
    assert "- x=2, log=" in says
    assert "ValueError: 2 is too much" in says
    assert 'raise ValueError("2 is too much' in says  # the line, by its traceback
    found = caught.value.sweep
    assert found.records["square"].tolist() == [0, 1, 9, 16]
    assert [f.setting["x"] for f in found.failures] == [2]
    run(jobs.fails_at_2, settings, cache, jobs=workers, on_error="return")
    assert jobs.runs(log) == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}  # only the failed one again


def test_failures_can_be_returned(cache):
    found = run(jobs.exits, xs(3), cache, on_error="return")
    assert [f.error for f in found.failures] == ["SystemExit: 3"]
    assert found.records["x2"].tolist() == [0, 4]
    assert repr(found) == "Sweep(2 records; 3 jobs run, 0 from the cache, 1 failed)"


def test_many_failures_are_not_all_printed(cache):
    with pytest.raises(SweepError, match="- and 2 more") as caught:
        run(lambda x: 1 / 0, xs(12), cache)
    assert len(caught.value.sweep.failures) == 12
    assert caught.value.sweep.records.columns.tolist() == ["x"]


def test_a_job_that_kills_its_worker_is_named_and_the_others_finish(cache, log):
    settings = xs(7, log=str(log))
    found = run(jobs.dies_at_2, settings, cache, jobs=2, on_error="return")
    assert [f.setting["x"] for f in found.failures] == [2]
    assert "its process died twice" in found.failures[0].error
    assert found.records["square"].tolist() == [0, 1, 9, 16, 25, 36]
    assert len(list(cache.rglob("*.json"))) == 6


def test_a_worker_killed_from_outside_costs_nothing(cache, log):
    found = run(jobs.dies_once, xs(7, log=str(log)), cache, jobs=2)
    assert found.records["square"].tolist() == [x * x for x in range(7)]


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_see_one_thread_and_the_sweeps_scale(workers, monkeypatch):
    monkeypatch.setenv("GV_SCALE", "full")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = run(jobs.conditions, xs(4), False, jobs=workers).records
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(found["threads"]) == {1}
    assert set(found["scale"]) == {"full"}
    assert (os.getpid() in set(found["pid"])) == (workers == 1)


def test_the_scale_is_restored(monkeypatch):
    monkeypatch.delenv("GV_SCALE", raising=False)
    run(jobs.conditions, xs(1), False)
    assert "GV_SCALE" not in os.environ


def test_jobs_leave_the_global_random_state_alone():
    state = torch.get_rng_state()
    run(jobs.uniform, gv.grid(seed=[0, 1]), False)
    assert torch.equal(state, torch.get_rng_state())


def test_different_architectures(cache):
    found = run(jobs.sizes, gv.grid(width=[1, 2, 4]), cache, jobs=2)
    assert found.records["parameters"].tolist() == [2, 6, 20]


@pytest.mark.parametrize("backend", ["threading", "multiprocessing", "loky"])
def test_parallel_config_chooses_the_backend(backend, log):
    with joblib.parallel_config(backend, n_jobs=2):
        found = run(jobs.slow, xs(9, log=str(log), seconds=0.0), False, jobs=None)
    assert found.records["square"].tolist() == [x * x for x in range(9)]
    pids = {int(file.name.split("-")[1]) for file in log.iterdir()}
    assert (pids == {os.getpid()}) == (backend == "threading")


def test_the_bar_vanishes_and_is_off_while_the_book_is_built(capfd, monkeypatch):
    run(jobs.square, xs(2), False, progress=True)
    assert capfd.readouterr() == ("", "")
    plan = sweeps._plan(jobs.square, xs(2), False, None, "")
    assert not sweeps._bar(plan, 0, True).disable
    monkeypatch.setenv("GV_STATIC", "1")
    assert sweeps._bar(plan, 0, True).disable


INTERRUPTED = """
import sys, gvlib as gv, sweep_jobs as jobs
cache, log, workers = sys.argv[1:]
settings = [{"x": x, "log": log} for x in range(12)]
try:
    gv.sweep(jobs.slow, settings, cache=cache, jobs=int(workers), progress=False)
except KeyboardInterrupt:
    sys.exit(77)
"""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_resumes(workers, how, cache, log):
    call = [sys.executable, "-c", INTERRUPTED, str(cache), str(log), str(workers)]
    env = os.environ | {"PYTHONPATH": path()}
    process = subprocess.Popen(call, env=env, start_new_session=True,
                               stderr=subprocess.PIPE)  # fmt: skip
    with process:
        try:
            wait_for(lambda: len(list(cache.rglob("*.json"))) >= 3)
        finally:
            os.killpg(process.pid, how)  # as Ctrl-C does: it and its workers
        process.stderr.read()
    assert process.returncode == (77 if how == signal.SIGINT else -how)
    kept = {json.loads(f.read_text())["job"]["setting"] for f in cache.rglob("*.json")}
    kept = {json.loads(setting)["x"] for setting in kept}
    before = jobs.runs(log)
    assert 3 <= len(kept) < 12
    found = run(jobs.slow, xs(12, log=str(log)), cache, jobs=2)
    assert found.cached == len(kept)
    assert found.records["square"].tolist() == [x * x for x in range(12)]
    after = jobs.runs(log)
    assert {x: after[x] for x in kept} == {x: before[x] for x in kept}
    assert all(after[x] == before.get(x, 0) + 1 for x in range(12) if x not in kept)


# --- a Dask cluster -------------------------------------------------------------------


@contextmanager
def dask_cluster():
    """Two worker processes, as parallel_config("dask") finds them."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True}
    with (
        distributed.LocalCluster(**options, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def watched_sweep(fn, settings, cache, act):
    """A sweep on Dask; act(n) is called as soon as n results have been kept."""
    keep, kept = sweeps._keep, []

    def watched(*args):
        kept.append(keep(*args))
        act(len(kept))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch, joblib.parallel_config("dask"):
        patch.setattr(sweeps, "_keep", watched)
        return run(fn, settings, cache, jobs=None)


def test_a_dask_worker_killed_in_mid_sweep_costs_nothing(cache, log):
    settings, started = xs(16, log=str(log), seconds=0.2), []
    with dask_cluster() as client:
        pids = set(client.run(os.getpid).values())

        def kill_one(kept):
            if kept == 4:  # the worker that was the last to start a job
                started.extend(sorted(log.iterdir(), key=os.path.getmtime))
                os.kill(int(started[-1].name.split("-")[1]), signal.SIGKILL)

        found = watched_sweep(jobs.slow, settings, cache, kill_one)
    assert 4 <= len(started) < 16  # it was killed in mid-sweep
    assert found.failures == ()
    assert found.records["square"].tolist() == [x * x for x in range(16)]
    assert sorted(found.files) == sorted(cache.rglob("*.json"))
    assert len(found.files) == 16
    ran_on = {int(file.name.split("-")[1]) for file in log.iterdir()}
    assert int(started[-1].name.split("-")[1]) in pids & ran_on
    assert len(ran_on) > 1
    assert os.getpid() not in ran_on
    again = run(jobs.slow, settings, cache)
    assert (again.ran, again.cached) == (0, 16)
    pd.testing.assert_frame_equal(again.records, found.records)


def test_an_error_of_dasks_own_is_a_failed_job(cache, log):
    """The Dask backend of joblib would wait for ever for a job that kills workers."""
    dask = pytest.importorskip("dask")
    settings = xs(5, log=str(log))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        dask_cluster(),
        joblib.parallel_config("dask"),
    ):
        found = run(jobs.dies_at_2, settings, cache, jobs=None, on_error="return")
    failed = [failure.setting["x"] for failure in found.failures]
    assert 2 in failed
    assert all("KilledWorker" in failure.error for failure in found.failures)
    assert found.records["x"].tolist() == [x for x in range(5) if x not in failed]
