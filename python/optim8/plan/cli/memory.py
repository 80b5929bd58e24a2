"""`optim8 plan memory`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from optim8.demo.sizes import SIZES
from optim8.plan import quantity
from optim8.plan.activations import Batch
from optim8.plan.answer import Answer, Assumption, Choice, Row, add_assumptions, choose, option
from optim8.plan.memory import Memory, Setup, largest, of_count, of_model
from optim8.plan.model import Transformer, from_config, from_size
from optim8.plan.quantity import count, show_bytes, show_count
from optim8.plan.sharding import OFFLOADED, PLACEMENTS
from optim8.plan.states import TORCH, TORCH_COUNTS_STEPS, Optimizer

ATTENTIONS = ("fused", "matrix")

ASSUMPTIONS = (
    Assumption("optimizer", "class of optim8 in small letters, rule, or torch-NAME", str, "adamw",
               "default arguments"),
    Assumption("dtype", "of parameters, gradients and activations", str, "float32",
               "torch's default"),
    Assumption("state_bits", "of the optimizer's states, 8 or 32; torch's follow --dtype", count, 8,
               "optim8's default"),
    Assumption("block_size", "elements that share a scale", count, 256, "optim8's default"),
    Assumption("min_quantized_numel", "tensors with fewer elements keep full states", count, 4096,
               "optim8's default"),
    Assumption("batch", "sequences that a device works on at once; else the demo's, or 1", count),
    Assumption("context", "tokens in each; else the model's own, or 2048", count),
    Assumption("attention", "fused, or matrix where it keeps its weights", str, "fused",
               "torch's scaled_dot_product_attention"),
    Assumption("placement", f"one of {', '.join(PLACEMENTS)}", str, "single",
               "one device"),
    Assumption("devices", "that the run is spread over", count, 1, "one device"),
    Assumption("memory", "of a device, such as 24GiB; else this machine's", quantity.memory),
)  # fmt: skip

#: Tokens in a sequence of a model that does not say how many it has.
USUAL_CONTEXT = 2048

ONE_SEQUENCE = Choice(1, "one sequence")
OF_NO_USE = Choice(USUAL_CONTEXT, "usual; of no use without a model")


@dataclass(frozen=True)
class _Question:
    """A model, or the number of its parameters, or nothing but a memory to fill."""

    title: str
    model: Transformer | None = None
    n_parameters: int | None = None
    batch: Choice = ONE_SEQUENCE
    context: Choice = OF_NO_USE


def add_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    parents: list[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    """Add the question to those of `optim8 plan`."""
    parser = commands.add_parser(
        "memory",
        parents=parents,
        help="bytes that a run takes, and the largest model that fits",
        description="Bytes that a run takes, by what takes them, at its peak and on each device; "
        "and the largest model that fits.",
        epilog="example, the largest model for a card of 24 GiB in mixed precision: "
        "optim8 plan memory --memory 24GiB --dtype bfloat16 --master-weights",
    )
    models = parser.add_mutually_exclusive_group()
    models.add_argument("--params", type=option(count), help="number of parameters")
    models.add_argument(
        "--config", type=Path, metavar="FILE", help="config.json of a Hugging Face model"
    )
    models.add_argument("--demo", choices=SIZES, help="a size of the demo's GPT")
    parser.add_argument(
        "--checkpoint", action="store_true", help="compute each layer again in the backward pass"
    )
    parser.add_argument(
        "--master-weights", action="store_true", help="mixed precision: keep a float32 copy"
    )
    parser.add_argument(
        "--accumulate", action="store_true", help="keep gradients from one pass to the next"
    )
    add_assumptions(parser, ASSUMPTIONS)
    parser.set_defaults(answer=answer)
    return parser


def answer(options: argparse.Namespace) -> Answer:
    """Answer with the bytes of each kind."""
    question = _question(options)
    memory_here = _memory_here()
    defaults = {"batch": question.batch, "context": question.context}
    if memory_here is not None:
        defaults["memory"] = Choice(memory_here, "of this machine")
    assumed = choose(options, ASSUMPTIONS, defaults)
    values = {name: choice.value for name, choice in assumed.items()}
    if values["attention"] not in ATTENTIONS:
        raise ValueError(
            f"unknown attention {values['attention']!r} (known: {', '.join(ATTENTIONS)})"
        )
    setup = Setup(
        Optimizer(
            values["optimizer"],
            values["state_bits"],
            values["block_size"],
            values["min_quantized_numel"],
        ),
        values["dtype"],
        options.master_weights,
        options.accumulate,
        values["placement"],
        values["devices"],
    )
    batch = Batch(
        values["batch"], values["context"], options.checkpoint, values["attention"] == "fused"
    )
    measure = _measure(question, batch, values["memory"])
    found = measure(setup)
    others = {name: measure(own) for name, own in _modes(setup).items()}
    fits = {
        name: _largest(question, own, others[name], values["memory"])
        for name, own in _modes(setup).items()
    }
    return Answer(
        question.title,
        {
            "parameters_bytes": found.parameters,
            "gradients_bytes": found.gradients,
            "master_bytes": found.master,
            "states_bytes": found.states,
            "activations_bytes": found.activations,
            "communication_bytes": found.communication,
            "host_bytes": found.host,
            "total_bytes": found.peak,
            "peak_moment": found.peak_moment,
            "largest_params": _largest(question, setup, found, values["memory"]),
            "by_optimizer": {
                name: {
                    "total_bytes": one.peak,
                    "host_bytes": one.host,
                    "largest_params": fits[name],
                }
                for name, one in others.items()
            },
        },
        [
            *_rows(found, values["memory"]),
            *(_other_row(name, others[name], fits[name]) for name in others),
        ],
        assumed,
        _notes(question, found, setup),
        partial(_draw, others, values["memory"]),
    )


def _question(options: argparse.Namespace) -> _Question:
    if options.demo is not None:
        size = SIZES[options.demo]
        model = from_size(size)
        title = f"the demo's GPT, {options.demo}: {show_count(model.n_parameters)} parameters"
        source = f"the demo's, {options.demo}"
        return _Question(
            title, model, None, Choice(size.batch, source), Choice(size.context, source)
        )
    if options.config is not None:
        model = from_config(options.config)
        title = f"{options.config.name}: {show_count(model.n_parameters)} parameters"
        context = (
            Choice(model.n_positions, "the model's")
            if model.n_positions
            else Choice(USUAL_CONTEXT, "usual")
        )
        return _Question(title, model, None, context=context)
    if options.params is not None:
        return _Question(f"{show_count(options.params)} parameters", n_parameters=options.params)
    if options.memory is None:
        raise ValueError("expected --params, --config or --demo, or --memory to be filled")
    return _Question("the largest model that fits")


def _measure(question: _Question, batch: Batch, memory: int) -> Callable[[Setup], Memory]:
    def measure(setup: Setup) -> Memory:
        if question.model is not None:
            return of_model(question.model, batch, setup)
        if question.n_parameters is not None:
            return of_count(question.n_parameters, setup)
        return of_count(largest(memory, lambda n: of_count(n, setup).peak), setup)

    return measure


def _modes(setup: Setup) -> dict[str, Setup]:
    """Return the optimizer as torch has it, if it does, and as ours in 32 and in 8 bits."""
    optimizer = setup.optimizer
    name = optimizer.name.removeprefix(TORCH)
    modes = {}
    if optimizer.rule.partition("_")[0] in TORCH_COUNTS_STEPS:
        modes[TORCH + name] = replace(optimizer, name=TORCH + name)
    for bits in (32, 8):
        modes[f"{name}, {bits}-bit"] = replace(optimizer, name=name, state_bits=bits)
    return {label: replace(setup, optimizer=own) for label, own in modes.items()}


def _largest(question: _Question, setup: Setup, found: Memory, memory: int | None) -> int | None:
    if memory is None or setup.is_elsewhere:  # then the device's memory does not bound the model
        return None
    beside = 0  # what the peak has of activations and layers, which a number does not count
    if question.model is not None:
        beside = max(0, found.peak - of_count(question.model.n_parameters, setup).peak)
    return largest(memory, lambda n: of_count(n, setup).peak + beside)


def _rows(found: Memory, memory: int | None) -> list[Row]:
    kinds = {
        "parameters": found.parameters,
        "gradients": found.gradients,
        "master weights": found.master,
        "optimizer states": found.states,
        "activations": found.activations,
        "communication": found.communication,
        "in the host's memory": found.host,
    }
    rows = [Row(name, show_bytes(value)) for name, value in kinds.items() if value]
    verdict = ""
    if memory is not None and found.peak > 0:
        share = found.peak / memory
        verdict = f"{'fits' if share <= 1 else 'does not fit'}: {share:.1%} of {show_bytes(memory)}"
    at = "" if found.peak_moment == "step" else f", at the {found.peak_moment}"
    return [*rows, Row(f"peak{at}", show_bytes(found.peak), verdict)]


def _other_row(name: str, found: Memory, fits: int | None) -> Row:
    host = f" + {show_bytes(found.host)} of the host's" if found.host else ""
    note = "" if fits is None else f"largest that fits: {show_count(fits)}"
    return Row(f"with {name}", f"{show_bytes(found.peak)}{host}", note)


def _notes(question: _Question, found: Memory, setup: Setup) -> list[str]:
    notes = []
    if question.model is None:
        notes.append(
            "Of a model that is only a number, states are counted as of one tensor, and "
            "activations and layers on their way are left out; --config or --demo count them."
        )
    else:
        notes.append(
            "Gradients come as activations go, so the peak is less than their sum. The largest "
            "models are counted as of one tensor, with the activations of this one."
        )
    if found.host:
        notes.append("What is in the host's memory is of each device, and no part of its peak.")
    if not setup.optimizer.is_torch and setup.placement not in OFFLOADED:
        notes.append(
            "optim8 steps parameters in the CPU's memory: with an accelerator, place what it works "
            "on there (--placement offload or fsdp2-offload)."
        )
    notes.append(
        "Of tensors only: add what libraries, drivers and the allocator take (benches plan-memory "
        "measures that)."
    )
    return notes


def _memory_here() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not there on Windows
        return None


def _draw(found: dict[str, Memory], memory: int | None, figure: Any) -> None:
    axes = figure.subplots()
    gib = 2**30 if max(one.peak for one in found.values()) >= 2**30 else 2**20
    left = dict.fromkeys(found, 0.0)
    for kind in ("parameters", "gradients", "master", "states", "activations", "communication"):
        widths = {name: getattr(one, kind) / gib for name, one in found.items()}
        if any(widths.values()):
            axes.barh(list(found), list(widths.values()), left=list(left.values()), label=kind)
        left = {name: left[name] + widths[name] for name in found}
    axes.plot([one.peak / gib for one in found.values()], list(found), "kD", label="peak")
    if memory is not None and memory / gib < 1.5 * max(left.values()):
        axes.axvline(memory / gib, color="black", linestyle="--", label="memory")
    axes.set_xlabel("GiB" if gib == 2**30 else "MiB")
    axes.legend()
