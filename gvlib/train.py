"""One training loop for a whole population, and the tidy records it leaves."""

import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from numbers import Integral

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from . import schedules
from ._display import in_notebook, static_build
from .data import Dataset
from .losses import Deferred, Loss, cross_entropy, current, stages
from .population import Population, _per_member

__all__ = ["DivergedWarning", "Runs", "train"]

_ORDER_SEED = 1_000_000_007  # keeps batch order and initial weights on separate streams
_HYPER = {  # hyper-parameter: (test, what it must be)
    "lr": (lambda v: v > 0, "above 0"),
    "momentum": (lambda v: 0 <= v < 1, "in [0, 1)"),
    "weight_decay": (lambda v: v >= 0, "at least 0"),
}
_MEASURED = ("loss", "accuracy")  # on each set
_PRECISIONS = ("float32", "tf32", "bf16")
# Measured on a CPU, see benchmarks: networks of more parameters train faster one after
# another, and a chunk of more parameters than this leaves the cache.
_LARGE = 150_000
_CACHE = 2**23


class DivergedWarning(RuntimeWarning):
    """Some members' loss became NaN or infinite; they stopped, the others went on."""


@dataclass(frozen=True)
class Runs:
    """What training left: `records`, one row a member and recorded epoch, and weights.

    `records` has every column of the population's members, then epoch, step, loss and
    accuracy on each set (train_loss, train_accuracy, test_loss, ...), and seconds since
    the start of the member's chunk (see `train`). `population` holds each member as it
    was when it stopped. `diverged` lists the members whose loss was not finite. `kept`
    has the population after each epoch that `train` was told to keep, in order of
    epochs; its values are the snapshots that `gvlib.landscape.plane` takes.
    """

    records: pd.DataFrame
    population: Population
    diverged: pd.DataFrame
    kept: dict[int, Population] = field(default_factory=dict)

    def _where(self, where: Mapping) -> pd.DataFrame:
        rows = self.records
        for name, value in where.items():
            if name not in rows:
                raise ValueError(f"no column {name!r}; records have {', '.join(rows)}")
            match = rows[name] == value
            if isinstance(value, float):
                match = np.isclose(rows[name], value, atol=0)
            rows = rows[match]
        if rows.empty:
            raise ValueError(
                f"no run has {dict(where)}; look at runs.population.members"
            )
        return rows

    def last(self, quantity: str, **where) -> np.ndarray:
        """The last recorded `quantity` of each member that matches, in members' order.

        runs.last("test_accuracy", corruption=1.0) -> (matching members,)
        """
        rows = self._where(where)
        if quantity not in rows:
            raise ValueError(f"no column {quantity!r}; records have {', '.join(rows)}")
        return rows.groupby("member", sort=True)[quantity].nth(-1).to_numpy()

    def first_epoch(
        self, quantity: str = "train_accuracy", *, at_least: float, **where
    ) -> np.ndarray:
        """The first recorded epoch with quantity >= at_least; NaN if there is none."""
        rows = self._where(where)
        reached = rows["epoch"].where(rows[quantity] >= at_least)
        return reached.groupby(rows["member"], sort=True).min().to_numpy(float)


@dataclass(frozen=True)
class _Plan:
    """The settings of a training run that do not differ between members."""

    epochs: int
    batch: int
    optimizer: str
    nesterov: bool
    schedule: schedules.Schedule
    loss: Loss | Deferred
    batches: str
    stop_at: float | None
    record_every: int
    precision: str
    how: str
    compile: bool


