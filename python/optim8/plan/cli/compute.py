"""`optim8 plan compute`."""

from __future__ import annotations

import argparse
from typing import Any

from optim8.plan.answer import Answer, Assumption, Choice, Row, add_assumptions, option
from optim8.plan.compute import DEFAULT, Approach, approaches
from optim8.plan.entries import named
from optim8.plan.frontier import Optimum
from optim8.plan.quantity import positive, show_count

APPROACH = Assumption("approach", "whose law: 1, 2, 3, 3-printed, 3-table, replication, or one of "
                      "your --data", str, DEFAULT)  # fmt: skip


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "compute",
        parents=parents,
        help="the best size and number of tokens for a budget, and the reverse",
        description="The compute-optimal size and number of tokens for a budget of operations, and "
        "the reverse (Hoffmann et al. 2022, Besiroglu et al. 2024).",
        epilog="example, Chinchilla's budget: optim8 plan compute --flops 5.76e23",
    )
    question = parser.add_mutually_exclusive_group(required=True)
    for name, about in (
        ("flops", "the budget: operations of the training"),
        ("params", "the size, whose budget is asked for"),
        ("tokens", "the tokens, whose budget is asked for"),
    ):
        question.add_argument(f"--{name}", type=option(positive), help=about)
    add_assumptions(parser, [APPROACH])
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with a point of the frontier, and with the same by every other approach."""
    known = approaches(options.data)
    name = options.approach or APPROACH.default
    approach = named("approach", name, known)
    optima = {other: _optimum(options, law) for other, law in known.items()}
    found = optima[name]
    rows = [
        Row("parameters", show_count(found.params)),
        Row("tokens", show_count(found.tokens), f"{found.tokens_per_param:.3g} for each parameter"),
        Row("operations", f"{found.flops:.3g}", "6 x parameters x tokens"),
    ]
    if approach.loss is not None:
        rows.append(Row("loss", f"{_loss(approach, found):.3f}", "predicted, nats for each token"))
    rows += [_row(other, optimum) for other, optimum in optima.items() if other != name]
    ratios = sorted(optimum.tokens_per_param for optimum in optima.values())
    return Answer(
        f"compute-optimal by {approach.title}",
        {
            **_values(approach, found),
            "approach": name,
            "spread": {other: _values(law, optima[other]) for other, law in known.items()},
        },
        rows,
        {"approach": Choice(name, approach.origin)},
        [
            f"The approaches differ: {ratios[0]:.3g} to {ratios[-1]:.3g} tokens for each parameter."
            " All are of English web text and dense transformers; `optim8 plan fit` finds the law "
            "of runs of yours."
        ],
        lambda figure: _plot(figure, known, name, found),
    )


def _optimum(options: argparse.Namespace, approach: Approach) -> Optimum:
    if options.flops is not None:
        return approach.frontier.for_flops(options.flops)
    if options.params is not None:
        return approach.frontier.for_params(options.params)
    return approach.frontier.for_tokens(options.tokens)


def _row(name: str, optimum: Optimum) -> Row:
    return Row(
        f"by {name}",
        f"{show_count(optimum.params)} on {show_count(optimum.tokens)}",
        f"{optimum.tokens_per_param:.3g} tokens each, {optimum.flops:.3g} operations",
    )


def _loss(approach: Approach, optimum: Optimum) -> float:
    assert approach.loss is not None
    return approach.loss.predict(optimum.params, optimum.tokens)


def _values(approach: Approach, optimum: Optimum) -> dict[str, Any]:
    return {
        "params": optimum.params,
        "tokens": optimum.tokens,
        "flops": optimum.flops,
        "tokens_per_param": optimum.tokens_per_param,
        "loss": None if approach.loss is None else _loss(approach, optimum),
    }


def _plot(figure: Any, known: dict[str, Approach], name: str, found: Optimum) -> None:
    sizes, ratios = figure.subplots(1, 2, sharex=True)
    budgets = [found.flops * 10 ** (tenths / 10) for tenths in range(-30, 31)]
    for other, law in known.items():
        line = [law.frontier.for_flops(budget) for budget in budgets]
        style: dict[str, Any] = {"label": other, "linewidth": 2.5 if other == name else 1}
        sizes.loglog(budgets, [point.params for point in line], **style)
        ratios.loglog(budgets, [point.tokens_per_param for point in line], **style)
    sizes.plot(found.flops, found.params, "ko")
    ratios.plot(found.flops, found.tokens_per_param, "ko")
    sizes.set_ylabel("parameters")
    ratios.set_ylabel("tokens for each parameter")
    for axes in (sizes, ratios):
        axes.set_xlabel("operations")
        axes.grid(alpha=0.3)
    sizes.legend(title="approach")
