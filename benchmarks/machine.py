"""The machine: its name, its clock, and how fast it multiplies matrices at best."""

import os
import platform
import re
import time
from pathlib import Path

import numpy as np
import torch


def clock(device):
    """Seconds so far: on a CPU this process's own, so that others do not count."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def processor(device):
    """The processor's name, as Linux or CUDA gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    found = re.search(
        r"model name\s*:\s*(.+)", info.read_text() if info.exists() else ""
    )
    return found[1].strip() if found else platform.processor() or platform.machine()


def describe(device):
    """What a reader needs to compare with another machine."""
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return {
        "device": device.type,
        "processor": processor(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def _rate(run, flops, device, repeats):
    """The best of several timings, in GFLOP/s; one warm-up."""
    run()
    times = []
    for _ in range(repeats):
        start = clock(device)
        run()
        times.append(clock(device) - start)
    return flops / max(min(times), 1e-9) / 1e9


def peaks(device, *, quick=False):
    """Measured peaks in GFLOP/s: square matrix products and one 3x3 convolution."""
    n = 256 if quick else 1024 if device.type == "cpu" else 8192
    images = 8 if quick else 64 if device.type == "cpu" else 1024
    found = {}
    for name, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(n, n, device=device, dtype=dtype)
        found[f"matmul {name}"] = _rate(lambda a=a: a @ a, 2 * n**3, device, 10)
    x = torch.randn(images, 64, 28, 28, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(64, 64, 3, 3, device=device)
    flops = 2 * x.numel() * 64 * 9
    same = {"padding": 1}
    found["convolution float32"] = _rate(
        lambda: torch.conv2d(x, w, **same), flops, device, 10
    )
    return {name: round(rate, 1) for name, rate in found.items()}
