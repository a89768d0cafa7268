"""Curvature: the Hessian of the mean loss, by its products with vectors.

    H = gv.curvature.hessian(net, train)
    top = gv.curvature.top(H, 2)                 # values, and directions for surfaces
    spectrum = gv.curvature.density(H)           # the density of all eigenvalues
    sharpness = gv.curvature.sharpness(population, train)     # one value a member

Where a network is piecewise linear (ReLU), second derivatives are those of the pieces:
the kinks between them do not count.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ._points import Evaluator, Loss, free_memory, member_set, nets_of, with_statistics
from .data import Dataset
from .directions import Direction
from .intervals import Interval, interval
from .losses import cross_entropy
from .population import Population

__all__ = [
    "Density",
    "Hessian",
    "Lanczos",
    "NotConvergedWarning",
    "Top",
    "density",
    "hessian",
    "lanczos",
    "sharpness",
    "top",
    "trace",
]


class NotConvergedWarning(RuntimeWarning):
    """An eigenpair did not settle within the steps allowed."""


# --- products -------------------------------------------------------------------------


class Hessian:
    """The Hessian of a network's mean loss over a data set, as a linear operator.

    `H @ v` for v (dim,) or (dim, k) gives H v. Parameters lie in v one after another as
    in net.parameters(). Made by `hessian`, which says what the arguments mean.
    """

    def __init__(
        self,
        net: nn.Module,
        data: Dataset,
        loss: Loss,
        batch: int,
        keep: bool | None,
    ):
        params = dict(net.named_parameters())
        at = Evaluator(net, {**params, **dict(net.named_buffers())}, data, loss)
        self.names, self.params = list(params), list(params.values())
        self.device, self.dtype = at.device, at.dtype
        self.shapes = [p.shape for p in self.params]
        self.sizes = [p.numel() for p in self.params]
        self.dim, self.n = sum(self.sizes), len(data)
        self.net, self.loss = net, loss
        x = data.x.to(at.device, at.dtype)
        self.x, self.y = x.split(batch), data.y.to(at.device).split(batch)
        self.keep = self._fits() if keep is None else keep
        self.kept: list[tuple[Tensor, ...]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(dim, dim)."""
        return self.dim, self.dim

    def _fits(self) -> bool:
        """Whether the graphs of all batches fit a quarter of the free memory.

        One example's forward pass is measured; its gradient's graph holds the same
        tensors again and the products take as many: four times as much.
        """
        held = 0

        def count(t: Tensor) -> Tensor:
            nonlocal held
            held += t.numel() * t.element_size() if t.dim() and len(t) == 2 else 0
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            self.loss(self.net(self.x[0][:2]), self.y[0][:2])
        batches = len(self.x) * self.dim * self.dtype.itemsize
        return 4 * held / 2 * self.n + batches < free_memory(self.device) / 4

    def _gradients(self) -> Iterator[tuple[Tensor, ...]]:
        """Each batch's part of the gradient, with its graph."""
        for x, y in zip(self.x, self.y, strict=True):
            mean = self.loss(self.net(x), y).sum() / self.n
            yield torch.autograd.grad(mean, self.params, create_graph=True)

    def __matmul__(self, v: Tensor) -> Tensor:
        """H v, by a second backward pass through the gradient."""
        if v.shape[:1] != (self.dim,) or v.dim() > 2:
            raise ValueError(
                f"the vector has shape {tuple(v.shape)}, expected ({self.dim},) or "
                f"({self.dim}, k)"
            )
        v = v.to(self.device, self.dtype)
        if v.dim() == 2:
            return torch.stack([self @ column for column in v.T], dim=1)
        if self.keep and self.kept is None:
            self.kept = list(self._gradients())
        parts = self.split(v)
        out = torch.zeros_like(v)
        for g in self.kept or self._gradients():
            found = torch.autograd.grad(
                g, self.params, parts, retain_graph=self.keep, materialize_grads=True
            )
            out += torch.cat([t.flatten() for t in found])
        return out

    def split(self, v: Tensor) -> list[Tensor]:
        """A vector (dim,) as one tensor a parameter."""
        parts = zip(v.split(self.sizes), self.shapes, strict=True)
        return [part.view(shape) for part, shape in parts]

    def direction(self, v: Tensor) -> Direction:
        """A vector (dim,) as a direction for `gvlib.landscape`."""
        return dict(zip(self.names, self.split(v), strict=True))

    def dense(self) -> Tensor:
        """The whole matrix (dim, dim), column by column; for small networks."""
        if self.dim > 5_000:
            raise ValueError(
                f"the Hessian is {self.dim:,} x {self.dim:,}; a matrix is for networks "
                "of at most 5,000 parameters, use products, top or density"
            )
        eye = torch.eye(self.dim, device=self.device, dtype=self.dtype)
        return self @ eye


