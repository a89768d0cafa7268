"""Compiled experiments: every operation, refusals, whole training runs, built files."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from live_tools import agrees, gap, in_node, in_torch, job, needs, wide

from gvlib import live
from gvlib._live_forms import Unsupported
from gvlib._live_trace import Declared
from gvlib.live import Experiment

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def compiler():
    needs("ziglang", importlib.util.find_spec("ziglang") is not None)


# ---- every operation, value and gradient ---------------------------------------------

SHAPES = {
    "a": "n m",
    "b": "n m",
    "w": "m k",
    "v": "m",
    "s": "",
    "t": "int",
    "y": "n int",
    "i": "q int",
    "z": "p n m",
    "mask": "n m bool",
}


def onehot(t):
    return F.one_hot(t.y, t.v.shape[0]).float()


def norm_by_hand(a):
    centred = a - a.mean(0)
    return centred / torch.sqrt((centred * centred).mean(0) + 1e-5)


def convolve(a, t):
    """A 3x3 convolution of the image a (n, m), written as nine shifted products."""
    n, m = a.shape
    padded = F.pad(a, (1, 1, 1, 1))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    return sum(torch.sin(t.s + i - j) * padded[i : i + n, j : j + m] for i, j in shifts)


OPERATIONS = {
    # element by element
    "add": lambda a, t: a + t.b,
    "add_row": lambda a, t: a + t.v,
    "add_column": lambda a, t: a + t.b[:, :1],
    "add_twice": lambda a, t: torch.add(a, t.b, alpha=2),
    "subtract_from": lambda a, t: 3 - a,
    "multiply": lambda a, t: a * t.b * t.s,
    "divide": lambda a, t: a / (2 + t.b * t.b),
    "divide_whole": lambda a, t: a * (t.y / 7)[:, None],
    "negative": lambda a, t: -a,
    "absolute": lambda a, t: a.abs(),
    "exp": lambda a, t: torch.exp(a),
    "expm1": lambda a, t: torch.expm1(a),
    "log": lambda a, t: torch.log(a * a + 0.1),
    "log1p": lambda a, t: torch.log1p(a * a),
    "sqrt": lambda a, t: torch.sqrt(a * a + 1),
    "rsqrt": lambda a, t: torch.rsqrt(a * a + 1),
    "reciprocal": lambda a, t: torch.reciprocal(a * a + 1),
    "sin": lambda a, t: torch.sin(3 * a),
    "cos": lambda a, t: torch.cos(30 * a),
    "tanh": lambda a, t: torch.tanh(a),
    "sigmoid": lambda a, t: torch.sigmoid(a),
    "erf": lambda a, t: torch.erf(a),
    "relu": lambda a, t: F.relu(a),
    "leaky_relu": lambda a, t: F.leaky_relu(a, 0.1),
    "elu": lambda a, t: F.elu(a),
    "silu": lambda a, t: F.silu(a),
    "gelu": lambda a, t: F.gelu(a),
    "gelu_tanh": lambda a, t: F.gelu(a, approximate="tanh"),
    "softplus": lambda a, t: F.softplus(10 * a),
    "logsigmoid": lambda a, t: F.logsigmoid(5 * a),
    "hardtanh": lambda a, t: F.hardtanh(a),
    "square": lambda a, t: a**2,
    "cube": lambda a, t: a**3,
    "root": lambda a, t: (a * a + 1) ** 0.5,
    "power": lambda a, t: (a * a + 1) ** 1.7,
    "power_of": lambda a, t: 0.9 ** (a * a),
    "power_by": lambda a, t: (a * a + 1) ** t.b,
    "sign": lambda a, t: torch.sign(a) * a,
    "floor": lambda a, t: torch.floor(3 * a) + torch.ceil(a) + torch.trunc(2 * a),
    "round": lambda a, t: torch.round(3 * a),
    "clamp": lambda a, t: a.clamp(-0.5, 0.7),
    "clamp_min": lambda a, t: a.clamp(min=0.2),
    "clamp_max": lambda a, t: a.clamp(max=0.2),
    "maximum": lambda a, t: torch.maximum(a, t.b),
    "minimum": lambda a, t: torch.minimum(a, t.b),
    "where": lambda a, t: torch.where(a > t.b, a, 2 * t.b),
    "masked": lambda a, t: a.masked_fill(t.mask, 3.0),
    "dropout_mask": lambda a, t: a * t.mask / 0.5,
    "comparisons": lambda a, t: a * ((a >= t.b) & (a != 0) | ~t.mask),
    "logic": lambda a, t: torch.logical_and(a > 0, t.b > 0) ^ t.mask,
    "whole_numbers": lambda a, t: (t.y * 3 - 1) % 4 + (t.y > 1),
    "remainder": lambda a, t: torch.remainder(a, 0.3),
    # shapes
    "transpose": lambda a, t: a.T * 2,
    "flatten": lambda a, t: a.reshape(-1)[: t.v.shape[0]] * t.v,
    "reshape": lambda a, t: (t.z * a).reshape(-1, t.v.shape[0]).sum(0),
    "select": lambda a, t: a[1] * 2 + a[-1],
    "column": lambda a, t: a[:, 0] * a[:, -1],
    "slice": lambda a, t: (a[1:] * 2).sum(0),
    "slice_end": lambda a, t: (a[:-1] - a[1:]).sum(0),
    "every_other": lambda a, t: a[::2].sum(0) + a[1::2].sum(0),
    "cat": lambda a, t: torch.cat([a, 2 * t.b, a], 1).sum(1),
    "stack": lambda a, t: torch.stack([a, t.b * a], 0).sum(2),
    "expand": lambda a, t: (t.v.expand(a.shape) * a).sum(0),
    "permute": lambda a, t: (t.z * a).permute(2, 0, 1).sum(1),
    "flip": lambda a, t: a.flip(0) * t.b,
    "constant": lambda a, t: a * torch.tensor([0.5, -2.0, 3.0])[t.y % 3][:, None],
    "pad": lambda a, t: convolve(a, t),
    # reductions
    "sum": lambda a, t: a.sum(),
    "sum_rows": lambda a, t: a.sum(0),
    "sum_columns": lambda a, t: a.sum(1, keepdim=True) * a,
    "sum_middle": lambda a, t: (t.z * a).sum(1),
    "sum_ends": lambda a, t: (t.z * a).sum((0, 2)),
    "count": lambda a, t: (a > 0).sum(1),
    "mean": lambda a, t: a.mean(),
    "mean_rows": lambda a, t: a.mean(0),
    "variance": lambda a, t: a.var(1) + a.var(0, unbiased=False).sum(),
    "deviation": lambda a, t: a.std(),
    "norm": lambda a, t: torch.linalg.vector_norm(a) + a.norm(dim=1).sum(),
    "amax": lambda a, t: a.amax(1),
    "amin": lambda a, t: a.amin((0, 1)),
    "max_rows": lambda a, t: a.max(0).values,
    "largest": lambda a, t: a.max() - a.min(),
    "argmax": lambda a, t: a.argmax(1),
    "argmin": lambda a, t: a.argmin(0),
    "argmax_all": lambda a, t: a.argmax(),
    "any_all": lambda a, t: (a > 1).any(1).float() + (a > -2).all(0).sum(),
    "logsumexp": lambda a, t: torch.logsumexp(a, 1),
    "softmax": lambda a, t: torch.softmax(a, 1),
    "log_softmax": lambda a, t: F.log_softmax(a, 0),
    "prod": lambda a, t: (1 + t.b).prod(1) + a.sum(1),
    # by index
    "gather": lambda a, t: a.gather(1, t.y[:, None])[:, 0],
    "take_rows": lambda a, t: a[t.i],
    "take_pairs": lambda a, t: a[torch.arange(a.shape[0]), t.y],
    "index_select": lambda a, t: a.index_select(0, t.i) * 2,
    "minibatch": lambda a, t: a.index_select(0, t.i[(t.t % 3)[None]]),
    "one_hot": lambda a, t: a * onehot(t),
    "scatter_add": lambda a, t: torch.zeros_like(t.v).scatter_add(0, t.y, a[:, 0]),
    "index_add": lambda a, t: torch.zeros_like(t.b).index_put(
        (t.i,), a[t.i], accumulate=True
    ),
    # layers and losses
    "linear": lambda a, t: a @ t.w,
    "linear_layer": lambda a, t: F.linear(a, t.w.T, t.w[0]),
    "vector_product": lambda a, t: a @ t.v,
    "outer": lambda a, t: a.T @ a,
    "batched": lambda a, t: torch.bmm(t.z, (t.z * a).transpose(1, 2)),
    "batched_one": lambda a, t: t.z @ a.T,
    "einsum": lambda a, t: torch.einsum("pnm,nm->pn", t.z, a),
    "layer_norm": lambda a, t: F.layer_norm(a, (t.v.shape[0],), t.v, t.v),
    "batch_norm_by_hand": lambda a, t: norm_by_hand(a) * t.v,
    "cross_entropy": lambda a, t: F.cross_entropy(a, t.y),
    "class_weights": lambda a, t: F.cross_entropy(a, t.y, weight=t.v * t.v + 0.1),
    "sample_weights": lambda a, t: (
        F.cross_entropy(a, t.y, reduction="none") * t.b[:, 0]
    ).sum(),
    "label_smoothing": lambda a, t: F.cross_entropy(a, t.y, label_smoothing=0.1),
    "soft_targets": lambda a, t: F.cross_entropy(a, torch.softmax(t.b, 1)),
    "logit_adjusted": lambda a, t: F.cross_entropy(a + torch.log(t.v * t.v + 0.1), t.y),
    "ldam": lambda a, t: F.cross_entropy(30 * (a - onehot(t) * t.v), t.y),
    "vs_loss": lambda a, t: F.cross_entropy(a * t.v.abs() + t.v, t.y),
    "focal": lambda a, t: (
        (1 - torch.softmax(a, 1).gather(1, t.y[:, None])) ** 2
        * -F.log_softmax(a, 1).gather(1, t.y[:, None])
    ).mean(),
    "hinge": lambda a, t: F.relu(1 - (2.0 * t.mask - 1) * a).mean(),
    "squared": lambda a, t: F.mse_loss(a, t.b),
    "smooth_l1": lambda a, t: F.smooth_l1_loss(a, t.b),
    "logistic": lambda a, t: F.binary_cross_entropy_with_logits(a, t.mask.float()),
    "l1": lambda a, t: F.mse_loss(a, t.b, reduction="sum") + 0.01 * a.abs().sum(),
    "cosine": lambda a, t: F.normalize(a, dim=1) @ F.normalize(t.w, dim=0),
    "members": lambda a, t: torch.vmap(lambda z: torch.tanh(a @ z.T))(t.z),
    "members_only": lambda a, t: torch.vmap(lambda z, c: (z @ t.w + c).sum())(
        t.z, t.z[:, 0, 0]
    ),
    "hessian_product": lambda a, t: torch.func.grad(
        lambda a: (torch.func.grad(lambda a: torch.tanh(a @ t.w).sum())(a) * t.b).sum()
    )(a),
}


def operation(name, f):
    """A function for Experiment: the value and, where there is one, the gradient."""

    def fn(a, b, w, v, s, t, y, i, z, mask):
        rest = SimpleNamespace(b=b, w=w, v=v, s=s, t=t, y=y, i=i, z=z, mask=mask)
        value = f(a, rest)
        found = {f"{name}_value": value}
        if value.is_floating_point():
            weigh = lambda a: (torch.sin(1 + f(a, rest)) * 1.5).sum()  # noqa: E731
            found[f"{name}_gradient"] = torch.func.grad(weigh)(a)
        return found

    fn.__name__ = name
    return fn


def inputs(n=7, m=5, k=4, q=6, p=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    whole = lambda high, *shape: torch.randint(high, shape, generator=g)  # noqa: E731
    tensors = {
        "a": normal(n, m),
        "b": normal(n, m),
        "w": normal(m, k),
        "v": normal(m),
        "s": normal(()),
        "t": torch.tensor(5),
        "y": whole(m, n),
        "i": whole(n, q),
        "z": normal(p, n, m),
        "mask": normal(n, m) > 0,
    }
    return {"n": n, "m": m, "k": k, "q": q, "p": p}, tensors


def compare(lab, program, sizes, tensors):
    """Every output of every function against torch: {name: gap}, all at most 1."""
    functions = program.spec["functions"]
    names = [n for f in functions.values() for n in f["outputs"]]
    (ours,) = in_node(
        [job(program, sizes, tensors, [[f, 1] for f in functions], names)]
    )
    gaps = {}
    for f in functions:
        single, double = lab.call(f, tensors), lab.call(f, wide(tensors))
        gaps |= {n: gap(ours[n], single[n], double[n]) for n in single}
    return gaps


@pytest.fixture(scope="module")
def operations(compiler):
    lab = Experiment(
        "operations", [operation(*c) for c in OPERATIONS.items()], **SHAPES
    )
    return lab, lab.build()


@pytest.mark.parametrize(
    "sizes", [{}, {"n": 4, "m": 9, "k": 2, "q": 11, "p": 2}, {"n": 33, "m": 16}]
)
def test_operations_are_torch_s(operations, sizes):
    found, tensors = inputs(**sizes, seed=len(sizes))
    gaps = compare(*operations, found, tensors)
    assert len(gaps) > 1.7 * len(OPERATIONS)
    assert {n: g for n, g in gaps.items() if not g <= 1} == {}


# ---- mathematics ---------------------------------------------------------------------

EDGES = [
    0.0,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    1e-40,
    -1e-40,
    3e38,
    -3e38,
    1.0,
    -1.0,
]
FUNCTIONS = {
    "exp": (torch.exp, (-104, 88.72), 2.0),
    "expm1": (torch.expm1, (-20, 20), 8.0),
    "log": (torch.log, (1e-38, 3e38), 2.0),
    "log1p": (torch.log1p, (-0.99, 50), 8.0),
    "tanh": (torch.tanh, (-9, 9), 4.0),
    "sigmoid": (torch.sigmoid, (-80, 80), 4.0),
    "sin": (torch.sin, (-1e4, 1e4), 2.0),
    "cos": (torch.cos, (-1e4, 1e4), 2.0),
    "erf": (torch.erf, (-4, 4), 4.0),
    "sqrt": (torch.sqrt, (0, 3e38), 1.0),
}


@pytest.fixture(scope="module")
def mathematics(compiler):
    def one(name, f):
        def fn(x):
            return {f"{name}_of": f(x)}

        fn.__name__ = name
        return fn

    lab = Experiment(
        "mathematics", [one(n, f) for n, (f, *_) in FUNCTIONS.items()], x="n"
    )
    return lab, lab.build()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_right_to_a_few_units_in_the_last_place(mathematics, name):
    _, program = mathematics
    f, (low, high), units = FUNCTIONS[name]
    share = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    x = low + share * (high - low)
    if high > 1e30:  # all magnitudes
        x = 10 ** (-38 + 76.4 * share)
    x = torch.cat([x.float(), torch.tensor(EDGES)])
    (found,) = in_node(
        [job(program, {"n": len(x)}, {"x": x}, [[name, 1]], [f"{name}_of"])]
    )
    ours, right = found[f"{name}_of"], f(x.double())
    # Beyond float32's smallest normal number and largest one, a result may be lost.
    kept = right.abs().clamp(2.0**-126, 2.0**127).float()
    unit = torch.nextafter(kept, torch.tensor(math.inf)) - kept
    error = ((ours.double() - right) / unit)[: -len(EDGES)].abs().max()
    assert error <= units
    single = f(x)[-len(EDGES) :]
    ours = ours[-len(EDGES) :]
    if name in ("sin", "cos"):  # beyond 1e8 only the range is kept
        huge = x[-len(EDGES) :].abs() > 1e8
        assert (ours[huge & ~ours.isnan()].abs() <= 1).all()
        ours = torch.where(huge & ~single.isnan(), single, ours)
    torch.testing.assert_close(ours, single, rtol=1e-6, atol=1e-38, equal_nan=True)


# ---- graphs that nobody wrote --------------------------------------------------------

POINTWISE = [
    torch.tanh,
    torch.sin,
    F.relu,
    F.gelu,
    F.softplus,
    lambda v: v * v,
    lambda v: v - v.mean(0),
    lambda v: v / (1 + v.abs()),
    lambda v: torch.softmax(v, 1),
    lambda v: v - v.amax(1, keepdim=True),
    lambda v: torch.where(v > 0, v, 0.1 * v),
    lambda v: v.flip(0),
    lambda v: v.clamp(-1, 1),
]
PAIRWISE = [
    torch.add,
    torch.sub,
    torch.mul,
    torch.maximum,
    lambda v, w: v / (1 + w * w),
    lambda v, w: torch.where(w > 0, v, w),
    lambda v, w: v @ (w.T @ v) / v.shape[0],
    lambda v, w: torch.cat([v, w], 0).reshape(2, *v.shape).sum(0),
]
ENDINGS = [torch.sum, torch.mean, lambda v: (v * v).sum(0).max(), lambda v: v.std()]
STEPS = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 7), st.integers(0, 7)),
    min_size=1,
    max_size=6,
)


def made(number, steps, ending):
    """A function of a and b that applies the drawn steps to its earlier values."""

    def compute(a, b):
        values = [a, b]
        for which, left, right in steps:
            v, w = values[left % len(values)], values[right % len(values)]
            unary = which < len(POINTWISE)
            two = PAIRWISE[(which - len(POINTWISE)) % len(PAIRWISE)]
            values.append(POINTWISE[which](v) if unary else two(v, w))
        return values[-1]

    def fn(a, b):
        loss = lambda a: ENDINGS[ending](compute(a, b))  # noqa: E731
        slope, value = torch.func.grad_and_value(loss)(a)
        return {
            f"slope{number}": slope,
            f"value{number}": value,
            f"all{number}": compute(a, b),
        }

    fn.__name__ = f"graph{number}"
    return fn


@given(
    graphs=st.lists(st.tuples(STEPS, st.integers(0, 3)), min_size=8, max_size=8),
    n=st.integers(3, 40),
    m=st.integers(3, 20),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_drawn_graphs_are_torch_s(compiler, graphs, n, m, seed):
    lab = Experiment(
        "graphs", [made(k, *g) for k, g in enumerate(graphs)], a="n m", b="n m"
    )
    _, tensors = inputs(n=n, m=m, seed=seed)
    tensors = {k: tensors[k] for k in "ab"}
    gaps = compare(lab, lab.build(), {"n": n, "m": m}, tensors)
    assert {n: g for n, g in gaps.items() if not g <= 1} == {}


# ---- whole runs ----------------------------------------------------------------------

NET = {"w1": "d h", "b1": "h", "w2": "h h", "b2": "h", "w3": "h c", "b3": "c"}


def net(p, x, act=F.relu):
    x = act(x @ p["w1"] + p["b1"])
    x = act(x @ p["w2"] + p["b2"])
    return x @ p["w3"] + p["b3"]


def weighted(params, x, y, w):
    return (w * F.cross_entropy(net(params, x), y, reduction="none")).sum() / w.sum()


def sgd(params, velocity, x, y, w, lr, momentum, decay):
    """SGD with momentum and weight decay, as torch.optim.SGD has it."""
    slopes, loss = torch.func.grad_and_value(weighted)(params, x, y, w)
    velocity = {
        k: momentum * velocity[k] + slopes[k] + decay * params[k] for k in slopes
    }
    params = {k: params[k] - lr * velocity[k] for k in slopes}
    return {"params": params, "velocity": velocity, "loss": loss}


def adam(params, first, second, t, order, x, y, lr):
    """Adam on minibatches whose indices are drawn before."""
    rows = order[(t % order.shape[0]).long()[None]][0]
    loss_of = lambda p: F.cross_entropy(net(p, x[rows], torch.tanh), y[rows])  # noqa: E731
    slopes, loss = torch.func.grad_and_value(loss_of)(params)
    t = t + 1
    first = {k: 0.9 * first[k] + 0.1 * slopes[k] for k in slopes}
    second = {k: 0.999 * second[k] + 0.001 * slopes[k] ** 2 for k in slopes}
    m = {k: first[k] / (1 - 0.9**t) for k in slopes}
    v = {k: second[k] / (1 - 0.999**t) for k in slopes}
    params = {k: params[k] - lr * m[k] / (torch.sqrt(v[k]) + 1e-8) for k in slopes}
    return {"params": params, "first": first, "second": second, "t": t, "loss": loss}


def sam(params, x, y, lr, radius):
    """Sharpness-aware minimization."""
    loss_of = lambda p: F.cross_entropy(net(p, x, F.gelu), y)  # noqa: E731
    slopes, loss = torch.func.grad_and_value(loss_of)(params)
    length = torch.sqrt(sum((s * s).sum() for s in slopes.values()))
    there = {k: params[k] + radius * slopes[k] / length for k in params}
    slopes = torch.func.grad(loss_of)(there)
    return {"params": {k: params[k] - lr * slopes[k] for k in params}, "loss": loss}


def members(stack, x, y, rates):
    """Full-batch descent of several members at once, each with its own rate."""

    def one(params, rate):
        slopes = torch.func.grad(lambda p: F.cross_entropy(net(p, x, torch.sin), y))(
            params
        )
        return {k: params[k] - rate * slopes[k] for k in params}

    return {"stack": torch.vmap(one)(stack, rates)}


def norms(params, x, y, lr, mask):
    """Layer norm, a given dropout mask and batch norm by hand."""

    def loss_of(p):
        h = F.layer_norm(x @ p["w1"] + p["b1"], (p["b1"].shape[0],))
        h = norm_by_hand(F.relu(h) * mask @ p["w2"] + p["b2"])
        return F.cross_entropy(F.relu(h) @ p["w3"] + p["b3"], y)

    slopes, loss = torch.func.grad_and_value(loss_of)(params)
    return {"params": {k: params[k] - lr * slopes[k] for k in params}, "loss": loss}


def measure(params, grid, labels):
    """What is drawn and shown."""
    score = net(params, grid)
    right = score.argmax(1) == labels
    return {"prob": torch.softmax(score, 1), "accuracy": right.float().mean()}


def start(d, h, c, n, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = {
        k: [{"d": d, "h": h, "c": c}[w] for w in v.split()] for k, v in NET.items()
    }
    params = {
        f"params.{k}": torch.randn(s, generator=g) * (2 / s[0]) ** 0.5 * (len(s) > 1)
        for k, s in shapes.items()
    }
    x = torch.randn(n, d, generator=g)
    y = ((x[:, 0] * x[:, 1] > 0).long() + torch.randint(c, (n,), generator=g)) % c
    return params, x, y, g


def zeros(params, *names):
    return {
        k.replace("params", n): torch.zeros_like(v)
        for n in names
        for k, v in params.items()
    }


def runs_of_sgd():
    """20 random settings of all sliders: sizes, rates, weights."""
    draw = torch.Generator().manual_seed(3)

    def uniform(low, high):
        return float(low + (high - low) * torch.rand((), generator=draw))

    for seed in range(20):
        sizes = {
            "d": 2,
            "c": 2,
            "h": int(uniform(2, 80)),
            "n": int(uniform(20, 300)),
            "g": 64,
        }
        params, x, y, _g = start(*(sizes[k] for k in "dhcn"), seed)
        rates = {
            "lr": torch.tensor(10 ** uniform(-2.5, -0.7)),
            "momentum": torch.tensor(uniform(0, 0.95)),
            "decay": torch.tensor(10 ** uniform(-5, -2)),
        }
        weight = torch.where(y == 1, 10 ** uniform(-1, 1), 1.0)
        yield (
            sizes,
            params | zeros(params, "velocity") | {"x": x, "y": y, "w": weight} | rates,
        )


def check_runs(lab, program, step, runs, state="params"):
    jobs, kept = [], [n for n in lab.tensors if n.startswith(state)]
    runs = list(runs)
    for sizes, tensors in runs:
        jobs.append(job(program, sizes, tensors, [[step, 100]], kept))
    for (_, tensors), found in zip(runs, in_node(jobs), strict=True):
        assert found["calls"] == [100]
        assert agrees(lab, step, tensors, found, kept)


@pytest.fixture(scope="module")
def plain(compiler):
    shapes = {
        "params": NET,
        "velocity": NET,
        "x": "n d",
        "y": "n int",
        "w": "n",
        "grid": "g d",
    }
    rates = {"lr": "", "momentum": "", "decay": "", "labels": "g int"}
    lab = Experiment("plain", [sgd, measure], **shapes, **rates)
    return lab, lab.build()


def test_100_steps_are_torch_s_for_20_random_settings(plain):
    check_runs(*plain, "sgd", runs_of_sgd())


def test_other_steps_are_torch_s(compiler):
    rest = {
        "first": NET,
        "second": NET,
        "t": "",
        "order": "batches batch int",
        "radius": "",
        "mask": "n h",
    }
    stack = {k: f"members {v}" for k, v in NET.items()}
    lab = Experiment(
        "others", [adam, sam, norms, members], params=NET, x="n d", y="n int", lr="",
        stack=stack, rates="members", **rest,
    )  # fmt: skip
    program = lab.build()
    params, x, y, g = start(3, 24, 4, 60, 1)
    sizes = {"d": 3, "h": 24, "c": 4, "n": 60, "batches": 7, "batch": 16, "members": 3}
    several = {
        k.replace("params", "stack"): torch.stack([v, 0.5 * v, 0.8 * v])
        for k, v in params.items()
    }
    tensors = {
        **params, **several, **zeros(params, "first", "second"), "x": x, "y": y,
        "t": torch.tensor(0.0), "order": torch.randint(60, (7, 16), generator=g),
        "lr": torch.tensor(0.05), "radius": torch.tensor(0.1),
        "rates": torch.tensor([0.01, 0.1, 0.3]),
        "mask": (torch.rand(60, 24, generator=g) > 0.5) * 2.0,
    }  # fmt: skip
    slow = tensors | {"lr": torch.tensor(0.003)}
    check_runs(lab, program, "adam", [(sizes, slow)])
    check_runs(lab, program, "sam", [(sizes, tensors)])
    check_runs(lab, program, "norms", [(sizes, tensors)])
    check_runs(lab, program, "members", [(sizes, tensors)], "stack")


def test_the_step_is_sgd_of_torch(plain):
    lab, _ = plain
    _, tensors = next(runs_of_sgd())
    after = in_torch(lab, tensors, "sgd", 5)
    params = {k: tensors[f"params.{k}"].clone().requires_grad_() for k in NET}
    rate, momentum, decay = (float(tensors[k]) for k in ("lr", "momentum", "decay"))
    optimizer = torch.optim.SGD(params.values(), rate, momentum, weight_decay=decay)
    for _ in range(5):
        optimizer.zero_grad()
        weighted(params, tensors["x"], tensors["y"], tensors["w"]).backward()
        optimizer.step()
    for k in NET:
        torch.testing.assert_close(params[k].detach(), after[f"params.{k}"])


def test_a_module_is_small(plain):
    import gzip

    assert len(gzip.compress(plain[1].wasm, 9)) <= 10_000


def test_a_rebuild_is_byte_identical(plain):
    lab, program = plain
    assert lab.build().files() == program.files()


def test_measures_and_sizes_of_one_module(plain):
    lab, program = plain
    for h, g in ((2, 2), (33, 100)):
        params, x, _, _ = start(2, h, 2, g, 0)
        sizes = {"d": 2, "h": h, "c": 2, "n": 2, "g": g}
        tensors = params | {"grid": x, "labels": torch.arange(g) % 2}
        (found,) = in_node(
            [job(program, sizes, tensors, [["measure", 1]], ["prob", "accuracy"])]
        )
        right = lab.call("measure", tensors)
        torch.testing.assert_close(found["prob"], right["prob"])
        assert found["accuracy"] == right["accuracy"]


# ---- states --------------------------------------------------------------------------


def swap(a, b, c):
    return {"a": b, "b": a, "c": c + a, "copy": c}


def test_a_step_may_swap_its_states(compiler):
    lab = Experiment("swap", [swap], a="n", b="n", c="n")
    tensors = {k: torch.tensor([1.0, 2.0, 3.0]) * 10**i for i, k in enumerate("abc")}
    for steps in (1, 2, 5):
        call, names = [["swap", steps]], ["a", "b", "c", "copy"]
        (found,) = in_node([job(lab.build(), {"n": 3}, tensors, call, names)])
        right = in_torch(lab, tensors, "swap", steps)
        assert all(torch.equal(found[n], right[n]) for n in names)


def test_a_run_stops_at_the_step_whose_loss_is_no_number(plain):
    lab, program = plain
    sizes, tensors = next(runs_of_sgd())
    tensors["lr"] = torch.tensor(1e4)
    losses, state = [], tensors
    while not losses or math.isfinite(losses[-1]):
        state = state | lab.call("sgd", state)
        losses.append(float(state["loss"]))
    (found,) = in_node([job(program, sizes, tensors, [["sgd", 500]], ["loss"])])
    assert found["calls"] == [len(losses)]
    assert not math.isfinite(found["loss"])


# ---- what is refused -----------------------------------------------------------------


def refused(fn, match, **shapes):
    with pytest.raises(Unsupported, match=match) as error:
        Experiment("refused", [fn], **(shapes or {"a": "n m"})).source()
    return str(error.value)


def unknown(a):
    b = a + 1
    return {"o": torch.cumsum(b, 0)}


def unknown_in_gradient(a):
    loss = lambda a: torch.logcumsumexp(a, 0).sum()  # noqa: E731
    return {"o": torch.func.grad(loss)(a)}


def random(a):
    return {"o": a + torch.randn(3)}


def dropped(a):
    return {"o": F.dropout(a, 0.5)}


def rounding(a):
    return {"o": torch.div(a, 3, rounding_mode="floor")}


def decimals(a):
    return {"o": torch.round(a, decimals=2)}


def double(a):
    return {"o": a.double() * 2}


def half(a):
    return {"o": (a.half() * 2).float()}


def strided(a):
    return {"o": a.as_strided((2, 2), (1, 3)) * 2}


def branch(a):
    return {"o": a if a.sum() > 0 else -a}


def item(a):
    return {"o": a * a.max().item()}


def by_size(a):
    return {"o": a * 2 if a.shape[0] > 50 else a}


def one_size(a):
    return {"o": a * torch.ones(int(a.shape[0]))[:, None].sum() + torch.ones(101).sum()}


def chosen(a):
    return {"o": a[a > 0]}


def sorted_(a):
    return {"o": a.sort(0).values}


def odd_size(a):
    return {"o": a[1:]}


@pytest.mark.parametrize(
    "fn, match",
    [
        (
            unknown,
            r"aten.cumsum.default is not supported .*in unknown: return .*cumsum",
        ),
        (unknown_in_gradient, r"aten.logcumsumexp.default is not supported"),
        (random, r"randn draws random numbers, .* they come in as an argument"),
        (dropped, r"dropout draws random numbers"),
        (decimals, r"aten.round.decimals is not supported"),
        (double, r"returns o as torch.float64, which is not supported"),
        (half, r"the dtype torch.float16"),
        (strided, r"aten.as_strided\w*.default is not supported"),
        (branch, r"branch can't be traced .*line \d+"),
        (item, r"item can't be traced .*line \d+"),
        (by_size, r"does something else for other sizes: it needs n > 50 .*in by_size"),
        (one_size, r"one_size works for one value of the size n only"),
        (chosen, r"chosen can't be traced"),
        (sorted_, r"aten.sort.default is not supported"),
        (odd_size, r"returns o with the size"),
    ],
)
def test_what_cannot_be_compiled_is_refused_by_name_and_line(fn, match):
    said = refused(fn, match)
    first = fn.__code__.co_firstlineno
    if found := re.search(r"test_live.py, line (\d+)", said):
        assert first < int(found[1]) <= first + 3


def test_a_keyword_is_refused_by_name():
    refused(rounding, r"keyword rounding_mode='floor' of aten.div|aten.div.\w+ is not")


def test_shapes_and_functions_are_checked_at_once():
    with pytest.raises(TypeError, match="no shape is given for b"):
        Experiment("x", [swap], a="n", c="n")
    with pytest.raises(TypeError, match="no function takes d"):
        Experiment("x", [swap], a="n", b="n", c="n", d="n")
    with pytest.raises(ValueError, match="'N' is no size"):
        Experiment("x", [swap], a="N", b="n", c="n")
    with pytest.raises(TypeError, match="declared as 3"):
        Experiment("x", [swap], a=3, b="n", c="n")
    with pytest.raises(ValueError, match="expected words of a-z"):
        Experiment("My lab", [swap], a="n", b="n", c="n")
    with pytest.raises(TypeError, match="expected a function made with def"):
        Experiment("x", [torch.relu], a="n")
    with pytest.raises(ValueError, match="one or more functions"):
        Experiment("x", [])
    assert Declared.parse("y", "n int") == (("n",), "int")


def grows(a):
    return {"a": torch.cat([a, a])}


def no_dict(a):
    return a


def not_a_tensor(a):
    return {"o": 3}


def test_results_are_checked():
    refused(grows, r"grows returns a with the size", a="n")
    for fn, match in ((no_dict, "expected a dict"), (not_a_tensor, "o as a int")):
        with pytest.raises((TypeError, Unsupported), match=match):
            Experiment("x", [fn], a="n").source()


def test_sizes_that_differ_in_meaning_never_meet_while_tracing():
    def outer(a, b):
        return {"o": a[:, None] * b[None, :]}

    _, spec = Experiment("outer", [outer], a="n", b="m").source()
    assert spec["tensors"]["o"]["shape"] == ["n", "m"]
    assert spec["sizes"] == {"n": 2, "m": 2}


# ---- files ---------------------------------------------------------------------------


def test_loading_what_is_not_built_says_how(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"build it with python -m gvlib.live"):
        live.load("absent", tmp_path)


PAGE = """# A page

