"""`optim8 plan carbon`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from optim8.plan.answer import Answer, Assumption, Choice, Row, add_assumptions, choose, option
from optim8.plan.carbon import Grid, footprint
from optim8.plan.entries import load, named
from optim8.plan.quantity import count, positive

ASSUMPTIONS = (
    Assumption("watts", "mean system watts for each device", positive, 330.0,
               "V100 as measured in GPT-3's training; Patterson et al. 2021, table 4"),
    Assumption("pue", "power usage effectiveness of the building", positive, 1.1,
               "Patterson et al. 2021, table 4"),
    Assumption("intensity", "of the grid, kg of CO2 equivalent per kWh; else that of --grid",
               positive),
)  # fmt: skip


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "carbon",
        parents=parents,
        help="energy and emissions of a run",
        description="Energy and emissions of a run (Patterson et al. 2021).",
        epilog="example, GPT-3's training: optim8 plan carbon --hours 355.2 --devices 10000 "
        "--watts 330 --pue 1.1 --intensity 0.429",
    )
    parser.add_argument("--hours", type=option(positive), required=True, help="that the run takes")
    parser.add_argument("--devices", type=option(count), default=1, help="at once (%(default)s)")
    parser.add_argument("--grid", default="us-2020", help="whose intensity is taken (%(default)s)")
    add_assumptions(parser, ASSUMPTIONS)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with energy and emissions."""
    grid = named("grid", options.grid, load("grid", Grid, options.data))
    assumed = choose(
        options,
        ASSUMPTIONS,
        {"intensity": Choice(grid.kg_per_kwh, f"{grid.title}; {grid.origin}")},
    )
    found = footprint(
        options.hours, options.devices, **{name: choice.value for name, choice in assumed.items()}
    )
    return Answer(
        f"{options.devices} devices for {options.hours:g} hours",
        asdict(found),
        [
            Row("energy", f"{found.kwh:,.1f} kWh"),
            Row("emissions", f"{found.tco2e:,.3f} t CO2e"),
        ],
        assumed,
    )
