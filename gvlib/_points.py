"""Loss and accuracy of a network at many points of weight space, as fast as it goes.

Measured on a CPU (benchmarks/landscape.py): networks that begin with a linear layer go
many points at once, and since that layer's output is affine in the coordinates it is
computed once for all points; convnets go one point after another in channels_last.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from ._display import static_build
from .data import Dataset
from .population import Population

__all__ = [
    "Evaluator",
    "Fan",
    "Nets",
    "Sheet",
    "as_sets",
    "check_direction",
    "free_memory",
    "member_set",
    "nets_of",
    "progress_bar",
    "with_statistics",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Weights = dict[str, Tensor]
PRECISIONS = ("float32", "bf16")


class Nets(NamedTuple):
    """One network or a population: a skeleton and stacked weights (members, ...)."""

    net: nn.Module
    params: Weights
    buffers: Weights
    members: pd.DataFrame
    single: bool

    def member(self, i: int) -> tuple[Weights, Weights]:
        """Parameters and buffers of one member."""
        return tuple({k: t[i] for k, t in d.items()} for d in self[1:3])

    def only(self, i: int) -> "Nets":
        """One member, still stacked: (1, ...)."""
        own = ({k: t[i : i + 1] for k, t in d.items()} for d in self[1:3])
        return Nets(self.net, *own, self.members.iloc[[i]], self.single)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(iter(self.params.values())).device


def nets_of(net: nn.Module | Population) -> Nets:
    """A network as a population of one, or a population as it is; nothing is copied."""
    if isinstance(net, Population):
        return Nets(net.net, net.params, net.buffers, net.members, False)
    if not isinstance(net, nn.Module):
        raise TypeError(
            f"got a {type(net).__name__}, expected a torch network or a gv.Population"
        )
    params = {k: p.detach()[None] for k, p in net.named_parameters()}
    if not params:
        raise ValueError("the network has no parameters: nothing to move")
    buffers = {k: b.detach()[None] for k, b in net.named_buffers()}
    return Nets(net, params, buffers, pd.DataFrame(index=[0]), True)


def with_statistics(net: nn.Module, statistics: str | None) -> nn.Module:
    """A copy in evaluation mode, its BatchNorm set to "running" or "batch" statistics.

    Raises ValueError where the network has BatchNorm and nothing was chosen.
    """
    if statistics not in ("running", "batch", None):
        raise ValueError(f'statistics is {statistics!r}; use "running" or "batch"')
    net = copy.deepcopy(net).eval().requires_grad_(False)
    norms = [m for m in net.modules() if isinstance(m, _BatchNorm)]
    if statistics is None and norms:
        raise ValueError(
            'the network has BatchNorm: choose statistics="running" (those of the '
            'trained network at every point, as Li et al. 2018) or "batch" (those of '
            "the data at that point)"
        )
    for norm in norms if statistics == "batch" else ():
        norm.track_running_stats = False
        norm.running_mean = norm.running_var = norm.num_batches_tracked = None
    return net


def as_sets(sets: Dataset | Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Several data sets by name; a single one is called "data"."""
    sets = {"data": sets} if isinstance(sets, Dataset) else dict(sets)
    if not sets:
        raise ValueError('no data set given; pass {"train": train, "test": test}')
    for name, data in sets.items():
        if not isinstance(data, Dataset):
            raise TypeError(
                f"{name!r} is a {type(data).__name__}, expected a gvlib Dataset"
            )
    return sets


def member_set(data: Dataset, nets: Nets, i: int) -> Dataset:
    """One member's examples and labels, of a set that may have own ones for each."""
    if data.y.dim() == 1:
        return data.replace(weights=None)
    if nets.single or len(data.y) != len(nets.members):
        raise ValueError(
            f"{data.name} has labels for {len(data.y)} members, the network is "
            f"{len(nets.members)}; give labels (n,) or (members, n)"
        )
    return data.replace(
        x=data.x[i] if data.own_x else data.x, y=data.y[i], weights=None
    )


def check_direction(d: Weights, nets: Nets, name: str = "the direction") -> None:
    """Refuse a direction (of one member) that does not fit the network."""
    shapes = {k: tuple(p.shape[1:]) for k, p in nets.params.items()}
    optional = {k: tuple(b.shape[1:]) for k, b in nets.buffers.items()}
    found = {k: tuple(t.shape) for k, t in d.items()}
    known = shapes | {k: s for k, s in optional.items() if k in found}
    if wrong := [k for k in {**known, **found} if known.get(k) != found.get(k)]:
        k = wrong[0]
        raise ValueError(
            f"{name} has {found.get(k, 'nothing')} for {k!r} where the network has "
            f"{known.get(k, 'no such parameter')}; make it from this network, with "
            "gv.landscape.direction or between"
        )
    if not all(bool(t.isfinite().all()) for t in d.values()):
        raise ValueError(f"{name} holds NaN or infinite numbers")


