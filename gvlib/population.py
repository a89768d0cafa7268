"""A population: many copies of one network that differ in their parameters.

Seeds, sweeps over a hyper-parameter, points of a loss surface and rays of a basin are
all this. Parameters are stacked along a leading axis of members, so that one call
evaluates or trains all of them.
"""

import copy
import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from . import data, models

__all__ = ["Population", "grid"]


def grid(**axes: Iterable) -> pd.DataFrame:
    """Every combination of the axes' values, a row each; the last axis varies fastest.

    >>> len(grid(seed=range(5), corruption=[0, 0.5, 1]))
    15
    """
    columns = {name: list(values) for name, values in axes.items()}
    for name, values in columns.items():
        if not values:
            raise ValueError(f"axis {name!r} is empty; give it at least one value")
    rows = itertools.product(*columns.values())
    return pd.DataFrame(list(rows), columns=list(columns))


def _table(members: pd.DataFrame | Mapping[str, Sequence]) -> pd.DataFrame:
    """`members` as a checked frame: columns of one length, a whole-number seed each."""
    if not isinstance(members, pd.DataFrame):
        columns = {name: list(values) for name, values in members.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"members' columns differ in length: {lengths}; give one value a "
                "member in each, or use gvlib.grid(...) for every combination"
            )
        members = pd.DataFrame(columns)
    if "seed" not in members:
        raise ValueError(
            f"members has the columns {list(members)} and no 'seed'; "
            "each member needs one"
        )
    if not len(members):
        raise ValueError("members is empty; a population needs at least one")
    if not pd.api.types.is_integer_dtype(members["seed"]):
        raise TypeError(f"seeds are {members['seed'].tolist()}; use whole numbers")
    return members.reset_index(drop=True)


