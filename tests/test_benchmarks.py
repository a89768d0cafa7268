"""The benchmarks run and write what they promise; how fast they are is not tested."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from live_tools import needs

import gvlib as gv
from benchmarks import loops, report
from benchmarks.families import FAMILIES
from benchmarks.measure import Stopwatch
from gvlib.models import MLP

ROOT = Path(__file__).resolve().parent.parent


def bench(*words):
    command = [sys.executable, "-m", "benchmarks", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A run of everything at its smallest: what it printed, and the file it wrote."""
    folder = tmp_path_factory.mktemp("results")
    done = bench("--quick", "--device", "cpu", "--out", folder)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    assert path.parent == folder
    return done.stdout, path


def test_the_file_holds_every_family_way_and_ratio(quick):
    found = json.loads(quick[1].read_text())
    assert found["machine"]["versions"]["torch"] == torch.__version__
    assert found["machine"]["threads"] == 1
    assert all(peak > 0 for peak in found["peaks_gflops"].values())
    assert [f["name"] for f in found["families"]] == [f.name for f in FAMILIES]
    for family in found["families"]:
        by_name = {way["way"]: way for way in family["ways"]}
        assert by_name["tight loop"]["times tight loop"] == 1
        assert by_name["tutorial loop"]["times tutorial loop"] == 1
        assert "population" in by_name
        for way in family["ways"]:
            assert way["steps_per_second"] > 0
            assert way["gflops"] >= 0


def test_the_table_has_a_line_a_way(quick):
    printed, path = quick
    found = json.loads(path.read_text())
    text = path.with_suffix(".md").read_text()
    assert text in printed
    assert text == report.table(found)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + sum(len(f["ways"]) for f in found["families"])


def test_steps_for_the_browser_are_measured(tmp_path):
    needs("node", shutil.which("node") is not None)
    needs("ziglang", importlib.util.find_spec("ziglang") is not None)
    command = [sys.executable, "-m", "benchmarks.live", "--quick", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "live.json").read_text())
    assert found["quick"] is True
    ways = {"gvlib.live", "torch, eager", "plain JavaScript"}
    for result in found["results"]:
        assert set(result["rates"]) == ways
        assert all(rate > 0 for rate in result["rates"].values())
        assert result["redraws"] > 0


def test_make_runs_every_benchmark():
    done = subprocess.run(
        ["make", "--dry-run", "bench"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    files = (ROOT / "benchmarks").glob("*.py")
    scripts = [p for p in files if 'if __name__ == "__main__"' in p.read_text()]
    named = re.search(r"for name in (.*); do", done.stdout)[1].split()
    modules = {f"benchmarks.{p.stem}".removesuffix(".__main__") for p in scripts}
    assert set(named) == modules


def test_an_unknown_family_and_no_turns_are_refused():
    done = bench("--quick", "--only", "huge")
    assert done.returncode != 0
    assert "no family has 'huge' in its name" in done.stderr
    done = bench("--repeats", "0")
    assert done.returncode != 0
    assert "--repeats is 0" in done.stderr


def test_flops_of_a_small_mlp_are_counted():
    layers = 2 * 32 + 32 * 32 + 32 * 2
    inputs = 32 * 32 + 32 * 2  # the first layer's input needs no gradient
    assert FAMILIES[0].flops() == 2 * 64 * (2 * layers + inputs)


@pytest.mark.parametrize("chunk", [3, 2])
def test_the_stopwatch_times_all_but_the_first_epoch_of_each_chunk(chunk):
    reads = []
    population = gv.Population(lambda: MLP(2, 3, 2), {"seed": range(3)}, device="cpu")
    data = gv.data.moons(40, noise=0.1, seed=0)
    watch = Stopwatch(4, 2, lambda: reads.append(0) or float(len(reads)))
    gv.train(population, data, epochs=3, batch=10, schedule=watch, chunk=chunk)
    assert watch.step == 0
    assert len(reads) == 2 * -(-3 // chunk)
    assert watch.seconds == -(-3 // chunk)  # this clock goes on by 1 a read
    assert watch.steps == 7  # from the start of step 4 to the start of step 11


def test_the_two_loops_train_the_same_number_of_steps(monkeypatch):
    steps = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self, *a: steps.append(0) or step(self, *a)
    )
    data = gv.data.moons(40, noise=0.1, seed=0)
    run = partial(
        loops.tight, lambda: MLP(2, 3, 2), data.x, data.y, batch=16, clock=lambda: 0.0
    )
    assert run(networks=2, epochs=3) == 0
    assert len(steps) == 2 * 4 * 3
    steps.clear()
    partial(loops.tutorial, *run.args, **run.keywords)(networks=2, epochs=3)
    assert len(steps) == 2 * 4 * 3