def hessian(
    net: nn.Module,
    data: Dataset,
    *,
    loss: Loss = cross_entropy,
    statistics: str | None = None,
    batch: int = 250,
    keep: bool | None = None,
) -> Hessian:
    """The Hessian of the mean loss, H = d^2/dtheta^2 1/n sum_i l(f(x_i), y_i).

    H v = d/dtheta (g(theta) . v): the gradient g is taken with its graph, and
    differentiated again for each v (Pearlmutter 1994).

    Args:
        net: a network; its parameters are copied, so that H stays what it is.
        data: x (n, ...) and y (n,); weights of examples are not used.
        loss: (logits, labels) -> one loss per sample.
        statistics: of BatchNorm, "running" or "batch", as in `gvlib.landscape.line`.
        batch: examples at a time.
        keep: True keeps the gradient's graph for all products, which makes each about
            twice as fast; False builds it anew each time. None keeps it where it takes
            at most a quarter of the free memory.

    Raises TypeError for a population (take its members, or `sharpness`); ValueError for
    data that do not fit.

    >>> from gvlib import data, models
    >>> H = hessian(models.MLP(2, 4, 2), data.moons(20, seed=0))
    >>> H.shape, (H @ torch.ones(22)).shape
    ((22, 22), torch.Size([22]))
    """
    if isinstance(net, Population):
        raise TypeError(
            "a population has a Hessian for each member: use hessian(population[i], "
            "...), or sharpness(population, ...)"
        )
    nets = nets_of(net)
    if not (isinstance(batch, int) and batch >= 1):
        raise ValueError(f"batch is {batch!r}; use a whole number of at least 1")
    skeleton = with_statistics(nets.net, statistics).requires_grad_(True)
    return Hessian(skeleton, member_set(data, nets, 0), loss, batch, keep)


# --- Lanczos --------------------------------------------------------------------------


class Lanczos(NamedTuple):
    """What k steps of Lanczos leave, eigenvalues ascending.

    values: (k,) Ritz values. weights: (k,), squared overlaps of the start with the Ritz
    vectors, of sum 1. residuals: (k,), the norms |H u - value u|. vectors: (dim, k) the
    Ritz vectors u, or None.
    """

    values: Tensor
    weights: Tensor
    residuals: Tensor
    vectors: Tensor | None


def lanczos(
    matvec: Callable[[Tensor], Tensor] | Hessian,
    start: Tensor,
    steps: int = 40,
    *,
    vectors: bool = False,
) -> Lanczos:
    """Lanczos with full re-orthogonalization from one start vector.

    Q^T H Q = T, tridiagonal, with Q an orthonormal basis of span{q, H q, H^2 q, ...}.
    Each new vector is made orthogonal to all before, twice: without that, rounding
    brings back found eigenvalues as ghosts (Paige 1972). Both ends of the spectrum
    converge first. It stops early when the space closes.

    Args:
        matvec: v (dim,) -> H v, or a Hessian.
        start: (dim,), not zero.
        steps: products with H, at most; dim is enough.
        vectors: whether to form the Ritz vectors.
    """
    product = matvec.__matmul__ if isinstance(matvec, Hessian) else matvec
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"steps is {steps!r}; use a whole number of at least 1")
    if not 0 < start.norm() < torch.inf:
        raise ValueError("the start vector must be finite and not zero")
    steps = min(steps, len(start))
    basis = start.new_zeros(steps, len(start))
    basis[0] = start / start.norm()
    alphas, betas = [], []
    for k in range(steps):
        w = product(basis[k])
        alphas.append(float(w @ basis[k]))
        for _ in range(2):
            w = w - basis[: k + 1].T @ (basis[: k + 1] @ w)
        betas.append(float(w.norm()))
        if not np.isfinite(betas[-1]):
            raise ValueError("H v is not finite: the loss is not, or has no curvature")
        if k + 1 == steps or _closed(alphas, betas, start.dtype):
            break
        basis[k + 1] = w / betas[-1]
    return _ritz(alphas, betas, basis, vectors)


