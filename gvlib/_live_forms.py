"""torch's larger operations, written with smaller ones that the compiler knows."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.overrides import TorchFunctionMode

__all__ = ["Rewritten", "Unsupported", "table"]

aten = torch.ops.aten


class Unsupported(NotImplementedError):
    """What the page's function does and can't be compiled; the text says where."""


# ---- on the way from torch's functions to operations ---------------------------------

RANDOM = frozenset(
    """rand randn randint randperm rand_like randn_like randint_like bernoulli normal
    multinomial dropout dropout1d dropout2d alpha_dropout feature_dropout""".split()  # noqa: SIM905
)


class Rewritten(TorchFunctionMode):
    """Functions that fix a size when traced, written so that they don't."""

    def __init__(self, where: Callable[[], str | None]):
        """`where` tells the page's line that runs."""
        super().__init__()
        self.where = where

    def __torch_function__(
        self,
        func: Callable,
        types: Any,
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Any:
        """Run func, or what stands for it."""
        name = getattr(func, "__name__", "")
        if name in RANDOM:
            raise Unsupported(
                f"{name} draws random numbers, which is not supported: they come in as "
                f"an argument, drawn in Python ({self.where()})"
            )
        if func is torch.nn.functional.one_hot or func is torch._C._nn.one_hot:
            return _one_hot(*args, **(kwargs or {}))
        if func is torch.nn.functional.cross_entropy:
            return _cross_entropy(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    if isinstance(num_classes, int) and num_classes < 0:
        raise TypeError("one_hot needs the number of classes when it is compiled")
    return (tensor[..., None] == torch.arange(num_classes)).long()


def _cross_entropy(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *args: Any,
    **rest: Any,
) -> Tensor:
    """The same for class indices; torch's own fixes sizes under vmap."""
    plain = not target.is_floating_point() and logits.ndim == target.ndim + 1 == 2
    usual = {"size_average": None, "ignore_index": -100, "reduce": None}
    usual |= {"label_smoothing": 0.0, "reduction": rest.get("reduction", "mean")}
    if not plain or args or any(usual[k] != v for k, v in rest.items()):
        return torch.nn.functional.cross_entropy(logits, target, weight, *args, **rest)
    kept = target != -100  # torch's mark for examples that don't count
    safe = torch.where(kept, target, 0)
    own = safe[:, None] == torch.arange(logits.shape[1])
    picked = torch.where(own, torch.log_softmax(logits, 1), 0.0).sum(1)
    weights = kept.to(logits.dtype) if weight is None else weight[safe] * kept
    losses = -weights * picked
    if rest.get("reduction", "mean") == "mean":
        return losses.sum() / weights.sum()
    return losses.sum() if rest["reduction"] == "sum" else losses


# ---- from operations to smaller ones -------------------------------------------------


def _variance(
    x: Tensor,
    dim: Sequence[int] | None = None,
    *,
    correction: float = 1,
    keepdim: bool = False,
) -> Tensor:
    dims = list(range(x.ndim)) if dim is None else list(dim)
    count = 1
    for d in dims:
        count = count * x.shape[d]
    centred = x - x.mean(dims, keepdim=True)
    return (centred * centred).sum(dims, keepdim) / (count - correction)


def _layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, ...]:
    dims = list(range(x.ndim - len(shape), x.ndim))
    mean = x.mean(dims, keepdim=True)
    scale = torch.rsqrt(_variance(x, dims, correction=0, keepdim=True) + eps)
    y = (x - mean) * scale
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, scale


def _largest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amax(dim, keepdim), x.argmax(dim, keepdim)


def _smallest(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return x.amin(dim, keepdim), x.argmin(dim, keepdim)


def _average(
    x: Tensor,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    dims = list(range(x.ndim)) if dim is None else list(dim)
    count = 1
    for d in dims:
        count = count * x.shape[d]
    x = x if dtype is None else x.to(dtype)
    return x.sum(dims, keepdim) / count


@functools.cache
def table() -> dict:
    """How torch's larger operations are made of smaller ones."""
    finer = """_log_softmax _softmax addmm baddbmm addmv gelu gelu_backward leaky_relu
        leaky_relu_backward silu silu_backward elu elu_backward hardtanh
        native_layer_norm_backward softplus softplus_backward log_sigmoid_forward
        log_sigmoid_backward binary_cross_entropy_with_logits mse_loss
        mse_loss_backward rsub smooth_l1_loss masked_fill std var_mean sum.default
        linalg_vector_norm select_backward slice_backward logsumexp"""
    ops = [getattr(aten, name.split(".")[0]) for name in finer.split()]
    return {
        **core_aten_decompositions(),
        **get_decompositions(ops),
        aten.var.correction: _variance,
        aten.native_layer_norm.default: _layer_norm,
        aten.max.dim: _largest,
        aten.min.dim: _smallest,
        aten.mean.default: lambda x, *, dtype=None: _average(x, dtype=dtype),
        aten.mean.dim: _average,
    }
