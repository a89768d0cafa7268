"""What the tests of compiled experiments share: a run in node, and torch's own."""

import base64
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gvlib.live import Experiment, Program
from gvlib.playground import Playground

RUNNER = Path(__file__).parent / "live_run.mjs"


def needs(what: str, found: bool) -> None:
    """Skip without it; where CI runs, its absence is a failure."""
    if not found:
        stop = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        stop(f"{what} is not installed: compiled experiments were NOT tested")


def packed(values: torch.Tensor) -> str:
    """A tensor's bytes as the browser takes them, in base64."""
    dtype = np.float32 if values.is_floating_point() else np.int32
    return base64.b64encode(values.numpy().astype(dtype).tobytes()).decode()


def job(program: Program, sizes: dict, tensors: dict, call: list, get: list) -> dict:
    """One run: sizes, inputs, calls [[function, repeats]], and what to read after."""
    return {
        "wasm": base64.b64encode(program.wasm).decode(),
        "spec": program.spec,
        "sizes": sizes,
        "set": {
            n: packed(t) for n, t in tensors.items() if n in program.spec["tensors"]
        },
        "call": call,
        "get": get,
    }


def unpacked(answer: dict, spec: dict, sizes: dict) -> dict[str, torch.Tensor]:
    """What a run gave, as tensors."""
    found = {}
    for name, text in answer.items():
        if name == "calls":
            continue
        tensor = spec["tensors"][name]
        dtype = np.float32 if tensor["dtype"] == "f32" else np.int32
        flat = np.frombuffer(base64.b64decode(text), dtype).copy()
        shape = [sizes.get(s, s) for s in tensor["shape"]]
        found[name] = torch.from_numpy(flat).reshape(shape)
    return found


def in_node(jobs: list[dict]) -> list[dict]:
    """Each job's answer: tensors, and under "calls" how often each function ran."""
    needs("node", shutil.which("node") is not None)
    done = subprocess.run(
        ["node", str(RUNNER)], input=json.dumps(jobs), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [
        unpacked(a, j["spec"], j["sizes"]) | {"calls": a["calls"]}
        for a, j in zip(json.loads(done.stdout), jobs, strict=True)
    ]


def wide(tensors: dict) -> dict:
    """The same in float64."""
    return {n: t.double() if t.is_floating_point() else t for n, t in tensors.items()}


def in_torch(lab: Experiment, tensors: dict, function: str, repeats: int) -> dict:
    """All tensors after this many calls of a function in torch."""
    tensors = dict(tensors)
    for _ in range(repeats):
        tensors |= lab.call(function, tensors)
    return tensors


def gap(ours: torch.Tensor, single: torch.Tensor, double: torch.Tensor) -> float:
    """Our distance from torch's float32 in units of what is allowed.

    Allowed is 1e-5 of the largest value or, where the computation itself is more
    sensitive than that, 4 times torch's own distance from its float64.
    """
    assert ours.shape == single.shape, (ours.shape, single.shape)
    ours, single, double = ours.double(), single.double(), double.double()
    if not ours.numel():
        return 0.0
    if not torch.isfinite(double).all():
        same = torch.isnan(ours) == torch.isnan(single)
        return 0.0 if bool(same.all()) else float("inf")
    allowed = max(1e-5 * double.abs().max(), 4 * (single - double).abs().max(), 1e-30)
    return float((ours - single).abs().max() / allowed)


def joined(tensors: dict, names: list[str]) -> torch.Tensor:
    """Several tensors as one list of numbers."""
    return torch.cat([tensors[n].flatten().double() for n in names])


def nudged(tensors: dict, names: list[str], seed: int) -> dict:
    """The same with these tensors' last bits changed at random."""
    g = torch.Generator().manual_seed(seed)
    half = 2.0**-24  # of a unit in the last place
    move = lambda t: t * (1 + half * torch.randn(t.shape, generator=g))  # noqa: E731
    return tensors | {n: move(tensors[n]) for n in names}


def agrees(lab: Experiment, step: str, tensors: dict, found: dict, names: list) -> bool:
    """Whether states after 100 steps are torch's, as far as torch agrees with itself.

    Allowed is what `gap` allows. Where a single unit of a ReLU changes sides, training
    is chaotic and one float64 run doesn't show it: then torch's own distance is the
    largest over 24 runs whose first weights differ in their last bits.
    """
    single = joined(in_torch(lab, tensors, step, 100), names)
    double = joined(in_torch(lab, wide(tensors), step, 100), names)
    ours = joined(found, names)
    if gap(ours, single, double) <= 1:
        return True
    runs = (in_torch(lab, nudged(tensors, names, k), step, 100) for k in range(24))
    own = max(float((joined(run, names) - double).abs().max()) for run in runs)
    return float((ours - double).abs().max()) <= 4 * own


# ---- a page's Playground at random settings ------------------------------------------

# The same program, with the module that the page itself loads.
IN_BROWSER = """async (jobs) => {
  const { Program } = await import("./static/playground.js");
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const answers = [];
  for (const job of jobs) {
    const program = new Program(await WebAssembly.compile(bytes(job.wasm)), job.spec);
    program.resize(job.sizes);
    for (const [name, text] of Object.entries(job.set)) {
      const array = job.spec.tensors[name].dtype === "f32" ? Float32Array : Int32Array;
      program.set(name, new array(bytes(text)));
    }
    const calls = job.call.map(([name, repeats]) => program.call(name, repeats));
    const found = { calls };
    for (const name of job.get) {
      const view = new Uint8Array(program.get(name).slice().buffer);
      found[name] = btoa(String.fromCharCode(...view));
    }
    answers.push(found);
  }
  return answers;
}"""


@functools.cache
def random_jobs(view: Playground, count: int = 20) -> list[tuple[dict, dict]]:
    """(first tensors, job of 100 steps) at random positions of all sliders."""
    draw, spec, found = np.random.default_rng(0), view.program.spec, []
    train = spec["functions"]["train"]
    states = [n for n in train["outputs"] if n in train["inputs"]]
    while len(found) < count:
        setting = {s["name"]: draw.choice(s["values"]).item() for s in view.sliders}
        tensors = view.tensors(**setting)
        after = in_torch(view.lab, tensors, "train", 100)
        if not all(torch.isfinite(after[n]).all() for n in states):
            continue  # it diverged: no numbers to compare
        sizes = {"g": 512}
        for name, tensor in tensors.items():
            shape = spec["tensors"][name]["shape"]
            sizes |= dict(zip(shape, tensor.shape, strict=True))
        sizes = {s: sizes[s] for s in spec["sizes"]}
        found.append(
            (tensors, job(view.program, sizes, tensors, [["train", 100]], states))
        )
    return found


def check_settings(view: Playground, run: Callable) -> None:
    """States after 100 steps of `run` are torch's, for 20 random settings."""
    begun, jobs = zip(*random_jobs(view), strict=True)
    for tensors, a_job, found in zip(begun, jobs, run(list(jobs)), strict=True):
        assert agrees(view.lab, "train", tensors, found, a_job["get"])


def same_bits(page: Any, view: Playground) -> None:
    """Chromium, in this page beside static/, ends with node's bits."""
    jobs = [a_job for _, a_job in random_jobs(view)]
    answers = page.evaluate(IN_BROWSER, jobs)
    for a_job, ours, theirs in zip(jobs, answers, in_node(jobs), strict=True):
        found = unpacked(ours, a_job["spec"], a_job["sizes"])
        for name in a_job["get"]:
            assert found[name].numpy().tobytes() == theirs[name].numpy().tobytes()