def train(
    population: Population,
    train: Dataset,
    test: Dataset | Mapping[str, Dataset] | None = None,
    *,
    epochs: int,
    batch: int = 64,
    lr: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    optimizer: str = "sgd",
    schedule: schedules.Schedule | None = None,
    loss: Loss | Deferred = cross_entropy,
    batches: str = "own",
    stop_at: float | None = None,
    record_every: int = 1,
    precision: str = "float32",
    how: str = "auto",
    chunk: int | None = None,
    compile: bool = False,
    keep: Iterable[int] = (),
    progress: bool | None = None,
) -> Runs:
    """Train every member of a population; the population given is left as it was.

    A member gets what the same network gets when it is trained alone: its own initial
    weights, batch order and dropout masks follow from its seed, whoever is beside it.

    Args:
        train: x (n, ...) and y (n,) for all members, or x (members, n, ...), y and
            weights (members, n) for each its own; weights multiply the losses.
        test: a set evaluated beside the training set, or several by name:
            {"test": ..., "validation": ...} records test_loss, validation_loss, ...
        lr, momentum, weight_decay: for all members; a column of that name in
            `population.members` takes their place. Weight decay adds
            weight_decay * parameter to the gradient, as torch.optim does.
        optimizer: "sgd" or "adam" (betas 0.9 and 0.999, eps 1e-8; momentum unused).
        schedule: progress in [0, 1) -> factor on lr, see `gvlib.schedules`.
        loss: (logits, labels) -> one loss per sample, see `gvlib.losses`; a `Deferred`
            one changes on the way, and the records hold the one in use.
        batches: "own", each member in the order of its seed; "shared", all in the order
            of the first member's seed (faster: the data are read once for all).
        stop_at: a member stops when its training accuracy reaches this.
        record_every: epochs between evaluations, which `stop_at` waits for.
        precision: "float32"; "tf32" and "bf16" (autocast) trade digits for speed.
        how: "vmap" trains a chunk of members as one, "loop" one after another in
            channels_last; "auto" takes what was measured faster: on a CPU "loop" for
            convolutions and for large networks, else "vmap".
        chunk: members trained together; by default as many as suit the device.
        compile: torch.compile the step of "vmap"; costs some 20 s, and pays when a run
            is long. "loop" was measured slower compiled and is left as it is.
        keep: epochs after which all weights and buffers are kept, 0 for the start, in
            `Runs.kept`; a member that has stopped keeps its last. Each is a copy of the
            whole population, on its device.
        progress: a bar on stderr; by default for a person who waits over 2 s.

    Raises:
        ValueError: a setting out of range, labels that the network has no output for,
            data that do not fit the population.

    Warns:
        DivergedWarning: names the members whose loss was not finite.

    >>> from gvlib import data, models
    >>> nets = Population(lambda: models.MLP(2, 4, 2), {"seed": [0, 1]}, device="cpu")
    >>> runs = globals()["train"](nets, data.moons(20, seed=0), epochs=4, keep=[0, 2])
    >>> runs.kept
    {0: Population(2 x 22 parameters on cpu), 2: Population(2 x 22 parameters on cpu)}
    """
    how = _choose(how, population, compile)
    plan = _Plan(
        epochs, batch, optimizer, nesterov, schedule or schedules.constant(), loss,
        batches, stop_at, record_every, precision, how, compile and how == "vmap",
    )  # fmt: skip
    _check(plan, chunk)
    keep = _epochs(keep, epochs)
    hyper = _hyper(population, lr=lr, momentum=momentum, weight_decay=weight_decay)
    others = test if isinstance(test, Mapping) else {"test": test}
    _check_names(population, others)
    sets = {"train": train, **others}
    sets = {k: _fit_data(k, s, population) for k, s in sets.items() if s is not None}
    _check_outputs(population, sets)
    _check_loss(population, sets["train"], loss)
    trained, *copies = (
        population.select(range(len(population))) for _ in range(1 + len(keep))
    )
    kept = dict(zip(keep, copies, strict=True))
    phase = _phases(population.net, sets["train"], plan)
    rows = []
    with _bar(progress, len(population) * epochs) as bar, _precision(precision):
        for members in _chunks(population, plan, chunk):
            with _memory_hint(len(members)):
                some = _Chunk(trained, kept, members, sets, hyper, plan, phase)
                rows += some.run(bar)
    return _runs(trained, kept, rows)


def _convolutional(population: Population) -> bool:
    return any(p.dim() == 5 for p in population.params.values())


def _size(population: Population) -> int:
    """The number of parameters of one member."""
    return sum(p[0].numel() for p in population.params.values())


def _choose(how: str, population: Population, compile: bool) -> str:
    if how not in ("auto", "vmap", "loop"):
        raise ValueError(f'how is {how!r}; use "auto", "vmap" or "loop"')
    if how != "auto":
        return how
    if population.device.type != "cpu":
        return "vmap"
    large = _size(population) > _LARGE and not compile
    return "loop" if large or _convolutional(population) else "vmap"