```{code-cell} ipython3
raise RuntimeError("not a live cell")
```

```{code-cell} ipython3
:tags: [hide-input, live]

def half(x):
    '''Half of it.'''
    return {"x": FACTOR * x}  # a comment

FACTOR = 0.5
lab = gv.live.Experiment("halves", [half], x="n")
"the end"
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "STATIC", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE, "utf-8")
    return path


def test_a_page_is_built_and_checked(page, compiler, capsys):
    assert live.main(["--check", str(page)]) == 1
    assert "halves: OUT OF STEP" in capsys.readouterr().out
    assert live.main([str(page)]) == 0
    assert "halves: built" in capsys.readouterr().out
    assert live.main(["--check", str(page)]) == 0
    assert "halves: in step" in capsys.readouterr().out
    program = live.load("halves", page.parent)
    (found,) = in_node(
        [job(program, {"n": 2}, {"x": torch.tensor([2.0, 4])}, [["half", 2]], ["x"])]
    )
    assert found["x"].tolist() == [0.5, 1.0]


def test_the_command_finds_the_experiments_of_a_page(page, compiler):
    command = [sys.executable, "-m", "gvlib.live", "--check", page]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "halves: OUT OF STEP" in done.stdout, done.stderr
    assert done.returncode == 1


def test_only_live_cells_run_and_their_ends_are_kept(page):
    found = live.experiments(page)
    assert found["_2"] == "the end"
    assert found["lab"].functions["half"](torch.ones(2))["x"].tolist() == [0.5, 0.5]
    assert live.has_live_cells(page)
    page.write_text(PAGE.replace("live]", "lively]"), "utf-8")
    assert not live.has_live_cells(page)


def code(page, change=("", "")):
    page.write_text(PAGE.replace(*change), "utf-8")
    return live.experiments(page)["lab"].code


def test_only_what_the_code_says_counts(page):
    same = code(page)
    assert code(page, ("a comment", "another")) == same
    assert code(page, ("Half of it.", "The half.")) == same
    assert code(page, ("FACTOR = 0.5", "x = 3; FACTOR = 0.5")) == same  # not its x
    assert code(page, ("FACTOR * x", "x * FACTOR")) != same
    assert code(page, ("= 0.5", "= 0.25")) != same
    assert code(page, ('x="n"', 'x="n 2"')) != same
