"""What the two runs took, as a table, a picture and a record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from optim8.demo.process import Result

#: What a row of the table shows of a run, and with how many digits after the point.
ROWS: tuple[tuple[str, Callable[[Result], float | None], int], ...] = (
    ("state, bytes per parameter", lambda run: run.state_bytes / run.n_parameters, 3),
    ("optimizer step, ms (median)", lambda run: run.step_seconds * 1e3, 2),
    ("peak memory, MiB", lambda run: run.peak_bytes and run.peak_bytes / 1024**2, 1),
    ("final held-out loss, nats/byte", lambda run: run.held_out_losses[-1][1], 4),
)

#: The baseline is drawn broad and grey, so that ours stays visible where it lies on top of it.
BASELINE_COLOR, BASELINE_WIDTH = "#adb5bd", 5.0
OUR_COLOR, OUR_WIDTH = "#d9480f", 1.5


def table(baseline: Result, ours: Result) -> Table:
    """Return the table that the demo prints.

    Parameters
    ----------
    baseline, ours : Result
        Of the two runs; ratios are ours to the baseline's, so that lower is better in every row.

    Returns
    -------
    rich.table.Table
        One row for each of `ROWS`.
    """
    out = Table(title=f"AdamW training a GPT of {ours.n_parameters / 1e6:.2f} million parameters")
    out.add_column("lower is better")
    for run in (baseline, ours):
        out.add_column(run.optimizer, justify="right")
    out.add_column("ratio", justify="right", style="bold")
    for name, figure, n_digits in ROWS:
        old, new = figure(baseline), figure(ours)
        cells = ["not known" if value is None else f"{value:.{n_digits}f}" for value in (old, new)]
        out.add_row(name, *cells, f"{new / old:.3f}" if old and new else "")
    return out


def show(baseline: Result, ours: Result) -> None:
    """Print the table."""
    Console().print(table(baseline, ours))


def plot(baseline: Result, ours: Result, path: Path) -> None:
    """Draw both held-out losses, and below how far apart they and the training losses are.

    Parameters
    ----------
    baseline, ours : Result
        Of the two runs.
    path : Path
        Of the PNG file.
    """
    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    losses, differences = figure.subplots(2, 1, sharex=True, height_ratios=(5, 2))
    for run, color, width in (
        (baseline, BASELINE_COLOR, BASELINE_WIDTH),
        (ours, OUR_COLOR, OUR_WIDTH),
    ):
        steps, held_out = np.array(run.held_out_losses).T
        losses.plot(
            steps,
            held_out,
            "o-",
            color=color,
            linewidth=width,
            markersize=width + 2.5,
            label=run.optimizer,
        )
    losses.set_ylabel("held-out loss, nats per byte")
    losses.set_title(
        f"A GPT of {ours.n_parameters / 1e6:.2f} million parameters learns"
        " the text of Python's standard library"
    )
    losses.legend(frameon=False)

    differences.axhline(0, color=BASELINE_COLOR, linewidth=BASELINE_WIDTH / 2)
    differences.plot(
        np.arange(1, len(ours.losses) + 1),
        np.subtract(ours.losses, baseline.losses),
        color=OUR_COLOR,
        alpha=0.4,
        linewidth=0.8,
        label="each batch",
    )
    differences.plot(
        steps,
        held_out - np.array(baseline.held_out_losses)[:, 1],
        "o-",
        color=OUR_COLOR,
        markersize=4,
        label="held out",
    )
    differences.set_ylabel("optim8 - torch")
    differences.set_xlabel("optimizer steps")
    differences.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    for axes in (losses, differences):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def save(baseline: Result, ours: Result, path: Path) -> None:
    """Write all that was measured to a JSON file: a list of the two results."""
    path.write_text(json.dumps([asdict(baseline), asdict(ours)], indent=1) + "\n")
