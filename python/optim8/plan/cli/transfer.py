"""`optim8 plan transfer`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim8.plan.answer import Answer, Row, add_assumptions, choose
from optim8.plan.cli.fit import RESAMPLING
from optim8.plan.quantity import fraction

if TYPE_CHECKING:
    from optim8.plan.runs import Array
    from optim8.plan.transfer import TransferLaw


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "transfer",
        parents=parents,
        help="whether more pre-training will still help a task",
        description="Fit downstream error = k * upstream error ^ alpha + irreducible error to the "
        "upper hull of runs (Abnar et al. 2022), and say what is left to gain.",
        epilog="example, with a line for each model in runs.csv under the header "
        "upstream_error,downstream_error, as fractions: optim8 plan transfer runs.csv",
    )
    parser.add_argument(
        "runs", type=Path, help="a CSV file with the columns upstream_error and downstream_error"
    )
    add_assumptions(parser, RESAMPLING)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with the law, and with what is left to gain."""
    from optim8.plan.runs import read
    from optim8.plan.transfer import corners, fit, subsample

    assumed = choose(options, RESAMPLING)
    runs = read(options.runs, {"upstream_error": fraction, "downstream_error": fraction})
    upstream, downstream = runs["upstream_error"], runs["downstream_error"]
    law = fit(upstream, downstream)
    n_corners = len(corners(upstream, downstream)[0])
    parts = subsample(upstream, downstream, assumed["resamples"].value, assumed["seed"].value)
    found = parts.intervals(law, assumed["confidence"].value)
    best = float(downstream.min())
    low, high = found["irreducible_error"]
    left = max(best - law.irreducible_error, 0.0)
    left_interval = (max(best - high, 0.0), max(best - low, 0.0))
    rows = [
        Row(name.replace("_", " "), f"{getattr(law, name):.4g}", f"{start:.4g} to {end:.4g}")
        for name, (start, end) in found.items()
    ]
    notes = [
        "The intervals are rough: of simulated tables of 40 to 200 runs, those of 90 % held the "
        "irreducible error in 65 to 85 %, as a hull never quite reaches what is possible."
    ]
    return Answer(
        f"downstream error, by the {n_corners} corners of the hull of {len(upstream)} runs",
        {
            **asdict(law),
            "intervals": found,
            "best_downstream_error": best,
            "left_to_gain": left,
            "left_to_gain_interval": left_interval,
            "corners": n_corners,
        },
        [
            *rows,
            Row("best so far", f"{best:.4g}", "downstream error"),
            Row("left to gain", f"{left:.4g}",
                f"{left_interval[0]:.4g} to {left_interval[1]:.4g}, by upstream accuracy alone"),
        ],
        assumed,
        notes,
        lambda figure: _plot(figure, upstream, downstream, law),
    )  # fmt: skip


def _plot(figure: Any, upstream: Array, downstream: Array, law: TransferLaw) -> None:
    import numpy as np

    from optim8.plan.transfer import corners

    axes = figure.subplots()
    axes.plot(1 - upstream, 1 - downstream, "o", markersize=4, alpha=0.5, label="runs")
    up, down = corners(upstream, downstream)
    axes.plot(1 - up, 1 - down, "ks-", markersize=5, linewidth=1, label="upper hull")
    errors = np.linspace(0, upstream.max(), 200)
    axes.plot(1 - errors, 1 - law.predict(errors), "r-", label="fit")
    saturation = 1 - law.irreducible_error
    axes.axhline(saturation, color="r", linestyle=":", label=f"saturation, {saturation:.3f}")
    axes.set_xlabel("upstream accuracy")
    axes.set_ylabel("downstream accuracy")
    axes.legend()
