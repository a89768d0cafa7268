"""Losses: (logits, labels) -> one loss per sample; whoever uses them takes the mean.

Every loss is a pure function that works on one network's logits and, under
`torch.func.vmap` and `grad`, on a population's. What it needs beside logits and labels
is given by keyword, so that `functools.partial` makes a loss for `gvlib.train`:

    loss = partial(vs, counts=gvlib.data.class_counts(train), gamma=0.2, tau=1.0)

`counts` are the training examples of each class, best a tuple: a tensor on a GPU would
be read back at every call. `weights` multiply the loss of each class. Both are checked,
inside `vmap` too, unless they are mapped over. So are labels and cosines where their
values can be read: a batched tensor has none. `gvlib.train` therefore calls the loss
once on one member before it starts.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "Deferred",
    "Loss",
    "NotCosineWarning",
    "cdt",
    "cross_entropy",
    "current",
    "drw",
    "effective_number",
    "focal",
    "hinge",
    "inverse_frequency",
    "ldam",
    "logit_adjusted",
    "margins",
    "mean_one",
    "polynomial",
    "squared",
    "stages",
    "vs",
]

Loss = Callable[[Tensor, Tensor], Tensor]
PerClass = Tensor | Sequence[float] | np.ndarray


class NotCosineWarning(UserWarning):
    """LDAM was given logits beyond [-1, 1], which are therefore no cosines."""


# ------------------------------------------------------------------------------- checks


def _readable(tensor: Tensor) -> bool:
    """Whether its values can be looked at: not inside vmap, not while compiling."""
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch  # torch has no public way to ask
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return False
        tensor = functorch.get_unwrapped(tensor)
    return True


def _number(name: str, value: float, low: float, high: float = math.inf) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"{name} is {value!r}, expected a number")
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(
            f"{name} is {value}, expected a finite number from {low:g} to {high:g}"
        )


def _above_zero(name: str, value: float) -> None:
    _number(name, value, 0)
    if value == 0:
        raise ValueError(f"{name} is 0, expected a number above 0")


def _labels(logits: Tensor, labels: Tensor) -> Tensor:
    """`labels` as int64 that fit the logits, or an error."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels are {labels.dtype}, expected integer class numbers")
    if logits.ndim < 1 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels "
            f"{tuple(labels.shape)}, expected (n, classes) and (n,)"
        )
    classes = logits.shape[-1]
    if labels.numel() and _readable(labels):
        low, high = (int(end) for end in labels.aminmax())
        if not 0 <= low <= high < classes:
            raise ValueError(
                f"labels run from {low} to {high}, expected 0 to {classes - 1}: the "
                f"logits are for {classes} classes"
            )
    return labels.long()


def _per_class(values: PerClass, what: str, classes: int | None = None) -> Tensor:
    """Counts or weights as float64 (classes,), every one above 0, or an error."""
    values = torch.as_tensor(values, dtype=torch.float64)
    if values.ndim != 1 or (classes is not None and len(values) != classes):
        raise ValueError(
            f"{what} have shape {tuple(values.shape)}, expected one for each of the "
            f"{classes or ''} classes".replace("  ", " ")
        )
    if _readable(values) and not bool((values.isfinite() & (values > 0)).all()):
        wrong = next(c for c, v in enumerate(values.tolist()) if not 0 < v < math.inf)
        hint = "; a class absent from training has to be left out" * (what == "counts")
        raise ValueError(
            f"{what} of class {wrong} is {values[wrong].item():g}, expected a finite "
            f"number above 0 for every class{hint}"
        )
    return values


def _counts(counts: PerClass, logits: Tensor) -> Tensor:
    return _per_class(counts, "counts", logits.shape[-1])


def _weigh(
    losses: Tensor, labels: Tensor, weights: PerClass | None, classes: int
) -> Tensor:
    if weights is None:
        return losses
    return losses * _per_class(weights, "weights", classes).to(losses)[labels.long()]


