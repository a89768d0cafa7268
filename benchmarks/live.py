"""Training steps in the browser's engine, per CPU-second of one thread.

    python -m benchmarks.live [--quick]                # ours, torch, plain JavaScript
    npm install --prefix F onnxruntime-web@1.30.0 @tensorflow/tfjs@4.22.0 \
        @tensorflow/tfjs-backend-wasm@4.22.0
    python -m benchmarks.live --npm F                  # and those; needs pip's onnx

Needs node and ziglang. Every way starts from the same numbers, and after five steps all
must have the same first layer. The ways take turns; a rate is the median of its turns.
"""

import argparse
import base64
import gzip
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NETWORKS = {
    "2-64-64-2, batch 256": {"d": 2, "h": 64, "h2": 64, "c": 2, "n": 256},
    "784-128-10, batch 128": {"d": 784, "h": 128, "c": 10, "n": 128},
}
RATES = {"lr": 0.05, "momentum": 0.9, "decay": 1e-3}
NODE_WAYS = {
    "gvlib.live": "compiled",
    "onnxruntime-web": "onnx",
    "TensorFlow.js": "tfjs",
    "plain JavaScript": "plain",
}


def shapes_of(sizes):
    """Shapes of the parameters, by words and by numbers."""
    widths = [w for w in ("d", "h", "h2", "c") if w in sizes]
    words = {}
    for k, (i, o) in enumerate(itertools.pairwise(widths), 1):
        words |= {f"w{k}": f"{i} {o}", f"b{k}": o}
    return words, {k: [sizes[w] for w in v.split()] for k, v in words.items()}


def net(params, x):
    """Linear layers with ReLU between them."""
    import torch

    last = len(params) // 2
    for k in range(1, last + 1):
        x = x @ params[f"w{k}"] + params[f"b{k}"]
        x = torch.relu(x) if k < last else x
    return x


def train(params, velocity, x, y, lr, momentum, decay):
    """SGD with momentum and weight decay on the whole batch."""
    import torch
    import torch.nn.functional as F

    loss_of = lambda p: F.cross_entropy(net(p, x), y)  # noqa: E731
    slopes, loss = torch.func.grad_and_value(loss_of)(params)
    velocity = {
        k: momentum * velocity[k] + g + decay * params[k] for k, g in slopes.items()
    }
    params = {k: params[k] - lr * velocity[k] for k in slopes}
    return {"params": params, "velocity": velocity, "loss": loss}


def predict(params, grid):
    """Logits on a grid."""
    return {"logits": net(params, grid)}


def start(sizes, shapes):
    """Data and first parameters."""
    import torch

    g = torch.Generator().manual_seed(0)
    draw = lambda s: torch.randn(s, generator=g) * (2 / s[0]) ** 0.5 * (len(s) > 1)  # noqa: E731
    params = {k: draw(s) for k, s in shapes.items()}
    x = torch.randn(sizes["n"], sizes["d"], generator=g)
    y = torch.randint(sizes["c"], (sizes["n"],), generator=g)
    return params, x, y


def in_torch(params, x, y, seconds):
    """Steps per CPU-second of torch, eager, one thread; and the check sum."""
    import torch

    torch.set_num_threads(1)
    velocity = {k: torch.zeros_like(p) for k, p in params.items()}
    rates = {k: torch.tensor(v) for k, v in RATES.items()}
    count, began = 0, None
    while began is None or time.process_time() - began < seconds:
        out = train(params, velocity, x, y, **rates)
        params, velocity = out["params"], out["velocity"]
        count += 1
        if count == 5:
            total = float(params["w1"].abs().sum())
        if count == 25:
            began = time.process_time()
    return {"steps": count - 25, "seconds": time.process_time() - began, "sum": total}


