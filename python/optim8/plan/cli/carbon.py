"""`optim8 plan carbon`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import Any

from optim8.plan.answer import Answer, Assumption, Choice, Row, add_assumptions, choose, option
from optim8.plan.carbon import PRACTICES, Footprint, Grid, footprint, improved
from optim8.plan.entries import load, named
from optim8.plan.hardware import Device
from optim8.plan.quantity import count, positive

ASSUMPTIONS = (
    Assumption("watts", "mean system watts for each device; else those of --device", positive,
               330.0, "V100 as measured in GPT-3's training; Patterson et al. 2021, table 4"),
    Assumption("pue", "power usage effectiveness of the building", positive, 1.1,
               "Patterson et al. 2021, table 4"),
    Assumption("intensity", "of the grid, kg of CO2 equivalent per kWh; else that of --grid",
               positive),
)  # fmt: skip

#: Whose grid a measured run has, unless another is given.
COUNTRY = "USA"

#: Where the factors of the practices are from.
PRACTICES_SOURCE = (
    "What each practice would change, for a run that does not follow it yet: Patterson et al. "
    "2022, arXiv:2204.05149, with the factors of its announcement (Google, February 2022)."
)


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "carbon",
        parents=parents,
        help="energy and emissions of a run",
        description="Energy and emissions of a run (Patterson et al. 2021): planned, or measured "
        "around a command.",
        epilog="examples. GPT-3's training: optim8 plan carbon --hours 355.2 --devices 10000 "
        "--watts 330 --pue 1.1 --intensity 0.429. A run of yours: optim8 plan carbon --country "
        "FRA --measure -- python train.py",
    )
    run = parser.add_mutually_exclusive_group(required=True)
    run.add_argument("--hours", type=option(positive), help="that the run takes")
    run.add_argument(
        "--measure",
        action="store_true",
        help="run the command after -- and measure the machine, with codecarbon",
    )
    parser.add_argument("command", nargs="*", help="to be measured")
    parser.add_argument("--devices", type=option(count), default=1, help="at once (%(default)s)")
    parser.add_argument("--device", help="whose watts are taken: an entry of devices")
    parser.add_argument("--grid", default="us-2020", help="whose intensity is taken (%(default)s)")
    parser.add_argument("--country", help=f"of --measure, in three letters ({COUNTRY})")
    add_assumptions(parser, ASSUMPTIONS)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with energy and emissions."""
    if options.measure:
        return _measured(options)
    if options.country is not None:
        raise ValueError("expected --country with --measure only: --grid is for others")
    if options.command:
        raise ValueError(f"expected --measure with the command {' '.join(options.command)!r}")
    return _planned(options)


def _planned(options: argparse.Namespace) -> Answer:
    grid = named("grid", options.grid, load("grid", Grid, options.data))
    defaults = {"intensity": Choice(grid.kg_per_kwh, f"{grid.title}; {grid.origin}")}
    if options.device is not None:
        device = named("device", options.device, load("device", Device, options.data))
        if options.watts is None:
            defaults["watts"] = device.watts()
    assumed = choose(options, ASSUMPTIONS, defaults)
    found = footprint(
        options.hours, options.devices, **{name: choice.value for name, choice in assumed.items()}
    )
    return _answer(f"{options.devices} devices for {options.hours:g} hours", found, assumed)


def _measured(options: argparse.Namespace) -> Answer:
    from optim8.plan.measure import measure

    command = options.command
    if not command:
        raise ValueError("--measure: expected a command, after --")
    if given := [
        name for name in ("watts", "pue", "intensity", "device") if getattr(options, name)
    ]:
        raise ValueError(f"expected no --{given[0]} with --measure, which measures it")
    country = options.country or COUNTRY
    found = measure(command, country)
    answer = _answer(f"{command[0]}, measured for {found.hours:.4g} hours", found.footprint, {})
    answer.values["hours"] = found.hours
    answer.notes.append(
        f"Measured by codecarbon, of the whole machine, with the mean grid of {country} "
        "and nothing added for the building."
    )
    return answer


def _answer(title: str, found: Footprint, assumed: dict[str, Choice]) -> Answer:
    changed = {name: improved(found, practice) for name, practice in PRACTICES.items()}
    return Answer(
        title,
        {
            **asdict(found),
            "practices": {
                name: {"least": asdict(least), "most": asdict(most)}
                for name, (least, most) in changed.items()
            },
        },
        [
            Row("energy", _energy(found)),
            Row("emissions", _emissions(found)),
            *(_practice_row(name, *ends) for name, ends in changed.items()),
        ],
        assumed,
        [PRACTICES_SOURCE],
        partial(_draw, found, changed),
    )


def _practice_row(name: str, least: Footprint, most: Footprint) -> Row:
    span = f"{_emissions(most)} to {_emissions(least)}"
    return Row(f"better {name}", span, PRACTICES[name].about)


def _energy(found: Footprint) -> str:
    watt_hours = f"{1000 * found.kwh:.3g}"
    return f"{watt_hours} Wh" if float(watt_hours) < 1000 else f"{found.kwh:,.1f} kWh"


def _emissions(found: Footprint) -> str:
    if found.tco2e >= 0.1:
        return f"{found.tco2e:,.3f} t CO2e"
    if found.tco2e >= 1e-4:
        return f"{1e3 * found.tco2e:.3g} kg CO2e"
    return f"{1e6 * found.tco2e:.3g} g CO2e"


def _draw(found: Footprint, changed: dict[str, tuple[Footprint, Footprint]], figure: Any) -> None:
    axes = figure.subplots()
    axes.barh(["now"], [found.tco2e], color="gray")
    names = [f"better {name}" for name in changed]
    most = [ends[1].tco2e for ends in changed.values()]
    spans = [least.tco2e - most.tco2e for least, most in changed.values()]
    axes.barh(names, most)
    axes.barh(names, spans, left=most, alpha=0.4, color="tab:blue")
    axes.invert_yaxis()
    axes.set_xlabel("t CO2e, from the largest to the smallest effect of each practice")
