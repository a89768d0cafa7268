"""The results as a file for programs and a table for people."""

import json
import re


def table(report):
    """Markdown: the machine, then one table of all families."""
    machine, peaks = report["machine"], report["peaks_gflops"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    peak_words = ", ".join(f"{name} {rate:,.0f}" for name, rate in peaks.items())
    lines = [
        f"# {machine['processor']} ({machine['device']})",
        "",
        f"{machine['threads']} of {machine['cores']} threads, {machine['system']}, "
        f"{versions}. Medians of {report['repeats']} turns, {report['date']}.",
        f"Measured peaks in GFLOP/s: {peak_words}.",
        "",
        "| networks | way | model-steps/s | x tutorial | x tight | of f32 matmul peak "
        "| of own precision's | compiling, s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for family in report["families"]:
        lines += [_row(family, way, peaks) for way in family["ways"]]
    return "\n".join(lines) + "\n"


def _row(family, way, peaks):
    own = "bf16" if way["settings"].get("precision") == "bf16" else "float32"
    cells = [
        f"{family['name']} ({family['network']})",
        way["way"],
        f"{way['steps_per_second']:,.0f}",
        f"{way['times tutorial loop']:.1f}",
        f"{way['times tight loop']:.1f}",
        f"{way['gflops'] / peaks['matmul float32']:.0%}",
        f"{way['gflops'] / peaks[f'matmul {own}']:.0%}",
        "" if way["compile_seconds"] is None else f"{way['compile_seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def write(report, folder):
    """Write <device>-<processor>.json and .md; returns the path of the first."""
    machine = report["machine"]
    words = f"{machine['device']} {machine['processor']}".lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".md").write_text(table(report))
    return path