def graph(sizes, shapes, path):
    """The same step as an ONNX graph, its gradient written out by hand."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    layers, nodes = len(shapes) // 2, []
    add = lambda kind, ins, out, **more: nodes.append(  # noqa: E731
        helper.make_node(kind, ins, [out], **more)
    )
    for k in range(1, layers + 1):
        source = "x" if k == 1 else f"a{k - 1}"
        add("Gemm", [source, f"w{k}", f"b{k}"], f"z{k}")
        if k < layers:
            add("Relu", [f"z{k}"], f"a{k}")
    add("Softmax", [f"z{layers}"], "p", axis=1)
    add("Sub", ["p", "y"], "wrong")
    add("Div", ["wrong", "batch"], f"g{layers}")
    for k in range(layers, 0, -1):
        source = "x" if k == 1 else f"a{k - 1}"
        add("Gemm", [source, f"g{k}"], f"w{k}_slope", transA=1)
        add("ReduceSum", [f"g{k}", "rows"], f"b{k}_slope", keepdims=0)
        if k > 1:
            add("Gemm", [f"g{k}", f"w{k}"], f"back{k}", transB=1)
            add("Greater", [f"a{k - 1}", "zero"], f"on{k}")
            add("Where", [f"on{k}", f"back{k}", "zero"], f"g{k - 1}")
    for name in shapes:
        add("Mul", [f"v_{name}", "momentum"], f"{name}_1")
        add("Mul", [name, "decay"], f"{name}_2")
        add("Sum", [f"{name}_1", f"{name}_2", f"{name}_slope"], f"v_{name}_new")
        add("Mul", [f"v_{name}_new", "lr"], f"{name}_3")
        add("Sub", [name, f"{name}_3"], f"{name}_new")

    def real(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    known = {**RATES, "batch": sizes["n"], "zero": 0.0}
    constants = [numpy_helper.from_array(np.float32(v), k) for k, v in known.items()]
    constants.append(numpy_helper.from_array(np.array([0]), "rows"))
    states = {**shapes, **{f"v_{k}": s for k, s in shapes.items()}}
    ins = [real("x", [sizes["n"], sizes["d"]]), real("y", [sizes["n"], sizes["c"]])]
    made = helper.make_graph(
        nodes,
        "step",
        ins + [real(k, s) for k, s in states.items()],
        [real(f"{k}_new", s) for k, s in states.items()],
        constants,
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    checker.check_model(model)
    save(model, path)


def prepare(folder, sizes, seconds, with_onnx):
    """Compile, draw the first numbers, write all that node reads."""
    from gvlib.live import Experiment

    words, shapes = shapes_of(sizes)
    rates = dict.fromkeys(RATES, "")
    lab = Experiment(
        "bench", [train, predict], params=words, velocity=words,
        x="n d", y="n int", grid="g d", **rates,
    )  # fmt: skip
    program = lab.build()
    wasm, spec = program.save(folder)
    params, x, y = start(sizes, shapes)
    coded = lambda t: base64.b64encode(t.numpy().tobytes()).decode()  # noqa: E731
    import torch

    zeros = {f"velocity.{k}": torch.zeros_like(p) for k, p in params.items()}
    tensors = {**{f"params.{k}": p for k, p in params.items()}, **zeros, "x": x}
    tensors |= {k: torch.tensor(v) for k, v in RATES.items()} | {"y": y.to(torch.int32)}
    job = {
        "sizes": sizes,
        "set": {k: coded(t) for k, t in tensors.items()},
        "shapes": {f"params.{k}": s for k, s in shapes.items()},
        "wasm": str(wasm),
        "spec": str(spec),
        "onnx": str(folder / "step.onnx"),
        "seconds": seconds,
    }
    if with_onnx:
        graph(sizes, shapes, job["onnx"])
    (folder / "job.json").write_text(json.dumps(job))
    return params, x, y, program


def in_node(way, folder, modules):
    """What one way in node gave."""
    command = ["node", str(HERE / "live.mjs"), way, str(folder / "job.json")]
    done = subprocess.run(
        [*command, str(modules or "")], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{way}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name, sizes, options):
    """Rates of all ways on one network."""
    ways = dict(NODE_WAYS)
    if not options.npm:
        ways = {k: v for k, v in ways.items() if v in ("compiled", "plain")}
    modules = options.npm and options.npm.resolve() / "node_modules"
    found = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepared = prepare(folder, sizes, options.seconds, bool(options.npm))
        *data, program = prepared
        for _ in range(options.repeats):
            turn = {"torch, eager": in_torch(*data, options.seconds)}
            turn |= {k: in_node(v, folder, modules) for k, v in ways.items()}
            sums = {k: v["sum"] for k, v in turn.items()}
            if max(sums.values()) - min(sums.values()) > 1e-3 * max(sums.values()):
                sys.exit(f"the ways don't agree: {sums}")
            for k, v in turn.items():
                found.setdefault(k, []).append(v)
    rates = {
        k: round(statistics.median(v["steps"] / v["seconds"] for v in turns), 1)
        for k, turns in found.items()
    }
    redraws = statistics.median(v["redraws"] for v in found["gvlib.live"])
    size = {"wasm": len(program.wasm), "gzip": len(gzip.compress(program.wasm, 9))}
    return {
        "network": name,
        "rates": rates,
        "redraws": round(redraws, 1),
        "bytes": size,
    }


def check(options):
    """End with one sentence where something is missing or asks for nothing."""
    if options.repeats < 1:
        sys.exit(f"--repeats is {options.repeats}; it must be at least 1")
    if not shutil.which("node"):
        sys.exit("these need node: install it with your system's packages")
    if importlib.util.find_spec("ziglang") is None:
        sys.exit("these need ziglang: pip install ziglang")


def main():
    """Measure and write results/live.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.live", description=__doc__)
    parser.add_argument("--npm", type=Path, help="folder with node_modules")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=2.0, help="a turn of one way")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="a folder")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--device", help="of `make bench`; node has but the CPU")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.seconds = 1, 0.1
    check(options)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from . import machine

    results = [measure(k, v, options) for k, v in NETWORKS.items()]
    for result in results:
        ours = result["rates"]["gvlib.live"]
        print(f"{result['network']}: {result['redraws']:.0f} redraws of 4096 points")
        for way, rate in result["rates"].items():
            ratio = f"ours {ours / rate:5.1f}x"
            print(f"  {way:18} {rate:10.1f} steps per CPU-second, {ratio}")
    import torch

    about = {
        "machine": machine.describe(torch.device("cpu")),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
    }
    text = json.dumps({**about, "results": results}, indent=1)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "live.json").write_text(text + "\n", "utf-8")
    print(options.out / "live.json")


if __name__ == "__main__":
    main()