def _closed(alphas: list[float], betas: list[float], dtype: torch.dtype) -> bool:
    """True where what is left of H q is rounding: the space is invariant."""
    scale = max(map(abs, [*alphas, *betas[:-1]]), default=0.0)
    return betas[-1] <= 10 * torch.finfo(dtype).eps * scale


def _ritz(
    alphas: list[float], betas: list[float], basis: Tensor, vectors: bool
) -> Lanczos:
    off = betas[: len(alphas) - 1]
    t = np.diag(alphas) + np.diag(off, 1) + np.diag(off, -1)
    values, u = np.linalg.eigh(t)
    values, u = (torch.from_numpy(a).to(basis) for a in (values, u))
    ritz = basis[: len(alphas)].T @ u if vectors else None
    return Lanczos(values, u[0] ** 2, betas[-1] * u[-1].abs(), ritz)


# --- what one asks of a Hessian -------------------------------------------------------


@dataclass(frozen=True)
class Top:
    """Eigenpairs: values (k,), vectors (dim, k), residuals |H u - value u| (k,).

    directions: the vectors as directions of length 1, for lines and surfaces.
    """

    values: np.ndarray
    vectors: Tensor
    residuals: np.ndarray
    directions: list[Direction]


def top(
    hessian: Hessian,
    k: int = 1,
    *,
    which: str = "largest",
    tolerance: float = 1e-3,
    steps: int = 200,
    seed: int = 0,
) -> Top:
    """The k largest (or smallest) eigenvalues of H with their eigenvectors.

    Lanczos from one random start, twice as long each time until every residual
    |H u - value u| is below `tolerance` times the largest |value|. An eigenvalue that
    occurs several times is found once: one start cannot tell.

    Args:
        hessian: from `hessian`.
        k: how many; largest first, or smallest first.
        which: "largest" or "smallest" (the most negative).
        tolerance: relative; the error of a value goes with its square.
        steps: products with H, at most.
        seed: of the start.

    Warns NotConvergedWarning where the steps do not suffice.

    >>> from gvlib import data, models
    >>> H = globals()["hessian"](models.MLP(2, 4, 2), data.moons(20, seed=0))
    >>> top(H, 2).values.shape
    (2,)
    """
    if which not in ("largest", "smallest"):
        raise ValueError(f'which is {which!r}; use "largest" or "smallest"')
    if not (isinstance(k, int) and 1 <= k <= hessian.dim):
        raise ValueError(f"k is {k!r}; use a whole number from 1 to {hessian.dim}")
    start, length = _random(hessian, seed), min(max(10, 4 * k), steps)
    while True:
        found = lanczos(hessian, start, length, vectors=True)
        order = list(range(min(k, len(found.values))))
        if which == "largest":
            order = [-1 - i for i in order]
        residuals = found.residuals[order]
        settled = residuals.max() <= tolerance * found.values.abs().max()
        if settled or length >= min(steps, hessian.dim):
            break
        length = min(2 * length, steps)
    if not settled:
        warnings.warn(
            f"residuals are {residuals.tolist()} after {length} steps: raise steps or "
            "tolerance",
            NotConvergedWarning,
            stacklevel=2,
        )
    vectors = found.vectors[:, order]
    return Top(
        found.values[order].cpu().numpy(),
        vectors,
        residuals.cpu().numpy(),
        [hessian.direction(v) for v in vectors.T],
    )