def _one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """1 at each label; by scatter, which refuses wrong labels inside vmap too."""
    return torch.zeros_like(logits).scatter(-1, _labels(logits, labels)[..., None], 1)


# ------------------------------------------------------------------------ class weights


def mean_one(weights: PerClass, counts: PerClass | None = None) -> Tensor:
    """Weights scaled so that their mean is 1, and the learning rate keeps its meaning.

    w / mean(w); with `counts`, w_c / (sum_c n_c w_c / n): the mean over examples.

    Args:
        weights: (..., classes) or (..., n), at least 0; the mean is over the last axis.
        counts: (classes,) training examples of each class; None: a plain mean.

    Returns float64, shaped like `weights`.

    Raises ValueError for a weight that is negative or not finite, or a sum of zero.

    >>> mean_one([1, 3]), mean_one([1, 3], counts=[3, 1])
    (tensor([0.5000, 1.5000], dtype=torch.float64), \
tensor([0.6667, 2.0000], dtype=torch.float64))
    """
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if weights.ndim == 0 or not weights.numel():
        raise ValueError(f"weights have shape {tuple(weights.shape)}, expected (n,)")
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError("weights must be finite and not negative")
    share = torch.ones_like(weights)
    if counts is not None:
        share = _per_class(counts, "counts", weights.shape[-1]).to(weights)
    mean = (weights * share).sum(-1, keepdim=True) / share.sum(-1, keepdim=True)
    if not bool((mean > 0).all()):
        raise ValueError("weights sum to zero, so that nothing would be learned")
    return weights / mean


def _scaled(weights: Tensor, counts: Tensor, mean: str | None) -> Tensor:
    if mean not in ("examples", "classes", None):
        raise ValueError(f'mean is {mean!r}; use "examples", "classes" or None')
    if mean is None:
        return weights
    return mean_one(weights, counts if mean == "examples" else None)


def inverse_frequency(counts: PerClass, *, mean: str | None = "examples") -> Tensor:
    """Class weights w_c = 1 / n_c: every class counts the same.

    Args:
        counts: (classes,) training examples of each class.
        mean: "examples" scales to a mean of 1 over the training examples (what a
            weighted mean over a batch, as in torch.nn.CrossEntropyLoss(weight=...),
            comes to); "classes" to a mean of 1 over the classes; None not at all.

    Returns (classes,) float64.

    >>> inverse_frequency((30, 10))
    tensor([0.6667, 2.0000], dtype=torch.float64)
    """
    counts = _per_class(counts, "counts")
    return _scaled(1 / counts, counts, mean)


def effective_number(
    counts: PerClass, beta: float = 0.9999, *, mean: str | None = "examples"
) -> Tensor:
    """Class weights w_c = (1 - beta) / (1 - beta^n_c), Cui et al. 2019.

    beta = 0 weighs all classes alike, beta -> 1 by 1 / n_c. The default is the value
    in the published code of Cao et al. 2019.

    Args:
        counts: (classes,) training examples of each class.
        beta: in [0, 1).
        mean: as in `inverse_frequency`.

    Returns (classes,) float64.

    >>> effective_number((30, 10), beta=0.0)
    tensor([1., 1.], dtype=torch.float64)
    """
    _number("beta", beta, 0, 1)
    if beta == 1:
        raise ValueError("beta is 1; it must be below 1 (its limit: inverse_frequency)")
    counts = _per_class(counts, "counts")
    log_beta = math.log(beta) if beta else -math.inf
    weights = (1 - beta) / -torch.expm1(counts * log_beta)
    return _scaled(weights, counts, mean)


# ------------------------------------------------------------------------------- losses


