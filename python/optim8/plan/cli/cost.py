"""`optim8 plan cost`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from typing import Any

from optim8.plan import flops
from optim8.plan.answer import Answer, Assumption, Choice, Row, add_assumptions, choose, option
from optim8.plan.cost import Price, Trend, price_in, seconds_per_token, serving, training
from optim8.plan.entries import load, named
from optim8.plan.hardware import Device
from optim8.plan.quantity import count, fraction, positive, show_count

ASSUMPTIONS = (
    Assumption("utilization", "part of the peak that is reached", fraction, 0.3,
               "usual, from memory; 0.20 to 0.39 in Patterson et al. 2021, table 4"),
    Assumption("price", "of a device for an hour, in dollars; else typical", positive),
    Assumption("price_year", "the year of that price", count),
    Assumption("start_year", "the year that the run starts in", count),
    Assumption("doubling_years", "in which what a dollar buys doubles; else that of --trend",
               positive),
    Assumption("peak", "operations a second of a device; else its peak rate", positive),
    Assumption("bytes_per_param", "of weights that are served", positive, 2.0, "16-bit weights"),
)  # fmt: skip

#: Options that attention is counted by.
SHAPE = ("n-layers", "width", "context")

#: Years after the start that are drawn.
N_YEARS = 10


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "cost",
        parents=parents,
        help="time and money of training, and of serving a token",
        description="Time and money of training, and of serving a token.",
        epilog="example, GPT-3 on 64 A100: optim8 plan cost --params 175e9 --tokens 300e9 "
        "--device a100-80gb --devices 64 --utilization 0.3 --price 2.0 --start-year 2028",
    )
    parser.add_argument("--params", type=option(count), help="that are active for a token")
    parser.add_argument("--tokens", type=option(count), help="that it is trained on")
    parser.add_argument(
        "--flops", type=option(positive), help="of the run, instead of --params and --tokens"
    )
    shape = parser.add_argument_group("attention", "counted too if all three are given")
    for name in SHAPE:
        shape.add_argument(f"--{name}", type=option(count), help="of the model")
    parser.add_argument("--device", default="a100-80gb", help="that works (%(default)s)")
    parser.add_argument("--devices", type=option(count), default=1, help="at once (%(default)s)")
    parser.add_argument("--trend", default="gpus", help="how fast prices fall (%(default)s)")
    add_assumptions(parser, ASSUMPTIONS)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with operations, hours and cost."""
    device = named("device", options.device, load("device", Device, options.data))
    n_flops = _flops(options)
    trend = named("trend", options.trend, load("trend", Trend, options.data))
    assumed = choose(options, ASSUMPTIONS, _defaults(options, device, trend))
    values = {name: choice.value for name, choice in assumed.items()}
    if options.doubling_years is not None:  # which has no interval
        trend = replace(
            trend, title="given", doubling_years=options.doubling_years, low=None, high=None
        )
    years = values["start_year"] - values["price_year"]
    peak = values["peak"]
    price = price_in(values["price"], years, trend.doubling_years)
    found = training(n_flops, peak, options.devices, values["utilization"], price)
    rows = [
        Row("operations", f"{n_flops:.4g} FLOP"),
        Row("device-hours", f"{found.device_hours:,.1f}"),
        Row("time", _duration(found.days), f"on {options.devices:,}"),
        Row("cost", f"${found.cost:,.2f}", _band(found.cost, years, trend)),
    ]
    answered: dict[str, Any] = {"flops": n_flops, **asdict(found), "price": price}
    if options.params is not None:
        million = serving(options.params, 1e6, peak, values["utilization"], price)
        answered["cost_per_million_tokens"] = million
        rows.append(Row("serving a million tokens", f"${million:,.4f}", "in large batches"))
        least = seconds_per_token(
            options.params, values["bytes_per_param"], device.bandwidth_gb_s * 1e9
        )
        answered["least_seconds_per_token"] = least / options.devices
        rows.append(
            Row("a single token takes at least",
                f"{1000 * least / options.devices:,.2f} ms",
                "weights are read once; the memory's bandwidth")
        )  # fmt: skip
    return Answer(
        f"{options.devices:,} x {device.title}",
        answered,
        rows,
        assumed,
        [
            f"Energy and emissions: optim8 plan carbon --device {device.name} "
            f"--devices {options.devices} --hours {24 * found.days:.6g}"
        ],
        partial(_draw, found.cost, values["start_year"], trend),
    )


def _flops(options: argparse.Namespace) -> float:
    if options.flops is not None:
        if options.tokens is not None:
            raise ValueError("expected --flops, or --params and --tokens, found both")
        if shape := [name for name in SHAPE if getattr(options, name.replace("-", "_"))]:
            raise ValueError(f"expected --{shape[0]} with --params and --tokens, found --flops")
        return float(options.flops)
    if options.params is None or options.tokens is None:
        raise ValueError("expected --params and --tokens, or --flops")
    return flops.training(
        options.params, options.tokens, options.n_layers, options.width, options.context
    )


def _defaults(options: argparse.Namespace, device: Device, trend: Trend) -> dict[str, Choice]:
    """Return what follows from the device, the trend, and from today."""
    defaults = {
        "price_year": Choice(date.today().year, "this year"),
        "doubling_years": Choice(trend.doubling_years, f"{trend.title}; {trend.origin}"),
        "peak": Choice(device.peak_tflops * 1e12, f"{device.title}; {device.origin}"),
    }
    if options.price is None:
        prices = load("price", Price, options.data)
        if device.name not in prices:
            raise ValueError(
                f"no price is known for {device.name!r} (give --price; known: "
                f"{', '.join(sorted(prices))})"
            )
        price = prices[device.name]
        defaults["price"] = Choice(price.usd_per_hour, f"{price.title}; {price.origin}")
        defaults["price_year"] = Choice(price.year, "of the price")
    price_year = options.price_year or defaults["price_year"].value
    defaults["start_year"] = Choice(price_year, "the year of the price")
    return defaults


def _band(cost: float, years: int, trend: Trend) -> str:
    """Return the range of a cost that was brought to another year."""
    if not years or trend.low is None or trend.high is None:
        return ""
    now = cost / price_in(1.0, years, trend.doubling_years)
    ends = sorted(price_in(now, years, end) for end in (trend.low, trend.high))
    return f"${ends[0]:,.2f} to ${ends[1]:,.2f}, by the trend's interval"


def _duration(days: float) -> str:
    return f"{days:,.1f} days" if days >= 2 else f"{24 * days:,.2f} hours"


def _draw(cost: float, start: int, trend: Trend, figure: Any) -> None:
    axes = figure.subplots()
    years = range(N_YEARS + 1)
    axes.semilogy(
        [start + year for year in years],
        [price_in(cost, year, trend.doubling_years) for year in years],
        marker="o",
        label=f"{trend.title}: doubles every {trend.doubling_years:g} years",
    )
    if trend.low is not None and trend.high is not None:
        ends = ([price_in(cost, year, end) for year in years] for end in (trend.low, trend.high))
        axes.fill_between([start + year for year in years], *ends, alpha=0.3, label="95 % interval")
    axes.set_xlabel("year of the start")
    axes.set_ylabel(f"cost of the run of {show_count(cost)} dollars in {start}")
    axes.legend()
