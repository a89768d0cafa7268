"""Parts of a Dataset: imbalanced ones, classes, groups; accuracy class by class.

Everything here is used as `gvlib.data.<name>`. Random draws follow the rules there: on
the CPU, from an explicit seed. Draws are for a set that all members share; `stack` puts
several, one a member, into one Dataset.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from ._dataset import Dataset, _check_labels, _generator, _whole

__all__ = [
    "all_labelled",
    "balanced_accuracy",
    "by_class",
    "by_group",
    "class_accuracy",
    "class_counts",
    "draw",
    "drop_classes",
    "group_split",
    "holdout",
    "long_tail_counts",
    "long_tailed",
    "oversample",
    "stack",
    "step_counts",
    "step_imbalanced",
    "subset",
    "take_classes",
    "undersample",
    "weigh_classes",
]


# ------------------------------------------------------------------------------- counts


def class_counts(data: Dataset) -> tuple[int, ...]:
    """The number of examples of each class: what the losses take as `counts`.

    Raises ValueError where members have labels of their own and differ in their counts.

    >>> class_counts(Dataset(torch.zeros(3, 2), torch.tensor([1, 0, 1])))
    (1, 2)
    """
    rows = data.y if data.y.ndim == 2 else data.y[None]
    counts = {tuple(row.bincount(minlength=data.n_classes).tolist()) for row in rows}
    if len(counts) > 1:
        raise ValueError(
            f"members of {data.name} differ in their class counts: {sorted(counts)}; "
            "train them as one population for each"
        )
    return counts.pop()


def long_tail_counts(n_max: int, n_classes: int, factor: float) -> tuple[int, ...]:
    """Exponentially falling counts n_c = floor(n_max factor^(-c / (C - 1))).

    Cui et al. 2019, Cao et al. 2019: the most frequent class has n_max examples,
    `factor` times as many as the rarest.

    Args:
        n_max: of the most frequent class.
        n_classes: C, at least 2.
        factor: the imbalance, at least 1; 100 and 10 in the papers.

    Raises ValueError for an argument out of range, or a class left without examples.

    >>> long_tail_counts(5000, 10, 100)  # CIFAR-10-LT: 12,406 images
    (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    """
    _check_imbalance(n_max, n_classes, factor)
    shares = (factor ** (-c / (n_classes - 1)) for c in range(n_classes))
    # Nine digits, so that a whole number that came out as 49.999... stays whole.
    return _at_least_one(math.floor(round(n_max * share, 9)) for share in shares)


def step_counts(n_max: int, n_classes: int, factor: float) -> tuple[int, ...]:
    """Counts of n_max for the first half of the classes, n_max / factor for the rest.

    Buda et al. 2018, Cao et al. 2019. Of an odd number of classes, the one in the
    middle is frequent. Arguments and errors as `long_tail_counts`.

    >>> step_counts(5000, 4, 100)
    (5000, 5000, 50, 50)
    """
    _check_imbalance(n_max, n_classes, factor)
    rare = n_classes // 2
    few = math.floor(round(n_max / factor, 9))
    return _at_least_one([n_max] * (n_classes - rare) + [few] * rare)


def _check_imbalance(n_max: int, n_classes: int, factor: float) -> None:
    if _whole(n_max, "n_max") < 1 or _whole(n_classes, "n_classes") < 2:
        raise ValueError(
            f"n_max is {n_max} and n_classes {n_classes}, expected at least 1 and 2"
        )
    if not 1 <= factor < math.inf:
        raise ValueError(
            f"factor is {factor}, expected 1 or more: how many times as many examples "
            "the most frequent class has as the rarest, as in 100"
        )


def _at_least_one(counts: Iterable[int]) -> tuple[int, ...]:
    counts = tuple(counts)
    if min(counts) < 1:
        raise ValueError(
            f"counts would be {counts}: the rarest class would be absent from "
            "training; take a smaller factor or a larger n_max"
        )
    return counts


# ---------------------------------------------------------------------------- the draws


def draw(labels: Tensor, counts: Sequence[int], *, seed: int) -> Tensor:
    """Positions of `counts[c]` examples of each class c, drawn without replacement.

    With one seed, smaller counts draw some of the examples that larger ones do. A
    count of 0 draws none of a class.

    Args:
        labels: (n,) int64.
        counts: one for each class, at least 0.
        seed: of the draw.

    Returns positions in rising order, int64, on the labels' device.

    Raises ValueError for more examples than there are, or labels beyond the counts.

    >>> draw(torch.tensor([0, 1, 0, 1, 1]), (2, 1), seed=0).tolist()[:1]
    [0]
    """
    random = _generator(seed)
    _check_labels(labels, len(counts), "draw()")
    parts = []
    for c, count in enumerate(counts):
        positions = (labels.cpu() == c).nonzero().flatten()
        if not 0 <= _whole(count, f"the count of class {c}") <= len(positions):
            raise ValueError(
                f"{count} examples of class {c} are wanted, expected 0 to "
                f"{len(positions)}: there are no more"
            )
        order = torch.randperm(len(positions), generator=random)
        parts.append(positions[order[:count]])
    return torch.cat(parts).sort().values.to(labels.device)


def _shared(data: Dataset) -> Dataset:
    if data.members is not None:
        raise ValueError(
            f"{data.name} has labels or weights for {data.members} members; draw from "
            "the set before, once a member, and gvlib.data.stack() the results"
        )
    return data


def subset(data: Dataset, counts: Sequence[int], *, seed: int) -> Dataset:
    """`counts[c]` examples of each class c, drawn with `draw`, in the set's order.

    Raises ValueError for a count below 1 or above what there is, or a wrong number of
    counts.

    >>> four = Dataset(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]))
    >>> class_counts(subset(four, (2, 1), seed=0))
    (2, 1)
    """
    if len(counts) != _shared(data).n_classes:
        raise ValueError(
            f"counts are {tuple(counts)}, expected one for each of the "
            f"{data.n_classes} classes of {data.name}"
        )
    if min(counts) < 1:
        raise ValueError(
            f"counts are {tuple(counts)}: a class would be absent from training; to "
            "leave classes out, use drop_classes()"
        )
    return data[draw(data.y, counts, seed=seed)]


def long_tailed(
    data: Dataset,
    factor: float,
    *,
    seed: int,
    n_max: int | None = None,
    order: Sequence[int] | None = None,
) -> Dataset:
    """A long-tailed subset, with `long_tail_counts`.

    Args:
        data: a set that all members share.
        factor: the imbalance; 100 on CIFAR-10 gives 12,406 images.
        seed: of the draw.
        n_max: examples of the most frequent class; None: as many as the smallest class
            of `data` has (5,000 of CIFAR-10).
        order: the classes from the most frequent to the rarest; None: by their numbers,
            as in the papers.

    Raises ValueError as `long_tail_counts` and `subset`, or for an order that does not
    name each class once.

    >>> balanced = Dataset(torch.zeros(300, 2), torch.arange(300) % 3)
    >>> class_counts(long_tailed(balanced, 100, seed=0, order=(2, 1, 0)))
    (1, 10, 100)
    """
    return _imbalanced(data, long_tail_counts, factor, seed, n_max, order)


def step_imbalanced(
    data: Dataset,
    factor: float,
    *,
    seed: int,
    n_max: int | None = None,
    order: Sequence[int] | None = None,
) -> Dataset:
    """A subset with a step, with `step_counts`; arguments and errors as `long_tailed`.

    >>> balanced = Dataset(torch.zeros(40, 2), torch.arange(40) % 4)
    >>> class_counts(step_imbalanced(balanced, 5, seed=0))
    (10, 10, 2, 2)
    """
    return _imbalanced(data, step_counts, factor, seed, n_max, order)


def _imbalanced(
    data: Dataset,
    profile: Callable[[int, int, float], tuple[int, ...]],
    factor: float,
    seed: int,
    n_max: int | None,
    order: Sequence[int] | None,
) -> Dataset:
    classes = _shared(data).n_classes
    ranked = list(range(classes)) if order is None else [int(c) for c in order]
    if sorted(ranked) != list(range(classes)):
        raise ValueError(f"order is {ranked}, expected each of {classes} classes once")
    n_max = min(class_counts(data)) if n_max is None else n_max
    counts = dict(zip(ranked, profile(n_max, classes, factor), strict=True))
    return subset(data, [counts[c] for c in range(classes)], seed=seed)


def undersample(data: Dataset, *, seed: int) -> Dataset:
    """As many examples of each class as the rarest has, drawn without replacement.

    >>> three = Dataset(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    >>> class_counts(undersample(three, seed=0))
    (1, 1)
    """
    return subset(data, [min(class_counts(data))] * data.n_classes, seed=seed)


def oversample(data: Dataset, *, seed: int) -> Dataset:
    """Class-balanced re-sampling: every class repeated to the size of the largest.

    Each example of class c comes floor(n_max / n_c) times, and the remainder is drawn
    without replacement, so that `gvlib.train` sees all examples of a class equally
    often and all classes equally often, as a sampler with probabilities ~ 1 / n_c does.
    An epoch has C n_max examples instead of n: to compare at as many steps, train
    n / (C n_max) times as many epochs.

    >>> three = Dataset(torch.zeros(3, 2), torch.tensor([0, 0, 1]))
    >>> oversample(three, seed=0).y.tolist()
    [0, 0, 1, 1]
    """
    counts = class_counts(_shared(data))
    if min(counts) < 1:
        raise ValueError(
            f"class {counts.index(0)} of {data.name} has no examples to repeat; leave "
            "it out with drop_classes()"
        )
    times = torch.tensor([max(counts) // n for n in counts])[data.y.cpu()]
    rest = draw(data.y, [max(counts) % n for n in counts], seed=seed).cpu()
    times[rest] += 1
    return data[torch.arange(len(data)).repeat_interleave(times)]


def holdout(data: Dataset, per_class: int, *, seed: int) -> tuple[Dataset, Dataset]:
    """Split off a balanced set, for validation: (the rest, `per_class` of each class).

    >>> ten = Dataset(torch.zeros(10, 2), torch.arange(10) % 2)
    >>> [len(part) for part in holdout(ten, 2, seed=0)]
    [6, 4]
    """
    if _whole(per_class, "per_class") < 1:
        raise ValueError(f"per_class is {per_class}, expected at least 1")
    held = draw(_shared(data).y, [per_class] * data.n_classes, seed=seed)
    rest = torch.ones(len(data), dtype=torch.bool, device=data.device)
    rest[held] = False
    return data[rest], data[held]


def stack(sets: Sequence[Dataset]) -> Dataset:
    """One Dataset of which member m has the examples of sets[m], all of one size.

        gvlib.data.stack([long_tailed(train, 100, seed=s) for s in range(5)])

    Raises ValueError for no sets, or sets that differ in shape, classes or in whether
    they have weights.

    >>> one = Dataset(torch.zeros(4, 2), torch.arange(4) % 2)
    >>> stack([one, one, one]).x.shape
    torch.Size([3, 4, 2])
    """
    sets = list(sets)
    kinds = {
        (tuple(_shared(s).x.shape), s.classes, s.weights is None, str(s.device))
        for s in sets
    }
    if len(kinds) != 1:
        raise ValueError(
            "sets to stack must have one shape, classes, weights or none, and device "
            f"in common; they have {sorted(map(str, kinds)) or 'no set at all'}"
        )
    weighted = sets[0].weights is not None
    return sets[0].replace(
        x=torch.stack([s.x for s in sets]),
        y=torch.stack([s.y for s in sets]),
        weights=torch.stack([s.weights for s in sets]) if weighted else None,
    )


# --------------------------------------------------------------------- classes, groups


def _numbers(data: Dataset, classes: Sequence[int | str]) -> list[int]:
    """Classes by name or number as numbers: each known, and named once."""
    if isinstance(classes, str) or not len(classes):
        raise ValueError(f"classes are {classes!r}, expected several, as in ('cat',)")
    known = {name: c for c, name in enumerate(data.classes)}
    known |= {c: c for c in range(data.n_classes)}
    for c in classes:
        if c not in known:
            names = ", ".join(data.classes) or f"0 to {data.n_classes - 1}"
            raise ValueError(f"no class {c!r} in {data.name}, which has {names}")
    numbers = [known[c] for c in classes]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"classes are {list(classes)}, expected each once")
    return numbers


def take_classes(data: Dataset, classes: Sequence[int | str]) -> Dataset:
    """The examples of some classes, which become 0, 1, ... in the order given.

    Args:
        data: a set that all members share.
        classes: names or numbers; ("cat", "dog") makes cats class 0 and dogs class 1.

    Raises ValueError for a class that is unknown, named twice or without examples.

    >>> ds = Dataset(torch.zeros(3, 2), torch.arange(3), classes=("car", "dog", "cat"))
    >>> pair = take_classes(ds, ("cat", "dog"))
    >>> pair.y.tolist(), pair.classes
    ([1, 0], ('cat', 'dog'))
    """
    numbers, counts = _numbers(_shared(data), classes), class_counts(data)
    for c in numbers:
        if not counts[c]:
            raise ValueError(f"class {c} of {data.name} has no examples")
    new = torch.full((data.n_classes,), -1, device=data.device)
    new[numbers] = torch.arange(len(numbers), device=data.device)
    part = data[new[data.y] >= 0]
    names = [data.classes[c] if data.classes else str(c) for c in numbers]
    return part.replace(y=new[part.y], classes=tuple(names))


def drop_classes(data: Dataset, classes: Sequence[int | str]) -> Dataset:
    """The examples of all other classes, numbered anew in their order.

    Arguments and errors as `take_classes`.

    >>> ds = Dataset(torch.zeros(3, 2), torch.arange(3), classes=("car", "dog", "cat"))
    >>> drop_classes(ds, ("cat",)).classes
    ('car', 'dog')
    """
    gone = set(_numbers(data, classes))
    rest = [c for c in range(data.n_classes) if c not in gone]
    if not rest:
        raise ValueError(f"no class of {data.name} is left")
    return take_classes(data, rest)


def all_labelled(
    data: Dataset, label: int | str, classes: Sequence[str] | None = None
) -> Dataset:
    """The same inputs, all with one label: their accuracy is the share called so.

    Evaluated beside the training set by `gvlib.train`, it records which share of cats
    and dogs, of other classes or of noise is called a dog, epoch by epoch. The recorded
    loss is that of the label given and means nothing here.

    Args:
        data: any set.
        label: the class, by name or number.
        classes: the names of the classes that the network tells apart; None: the
            data's own.

    Raises ValueError for an unknown label.

    >>> ships = Dataset(torch.zeros(2, 3), torch.tensor([0, 0]), classes=("ship",))
    >>> all_labelled(ships, "dog", ("cat", "dog")).y.tolist()
    [1, 1]
    """
    names = tuple(data.classes if classes is None else classes)
    if isinstance(label, str) and label not in names:
        raise ValueError(f"no class {label!r} among {', '.join(names) or 'no names'}")
    number = names.index(label) if isinstance(label, str) else _whole(label, "label")
    return data.replace(y=torch.full_like(data.y, number), classes=names)


def weigh_classes(
    data: Dataset, weights: Tensor | Sequence, *, normalize: bool = True
) -> Dataset:
    """The same set with a weight an example: that of its class, for all or per member.

    Weights that differ between members make one population of a sweep over them:

        table = torch.tensor([[2.0**-k, 2.0**k] for k in nets.members["log_weight"]])
        train = weigh_classes(train, table)

    Args:
        data: the training set; weights that it has are replaced.
        weights: (classes,) or (members, classes), above 0.
        normalize: divide by the mean over the examples, so that weights do not act
            as a larger learning rate.

    Raises ValueError for weights that are not above 0 or not one a class.

    >>> ds = Dataset(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
    >>> weigh_classes(ds, [1, 5]).weights
    tensor([0.5000, 0.5000, 0.5000, 2.5000])
    """
    table = torch.as_tensor(weights, dtype=torch.float64).to(data.device)
    if table.ndim not in (1, 2) or table.shape[-1] != data.n_classes:
        raise ValueError(
            f"weights have shape {tuple(table.shape)}, expected ({data.n_classes},) or "
            f"(members, {data.n_classes}), one for each class of {data.name}"
        )
    if not bool((table.isfinite() & (table > 0)).all()):
        raise ValueError(f"class weights are {table.tolist()}, expected all above 0")
    if table.ndim == data.y.ndim == 2:
        if len(table) != len(data.y):
            raise ValueError(
                f"weights are for {len(table)} members and {data.name} for "
                f"{len(data.y)}; give one row a member"
            )
        each = table.gather(1, data.y)
    else:
        each = table[..., data.y]
    if normalize:
        each = each / each.mean(-1, keepdim=True)
    return data.replace(weights=each.to(data.x.dtype))


def by_class(data: Dataset) -> dict[str, Dataset]:
    """The set in parts, one a class: as `test` of `gvlib.train`, accuracies by class.

    >>> ds = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]), classes=("a", "b"))
    >>> {name: len(part) for name, part in by_class(ds).items()}
    {'a': 1, 'b': 2}
    """
    return by_group(data, _shared(data).y, data.classes or None)


def by_group(
    data: Dataset, groups: Tensor, names: Sequence[str] | None = None
) -> dict[str, Dataset]:
    """The set in parts, one a group, labels as they were; groups without examples go.

    Args:
        data: a set that all members share.
        groups: (n,) group numbers.
        names: of the groups; None: "group 0", "group 1", ...

    Raises ValueError for groups that do not fit.

    >>> ds = Dataset(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    >>> list(by_group(ds, torch.tensor([0, 0, 1])))
    ['group 0', 'group 1']
    """
    _check_groups(_shared(data), groups, None if names is None else len(names))
    return {
        f"group {g}" if names is None else names[g]: data[groups == g]
        for g in groups.unique().tolist()
    }


def group_split(
    data: Dataset, groups: Tensor, counts: Sequence[Sequence[int]], *, seed: int
) -> tuple[Dataset, Tensor]:
    """A subset with `counts[c][g]` examples of class c in group g, and their groups.

    For attributes that go along with a class in training and not in testing
    (Sagawa et al. 2020). A count of 0 leaves a cell out.

    Args:
        data: a set that all members share.
        groups: (n,) group numbers.
        counts: (classes, groups).
        seed: of the draw.

    Returns the subset and the groups (n',) of its examples.

    Raises ValueError for counts or groups that do not fit, or more than there are.

    >>> ds = Dataset(torch.zeros(8, 2), torch.arange(8) % 2)
    >>> part, groups = group_split(ds, torch.arange(8) // 4, [[2, 1], [0, 2]], seed=0)
    >>> sorted(zip(part.y.tolist(), groups.tolist()))
    [(0, 0), (0, 0), (0, 1), (1, 1), (1, 1)]
    """
    widths = {len(row) for row in counts}
    if len(counts) != _shared(data).n_classes or len(widths) != 1:
        raise ValueError(
            f"counts are {list(map(list, counts))}, expected a row for each of "
            f"{data.n_classes} classes, all of one length"
        )
    width = widths.pop()
    _check_groups(data, groups, width)
    cells = [n for row in counts for n in row]
    index = draw(data.y * width + groups, cells, seed=seed)
    return data[index], groups[index]


def _check_groups(data: Dataset, groups: Tensor, n_groups: int | None) -> None:
    if groups.shape != data.y.shape or groups.dtype != torch.int64:
        raise ValueError(
            f"groups are {groups.dtype} of shape {tuple(groups.shape)}, expected int64 "
            f"of shape {tuple(data.y.shape)}: one an example of {data.name}"
        )
    _check_labels(groups, n_groups, f"groups of {data.name}")


# ----------------------------------------------------------------- accuracy, class-wise


def class_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The accuracy on the examples of each class, by the largest logit.

    Args:
        logits: (n, classes), or (members, n, classes) as a population gives them.
        y: (n,), or (members, n).

    Returns (classes,) or (members, classes) float64.

    Raises ValueError for shapes that do not fit, or a class without examples.

    >>> f = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    >>> class_accuracy(f, torch.tensor([0, 1, 1]))
    tensor([1.0000, 0.5000], dtype=torch.float64)
    """
    if logits.ndim < 2 or logits.shape[:-1][-y.ndim :] != y.shape:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(y.shape)}, "
            "expected (n, classes) or (members, n, classes), and (n,) or (members, n)"
        )
    classes = logits.shape[-1]
    _check_labels(y, classes, "the test set")
    one_hot = torch.nn.functional.one_hot(y, classes).double()
    n = one_hot.sum(-2)
    if not bool((n > 0).all()):
        absent = int((n == 0).nonzero()[0, -1])
        raise ValueError(f"class {absent} has no examples, so its accuracy is unknown")
    right = (logits.argmax(-1) == y).double()
    return torch.einsum("...n,...nc->...c", right, one_hot) / n


def balanced_accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """The mean of `class_accuracy` over the classes, () or (members,).

    >>> f = torch.tensor([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    >>> balanced_accuracy(f, torch.tensor([0, 1, 1])).item()
    0.75
    """
    return class_accuracy(logits, y).mean(-1)
