"""Jobs of test_sweeps.py, in a module of their own that worker processes import."""

import os
import signal
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import torch

FACTOR = 1


def helper(x):
    return 10 * x * FACTOR


def mark(log, x):
    """Leaves a file in `log`: one for every time that a job was started."""
    (Path(log) / f"{x}-{os.getpid()}-{uuid.uuid4().hex}").touch()


def runs(log):
    """How often each job was started."""
    started = [int(file.name.split("-")[0]) for file in Path(log).iterdir()]
    return {x: started.count(x) for x in sorted(set(started))}


def square(x, log=""):
    if log:
        mark(log, x)
    return {"square": x * x}


def slow(x, log, seconds=0.3):
    mark(log, x)
    time.sleep(seconds)
    return {"square": x * x}


def helped(x):
    return {"y": helper(x)}


def fails_at_2(x, log):
    mark(log, x)
    if x == 2:
        raise ValueError("2 is too much\nfor this job")
    return {"square": x * x}


def dies_at_2(x, log):
    mark(log, x)
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": x * x}


def dies_once(x, log):
    mark(log, x)
    if x == 2 and runs(log)[2] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": x * x}


def exits(x):
    if x == 1:
        sys.exit(3)
    return {"x2": 2 * x}


def many(x):
    """One value of each kind that a result may hold."""
    return pd.DataFrame(
        {
            "epoch": np.arange(3, dtype=np.int32),
            "loss": np.array([x / 3, np.nan, -np.inf], dtype=np.float32),
            "exact": [0.1 + x, -0.0, 5e-324],
            "ok": [True, False, x > 0],
            "text": ["a", "µ", 'quote " and \n'],
            "mixed": [None, [1.5, float("inf")], "b"],
            "never": [None, None, None],
        }
    )


def curve(x):
    return {"epoch": [0, 1], "loss": torch.tensor([1.0, 0.5]) * x, "final": 0.5 * x}


def conditions(x):
    """What a job sees around it."""
    return {
        "threads": torch.get_num_threads(),
        "scale": os.environ.get("GV_SCALE"),
        "pid": os.getpid(),
    }


def uniform(seed):
    generator = torch.Generator().manual_seed(seed)
    return {"u": torch.rand((), generator=generator)}


def sizes(width):
    net = torch.nn.Linear(width, width)
    return {"parameters": sum(p.numel() for p in net.parameters())}


def bad(x):
    return {"when": pd.Timestamp("2024-01-01")}
