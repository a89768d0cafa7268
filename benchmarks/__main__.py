"""`make bench` or `python -m benchmarks`: measure, print a table, write the results."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def arguments(argv=None):
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--device", default="auto", help="cpu, cuda; default: auto")
    parser.add_argument("--repeats", type=int, default=5, help="turns, at least 1")
    parser.add_argument("--only", default="", help="families whose name has this word")
    parser.add_argument("--quick", action="store_true", help="see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args(argv)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    return options


def chosen(options, families):
    """The families to measure; without a C++ compiler no way that compiles."""
    families = [f for f in families if options.only in f.name]
    if not families:
        sys.exit(f"no family has {options.only!r} in its name")
    return [f.smaller() for f in families] if options.quick else families


def run(options):
    """Measure all families; returns what is written."""
    import torch

    import gvlib as gv

    from . import families, machine
    from .measure import measure

    torch.set_num_threads(1)
    device = gv.data.device(options.device)
    report = {
        "machine": machine.describe(device),
        "date": time.strftime("%Y-%m-%d"),
        "quick": options.quick,
        "repeats": 1 if options.quick else options.repeats,
        "batch": families.BATCH,
        "peaks_gflops": machine.peaks(device, quick=options.quick),
        "families": [],
    }
    for family in chosen(options, families.FAMILIES):
        ways = measure(family, device, report["repeats"], note=_note)
        about = {"name": family.name, "network": family.network}
        sizes = {"members": family.members, "examples": family.examples}
        report["families"].append({**about, **sizes, "ways": ways})
    return report


def _note(line):
    print(line, file=sys.stderr, flush=True)


def main():
    """Run with an empty folder for what torch compiles, so that it is timed cold."""
    options = arguments()
    if not options.quick and not (shutil.which("g++") or shutil.which("clang++")):
        sys.exit("torch.compile needs a C++ compiler; install g++, or use --quick")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        report = run(options)
    from .report import table, write

    print(table(report))
    print(write(report, options.out))


if __name__ == "__main__":
    main()