def cross_entropy(
    logits: Tensor, labels: Tensor, *, weights: PerClass | None = None
) -> Tensor:
    """Cross-entropy: -w_y log softmax(f)_y, in nats.

    Args:
        logits: f, (n, classes).
        labels: y, (n,) integers in [0, classes).
        weights: w, (classes,), above 0; None: 1 for all. The mean over a batch is a
            plain one, not divided by the batch's weights: give weights of mean 1
            (`inverse_frequency`, `effective_number`, `mean_one`).

    Returns:
        (n,), one loss per sample.

    Raises:
        ValueError: shapes that do not fit, labels outside the classes, weights that are
            not above 0.
        TypeError: labels that are not integers.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    index = _labels(logits, labels)
    losses = -logits.log_softmax(-1).gather(-1, index[..., None])[..., 0]
    return _weigh(losses, index, weights, logits.shape[-1])


def focal(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    weights: PerClass | None = None,
) -> Tensor:
    """Focal loss: -w_y (1 - p_y)^gamma log p_y, p = softmax(f).

    Lin et al. 2017, equations 4 and 5: what is already right counts for less. Arguments
    and errors as `cross_entropy`; gamma >= 0, and 0 is cross-entropy.

    >>> focal(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0).mul(2).exp()
    tensor([2.])
    """
    _number("gamma", gamma, 0)
    if logits.shape[-1] < 2:
        raise ValueError("the focal loss needs logits for at least 2 classes")
    losses = cross_entropy(logits, labels)
    # log(1 - p_y) from the other classes: 1 - p_y itself would round to 0, and the
    # derivative of a power at 0 is infinite for gamma < 1.
    others = logits.masked_fill(_one_hot(logits, labels).bool(), -math.inf)
    log_rest = others.logsumexp(-1) - logits.logsumexp(-1)
    losses = (gamma * log_rest).exp() * losses
    return _weigh(losses, labels, weights, logits.shape[-1])


def logit_adjusted(
    logits: Tensor,
    labels: Tensor,
    *,
    counts: PerClass,
    tau: float = 1.0,
    weights: PerClass | None = None,
) -> Tensor:
    """Logit-adjusted loss: cross-entropy on f_c + tau log(n_c / n).

    Menon et al. 2021; tau = 1 is balanced softmax (Ren et al. 2020). The
    network is used with the plain argmax of f. Arguments and errors as `cross_entropy`;
    counts (classes,) above 0, tau >= 0.

    >>> f = torch.zeros(1, 2)
    >>> logit_adjusted(f, torch.tensor([1]), counts=(3, 1)).neg().exp()
    tensor([0.2500])
    """
    _number("tau", tau, 0)
    n = _counts(counts, logits)
    shift = tau * (n / n.sum()).log()
    return cross_entropy(logits + shift.to(logits), labels, weights=weights)


def cdt(
    logits: Tensor,
    labels: Tensor,
    *,
    counts: PerClass,
    gamma: float = 0.2,
    weights: PerClass | None = None,
) -> Tensor:
    """Class-dependent temperatures: cross-entropy on f_c / a_c.

    a_c = (n_max / n_c)^gamma, Ye et al. 2020. Temperatures are for training only: the
    network is used with the plain argmax of f. Arguments and errors as `cross_entropy`;
    counts (classes,) above 0, gamma >= 0.

    >>> f = torch.tensor([[4.0, 4.0]])
    >>> cdt(f, torch.tensor([0]), counts=(4, 1), gamma=0.5)
    tensor([0.1269])
    """
    _number("gamma", gamma, 0)
    n = _counts(counts, logits)
    scale = (n / n.max()) ** gamma
    return cross_entropy(logits * scale.to(logits), labels, weights=weights)


def vs(
    logits: Tensor,
    labels: Tensor,
    *,
    counts: PerClass,
    gamma: float = 0.2,
    tau: float = 1.0,
    weights: PerClass | None = None,
) -> Tensor:
    """Vector scaling: weighted cross-entropy on (n_c/n_max)^gamma f_c + tau log(n_c/n).

    Kini et al. 2021. gamma = 0 is `logit_adjusted`, tau = 0
    is `cdt`, both 0 is weighted `cross_entropy`. The network is used with the plain
    argmax of f. Arguments and errors as `cross_entropy`; counts (classes,) above 0,
    gamma and tau >= 0.

    >>> f = torch.zeros(1, 2)
    >>> vs(f, torch.tensor([1]), counts=(3, 1)).neg().exp()
    tensor([0.2500])
    """
    _number("gamma", gamma, 0)
    _number("tau", tau, 0)
    n = _counts(counts, logits)
    scale, shift = (n / n.max()) ** gamma, tau * (n / n.sum()).log()
    adjusted = logits * scale.to(logits) + shift.to(logits)
    return cross_entropy(adjusted, labels, weights=weights)


def ldam(
    logits: Tensor,
    labels: Tensor,
    *,
    counts: PerClass,
    max_margin: float = 0.5,
    scale: float = 30.0,
    power: float = 0.25,
    weights: PerClass | None = None,
) -> Tensor:
    """LDAM: cross-entropy on s (f_c - m_c [c = y]), m_c = max_margin (n_min/n_c)^power.

    Cao et al. 2019: margins ~ n_c^(-1/4), the rarest class has the
    widest. f are cosines between features and class vectors, as the networks of
    `gvlib.models` give with head="cosine".

    Args:
        logits: f, (n, classes), in [-1, 1].
        labels: y, (n,).
        counts: n, (classes,), above 0.
        max_margin: the margin of the rarest class, in [0, 2], as far as cosines differ.
        scale: s, above 0. The paper does not name it; its published code has 30.
        power: at least 0; the paper derives 1/4.
        weights: as in `cross_entropy`; LDAM-DRW turns them on late, see `drw`.

    Warns:
        NotCosineWarning: logits beyond [-1, 1].

    >>> f = torch.tensor([[0.5, 0.0]])
    >>> ldam(f, torch.tensor([0]), counts=(1, 16))  # a margin of 0.5 is taken off
    tensor([0.6931])
    """
    _number("max_margin", max_margin, 0, 2)
    _above_zero("scale", scale)
    _number("power", power, 0)
    _check_cosines(logits)
    n = _counts(counts, logits)
    margin = (max_margin * (n.min() / n) ** power).to(logits)
    logits = logits - margin * _one_hot(logits, labels)
    return cross_entropy(scale * logits, labels, weights=weights)


def _check_cosines(logits: Tensor) -> None:
    # 0.01 above 1: bfloat16 has 8 bits, so that a cosine of 1 may round to 1.008.
    if _readable(logits) and bool((logits.detach().abs() > 1.01).any()):
        warnings.warn(
            f"LDAM was given logits up to {logits.detach().abs().max().item():.3g}, "
            "expected cosines in [-1, 1]: times its scale, other logits saturate the "
            'loss. Build the network with head="cosine", or use another loss.',
            NotCosineWarning,
            stacklevel=3,
        )


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Margins z = f_y - max_{c != y} f_c: above 0 where the network is right.

    Shapes (n, classes), (n,) -> (n,); for two classes z = +-(f_1 - f_0).

    >>> margins(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([1]))
    tensor([1.])
    """
    if logits.shape[-1] < 2:
        raise ValueError("margins need logits for at least 2 classes")
    index = _labels(logits, labels)[..., None]
    others = logits.scatter(-1, index, -math.inf).amax(-1)
    return logits.gather(-1, index)[..., 0] - others