def _check(plan: _Plan, chunk: int | None) -> None:
    for name in ("epochs", "batch", "record_every"):
        if not (isinstance(value := getattr(plan, name), int) and value >= 1):
            raise ValueError(f"{name} is {value!r}; use a whole number of at least 1")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk is {chunk}; use a whole number of at least 1")
    if plan.optimizer not in _OPTIMIZERS:
        raise ValueError(f'optimizer is {plan.optimizer!r}; use "sgd" or "adam"')
    if plan.batches not in ("own", "shared"):
        raise ValueError(f'batches is {plan.batches!r}; use "own" or "shared"')
    if plan.precision not in _PRECISIONS:
        raise ValueError(f"precision is {plan.precision!r}; use one of {_PRECISIONS}")
    if plan.stop_at is not None and not 0 < plan.stop_at <= 1:
        raise ValueError(f"stop_at is {plan.stop_at}; give an accuracy in (0, 1]")


def _epochs(keep: Iterable[int], epochs: int) -> list[int]:
    """The epochs to keep, in order and once each."""
    want = f"give whole numbers from 0 (the start) to {epochs} (epochs), as in [0, 1]"
    if isinstance(keep, str) or not isinstance(keep, Iterable):
        raise TypeError(f"keep is {keep!r}; {want}")
    chosen = set()
    for epoch in keep:
        whole = isinstance(epoch, Integral) and not isinstance(epoch, bool)
        if not (whole and 0 <= epoch <= epochs):
            raise ValueError(f"keep has {epoch!r}; {want}")
        chosen.add(int(epoch))
    return sorted(chosen)


def _hyper(population: Population, **given: float) -> dict[str, Tensor]:
    """Each hyper-parameter as (members,): the members' column, or the one value."""
    out = {}
    for name, value in given.items():
        values = population.members.get(name, pd.Series([value] * len(population)))
        ok, want = _HYPER[name]
        if not all(ok(v) for v in values):
            raise ValueError(f"{name} is {sorted(set(values))}; each must be {want}")
        out[name] = torch.tensor(values.to_numpy(float), device=population.device)
    return out


def _check_names(population: Population, sets: Mapping[str, Dataset]) -> None:
    """Every column of the records has a name of its own."""
    if "train" in sets:
        raise ValueError('test has a set named "train"; give it another name')
    measured = {f"{name}_{what}" for name in ("train", *sets) for what in _MEASURED}
    taken = {"member", "epoch", "step", "seconds"} | measured
    if clash := sorted(taken.intersection(population.members)):
        raise ValueError(
            f"members has a column {clash[0]!r}, which the records use for their own; "
            "give it another name"
        )


def _fit_data(name: str, dataset: Dataset, population: Population) -> Dataset:
    """`dataset` on the population's device, in its dtype; or an error that says why."""
    if dataset.members not in (None, len(population)):
        raise ValueError(
            f"the {name} set has labels or weights for {dataset.members} members, the "
            f"population has {len(population)}; give (members, n), or (n,) for all"
        )
    dtype = next(iter(population.params.values())).dtype
    dataset = dataset.to(population.device)
    return dataset.replace(x=dataset.x.to(dtype))


def _check_outputs(population: Population, sets: dict[str, Dataset]) -> None:
    """Run one example through one member: shapes fit, and every label has an output."""
    for name, data in sets.items():
        x = data.x[0, :1] if data.own_x else data.x[:1]
        first = population.select([0])
        try:
            classes = first(x).shape[-1]
        except RuntimeError as error:
            raise ValueError(
                f"the network cannot take the {name} set's inputs of shape "
                f"{tuple(x.shape[1:])}: {error}"
            ) from error
        if classes > 1 and not 0 <= int(data.y.min()) <= int(data.y.max()) < classes:
            raise ValueError(
                f"the {name} set's labels run from {int(data.y.min())} to "
                f"{int(data.y.max())}, the network has {classes} outputs; labels must "
                f"lie in [0, {classes})"
            )


def _check_loss(population: Population, data: Dataset, loss: Loss | Deferred) -> None:
    """Every loss on some examples of one member: inside vmap it can check no values."""
    if data.weights is not None and not bool((data.weights.sum(-1) > 0).all()):
        raise ValueError(
            "the train set's weights sum to zero (for a member): nothing is learned"
        )
    few = data[:64]
    y = few.y[0] if few.y.dim() == 2 else few.y
    logits = population.select([0])(few.x[0] if few.own_x else few.x)[0]
    for stage in stages(loss):
        shape = tuple(stage(logits, y).shape)
        if shape != (len(y),):
            raise ValueError(
                f"the loss gives shape {shape} for {len(y)} examples; expected one "
                "loss per sample, without their mean"
            )


