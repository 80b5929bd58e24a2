"""The command `optim8 plan`: one subcommand for each question.

A subcommand is a module with `add_parser`, which describes its options and sets the default
`answer`: a function of the parsed options that returns an `Answer`. To add one, write the module
and name it in `COMMANDS`. How an answer is printed is said here once for all of them.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from optim8.plan.answer import Answer, show, to_json
from optim8.plan.cli import carbon, compute, cost, fit, memory, transfer

#: In the order in which help lists them.
COMMANDS = (memory, compute, cost, carbon, fit, transfer)

#: Those that look something up which a user may add to.
WITH_DATA = (compute, cost, carbon)

#: What only the command needs, as the extra `plan` lists it.
EXTRAS = ("matplotlib", "rich", "scipy", "threadpoolctl")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `optim8`."""
    parser = commands.add_parser(
        "plan",
        help="say what a training run will need and cost, before it starts",
        description="Say what a training run will need and cost, before it starts.",
    )
    shared = argparse.ArgumentParser(add_help=False)
    output = shared.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print JSON, for programs")
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw the answer, as PNG or SVG")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a TOML file with hardware, prices, grids or trends of yours; may be repeated",
    )
    questions = parser.add_subparsers(metavar="question", required=True)
    for command in COMMANDS:
        parents = [shared, data] if command in WITH_DATA else [shared]
        question = command.add_parser(questions, parents)
        question.set_defaults(run=_run, parser=question)


def _run(options: argparse.Namespace) -> None:
    if missing := [name for name in EXTRAS if find_spec(name) is None]:
        raise SystemExit(
            f"optim8 plan: needs {' and '.join(missing)}; install with: pip install 'optim8[plan]'"
        )
    try:
        answer: Answer = options.answer(options)
        if options.plot is not None:
            _draw(answer, options.plot)
        found = to_json(answer) if options.json else None
    except (ValueError, OSError) as error:
        options.parser.error(str(error))
    except (ArithmeticError, RecursionError) as error:
        options.parser.error(f"a number is beyond reason ({error})")
    if found is not None:
        print(found)
    else:
        show(answer)


def _draw(answer: Answer, path: Path) -> None:
    if answer.plot is None:
        raise ValueError("there is nothing to draw in this answer")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    answer.plot(figure)
    figure.savefig(path)
