"""Surfaces, rays and Lanczos steps against the plain ways, in one run.

    python -m benchmarks.landscape [--device cuda] [--repeats 5] [--quick]

Each case is timed in turn with the ways it is compared with, several times; the medians
go to benchmarks/results/landscape-<device>.json. Times on a CPU are CPU seconds of this
process (others on the machine do not count), on a GPU seconds on the clock.

The plain way walks point by point: put the weights in, go over a DataLoader, add up.
Where the whole of it would take long, some of its points are timed, and `seconds` is
scaled up to all of them (`timed_of` says how many). The package loss-landscapes is
timed where it is installed (3.0.6); its planes are not those of Li et al., so only its
speed is compared.
"""

import argparse
import copy
import importlib.util
import json
import math
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import gvlib as gv
from benchmarks import machine
from gvlib.models import MLP, ResNet

RESULTS = Path(__file__).resolve().parent / "results"
POINTS = 51
BATCH = 128  # of the plain way's DataLoader, a tutorial's usual choice


def compare(name, ways, device, repeats):
    """Medians of interleaved timings; ways: {label: (function, timed, of)}."""
    for run, _, _ in ways.values():
        run()  # warm up
    seconds = {label: [] for label in ways}
    for _ in range(repeats):
        for label, (run, timed, of) in ways.items():
            start = machine.clock(device)
            run()
            seconds[label].append((machine.clock(device) - start) * of / timed)
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    ours = next(iter(medians.values()))
    rows = {
        label: {
            "seconds": round(medians[label], 4),
            "spread": [round(min(runs), 4), round(max(runs), 4)],
            "times_ours": round(medians[label] / ours, 2),
            "timed_of": list(ways[label][1:]),
        }
        for label, runs in seconds.items()
    }
    print(f"\n{name}")
    for label, row in rows.items():
        print(f"  {label:42} {row['seconds']:10.3f} s  x {row['times_ours']}")
    return {"case": name, "repeats": repeats, "ways": rows}


def loader_of(data):
    """A tutorial's DataLoader over a Dataset."""
    return DataLoader(TensorDataset(data.x, data.y), batch_size=BATCH)


@torch.no_grad()
def put(net, base, steps):
    """Put theta + sum of c * d into the network."""
    for k, p in net.named_parameters():
        p.copy_(base[k] + sum(c * d[k] for c, d in steps))


@torch.no_grad()
def mean_loss(net, loader, n):
    """A pass over the loader."""
    total = sum(F.cross_entropy(net(x), y, reduction="sum").item() for x, y in loader)
    return total / n


def weights_of(net):
    """A copy of the parameters."""
    return {k: p.detach().clone() for k, p in net.named_parameters()}


def plain_surface(net, one, two, data, count):
    """`count` points of the plane, one at a time."""
    base, loader = weights_of(net), loader_of(data)
    axis = torch.linspace(-1, 1, POINTS).tolist()
    coordinates = [(a, b) for b in axis for a in axis]
    every = len(coordinates) // count

    def run():
        net.eval()
        for a, b in coordinates[: every * count : every]:
            put(net, base, [(a, one), (b, two)])
            mean_loss(net, loader, len(data))
        put(net, base, [])

    return run


def package_surface(net, data, steps):
    """The PyPI package on a plane of steps x steps points; it takes one batch."""
    if importlib.util.find_spec("loss_landscapes") is None:
        return None
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(F.cross_entropy, data.x, data.y)

    def run():
        loss_landscapes.random_plane(
            copy.deepcopy(net), metric, distance=1, steps=steps, normalization="filter"
        )

    return run


def surfaces(net, data, label, device, repeats, plain, package, fast, **options):
    """A 51 x 51 surface four ways."""
    one, two = (gv.landscape.direction(net, seed=s) for s in (0, 1))
    full = POINTS**2

    def ours(points, **more):
        return lambda: gv.landscape.surface(
            net, one, two, data, points=points, **options, **more
        )

    side = math.isqrt(fast)
    cubic = 17**2 + 32  # the coarse grid and the points that its error is taken at
    ways = {"gvlib": (ours(side), side**2, full)}
    if any(p.dim() == 4 for p in net.parameters()):
        ways["gvlib, bf16"] = (ours(side, precision="bf16"), side**2, full)
        ways["gvlib, bf16, spline 17 x 17"] = (
            ours(side, precision="bf16"), side**2, cubic
        )  # fmt: skip
    else:
        ways["gvlib, spline 17 x 17"] = (ours(POINTS, spline=17), full, full)
    ways["one point at a time"] = (
        plain_surface(net, one, two, data, plain), plain, full
    )  # fmt: skip
    if run := package_surface(net, data, package):
        ways["loss-landscapes 3.0.6"] = (run, package**2, full)
    return compare(f"{label}: {POINTS} x {POINTS} surface", ways, device, repeats)


def spiral_net(device):
    """A small network at a minimum of two spirals."""
    data = gv.data.two_spirals(200, noise=0.0, turns=1.5, seed=0).to(device)
    pop = gv.Population(lambda: MLP(2, 64, 64, 64, 64, 2), {"seed": [0]}, device=device)
    runs = gv.train(pop, data, epochs=1500, batch=200, optimizer="adam", lr=3e-3)
    return runs.population[0], data


