"""`optim8 plan fit`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optim8.plan.answer import Answer, Assumption, Row, add_assumptions, choose, option
from optim8.plan.frontier import Optimum
from optim8.plan.quantity import count, fraction, positive, show_count

if TYPE_CHECKING:
    from optim8.plan.fit import Resampled, Runs
    from optim8.plan.loss import ParametricLoss

#: Those of every bootstrap.
RESAMPLING = (
    Assumption("confidence", "that an interval has", fraction, 0.9,
               "a convention"),
    Assumption("resamples", "of the runs, for the intervals", count, 1000,
               "takes seconds; Besiroglu et al. 2024 have 4,000"),
    Assumption("seed", "of the resamples", count, 1, "any"),
)  # fmt: skip


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "fit",
        parents=parents,
        help="the scaling law of runs of yours, and the best size by it",
        description="Fit L(N, D) = E + A / N^alpha + B / D^beta to runs (Hoffmann et al. 2022, "
        "approach 3), with bootstrap intervals.",
        epilog="example, with a line for each run in runs.csv under the header params,tokens,loss: "
        "optim8 plan fit runs.csv --flops 1e21",
    )
    parser.add_argument(
        "runs", type=Path, help="a CSV file with the columns params, tokens and loss"
    )
    parser.add_argument(
        "--flops", type=option(positive), help="a budget, whose best size by this fit is asked for"
    )
    add_assumptions(parser, RESAMPLING)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with the fit, its intervals, and the optimum for a budget."""
    from optim8.plan.fit import Runs, fit, ill_determined, resample
    from optim8.plan.runs import read

    assumed = choose(options, RESAMPLING)
    confidence = assumed["confidence"].value
    runs = Runs(**read(options.runs, {"params": positive, "tokens": positive, "loss": positive}))
    law = fit(runs)
    resampled = resample(runs, law, assumed["resamples"].value, assumed["seed"].value)
    intervals = resampled.intervals(confidence)
    vague = ill_determined(intervals)
    notes = _notes(vague)
    values = {**asdict(law), "intervals": intervals, "ill_determined": vague}
    rows = [
        Row(name, f"{getattr(law, name):.4g}", f"{low:.4g} to {high:.4g}")
        for name, (low, high) in intervals.items()
    ]
    if options.flops is not None:
        best = law.frontier().for_flops(options.flops)
        optimum = _optimum(best, resampled, confidence)
        loss = law.predict(best.params, best.tokens)
        values |= {"params": best.params, "tokens": best.tokens, "flops": best.flops}
        values |= {"loss": loss, "optimum_intervals": optimum}
        for name in ("params", "tokens", "tokens_per_param"):
            low, high = (show_count(end) for end in optimum[name])
            rows.append(
                Row(f"best {name.replace('_', ' ')}", show_count(getattr(best, name)),
                    f"{low} to {high}")
            )  # fmt: skip
        rows.append(Row("loss there", f"{loss:.4g}", "predicted"))
        notes += _extrapolation(runs, options.flops)
    return Answer(
        f"L = E + A / N^alpha + B / D^beta, fitted to {len(runs.loss)} runs",
        values,
        rows,
        assumed,
        notes,
        lambda figure: _plot(figure, runs, law, resampled, confidence, options.flops),
    )


def _optimum(
    best: Optimum, resampled: Resampled, confidence: float
) -> dict[str, tuple[float, float]]:
    import numpy as np

    from optim8.plan.bootstrap import interval

    optima = resampled.optima(best.flops)
    return {
        name: interval(np.array([getattr(optimum, name) for optimum in optima]), confidence)
        for name in ("params", "tokens", "tokens_per_param")
    }


def _notes(vague: list[str]) -> list[str]:
    from optim8.plan.fit import ILL_DETERMINED_FACTOR

    if not vague:
        return []
    verb = "is" if len(vague) == 1 else "are"
    return [
        f"{' and '.join(vague)} {verb} ill-determined: the ends of the interval differ by more "
        f"than a factor of {ILL_DETERMINED_FACTOR:g}. For A and B this is common, as alpha and "
        "beta make up for them within the runs: trust the losses and the best size, and no "
        "coefficient alone. If it is alpha, beta or E, runs of more sizes and more tokens are "
        "needed."
    ]


def _extrapolation(runs: Runs, flops: float) -> list[str]:
    from optim8.plan.flops import training

    largest = max(map(training, runs.params, runs.tokens))
    if flops <= 10 * largest:
        return []
    return [
        f"The budget is {flops / largest:.3g} times that of the largest run: the intervals hold "
        "only if the law does as far as that."
    ]


def _plot(
    figure: Any,
    runs: Runs,
    law: ParametricLoss,
    resampled: Resampled,
    confidence: float,
    flops: float | None,
) -> None:
    import numpy as np

    from optim8.plan.flops import training

    fitted, sizes = figure.subplots(1, 2)
    predicted = [
        law.predict(params, tokens) for params, tokens in zip(runs.params, runs.tokens, strict=True)
    ]
    fitted.plot(predicted, runs.loss, "o", markersize=4, alpha=0.7)
    ends = [min(runs.loss), max(runs.loss)]
    fitted.plot(ends, ends, "k-", linewidth=1)
    fitted.set_xlabel("loss of the fit")
    fitted.set_ylabel("loss of the run")

    spent = [training(*run) for run in zip(runs.params, runs.tokens, strict=True)]
    budgets = np.geomspace(min(spent), max([*spent, flops or 0]), 40)
    frontier = law.frontier()
    best = [frontier.for_flops(budget) for budget in budgets]
    bands = [_optimum(optimum, resampled, confidence)["params"] for optimum in best]
    sizes.loglog(spent, runs.params, "o", markersize=4, alpha=0.7, label="runs")
    sizes.loglog(budgets, [optimum.params for optimum in best], "k-", label="best size")
    sizes.fill_between(
        budgets, *zip(*bands, strict=True), color="k", alpha=0.2, label=f"{confidence:.0%} interval"
    )
    if flops is not None:
        sizes.plot(flops, frontier.for_flops(flops).params, "r*", markersize=12)
    sizes.set_xlabel("operations")
    sizes.set_ylabel("parameters")
    sizes.legend()
