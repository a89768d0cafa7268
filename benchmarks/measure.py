"""Model-steps per second of each way, the ways in turn, in one process."""

import statistics
import time
from functools import partial

import gvlib as gv

from . import loops, machine
from .families import BATCH, SEED


class Stopwatch:
    """A constant schedule that reads the clock: `gvlib.train` asks it once a step.

    The seconds of the first epoch of every chunk are left out, as they are for the
    plain loops, and so are making the networks and evaluating them. The first step, in
    which a compiled step is compiled, is timed by the wall clock.
    """

    def __init__(self, per_epoch, epochs, clock):
        self.first, self.last = per_epoch, per_epoch * (epochs + 1) - 1
        self.clock, self.step = clock, 0
        self.seconds, self.compiling = 0.0, 0.0

    def __call__(self, progress):
        """Read the clock where the first step and the timed ones begin and end."""
        if self.step == 0:
            self.wall = time.perf_counter()
        elif self.step == 1:
            self.compiling += time.perf_counter() - self.wall
        if self.step == self.first:
            self.start = self.clock()
        if self.step == self.last:
            self.seconds += self.clock() - self.start
        self.step = 0 if self.step == self.last else self.step + 1
        return 1.0

    @property
    def steps(self):
        """Steps timed in every chunk."""
        return self.last - self.first


def _ours(family, data, settings, clock):
    members = {"seed": range(SEED, SEED + family.members)}
    population = gv.Population(family.make, members, device=data.x.device)
    per_epoch = -(-len(data) // BATCH)
    watch = Stopwatch(per_epoch, family.epochs, clock)
    gv.train(
        population,
        data,
        epochs=family.epochs + 1,
        batch=BATCH,
        lr=0.05,
        schedule=watch,
        record_every=family.epochs + 1,
        progress=False,
        **settings,
    )
    return family.members * watch.steps / watch.seconds, watch.compiling


def _plain(loop, family, data, clock):
    seconds = loop(
        family.make,
        data.x,
        data.y,
        batch=BATCH,
        networks=family.networks,
        epochs=family.loop_epochs,
        clock=clock,
    )
    steps = family.networks * family.loop_epochs * -(-len(data) // BATCH)
    return steps / seconds, 0.0


def measure(family, device, repeats, note=print):
    """Every way of a family, `repeats` times in turn: a list of results, one a way."""
    data, clock = family.data(device), partial(machine.clock, device)
    ways = {
        "tutorial loop": partial(_plain, loops.tutorial, family, data, clock),
        "tight loop": partial(_plain, loops.tight, family, data, clock),
    }
    for label, settings in family.ways.items():
        ways[label] = partial(_ours, family, data, settings, clock)
    speeds, compiling = {label: [] for label in ways}, {}
    for turn in range(repeats):
        for label, run in ways.items():
            speed, seconds = run()
            speeds[label].append(speed)
            compiling.setdefault(label, seconds)  # later turns find files of the first
        note(f"{family.name}: {turn + 1} of {repeats}")
    flops = family.flops()
    return [
        _result(label, speeds, flops, compiling[label], family.ways.get(label, {}))
        for label in ways
    ]


def _result(label, speeds, flops, compiling, settings):
    """Medians; a ratio is the median of the ratios within each turn."""
    mine, speed = speeds[label], statistics.median(speeds[label])
    ratios = {
        f"times {other}": round(
            statistics.median(a / b for a, b in zip(mine, speeds[other], strict=True)),
            2,
        )
        for other in ("tutorial loop", "tight loop")
    }
    return {
        "way": label,
        "settings": settings,
        "steps_per_second": round(speed, 1),
        "turns": [round(s, 1) for s in mine],
        **ratios,
        "gflops": round(speed * flops / 1e9, 2),
        "compile_seconds": round(compiling, 1) if settings.get("compile") else None,
    }