def plain_radius(net, base, d, loader, n, cutoff):
    """One ray by the same search as gvlib's, a pass over the loader each time."""
    low, high = 0.0, math.inf
    while not (high / max(low, 1e-30) < 1.002 or low >= 10):
        r = math.sqrt(low * high) if low and high < math.inf else low * 1.5 or 1e-3
        if not low and high < math.inf:
            r = high / 16
        put(net, base, [(r, d)])
        if mean_loss(net, loader, n) < cutoff:
            low = r
        else:
            high = r
    return math.sqrt(low * high)


def rays(device, repeats, count=1000, plain=10):
    """1,000 rays of a small MLP."""
    net, data = spiral_net(device)
    found = gv.landscape.radii(net, data, cutoff=0.5, rays=count)
    base, loader = weights_of(net), loader_of(data)
    directions = [found.ray(i) for i in range(plain)]

    def one_by_one():
        radii = [plain_radius(net, base, d, loader, len(data), 0.5) for d in directions]
        put(net, base, [])
        return torch.tensor(radii)

    off = (one_by_one() / torch.from_numpy(found.radii[:plain]) - 1).abs().max()
    assert off < 5e-3, f"the two ways disagree by {off}"
    ways = {
        "gvlib": (
            lambda: gv.landscape.radii(net, data, cutoff=0.5, rays=count),
            count,
            count,
        ),
        "one ray at a time": (one_by_one, plain, count),
    }
    size = found.dimensions
    name = f"{count:,} rays of an MLP 2-64-64-64-64-2 (n = {size:,})"
    return compare(name, ways, device, repeats)


def naive_lanczos(net, data, steps):
    """Lanczos as first written: the graph anew for each product, no more than that."""
    loader, params = loader_of(data), list(net.parameters())

    def product(v):
        out = 0
        for x, y in loader:
            loss = F.cross_entropy(net(x), y, reduction="sum") / len(data)
            g = torch.autograd.grad(loss, params, create_graph=True)
            flat = torch.cat([t.flatten() for t in g])
            found = torch.autograd.grad(flat @ v, params)
            out = out + torch.cat([t.flatten() for t in found])
        return out

    def run():
        dim = sum(p.numel() for p in params)
        q = torch.randn(dim, generator=torch.Generator().manual_seed(0))
        q = (q / q.norm()).to(params[0].device)
        before, beta, alphas, betas = torch.zeros_like(q), 0.0, [], []
        for _ in range(steps):
            w = product(q) - beta * before
            alphas.append(float(w @ q))
            w = w - alphas[-1] * q
            beta = float(w.norm())
            betas.append(beta)
            before, q = q, w / beta
        t = torch.diag(torch.tensor(alphas))
        off = torch.tensor(betas[:-1])
        return torch.linalg.eigvalsh(t + torch.diag(off, 1) + torch.diag(off, -1))

    return run


def curvature(net, data, label, device, repeats, steps=40, **options):
    """40 Lanczos steps, making the gradient's graph included."""
    net.eval()

    def ours(keep):
        def run():
            h = gv.curvature.hessian(net, data, keep=keep, **options)
            start = torch.randn(h.dim, generator=torch.Generator().manual_seed(0))
            return gv.curvature.lanczos(h, start.to(device), steps)

        return run

    ways = {
        "gvlib, graph kept": (ours(True), 1, 1),
        "gvlib, graph rebuilt": (ours(False), 1, 1),
        "naive": (naive_lanczos(net, data, steps), 1, 1),
    }
    return compare(f"{label}: {steps} Lanczos steps", ways, device, repeats)


def arguments():
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="auto", help="cpu, cuda; default: auto")
    parser.add_argument("--repeats", type=int, default=5, help="turns, at least 1")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def measure(device, repeats, quick):
    """All cases."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = 100 if quick else 1000
    data = gv.data.load("fashion-mnist", n_train=n, device=device)[0]
    mlp = MLP(784, 100, 10).to(device)
    resnet = ResNet(1 if quick else 3, width=16, channels=1).to(device)
    with torch.no_grad():  # not a bias of zero as at the start: loss-landscapes
        for p in resnet.parameters():  # divides by it
            p += 0.01 * torch.randn_like(p)
    cuda = device.type == "cuda"  # a GPU does the whole grid of the ResNet
    full = POINTS**2
    some = (150, 12, full) if cuda else (4, 2, 4)  # points timed
    label, deep = (f"{name}, {n:,} images" for name in ("MLP 784-100-10", "ResNet-20"))
    running = {"statistics": "running"}
    return [
        surfaces(mlp, data, label, device, repeats, 150, 12, full),
        surfaces(resnet, data, deep, device, repeats, *some, **running),
        rays(device, repeats, *((64, 2) if quick else (1000, 10))),
        curvature(mlp, data, label, device, repeats),
        curvature(
            resnet, data[:100], "ResNet-20, 100 images", device, repeats, **running
        ),
    ]


def main():
    """Run all cases and write their medians."""
    options = arguments()
    device = gv.data.device(options.device)
    repeats = 1 if options.quick else options.repeats
    cases = measure(device, repeats, options.quick)
    report = {
        "machine": machine.describe(device),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
        "cases": cases,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"landscape-{device.type}.json"
    file.write_text(json.dumps(report, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