def sharpness(
    net: nn.Module | Population,
    data: Dataset,
    *,
    loss: Loss = cross_entropy,
    statistics: str | None = None,
    batch: int = 250,
    tolerance: float = 1e-3,
    steps: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """The largest eigenvalue of the Hessian: of a network (), of members (members,).

    See `hessian` and `top`. It depends on the scale of the weights: a ReLU network can
    be rescaled to any sharpness without changing what it computes (Dinh et al. 2017).

    >>> from gvlib import data, models
    >>> nets = Population(lambda: models.MLP(2, 4, 2), {"seed": [0, 1]}, device="cpu")
    >>> sharpness(nets, data.moons(20, seed=0)).shape
    (2,)
    """
    nets = nets_of(net)
    out = []
    for i in range(len(nets.members)):
        one = net if nets.single else net[i]
        own = member_set(data, nets, i)
        h = hessian(one, own, loss=loss, statistics=statistics, batch=batch)
        out.append(top(h, tolerance=tolerance, steps=steps, seed=seed).values[0])
    return np.array(out[0] if nets.single else out)


def trace(hessian: Hessian, probes: int = 100, *, seed: int = 0) -> Interval:
    """Hutchinson's estimate of tr H, with a Student-t interval over the probes.

    tr H = E[v^T H v] for v of independent signs (Hutchinson 1990). One probe has the
    variance 2 (|H|_F^2 - sum_i H_ii^2): entries off the diagonal alone make noise, and
    the error falls with the square root of the number of probes.

    >>> from gvlib import data, models
    >>> H = globals()["hessian"](models.MLP(2, 4, 2), data.moons(20, seed=0))
    >>> trace(H, 10).n
    10
    """
    if not (isinstance(probes, int) and probes >= 2):
        raise ValueError(f"probes is {probes!r}; use a whole number of at least 2")
    values = []
    for i in range(probes):
        signs = _random(hessian, seed * 1_000_003 + i).sign()
        values.append(float(signs @ (hessian @ signs)))
    return interval(values)


@dataclass(frozen=True)
class Density:
    """The density of eigenvalues, of integral 1.

    grid, density: (points,). nodes, weights: the Ritz values of all probes and their
    weights, of sum 1, that `density` smooths with Gaussians of standard deviation
    `width`.
    """

    grid: np.ndarray
    density: np.ndarray
    nodes: np.ndarray
    weights: np.ndarray
    width: float


def density(
    hessian: Hessian,
    *,
    steps: int = 40,
    probes: int = 4,
    width: float | None = None,
    points: int = 1000,
    seed: int = 0,
) -> Density:
    """The spectral density of H, by stochastic Lanczos quadrature.

    phi(t) = 1/dim sum_i N(t; lambda_i, width^2), estimated as the mean over random
    starts of sum_k w_k N(t; theta_k, width^2), theta_k the Ritz values and w_k their
    weights (Lin, Saad & Yang 2016; Ghorbani et al. 2019).

    Args:
        hessian: from `hessian`.
        steps: of Lanczos for each start.
        probes: random starts.
        width: standard deviation of the smoothing; by default a hundredth of the range.
        points: of the grid.
        seed: of the starts.

    Outliers (the few large eigenvalues) come out as single peaks of weight 1/dim on
    average, with large scatter: take `top` for them.
    """
    if not (isinstance(probes, int) and probes >= 1):
        raise ValueError(f"probes is {probes!r}; use a whole number of at least 1")
    if width is not None and not width > 0:
        raise ValueError(f"width is {width}; use a number above 0")
    starts = (_random(hessian, seed * 1_000_003 + i) for i in range(probes))
    runs = [lanczos(hessian, start, steps) for start in starts]
    nodes, weights = (
        torch.cat([run[i] for run in runs]).double().cpu().numpy() for i in (0, 1)
    )
    weights = weights / probes
    low, high = nodes.min(), nodes.max()
    # all eigenvalues equal: any width will do
    width = width or (high - low) / 100 or max(abs(high), 1.0) / 100
    grid = np.linspace(low - 5 * width, high + 5 * width, points)
    bumps = np.exp(-(((grid[:, None] - nodes) / width) ** 2) / 2)
    smooth = bumps @ weights / (width * np.sqrt(2 * np.pi))
    return Density(grid, smooth, nodes, weights, float(width))


def _random(hessian: Hessian, seed: int) -> Tensor:
    """A Gaussian vector (dim,), the same on every device."""
    g = torch.Generator().manual_seed(int(seed))
    v = torch.randn(hessian.dim, generator=g)
    return v.to(hessian.device, hessian.dtype)
