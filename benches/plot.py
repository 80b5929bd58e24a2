"""One picture of a record: time per element over size, and the step's speed against torch's."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib

from benches.optimizers import BASELINE
from benches.record import Record, Result

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes


def draw(record: Record, path: Path) -> None:
    """Draw a record into a PNG file."""
    widest = record.machine["optim8"]["level"]
    steps = [r for r in record.results if r.bench in ("step", "loop") and r.level == widest]
    figure, (sizes, ratios) = pyplot.subplots(1, 2, figsize=(13, 5.5), layout="constrained")
    _draw_sizes(sizes, [r for r in steps if r.bench == "step" and r.dtype == "float32"])
    _draw_ratios(ratios, steps)
    figure.suptitle(
        f"{record.machine['cpu']}, optim8 on {widest}, {record.machine['torch_threads']} threads"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_sizes(axes: Axes, results: list[Result]) -> None:
    lines = defaultdict(list)
    for result in results:
        if result.case[0].isdigit() and "x" not in result.case:
            lines[result.candidate].append(
                (result.n_elements, result.timing.minimum_ns / result.n_elements)
            )
    for candidate, points in lines.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=candidate)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="elements of one float32 tensor",
        ylabel="ns per element, fastest step",
        title="Time of AdamW's step",
    )
    axes.grid(alpha=0.3)
    if lines:
        axes.legend()


def _draw_ratios(axes: Axes, results: list[Result]) -> None:
    cases = defaultdict(dict)
    for result in results:
        if result.bench == "loop":
            label, nanoseconds = f"loop {result.case}", result.timing.median_ns
        else:
            label, nanoseconds = f"{result.case} {result.dtype}", result.timing.minimum_ns
        cases[label][result.candidate] = nanoseconds
    ours = sorted({r.candidate for r in results if r.candidate.startswith("optim8")})
    labels = [label for label, times in cases.items() if BASELINE in times]
    height = 0.8 / max(1, len(ours))
    for i, candidate in enumerate(ours):
        speedups = [
            cases[label][BASELINE] / cases[label].get(candidate, float("inf")) for label in labels
        ]
        places = [place + i * height for place in range(len(labels))]
        axes.barh(places, speedups, height, label=candidate)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.set(
        xlabel="times as fast as torch fused (minima; in a loop, medians)",
        title="Against torch's fused step",
    )
    if ours:
        axes.legend()