def _build(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """make() as it is right after torch.manual_seed(seed); the global state is kept."""
    with torch.random.fork_rng():  # CUDA's too, since manual_seed sets them all
        torch.manual_seed(seed)
        net = make()
    if any(isinstance(m, nn.modules.dropout._DropoutNd) for m in net.modules()):
        raise ValueError(
            "the network has one of torch's dropout layers, whose masks come from one "
            "stream for all members; use gvlib.models.Dropout in its place"
        )
    dropouts = [m for m in net.modules() if isinstance(m, models.Dropout)]
    for layer, dropout in enumerate(dropouts):
        dropout.key.fill_((seed * 1_000_003 + layer) & 0xFFFFFFFF)  # a stream a layer
    return net


class Population:
    """Copies of one network, one a row of `members`, kept as stacked tensors.

    Args:
        make: builds the network; called once a member under that member's seed.
        members: a frame (see `gvlib.grid`) or columns of one length. `seed` is needed.
            `init_scale` multiplies the initial weights, `dropout` sets the rate of the
            network's `gvlib.models.Dropout` layers. Columns named like a
            hyper-parameter of `gvlib.train` (lr, weight_decay, momentum) set it. Any
            other column is a label that comes back in the records.
        scaled: the parameters `init_scale` multiplies; by default all weight matrices
            and filters (two axes or more).
        device: "auto" (CUDA when present), "cpu", "cuda", ...

    Attributes:
        params, buffers: name -> tensor (members, ...).
        members: the frame, one row a member.

    >>> mlp = lambda: models.MLP(2, 8, 2)
    >>> nets = Population(mlp, {"seed": [0, 1, 2]}, device="cpu")
    >>> nets(torch.zeros(5, 2)).shape
    torch.Size([3, 5, 2])
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        members: pd.DataFrame | Mapping[str, Sequence],
        *,
        scaled: Sequence[str] | None = None,
        device: str | torch.device = "auto",
    ):
        self.members = _table(members)
        self.device = data.device(device)
        nets = [_build(make, int(seed)) for seed in self.members["seed"]]
        self.net = copy.deepcopy(nets[0]).to("meta")
        self.params = self._stack([dict(net.named_parameters()) for net in nets])
        self.buffers = self._stack([dict(net.named_buffers()) for net in nets])
        if "init_scale" in self.members:
            self._scale_weights(scaled)
        if "dropout" in self.members:
            self._set_dropout()

    def _stack(self, tensors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: torch.stack([t[name].detach() for t in tensors]).to(self.device)
            for name in tensors[0]
        }

    def column(self, name: str) -> Tensor:
        """A column of `members` as a tensor (members,) on the device."""
        return torch.tensor(self.members[name].to_numpy(float), device=self.device)

    def _scale_weights(self, scaled: Sequence[str] | None) -> None:
        names = scaled or [k for k, p in self.params.items() if p.dim() > 2]
        for name in names:
            if name not in self.params:
                raise ValueError(
                    f"scaled names {name!r}; the network has {', '.join(self.params)}"
                )
            self.params[name] *= _per_member(
                self.column("init_scale"), self.params[name]
            )

    def _set_dropout(self) -> None:
        rates = [f"{n}.rate" for n, m in self.net.named_modules() if _is_dropout(m)]
        if not rates:
            raise ValueError(
                "members has a column 'dropout' but the network has no Dropout layer; "
                "build it with one, as in MLP(784, 512, 10, dropout=0.0)"
            )
        if not self.members["dropout"].between(0, 1, inclusive="left").all():
            raise ValueError(
                f"dropout is {self.members['dropout'].tolist()}; rates lie in [0, 1)"
            )
        for name in rates:
            self.buffers[name].copy_(self.column("dropout"))

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        size = sum(p[0].numel() for p in self.params.values())
        return f"Population({len(self)} x {size:,} parameters on {self.device})"

    def __getitem__(self, member: int) -> nn.Module:
        """Member `member` as an ordinary module with its own copy of the parameters."""
        if not -len(self) <= member < len(self):
            raise IndexError(f"member {member} of a population of {len(self)}")
        net = copy.deepcopy(self.net).to_empty(device=self.device).train()
        state = {**self.params, **self.buffers}
        with torch.no_grad():
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
                tensor.data = state[name][member].clone()
        return net

    def select(self, rows: Sequence[int] | Sequence[bool]) -> "Population":
        """A population of the given members (row numbers or a mask), copied."""
        rows = np.asarray(rows)
        chosen = (
            self.members[rows] if rows.dtype == np.bool_ else self.members.iloc[rows]
        )
        index = torch.as_tensor(chosen.index.to_numpy().copy(), device=self.device)
        new = copy.copy(self)
        new.members = chosen.reset_index(drop=True)
        new.params = {k: p[index].clone() for k, p in self.params.items()}
        new.buffers = {k: b[index].clone() for k, b in self.buffers.items()}
        return new

    def to(
        self,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "Population":
        """A copy on another device, in another floating-point type, or both."""
        new = copy.copy(self)
        new.device = self.device if device is None else data.device(device)

        def moved(t: Tensor) -> Tensor:
            kind = dtype if t.is_floating_point() else None
            return t.to(new.device, kind or t.dtype, copy=True)

        new.params = {k: moved(p) for k, p in self.params.items()}
        new.buffers = {k: moved(b) for k, b in self.buffers.items()}
        return new

    @torch.no_grad()
    def __call__(
        self, x: Tensor, *, own: bool = False, chunk: int | None = None
    ) -> Tensor:
        """Logits of every member, in evaluation mode (running statistics, no dropout).

        Args:
            x: (n, ...) shown to all members, or with `own` (members, n, ...).
            chunk: examples at a time; by default 65,536 of all members together, so
                that activations of a few thousand numbers each fit the memory.

        Returns:
            (members, n, classes).
        """
        if own and len(x) != len(self):
            raise ValueError(
                f"own inputs for {len(x)} members, but the population has {len(self)}"
            )
        chunk = chunk or max(1, 2**16 // len(self))
        net = self.net.eval()
        x = x.to(self.device, next(iter(self.params.values())).dtype)

        def logits(params: dict, buffers: dict, x: Tensor) -> Tensor:
            return functional_call(net, (params, buffers), (x,))

        members = vmap(logits, in_dims=(0, 0, 0 if own else None))
        parts = x.split(chunk, dim=1 if own else 0)
        return torch.cat([members(self.params, self.buffers, p) for p in parts], dim=1)

    def save(self, path: str | Path) -> Path:
        """Write the population to a safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        part = path.with_name(path.name + ".part")
        tensors = {f"params/{k}": p.contiguous() for k, p in self.params.items()}
        tensors |= {f"buffers/{k}": b.contiguous() for k, b in self.buffers.items()}
        members = json.dumps(self.members.to_dict("list"))  # floats to the last digit
        try:
            save_file(tensors, part, metadata={"members": members})
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    @classmethod
    def load(
        cls,
        path: str | Path,
        make: Callable[[], nn.Module],
        *,
        device: str | torch.device = "auto",
    ) -> "Population":
        """Read what `save` wrote; `make` builds the same network as it did then."""
        from safetensors import SafetensorError, safe_open

        new = cls.__new__(cls)
        new.device = data.device(device)
        try:
            with safe_open(path, framework="pt", device=str(new.device)) as file:
                members = json.loads(file.metadata()["members"])
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        except (SafetensorError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} is not a population that Population.save wrote, or was cut "
                f"short ({error}); save it again"
            ) from error
        new.members = pd.DataFrame(members)
        new.net = _build(make, 0).to("meta")
        shapes = {f"params/{k}": p.shape for k, p in new.net.named_parameters()}
        shapes |= {f"buffers/{k}": b.shape for k, b in new.net.named_buffers()}
        found = {name: tensor.shape[1:] for name, tensor in tensors.items()}
        if found != shapes:
            wrong = sorted(k for k in found | shapes if found.get(k) != shapes.get(k))
            raise ValueError(
                f"{path} does not hold the network that make() builds: they differ in "
                f"{', '.join(wrong)}; pass the function it was made with"
            )
        for kind in ("params", "buffers"):
            pick = {k: t for k, t in tensors.items() if k.startswith(f"{kind}/")}
            setattr(new, kind, {k.removeprefix(f"{kind}/"): t for k, t in pick.items()})
        return new


def _is_dropout(module: nn.Module) -> bool:
    return isinstance(module, models.Dropout)


def _per_member(values: Tensor, like: Tensor) -> Tensor:
    """(members,) -> (members, 1, ...), to broadcast over one stacked tensor."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))