def _chunks(
    population: Population, plan: _Plan, chunk: int | None
) -> tuple[Tensor, ...]:
    """The members trained together, as row numbers; parts of nearly one size."""
    members = torch.arange(len(population), device=population.device)
    if plan.how == "loop":
        return members.split(1)
    if chunk is None and population.device.type == "cpu":
        chunk = max(4, min(64, _CACHE // _size(population)))
    return members.tensor_split(-(-len(population) // (chunk or len(population))))


@contextmanager
def _memory_hint(size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"{size} members were trained together; give fewer, as in "
            f"gvlib.train(..., chunk={max(1, size // 4)}). {error}"
        ) from error


@contextmanager
def _bar(progress: bool | None, total: int) -> Iterator[Callable[[int], None]]:
    from tqdm.auto import tqdm

    seen = in_notebook() or sys.stderr.isatty()
    off = (static_build() or not seen) if progress is None else not progress
    with tqdm(
        total=total,
        unit="epoch",
        delay=0 if progress else 2,
        leave=False,
        disable=off,
        desc="training",
    ) as bar:
        yield bar.update


@contextmanager
def _precision(precision: str) -> Iterator[None]:
    """Allow TF32 in products and convolutions inside the block, and only there."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    allow = precision == "tf32"
    torch.set_float32_matmul_precision("high" if allow else "highest")
    torch.backends.cudnn.allow_tf32 = allow
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _runs(trained: Population, kept: dict[int, Population], rows: list[dict]) -> Runs:
    records = pd.DataFrame(rows).sort_values(["member", "epoch"], ignore_index=True)
    members = trained.members.reset_index(names="member")
    records = members.merge(records, on="member")
    bad = records.loc[~np.isfinite(records["train_loss"]), "member"].unique()
    diverged = members[members["member"].isin(bad)]
    if len(diverged):
        names = "; ".join(map(str, diverged.to_dict("records")))
        warnings.warn(
            f"{len(diverged)} of {len(trained)} members diverged (loss not finite) "
            f"and stopped, the others went on: {names}. A smaller lr usually helps.",
            DivergedWarning,
            stacklevel=3,
        )
    return Runs(records, trained, diverged, kept)


# --- one chunk of members -----------------------------------------------------------


@dataclass
class _Chunk:
    """Some members of `trained`, trained as one until each has stopped.

    `kept` are the populations to fill in, by epoch. `active` are the rows of `trained`
    that the stacked tensors hold, `alive` says which of them still train (compiled
    steps keep those that stopped, others drop them).
    """

    trained: Population
    kept: dict[int, Population]
    active: Tensor
    sets: dict[str, Dataset]
    hyper: dict[str, Tensor]
    plan: _Plan
    phase: Callable[[float], tuple[_Plan, Callable[..., None]]]
    rows: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        start, params = self.trained, self.trained.params
        self.device = start.device
        self.alive = torch.ones_like(self.active, dtype=torch.bool)
        self.params = {k: _layout(p[self.active], self.plan) for k, p in params.items()}
        self.buffers = {k: b[self.active] for k, b in start.buffers.items()}
        self.state = _OPTIMIZERS[self.plan.optimizer][0](self.params)
        dtype = next(iter(params.values())).dtype
        self.h = {k: self._rate(v, dtype) for k, v in self.hyper.items()}
        seeds = start.members["seed"]
        rows = [0] if self.plan.batches == "shared" else self.active.tolist()
        self.orders = {
            row: torch.Generator().manual_seed(int(seeds[row]) + _ORDER_SEED)
            for row in rows
        }

    def _rate(self, values: Tensor, dtype: torch.dtype) -> Tensor | float:
        """A hyper-parameter: one number where the members agree, which is faster."""
        mine = values[self.active]
        if self.plan.compile or not bool((mine == mine[0]).all()):
            return mine.to(dtype)  # a number would be compiled in
        return mine[0].item()

    def run(self, tick: Callable[[int], None]) -> list[dict]:
        plan, size = self.plan, len(self.active)
        start, steps = time.perf_counter(), 0
        for epoch in range(1, plan.epochs + 1):
            steps += self._epoch((epoch - 1) / plan.epochs)
            tick(size)
            if epoch in self.kept:
                self._store(self.alive, [self.kept[epoch]])
            if epoch % plan.record_every == 0 or epoch == plan.epochs:
                stopped = self._record(epoch, steps, start) | (epoch == plan.epochs)
                self._retire(stopped & self.alive, epoch)
            if not self.alive.any():
                tick(size * (plan.epochs - epoch))
                break
        return self.rows

    def _epoch(self, progress: float) -> int:
        """One pass over the training set; returns the number of steps."""
        self.trained.net.train()
        self.plan, step = self.phase(progress)  # the loss may change here
        data, plan = self.sets["train"], self.plan
        parts = self._order(len(data)).split(plan.batch, dim=-1)
        for i, index in enumerate(parts):
            factor = plan.schedule(progress + i / len(parts) / plan.epochs)
            h = {**self.h, "lr": self.h["lr"] * factor}
            batch = _batch(data, index, self.active)
            step(self.params, self.buffers, self.state, h, *batch)
        return len(parts)

    def _order(self, n: int) -> Tensor:
        """The order of the examples: (active members, n), or (n,) if all share it."""
        if self.plan.batches == "shared":
            return torch.randperm(n, generator=self.orders[0]).to(self.device)
        generators = (self.orders[row] for row in self.active.tolist())
        orders = [torch.randperm(n, generator=g) for g in generators]
        return torch.stack(orders).to(self.device)

    def _record(self, epoch: int, steps: int, start: float) -> Tensor:
        """Evaluate the members that still train; True where one is done or diverged."""
        measured = {}
        for name, data in self.sets.items():
            loss, accuracy = self._evaluate(data)
            measured |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
        seconds = time.perf_counter() - start
        table = {k: v.tolist() for k, v in measured.items()}
        for row in self.alive.nonzero().flatten().tolist():
            member = int(self.active[row])
            values = {k: v[row] for k, v in table.items()}
            head = {"member": member, "epoch": epoch, "step": steps}
            self.rows.append({**head, **values, "seconds": seconds})
        done = ~measured["train_loss"].isfinite()
        if self.plan.stop_at is not None:
            done |= measured["train_accuracy"] >= self.plan.stop_at
        return done

    @torch.no_grad()
    def _evaluate(self, data: Dataset) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of the active members on a whole set, (members,)."""
        measure = _stacked_measure(self.trained.net.eval(), data, self.plan)
        everything = torch.arange(len(data), device=self.device)
        totals = []
        for index in everything.split(_at_once(data, self.trained, len(self.active))):
            x, y, *_ = _batch(data, index, self.active)
            totals.append(measure(self.params, self.buffers, x, y))
        loss, hits = (sum(part) / len(data) for part in zip(*totals, strict=True))
        return loss, hits

    def _store(self, rows: Tensor, populations: Iterable[Population]) -> None:
        """Write the weights and buffers of some active members into populations."""
        for population in populations:
            for kind in ("params", "buffers"):
                stacked = getattr(population, kind)
                for name, tensor in getattr(self, kind).items():
                    stacked[name][self.active[rows]] = tensor[rows]

    def _retire(self, stopped: Tensor, epoch: int) -> None:
        """Keep the weights of members that stopped, and train on without them."""
        if not stopped.any():
            return
        later = (nets for kept, nets in self.kept.items() if kept > epoch)
        self._store(stopped, [self.trained, *later])
        self.alive = self.alive & ~stopped
        if self.plan.compile:  # another number of members would be compiled anew
            return
        go, self.alive = self.alive, self.alive[self.alive]
        self.active = self.active[go]
        for kind in ("params", "buffers", "state", "h"):
            old = getattr(self, kind)
            new = {k: v[go] if isinstance(v, Tensor) else v for k, v in old.items()}
            setattr(self, kind, new)


def _layout(p: Tensor, plan: _Plan) -> Tensor:
    """Filters in channels_last where members run alone; nothing else changes."""
    if plan.how == "loop" and p.dim() == 5:
        # clone, since contiguous() leaves the strides of filters with one input channel
        return p[0].clone(memory_format=torch.channels_last)[None]
    return p


def _at_once(data: Dataset, population: Population, members: int) -> int:
    """Examples to evaluate at a time, so that activations fit the cache or the GPU."""
    size = data.x[0, 0].numel() if data.own_x else data.x[0].numel()
    if population.device.type != "cpu":
        # 2**26 input numbers: with 20 times as many activations, 5 GB
        rows = min(2**19, 2**26 // size)
    else:  # measured; 4,096 images at once make a small CNN three times slower
        rows = 2**8 if _convolutional(population) else 2**12
    return max(1, rows // members)


def _batch(data: Dataset, index: Tensor, members: Tensor) -> tuple[Tensor, ...]:
    """x, y and any weights of the given members' examples.

    `index` is (batch,) for all members or (members, batch); what comes back has a
    leading axis of members where the index or the data have one.
    """

    def pick(values: Tensor, own: bool) -> Tensor:
        if own:
            return values[members[:, None], index]
        # index_select is three times as fast as values[index]
        return values.index_select(0, index.flatten()).unflatten(0, index.shape)

    x = pick(data.x, data.own_x)
    y = pick(data.y, data.y.dim() == 2)
    w = data.weights
    return (x, y) if w is None else (x, y, pick(w, w.dim() == 2))


# --- one step ---------------------------------------------------------------------


def _autocast(plan: _Plan, x: Tensor) -> AbstractContextManager:
    return torch.autocast(
        x.device.type, torch.bfloat16, enabled=plan.precision == "bf16"
    )


def _objective(net: torch.nn.Module, plan: _Plan) -> Callable[..., Tensor]:
    """(params, buffers, x, y, weights) -> the mean weighted loss of one member."""

    def objective(params: dict, buffers: dict, x: Tensor, y: Tensor, *weights: Tensor):
        with _autocast(plan, x):
            logits = functional_call(net, (params, buffers), (x,))
        losses = plan.loss(logits.to(x.dtype), y)
        return (losses * weights[0] if weights else losses).mean()

    return objective


def _measure(net: torch.nn.Module, plan: _Plan) -> Callable[..., tuple[Tensor, Tensor]]:
    """(params, buffers, x, y) -> summed loss and number right of one member."""

    def measure(params: dict, buffers: dict, x: Tensor, y: Tensor):
        with _autocast(plan, x):
            logits = functional_call(net, (params, buffers), (x,))
        right = (logits.argmax(-1) == y).sum()
        return plan.loss(logits.to(x.dtype), y).sum(), right.to(x.dtype)

    return measure


def _axes(data: Dataset, plan: _Plan, *, shared: bool) -> tuple[int | None, ...]:
    """Of x, y and weights: 0 where a batch has an axis of members, else None."""
    labels = [t for t in (data.y, data.weights) if t is not None]
    own = [data.own_x, *(t.dim() == 2 for t in labels)]
    return tuple(0 if o or not shared else None for o in own)


def _alone(axes: tuple, params: dict, buffers: dict, *batch: Tensor) -> tuple:
    """The arguments of the only member of a stack, without the axis of members."""
    parts = [b if a is None else b[0] for a, b in zip(axes, batch, strict=False)]
    if parts[0].dim() == 4:
        parts[0] = parts[0].contiguous(memory_format=torch.channels_last)
    return *({k: t[0] for k, t in tree.items()} for tree in (params, buffers)), *parts


def _stacked_measure(net: torch.nn.Module, data: Dataset, plan: _Plan) -> Callable:
    """`_measure` of all members of a stack, on batches of the same examples."""
    measure, axes = _measure(net, plan), _axes(data, plan, shared=True)[:2]
    if plan.how == "vmap":
        return vmap(measure, in_dims=(0, 0, *axes))
    return lambda *stack: [t[None] for t in measure(*_alone(axes, *stack))]


def _stacked_gradients(net: torch.nn.Module, data: Dataset, plan: _Plan) -> Callable:
    """Gradients of `_objective` for all members of a stack, {name: (members, ...)}."""
    objective = _objective(net, plan)
    axes = _axes(data, plan, shared=plan.batches == "shared")
    if plan.how == "vmap":
        return vmap(grad(objective), in_dims=(0, 0, *axes))

    # torch.func.grad gives the same for one member, a fifth slower for a small CNN.
    def gradients(*stack) -> dict[str, Tensor]:
        params, *rest = _alone(axes, *stack)
        params = {k: p.detach().requires_grad_() for k, p in params.items()}
        with torch.enable_grad():
            loss = objective(params, *rest)
        grads = torch.autograd.grad(
            loss, list(params.values()), allow_unused=True, materialize_grads=True
        )
        return {k: g[None] for k, g in zip(params, grads, strict=True)}

    return gradients


def _phases(net: torch.nn.Module, data: Dataset, plan: _Plan) -> Callable:
    """Progress in [0, 1) -> (plan with the loss in use then, its step)."""
    plans = [replace(plan, loss=loss) for loss in stages(plan.loss)]
    made = [(p, _make_step(net, data, p)) for p in plans]

    def phase(progress: float) -> tuple[_Plan, Callable[..., None]]:
        loss = current(plan.loss, progress)
        return next(pair for pair in made if pair[0].loss is loss)

    return phase


def _make_step(net: torch.nn.Module, data: Dataset, plan: _Plan) -> Callable[..., None]:
    """The training step of a chunk: gradients of all members, then the update."""
    gradients = _stacked_gradients(net, data, plan)
    update = _OPTIMIZERS[plan.optimizer][1]

    def step(params: dict, buffers: dict, state: dict, h: dict, *batch: Tensor) -> None:
        grads = gradients(params, buffers, *batch)
        with torch.no_grad():
            update(params, grads, state, h, plan)

    if not plan.compile:
        return step
    _check_compiler(data.x.device)
    # The compiler keeps what it compiled with the code object and gives up after a few
    # versions of one; with its own copy, every call of `train` starts at none.
    step.__code__ = step.__code__.replace()
    return torch.compile(step, dynamic=False)


def _check_compiler(device: torch.device) -> None:
    if device.type != "cpu":  # a GPU's kernels come from Triton, which torch brings
        return
    if not (shutil.which("g++") or shutil.which("clang++")):
        raise RuntimeError(
            "compile=True needs a C++ compiler; install g++, or leave it out"
        )
    if " " in torch.__path__[0]:
        raise RuntimeError(
            f"torch lies in {torch.__path__[0]}: its compiler fails where a path has a "
            "space; leave compile=True out, or move the environment"
        )


def _axpy(a: Tensor | float, x: Tensor, y: Tensor, *, out: Tensor) -> None:
    """Set out = a x + y in one pass over the memory; `a` a number, or (members,)."""
    if isinstance(a, Tensor):
        torch.addcmul(y, _per_member(a, x), x, out=out)
    else:
        torch.add(y, x, alpha=a, out=out)


def _decay(weight_decay: Tensor | float, p: Tensor, g: Tensor) -> None:
    if isinstance(weight_decay, Tensor) or weight_decay:
        _axpy(weight_decay, p, g, out=g)


def _sgd_state(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: torch.zeros_like(p) for k, p in params.items()}


def _sgd(params: dict, grads: dict, state: dict, h: dict, plan: _Plan) -> None:
    """SGD: v <- momentum v + g + decay p; p <- p - lr v, or - lr (g + momentum v)."""
    for k, p in params.items():
        g, v = grads[k], state[k]
        _decay(h["weight_decay"], p, g)
        _axpy(h["momentum"], v, g, out=v)
        if plan.nesterov:
            _axpy(h["momentum"], v, g, out=g)
        _axpy(-h["lr"], g if plan.nesterov else v, p, out=p)


def _adam_state(params: dict[str, Tensor]) -> dict[str, Tensor]:
    first = next(iter(params.values()))
    count = {"t": torch.zeros(len(first), device=first.device, dtype=first.dtype)}
    moments = (
        (f"{m}/{k}", torch.zeros_like(p)) for m in "mv" for k, p in params.items()
    )
    return count | dict(moments)


def _adam(params: dict, grads: dict, state: dict, h: dict, plan: _Plan) -> None:
    """Adam (Kingma & Ba 2015, algorithm 1) with weight decay added to the gradient."""
    t = state["t"].add_(1)
    for k, p in params.items():
        g, m, v = grads[k], state[f"m/{k}"], state[f"v/{k}"]
        _decay(h["weight_decay"], p, g)
        m.lerp_(g, 0.1)  # betas 0.9 and 0.999, eps 1e-8: the paper's defaults
        v.mul_(0.999).addcmul_(g, g, value=0.001)
        unbias = _per_member((1 - 0.999**t).sqrt(), v)
        size = -h["lr"] / (1 - 0.9**t)
        p.addcmul_(_per_member(size, p), m / (v.sqrt() / unbias + 1e-8))


_OPTIMIZERS = {"sgd": (_sgd_state, _sgd), "adam": (_adam_state, _adam)}