# --- families of points ---------------------------------------------------------------


class Sheet:
    """Points theta + sum_k c_k d_k: a line, a plane, with the directions shared."""

    def __init__(self, base: Weights, directions: Sequence[Weights]):
        self.base = base
        names = set().union(*directions)
        self.d = {
            k: torch.stack([d.get(k, torch.zeros_like(base[k])) for d in directions])
            for k in base
            if k in names
        }
        self.still = {k: t for k, t in base.items() if k not in names}

    def prepare(self, first: str, inputs: Sequence[Tensor]) -> None:
        """Send inputs through the first layer once, at theta and along each d_k."""
        self.z = [_first(self.base, self.d, first, x) for x in inputs]

    def weights(self, name: str, c: Tensor) -> Tensor:
        """A parameter at the coordinates (points, k): (points, ...)."""
        return _mix(self.base[name], self.d[name], c)

    def hidden(self, batch: int, c: Tensor) -> Tensor:
        """The first layer's output: (points, n, outputs)."""
        return _mix(*self.z[batch], c)


class Fan(Sheet):
    """Points theta + r_i d_i: a direction of its own for every point."""

    def __init__(self, base: Weights, directions: Weights):
        self.base, self.d = base, {k: directions[k] for k in base if k in directions}
        self.still = {k: t for k, t in base.items() if k not in directions}

    def weights(self, name: str, c: Tensor) -> Tensor:
        """A parameter at the distances (points,): (points, ...)."""
        return _shift(self.base[name], self.d[name], c)

    def hidden(self, batch: int, c: Tensor) -> Tensor:
        """The first layer's output: (points, n, outputs)."""
        return _shift(*self.z[batch], c)


def _mix(base: Tensor, d: Tensor, c: Tensor) -> Tensor:
    """Base + sum_k c_k d_k for every row of c (points, k) as one matrix product."""
    flat = torch.addmm(base.reshape(1, -1), c, d.reshape(len(d), -1))
    return flat.view(len(c), *base.shape)


def _shift(base: Tensor, d: Tensor, r: Tensor) -> Tensor:
    """Base + r_i d_i for every i."""
    return torch.addcmul(base, r.view(-1, *[1] * base.dim()), d)