def hinge(
    logits: Tensor,
    labels: Tensor,
    *,
    margin: float = 1.0,
    weights: PerClass | None = None,
) -> Tensor:
    """Hinge loss: w_y max(0, margin - z), z the margin f_y - max_{c != y} f_c.

    Crammer & Singer 2001. Arguments and errors as `cross_entropy`; margin above 0.

    >>> hinge(torch.tensor([[2.0, 1.5]]), torch.tensor([0]))
    tensor([0.5000])
    """
    _above_zero("margin", margin)
    losses = (margin - margins(logits, labels)).clamp(min=0)
    return _weigh(losses, labels, weights, logits.shape[-1])


def squared(
    logits: Tensor, labels: Tensor, *, weights: PerClass | None = None
) -> Tensor:
    """Squared loss: w_y mean_c (f_c - [c = y])^2.

    Hui & Belkin 2021. Arguments and errors as `cross_entropy`.

    >>> squared(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
    tensor([2.])
    """
    losses = (logits - _one_hot(logits, labels)).square().mean(-1)
    return _weigh(losses, labels, weights, logits.shape[-1])


def polynomial(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    weights: PerClass | None = None,
) -> Tensor:
    """Polynomially tailed loss: w_y l(z), z the margin f_y - max_{c != y} f_c.

    l(z) = log(1 + e^-z) / log(1 + e^-1) for z <= 1, z^-alpha for z > 1; continuous,
    l(1) = 1. Wang et al. 2022: such a tail, unlike an exponential one, keeps
    weights effective on separable data. Theirs is for two classes, where z is the
    difference of the logits; for more this takes the best of the others. Arguments and
    errors as `cross_entropy`; alpha above 0.

    >>> polynomial(torch.tensor([[5.0, 1.0]]), torch.tensor([0]), alpha=2.0)
    tensor([0.0625])
    """
    _above_zero("alpha", alpha)
    z = margins(logits, labels)
    body = softplus(-z) / math.log1p(math.exp(-1))
    tail = z.clamp(min=1) ** -alpha  # clamped: the unused branch must not yield NaN
    losses = torch.where(z <= 1, body, tail)
    return _weigh(losses, labels, weights, logits.shape[-1])


