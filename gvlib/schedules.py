"""Learning-rate schedules: progress t in [0, 1) -> the factor on the learning rate."""

import math
from collections.abc import Callable, Sequence

__all__ = ["Schedule", "constant", "cosine", "step"]

Schedule = Callable[[float], float]


def _warmed(factor: Schedule, warmup: float) -> Schedule:
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is {warmup}; give the share of training, in [0, 1)")
    return lambda t: factor(t) * min(1.0, t / warmup if warmup else 1.0)


def constant(*, warmup: float = 0.0) -> Schedule:
    """1 throughout, after a linear warm-up over the share `warmup` of training.

    >>> constant(warmup=0.5)(0.25)
    0.5
    """
    return _warmed(lambda t: 1.0, warmup)


def cosine(*, warmup: float = 0.0) -> Schedule:
    """(1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017), after a linear warm-up.

    >>> round(cosine()(0.5), 6)
    0.5
    """
    return _warmed(lambda t: (1 + math.cos(math.pi * t)) / 2, warmup)


def step(
    at: Sequence[float] = (0.5, 0.75), factor: float = 0.1, *, warmup: float = 0.0
) -> Schedule:
    """Multiply by `factor` at each share of training named in `at`.

    >>> [round(step(at=[0.5])(t), 3) for t in (0.49, 0.5)]
    [1.0, 0.1]
    """
    if not all(0 < share < 1 for share in at):
        raise ValueError(f"at is {at}; each is a share of training, between 0 and 1")
    return _warmed(lambda t: factor ** sum(t >= share for share in at), warmup)