def _first(base: Weights, d: Weights, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer's output at theta (n, h), its change along each d (k, n, h)."""
    weight, bias = _keys(layer)
    z = nn.functional.linear(x, base[weight], base.get(bias))
    k, h = len(next(iter(d.values()))), len(base[weight])
    change = z.new_zeros(k, *[1] * z.dim())
    if weight in d:
        sent = (x @ d[weight].reshape(k * h, -1).T).view(*x.shape[:-1], k, h)
        change = change + sent.movedim(-2, 0)
    if bias in d:
        change = change + d[bias].view(k, *[1] * (x.dim() - 1), h)
    return z, change.expand(k, *z.shape).contiguous()


class _Given(nn.Module):
    """Stands for the first layer: its output was computed before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("z", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        return self.z


def _watch(
    net: nn.Module, weights: Weights, x: Tensor
) -> tuple[list[tuple[nn.Module, Tensor, Tensor]], int]:
    """Modules with parameters as they ran, with input and output; the largest output.

    That output is counted in numbers an example. A skeleton runs with `weights` put in.
    """
    ran, largest = [], [1]

    def note(module: nn.Module, args: tuple, out: Tensor) -> None:
        if isinstance(out, Tensor):
            largest.append(out.numel() // len(x))
        if next(module.parameters(recurse=False), None) is not None:
            ran.append((module, args[0], out))

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    try:
        functional_call(net, weights, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return ran, max(largest)


# --- the evaluator --------------------------------------------------------------------


@dataclass
class Evaluator:
    """Mean loss and accuracy of one network on one data set, at points of a family.

    Args:
        net: skeleton as `with_statistics` gives it.
        weights: a member's parameters and buffers.
        data: x (n, ...) and y (n,).
        loss: (logits, labels) -> one loss per sample.
        precision: "float32" (more exactly: the network's own) or "bf16" (autocast).
        batch: examples at a time; with batch statistics these are their statistics.
            None chooses 100 for convnets on a CPU (their layers then stay in its
            cache: twice as fast as 1,000), else 1,000.
        chunk: points at a time; None chooses what suits the device.
    """

    net: nn.Module
    weights: Weights
    data: Dataset
    loss: Loss
    precision: str = "float32"
    batch: int | None = None
    chunk: int | None = None

    @torch.no_grad()
    def __post_init__(self):
        """Try the network on a few examples, and choose how to go about it."""
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}; use one of {PRECISIONS}"
            )
        if self.data.y.dim() > 1:
            raise ValueError(
                f"{self.data.name} has labels for {self.data.members} members; give a "
                "population of that size, or labels (n,)"
            )
        own = {k for k, _ in self.net.named_parameters()}
        own |= {k for k, _ in self.net.named_buffers()}
        self.weights = {k: w for k, w in self.weights.items() if k in own}
        like = next(iter(self.weights.values()))
        self.dtype, self.device = like.dtype, like.device
        x = self.data.x.to(self.device, self.dtype)
        ran, self.largest = self._try(x[:2])
        conv = any(w.dim() == 4 for w in self.weights.values())
        self.loop = conv and self.device.type == "cpu"
        if self.loop:
            x = x.contiguous(memory_format=torch.channels_last)
        self.batch = self.batch or (100 if self.loop else 1000)
        self.x = x.split(self.batch)
        self.y = self.data.y.to(self.device).split(self.batch)
        self.first = None if self.loop else self._split(ran, x[:2])
        self.folds = self._fold(ran, x[:2]) if self.loop else []
        if self.first is not None:
            self.inputs = [_watch(self.net, self.weights, b)[0][0][1] for b in self.x]

    def _try(self, x: Tensor) -> tuple[list, int]:
        try:
            ran, largest = _watch(self.net, self.weights, x)
            classes = functional_call(self.net, self.weights, (x,)).shape[-1]
        except RuntimeError as error:
            raise ValueError(
                f"the network cannot take inputs of shape {tuple(x.shape[1:])} from "
                f"{self.data.name}: {error}"
            ) from error
        if classes > 1 and int(self.data.y.max()) >= classes:
            raise ValueError(
                f"{self.data.name} has labels up to {int(self.data.y.max())}, the "
                f"network {classes} outputs"
            )
        return ran, largest

    def _split(self, ran: list, x: Tensor) -> str | None:
        """The linear layer that takes the input, if the rest runs without it; by trial.

        At other weights the whole must equal (the rest) o (that layer), the layer
        having the same input as before: else None, and the slower way is taken.
        """
        if not ran or type(ran[0][0]) is not nn.Linear:
            return None
        layer, given, _ = ran[0]
        first = next(name for name, m in self.net.named_modules() if m is layer)
        rest = copy.deepcopy(self.net)
        if not first:  # the network is that one layer
            rest = _Given()
        else:
            rest.set_submodule(first, _Given())
        other = self._elsewhere()
        bias = other.get(_key(first, "bias"))
        z = nn.functional.linear(given, other[_key(first, "weight")], bias)
        held = {k: w for k, w in other.items() if k not in _keys(first)}
        try:
            found = functional_call(rest, held | {_key(first, "z"): z}, (x,))
        except (AttributeError, KeyError):  # it uses the layer's weights by itself
            return None
        wanted = functional_call(self.net, other, (x,))
        if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-5):
            return None
        self.rest = rest
        return first

    def _fold(self, ran: list, x: Tensor) -> list[tuple[str, str, float]]:
        """Convolutions to take the BatchNorm after them in: (convolution, norm, eps).

        With running statistics the two are one convolution of other weights. Tried at
        other weights like the first layer: none are folded if the outputs differ.
        """
        names = {m: name for name, m in self.net.named_modules()}
        made = {id(out): m for m, _, out in ran if type(m) is nn.Conv2d}
        pairs = [
            (made[id(x)], m)
            for m, x, _ in ran
            if isinstance(m, _BatchNorm)
            and id(x) in made
            and m.running_mean is not None
            and m.affine
        ]
        folds = [(names[conv], names[norm], norm.eps) for conv, norm in pairs]
        if not folds:
            return []
        rest = copy.deepcopy(self.net)
        for conv, norm, _ in folds:
            layer = rest.get_submodule(conv)
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels), False)
            rest.set_submodule(norm, nn.Identity())
        other = self._elsewhere()
        found = functional_call(rest, _folded(other, folds), (x,))
        wanted = functional_call(self.net, other, (x,))
        if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-5):
            return []
        self.rest = rest
        return folds

    def _elsewhere(self) -> Weights:
        """Other weights, at which a faster way must give what the network gives."""
        return {
            k: w * 1.1 if w.is_floating_point() else w for k, w in self.weights.items()
        }

    def _measure(self, weights: Weights, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss and number right, at one point."""
        net = self.net if self.first is None and not self.folds else self.rest
        bf16 = self.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            logits = functional_call(net, weights, (x,))
        logits = logits.to(self.dtype)
        right = (logits.argmax(-1) == y).sum().to(self.dtype)
        return self.loss(logits, y).sum(), right

    @torch.no_grad()
    def along(
        self, sheet: Sheet, coordinates: Tensor, tick: Callable = lambda n: None
    ) -> tuple[Tensor, Tensor]:
        """Loss and accuracy (points,) at coordinates (points, k) of a sheet.

        With a Fan, coordinates (points,) are distances along its own directions.
        """
        c = coordinates.to(self.device, self.dtype)
        if self.first is not None and not hasattr(sheet, "z"):
            sheet.prepare(self.first, self.inputs)
        size = len(c) if isinstance(sheet, Fan) else self.points_at_once(len(c))
        parts = []
        for rows in c.split(size):
            parts.append(self._some(sheet, rows))
            tick(len(rows))
        loss, hits = (torch.cat(p) / len(self.data) for p in zip(*parts, strict=True))
        return loss, hits

    def _some(self, sheet: Sheet, c: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of points: summed loss and number right, (points,) each."""
        skip = _keys(self.first) if self.first is not None else ()
        moving = {k: sheet.weights(k, c) for k in sheet.d if k not in skip}
        still = {k: w for k, w in sheet.still.items() if k not in skip}
        totals = []
        for i, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
            if self.first is not None:
                moving[_key(self.first, "z")] = sheet.hidden(i, c)
            total = self._loop if self.loop else self._vmap
            totals.append(total(moving, still, x, y))
        loss, hits = zip(*totals, strict=True)
        return sum(loss), sum(hits)

    def _vmap(self, moving: Weights, still: Weights, x: Tensor, y: Tensor):
        one = lambda w: self._measure(w | still, x, y)  # noqa: E731
        return vmap(one, randomness="different")(moving)

    def _loop(self, moving: Weights, still: Weights, x: Tensor, y: Tensor):
        out = []
        for i in range(len(next(iter(moving.values())))):
            w = _folded({k: t[i] for k, t in moving.items()} | still, self.folds)
            w = {k: _laid_out(t) for k, t in w.items()}
            out.append(self._measure(w, x, y))
        return tuple(torch.stack(part) for part in zip(*out, strict=True))

    def points_at_once(self, points: int, *, fan: bool = False) -> int:
        """The chunk given, or what suits; ValueError where that does not fit memory."""
        size = sum(w.numel() for w in self.weights.values())
        # A layer's output, its activation and the loss's copies are alive together.
        need = self.dtype.itemsize * (2 * size + 4 * self.largest * len(self.x[0]))
        if fan and self.first is not None:  # each ray keeps its first layer's output
            hidden = len(self.weights[_key(self.first, "weight")])
            need += self.dtype.itemsize * (size + 2 * hidden * len(self.data))
        free = free_memory(self.device)
        fits = max(1, int(0.8 * free / need))  # leave others some room
        if self.chunk is None:
            return min(points, fits, self._suits(need))
        if self.loop or min(self.chunk, points) <= fits:
            return min(self.chunk, points)
        raise ValueError(
            f"{min(self.chunk, points):,} points at once need about "
            f"{need * min(self.chunk, points) / 1e9:.3g} GB, {free / 1e9:.3g} GB are "
            f"free: chunk={fits} would fit, or leave chunk out"
        )

    def _suits(self, need: int) -> int:
        """Points at once: on a CPU one for convnets, else what its cache holds."""
        if self.loop:
            return 1
        if self.device.type == "cpu":
            return max(1, min(64, 2**24 // need))
        return 4096


def _key(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _keys(layer: str) -> tuple[str, str]:
    return _key(layer, "weight"), _key(layer, "bias")


def _folded(w: Weights, folds: list[tuple[str, str, float]]) -> Weights:
    """Weights of the network without the norms that its convolutions took in."""
    w = dict(w)
    for conv, norm, eps in folds:
        mean, var, gain, shift = (
            w.pop(_key(norm, k))
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        w.pop(_key(norm, "num_batches_tracked"), None)
        scale = gain * (var + eps).rsqrt()
        weight, bias = _keys(conv)
        w[bias] = shift + scale * (w.get(bias, 0) - mean)
        w[weight] = w[weight] * scale.view(-1, *[1] * (w[weight].dim() - 1))
    return w


def _laid_out(w: Tensor) -> Tensor:
    return w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device (on a CPU without /proc: 4 GB are assumed)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (FileNotFoundError, KeyError):
        return 4 * 10**9


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on stderr after two seconds; none while the book is built."""
    from tqdm.auto import tqdm

    with tqdm(
        total=total,
        desc=what,
        unit="point",
        delay=2,
        leave=False,
        disable=static_build(),
    ) as bar:
        yield bar.update
