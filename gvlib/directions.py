"""Directions in weight space: random and filter-normalized, between networks, PCA.

A direction is a dict from parameter name to a tensor of that parameter's shape, or, for
a population, (members, ...). Its use is from `gvlib.landscape`, which shows all of this
under its own name too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ._points import Nets, check_direction, nets_of
from .population import Population

__all__ = [
    "Direction",
    "Plane",
    "between",
    "direction",
    "noise",
    "plane",
    "scaled",
]

Direction = dict[str, Tensor]
NORMALIZE = ("filter", "layer", "unit", None)
BIASES = ("zero", "copy", "random")
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_TINY = 1e-10  # Li et al.'s code adds it to a filter's norm before it divides


def direction(
    net: nn.Module | Population,
    *,
    seed: int,
    normalize: str | None = "filter",
    biases: str = "zero",
) -> Direction:
    """A random direction with the scale of the network's own filters.

    d_ij <- d_ij / ||d_ij|| * ||theta_ij|| for filter j of layer i, d_ij ~ N(0, I): the
    incoming weights of one output neuron or channel (Li et al. 2018, section 4).

    Args:
        net: a network, or a population: then all members get the same random numbers,
            each scaled by its own filters.
        seed: of the random numbers, which are the same on every device.
        normalize: "filter"; "layer" (the norm of a whole tensor); "unit" (the whole
            direction has length 1); None (plain Gaussian: pictures then mislead).
        biases: what biases and the scales and shifts of normalization layers get:
            "zero", they stay put (the default, as in Li et al. 2018 and Huang et al.
            2019); "copy", d = theta (Li et al.'s code when told not to ignore them);
            "random", Gaussian with the norm of the tensor.

    Returns name -> tensor (...) like the parameters, or (members, ...).

    Raises ValueError for an unknown choice, TypeError for something not a network.

    >>> net = nn.Linear(3, 2)
    >>> d = direction(net, seed=0)
    >>> torch.allclose(d["weight"].norm(dim=1), net.weight.norm(dim=1))
    True
    >>> d["bias"].tolist()
    [0.0, 0.0]
    """
    check_choices(normalize, biases)
    nets = nets_of(net)
    d = scaled(noise(nets, [seed], biases), nets, normalize, biases)
    return {k: v[0] for k, v in d.items()} if nets.single else d


def check_choices(normalize: str | None, biases: str) -> None:
    """Refuse a way to normalize, or to treat biases, that does not exist."""
    if normalize not in NORMALIZE:
        raise ValueError(f"normalize is {normalize!r}; use one of {NORMALIZE}")
    if biases not in BIASES:
        raise ValueError(f"biases is {biases!r}; use one of {BIASES}")


def filters(net: nn.Module) -> set[str]:
    """Names of weight matrices and filters: no biases, nothing of normalization."""
    norms = {n for n, m in net.named_modules() if isinstance(m, _NORMS)}
    return {
        name
        for name, p in net.named_parameters()
        if p.dim() > 1 and name.rpartition(".")[0] not in norms
    }


def moving(nets: Nets, biases: str) -> set[str]:
    """Names of the parameters that get random numbers."""
    return set(nets.params) if biases == "random" else filters(nets.net)


def noise(nets: Nets, seeds: Sequence[int], biases: str) -> Direction:
    """Gaussian numbers (seeds, ...) for all that moves; a seed fixes its row alone."""
    names = moving(nets, biases)
    shapes = {k: p.shape[1:] for k, p in nets.params.items() if k in names}
    sizes = [math.prod(shape) for shape in shapes.values()]
    rows = torch.empty(len(seeds), sum(sizes))
    for row, seed in zip(rows, seeds, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(int(seed)))
    first = next(iter(nets.params.values()))
    rows = rows.to(first.device, first.dtype)
    parts = zip(shapes.items(), rows.split(sizes, dim=1), strict=True)
    return {name: part.reshape(-1, *shape) for (name, shape), part in parts}


def scaled(
    noise: Direction, nets: Nets, normalize: str | None, biases: str
) -> Direction:
    """Noise (k, ...) at the scale of weights (m, ...), as `direction` says.

    One of k and m is 1; the result has the other number of rows.
    """
    out, filtered = {}, filters(nets.net)
    rows = max(len(next(iter(noise.values()))), len(nets.members)) if noise else 1
    for name, w in nets.params.items():
        if name in noise:
            per = 2 if normalize == "filter" and name in filtered else 1
            g = noise[name]
            if normalize in ("filter", "layer"):
                g = g * (_norm(w, per) / (_norm(g, per) + _TINY))
            out[name] = g.expand(rows, *w.shape[1:])
        else:
            still = w if biases == "copy" else torch.zeros_like(w)
            out[name] = still.expand(rows, *w.shape[1:])
    if normalize == "unit":
        length = sum(_norm(d, 1).flatten() ** 2 for d in out.values()).sqrt()
        out = {k: d / length.view(-1, *[1] * (d.dim() - 1)) for k, d in out.items()}
    return out


def _norm(t: Tensor, axes: int) -> Tensor:
    """Euclidean norm over all but the first `axes` axes, which are kept."""
    if t.dim() <= axes:
        return t.abs()
    return t.flatten(axes).norm(dim=-1).view(*t.shape[:axes], *[1] * (t.dim() - axes))


def between(
    a: nn.Module | Population, b: nn.Module | Population, *, statistics: bool = True
) -> Direction:
    """The direction b - a: from network a (at 0) to network b (at 1).

    All parameters move, biases too. With `statistics`, running statistics of BatchNorm
    move along (Li et al. 2018, figure 2). Two populations of one size go member by
    member.

    Raises ValueError where a and b are not of the same shapes.

    >>> a, b = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> torch.equal(between(a, b)["bias"], (b.bias - a.bias).detach())
    True
    """
    start, end = nets_of(a), nets_of(b)
    if len(start.members) != len(end.members) or start.single != end.single:
        raise ValueError(
            f"between {len(start.members)} and {len(end.members)} networks there is no "
            "direction; give two networks, or two populations of one size"
        )
    d = {k: p - w for k, w, p in _pairs(start.params, end.params)}
    if statistics:
        moved = _pairs(start.buffers, end.buffers)
        d |= {k: p - w for k, w, p in moved if w.is_floating_point()}
    return {k: v[0] for k, v in d.items()} if start.single else d


def _pairs(a: Direction, b: Direction) -> list[tuple[str, Tensor, Tensor]]:
    shapes = [{k: tuple(t.shape[1:]) for k, t in d.items()} for d in (a, b)]
    if shapes[0] != shapes[1]:
        differ = [k for k in {**a, **b} if shapes[0].get(k) != shapes[1].get(k)]
        raise ValueError(
            f"the networks differ in {', '.join(differ)}: {shapes[0].get(differ[0])} "
            f"and {shapes[1].get(differ[0])}; both must be built alike"
        )
    return [(k, a[k], b[k].to(a[k])) for k in a]


# --- the plane of a trajectory --------------------------------------------------------


@dataclass(frozen=True)
class Plane:
    """The principal plane of a trajectory, through its last point.

    one, two: orthonormal directions. path: (snapshots, 2), where each snapshot lies,
    the last at (0, 0). explained: (k,), the share of variance of every principal
    component, largest first. left_out: (snapshots,), the distance of each snapshot from
    the plane.
    """

    one: Direction
    two: Direction
    path: np.ndarray
    explained: np.ndarray
    left_out: np.ndarray

    def span(self, margin: float = 0.2) -> tuple[tuple[float, float], ...]:
        """Limits of both axes that hold the path with a margin, for `surface`."""
        low, high = self.path.min(axis=0), self.path.max(axis=0)
        room = margin * (high - low)
        ends = zip(low - room, high + room, strict=True)
        return tuple((float(a), float(b)) for a, b in ends)


def plane(
    snapshots: Sequence[nn.Module | Population],
    *,
    member: int = 0,
    biases: str = "copy",
) -> Plane:
    """The plane that holds most of a trajectory: PCA of theta_i - theta_last.

    Rows theta_i - theta_last are centred and their first two principal components span
    the plane (Li et al. 2018, section 7). `explained` are their shares of the variance,
    as in scikit-learn's PCA.

    Args:
        snapshots: the network at several times, at least three; the last is the origin.
        member: which one, where the snapshots are populations.
        biases: "copy", all parameters count; "zero", biases and entries of
            normalization layers stay at their last value.

    Raises ValueError for too few snapshots, or snapshots on one line or point: a
    singular plane.
    """
    if biases not in ("copy", "zero"):
        raise ValueError(f'biases is {biases!r}; use "copy" or "zero"')
    taken = [nets_of(s) for s in snapshots]
    if len(taken) < 3:
        raise ValueError(f"{len(taken)} snapshots span no plane; give at least 3")
    last = taken[-1]
    row = 0 if last.single else member
    names = [k for k in last.params if biases == "copy" or k in filters(last.net)]
    for one in taken:
        _pairs(last.params, one.params)
    rows = [torch.cat([t.params[k][row].flatten() for k in names]) for t in taken]
    steps = torch.stack(rows).double()
    steps = steps - steps[-1]
    centred = steps - steps.mean(0)
    _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
    # below 1e-7 of the first, a second component is float32's rounding
    if not sizes[1] > 1e-7 * sizes[0]:
        raise ValueError(
            f"the {len(taken)} snapshots lie on one {'line' if sizes[0] else 'point'}: "
            "their plane is singular; take snapshots at which the network differs"
        )
    flip = axes[:2].sum(1, keepdim=True) < 0  # a sign that does not vary
    axes = torch.where(flip, -axes[:2], axes[:2])
    path = steps @ axes.T
    return Plane(
        *(_unflatten(axis, names, last) for axis in axes),
        path.cpu().numpy(),
        (sizes**2 / (sizes**2).sum()).cpu().numpy(),
        (steps - path @ axes).norm(dim=1).cpu().numpy(),
    )


def _unflatten(vector: Tensor, names: Sequence[str], nets: Nets) -> Direction:
    """A flat vector as a direction; parameters not in `names` get zeros."""
    out = {k: torch.zeros_like(p[0]) for k, p in nets.params.items()}
    parts = vector.split([out[k].numel() for k in names])
    for name, part in zip(names, parts, strict=True):
        out[name] = part.to(out[name]).view_as(out[name])
    return out


def check_plane(one: Direction, two: Direction, nets: Nets) -> None:
    """Refuse directions of other shapes, of length zero, or that are parallel."""
    for name, d in (("the first direction", one), ("the second direction", two)):
        check_direction(d, nets, name)
    lengths = _dot(one, one) ** 0.5, _dot(two, two) ** 0.5
    if min(lengths) == 0:
        raise ValueError("a direction of length zero spans no plane")
    # sin^2 of the angle; 1e-6 is an angle of 0.06 degrees
    if 1 - (_dot(one, two) / (lengths[0] * lengths[1])) ** 2 < 1e-6:
        raise ValueError(
            "the two directions are parallel: the plane is singular; use another seed "
            "for one of them"
        )


def _dot(a: Direction, b: Direction) -> float:
    return sum(float((a[k].double() * b[k].double()).sum()) for k in a if k in b)