# ----------------------------------------------------- losses that change in training


@dataclass(frozen=True)
class Deferred:
    """A loss that changes once: `first` until the share `at` of training, then `then`.

    `gvlib.train` takes it as its `loss` and changes over at the first epoch that starts
    at that share or later; parameters, momentum and the order of batches run on. Either
    loss may be a Deferred itself.

    Args:
        first: the loss at the start.
        then: the loss from there on.
        at: share of training, between 0 and 1. Cao et al. 2019 take 160 of 200 epochs.
    """

    first: "Loss | Deferred"
    then: "Loss | Deferred"
    at: float = 0.8

    def __post_init__(self) -> None:
        """Refuse a share of training outside (0, 1)."""
        _number("at", self.at, 0, 1)
        if self.at in (0, 1):
            raise ValueError(f"at is {self.at}; a share between 0 and 1 is needed")


def drw(loss: Loss, weights: PerClass, *, at: float = 0.8) -> Deferred:
    """Deferred re-weighting: `loss` as it is, from the share `at` on with `weights`.

    Cao et al. 2019, algorithm 1; their published code has `effective_number` weights.
    Meant for a second part with a smaller learning rate, see `gvlib.schedules.step`.

    >>> counts = (100, 10)
    >>> late = drw(partial(ldam, counts=counts), effective_number(counts))
    >>> late.at, late.then.keywords["weights"].tolist() > [1, 1]
    (0.8, False)
    """
    return Deferred(loss, partial(loss, weights=_per_class(weights, "weights")), at)


def current(loss: Loss | Deferred, progress: float) -> Loss:
    """The loss in use at `progress` in [0, 1): `loss` itself where it never changes."""
    while isinstance(loss, Deferred):
        loss = loss.then if progress >= loss.at else loss.first
    return loss


def stages(loss: Loss | Deferred) -> list[Loss]:
    """Every loss that training with `loss` may come to use."""
    if isinstance(loss, Deferred):
        return [*stages(loss.first), *stages(loss.then)]
    return [loss]
