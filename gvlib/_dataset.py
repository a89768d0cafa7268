"""The Dataset, its device and its checks; `gvlib.data` is where they are used from."""

import dataclasses
import operator
from dataclasses import dataclass

import torch


def device(name: str | torch.device = "auto") -> torch.device:
    """The torch device called `name`; "auto" is CUDA where present, else the CPU.

    Raises ValueError for an unknown device or one that this machine does not have.

    >>> device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    expected = "expected 'auto', 'cpu', 'cuda' or 'cuda:1'"
    try:
        found = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {str(name)!r}; {expected}") from error
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if found.type not in present:
        raise ValueError(f"unknown device {str(name)!r}; {expected}")
    if (found.index or 0) >= present[found.type]:
        raise ValueError(
            f"device {str(name)!r} is not on this machine, which has "
            f"{present[found.type]} of type {found.type!r}; "
            "'auto' takes a GPU where there is one and the CPU otherwise"
        )
    return found


_device = device  # methods that have an argument `device` call it by this name


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples and their labels on one device, shared by all members or one set each.

    Args:
        x: (n, ...) or, own examples for each member, (members, n, ...); floating point.
        y: (n,) or (members, n) class numbers, int64, below `len(classes)` if named.
            Examples are a member's own where y is 2-D and x.shape[:2] == y.shape.
        weights: None or (n,) or (members, n); one finite weight >= 0 an example.
        name: what the set is called in tables and errors.
        classes: the names of the classes, in the order of their numbers.

    Raises TypeError for a wrong kind of tensor, ValueError for shapes that do not fit
    together, no examples, or labels out of range.

    >>> ds = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), classes=("a", "b"))
    >>> len(ds), ds.n_classes, ds[:2].y.tolist()
    (3, 2, [0, 1])
    """

    x: torch.Tensor
    y: torch.Tensor
    weights: torch.Tensor | None = None
    name: str = "data"
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what does not fit together, before anything is computed with it."""
        object.__setattr__(self, "classes", tuple(self.classes))
        _check_kinds(self)
        _check_shapes(self)
        _check_labels(self.y, len(self.classes) or None, self.name)
        w = self.weights
        if w is not None and not bool((w.isfinite() & (w >= 0)).all()):
            raise ValueError(f"weights of {self.name} must be finite and not negative")

    def __len__(self) -> int:
        """The number of examples n (of one member)."""
        return self.y.shape[-1]

    @property
    def own_x(self) -> bool:
        """True where each member has its own examples: x is (members, n, ...)."""
        return self.y.ndim == 2 and self.x.shape[:2] == self.y.shape

    @property
    def members(self) -> int | None:
        """How many members the set is for; None where all share labels and weights."""
        for tensor in (self.y, self.weights):
            if tensor is not None and tensor.ndim == 2:
                return tensor.shape[0]
        return None

    @property
    def n_classes(self) -> int:
        """The number of classes: of names, or the largest label + 1 without names."""
        return len(self.classes) or int(self.y.max()) + 1

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.x.device

    def to(self, device: str | torch.device) -> "Dataset":
        """The same set on `device` ("auto", "cpu", "cuda", ...)."""
        target = _device(device)
        weights = None if self.weights is None else self.weights.to(target)
        return self.replace(x=self.x.to(target), y=self.y.to(target), weights=weights)

    def replace(self, **changes: object) -> "Dataset":
        """A copy with x, y, weights, name or classes replaced, checked like a new one.

        >>> pair = Dataset(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> pair.replace(y=1 - pair.y).y.tolist()
        [1, 0]
        """
        return dataclasses.replace(self, **changes)

    def __getitem__(self, index: slice | torch.Tensor) -> "Dataset":
        """Examples by a slice, a 1-D tensor of positions or a 1-D mask, along n.

        Raises TypeError for another kind of index, IndexError for one out of range.
        """
        if not isinstance(index, slice):
            index = _positions(self, index)
        weights = self.weights
        return self.replace(
            x=self.x[:, index] if self.own_x else self.x[index],
            y=self.y[..., index],
            weights=None if weights is None else weights[..., index],
        )


def _positions(data: Dataset, index: torch.Tensor) -> torch.Tensor:
    n = len(data)
    if isinstance(index, int):
        raise TypeError(f"a Dataset is indexed by slices: use [{index}:{index + 1}]")
    index = torch.as_tensor(index, device=data.y.device)
    if index.ndim != 1 or index.is_floating_point():
        raise TypeError(
            "a Dataset is indexed by a slice or a 1-D tensor of integers or "
            f"booleans, not by {index.ndim}-D {index.dtype}"
        )
    if index.dtype == torch.bool:
        if len(index) != n:
            raise IndexError(f"a mask of {len(index)} for {n} examples of {data.name}")
        return index
    if len(index) and not -n <= int(index.min()) <= int(index.max()) < n:
        raise IndexError(
            f"positions {int(index.min())} to {int(index.max())} asked of "
            f"{data.name}, which has {n} examples"
        )
    return index.long()  # torch would take bytes for a mask


def _check_kinds(data: Dataset) -> None:
    for key in ("x", "y", "weights"):
        tensor = getattr(data, key)
        what = f"{key} of {data.name}"
        if tensor is None and key == "weights":
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{what} is a {type(tensor).__name__}, expected a torch tensor; "
                "torch.as_tensor makes one of an array or list"
            )
        if key == "y" and tensor.dtype != torch.int64:
            raise TypeError(f"{what} is {tensor.dtype}, expected int64; use y.long()")
        if key != "y" and not tensor.is_floating_point():
            raise TypeError(
                f"{what} is {tensor.dtype}, expected float32; use {key}.float()"
            )
        if tensor.device != data.x.device:
            raise ValueError(
                f"{what} is on {tensor.device}, x on {data.x.device}; "
                "put both on one device"
            )


def _check_shapes(data: Dataset) -> None:
    x, y, weights, name = data.x, data.y, data.weights, data.name
    if y.ndim not in (1, 2):
        raise ValueError(
            f"y of {name} has shape {tuple(y.shape)}, expected (n,) or (members, n)"
        )
    if y.numel() == 0:
        raise ValueError(f"{name} is empty: y has shape {tuple(y.shape)}")
    n = y.shape[-1]
    if not data.own_x and x.shape[:1] != (n,):
        raise ValueError(
            f"x of {name} has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected "
            f"x with {n} examples along its first axis, or (members, n, ...) together "
            "with y (members, n)"
        )
    if weights is None:
        return
    fits = weights.ndim in (1, 2) and weights.shape[-1] == n
    if not fits or (weights.ndim == y.ndim == 2 and weights.shape != y.shape):
        raise ValueError(
            f"weights of {name} have shape {tuple(weights.shape)} and y "
            f"{tuple(y.shape)}; expected one weight an example"
        )


def _check_labels(y: torch.Tensor, n_classes: int | None, name: str) -> None:
    low, high = (int(end) for end in y.aminmax())
    if low < 0 or (n_classes is not None and high >= n_classes):
        expected = "0 and more" if n_classes is None else f"0 to {n_classes - 1}"
        raise ValueError(
            f"labels of {name} run from {low} to {high}, expected {expected}"
        )


def _whole(value: int, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise TypeError(f"{what} is {value!r}, expected a whole number") from error


def _generator(seed: int) -> torch.Generator:
    """A generator of its own for each call: global random state is never touched."""
    if not 0 <= _whole(seed, "seed") < 2**63:
        raise ValueError(f"seed is {seed}, expected a number from 0 to 2**63 - 1")
    return torch.Generator().manual_seed(operator.index(seed))
