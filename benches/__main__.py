"""`python -m benches`: run one study or all of them, print tables, and keep a record."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benches import (
    cases,
    codec,
    family,
    fidelity,
    loop,
    machine,
    memory,
    minimize,
    offload,
    optimizers,
    plan_fit,
    plan_memory,
    report,
    step,
)
from benches.record import Record, Result
from benches.timing import MemoryRoof

#: Parameters' types besides the first two are only timed at these sizes.
DTYPES = ("float32", "bfloat16", "float16", "float64")
ALL_DTYPES_AT = ("1M", "8M")

N_ROUNDS, N_QUICK_ROUNDS = 15, 3

#: An instruction set that most machines have, measured too where it is not the best.
SECOND_LEVEL = "avx2"
SECOND_LEVEL_SIZES = "1M,32M"


@dataclass(frozen=True)
class Study:
    """What a subcommand runs, and the sizes it runs at unless told otherwise."""

    run: Callable[[Record, argparse.Namespace, Sequence[str]], None]
    help: str
    sizes: tuple[str, ...] = ()
    quick_sizes: tuple[str, ...] = ()


def main(arguments: Sequence[str] | None = None) -> None:
    """Do as the command line says."""
    options = _parser().parse_args(arguments)
    if options.command == "report":
        _report(options.record)
        return
    if options.isa:
        os.environ["OPTIM8_ISA"] = options.isa  # read when optim8 is imported, which is not yet
    record = Record()
    print(f"{record.machine['cpu']}, {record.machine['torch_threads']} threads of torch")
    print(f"optim8: {record.machine['optim8']}")
    if options.isa not in (None, machine.optim8_level()):
        sys.exit(f"optim8 was already imported and uses {machine.optim8_level()}")
    for name in STUDIES if options.command == "all" else (options.command,):
        study = STUDIES[name]
        sizes = options.sizes or (study.quick_sizes if options.quick else study.sizes)
        study.run(record, options, sizes)
    if options.command == "all":
        _run_second_level(record, options)
    path = record.save(options.output)
    print(f"\nrecord: {path}\n")
    if options.command == "all":
        _report(path)
    else:
        print(report.bars_table(record))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, study in STUDIES.items():
        command = _add_study(commands, name, study.help)
        if study.sizes:
            command.add_argument("--sizes", type=_list, help=f"default: {','.join(study.sizes)}")
        if name in ("step", "offload"):
            command.add_argument("--dtypes", type=_list, help=f"some of {','.join(DTYPES)}")
    _add_study(commands, "all", "all of these, and the step with a second instruction set")
    show = commands.add_parser("report", help="print what a record says of the bars; draw its plot")
    show.add_argument("record", type=Path)
    return parser


def _add_study(
    commands: argparse._SubParsersAction, name: str, text: str
) -> argparse.ArgumentParser:  # type: ignore[type-arg]
    command = commands.add_parser(name, help=text)
    command.set_defaults(sizes=None, dtypes=None)
    command.add_argument("--quick", action="store_true", help="fewer sizes and rounds, for a look")
    command.add_argument("--rounds", type=int, help=f"turns of each candidate, {N_ROUNDS}")
    command.add_argument("--no-peers", action="store_true", help="without other libraries")
    command.add_argument("--isa", help="instruction set that optim8 is to use (OPTIM8_ISA)")
    command.add_argument("--output", type=Path, help="the record's file, else in benches/records")
    return command


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _run_step(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    roof = MemoryRoof()
    candidates = optimizers.torchs() + optimizers.ours() + _peers(options)
    for case in map(cases.parse, sizes):
        default_dtypes = DTYPES if case.name in ALL_DTYPES_AT and not options.quick else DTYPES[:2]
        for name in options.dtypes or default_dtypes:
            dtype = getattr(torch, name)
            _add(record, step.measure(case, dtype, candidates, roof, n_rounds=_rounds(options)))


def _run_offload(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    roof = MemoryRoof()
    candidates = optimizers.torchs() + optimizers.ours()
    for case in map(cases.parse, sizes):
        for name in options.dtypes or DTYPES[:2]:
            dtype = getattr(torch, name)
            _add(record, offload.measure(case, dtype, candidates, roof, n_rounds=_rounds(options)))


def _run_family(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    roof = MemoryRoof()
    for case in map(cases.parse, sizes):
        _add(record, family.measure(case, roof, n_rounds=_rounds(options)))


def _run_loop(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    candidates = optimizers.torchs() + optimizers.ours()
    for size in sizes:
        _add(record, loop.measure(size, candidates, MemoryRoof(), n_rounds=_rounds(options)))


def _run_quantize(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    roof = MemoryRoof()
    quantizers = codec.ours() | ({} if options.no_peers else codec.peers())
    for case in map(cases.parse, sizes):
        _add(record, codec.measure(case, quantizers, roof, n_rounds=_rounds(options)))


def _run_memory(record: Record, options: argparse.Namespace, sizes: Sequence[str]) -> None:
    candidates = optimizers.torchs() + optimizers.ours() + _peers(options)
    for case in map(cases.parse, sizes):
        for candidate in optimizers.suitable(candidates, case, torch.float32):
            record.memory.append(memory.measure(candidate.name, case.n_elements))
    print(f"\n{report.memory_table(record.memory)}")


def _run_plan_memory(record: Record, _options: argparse.Namespace, sizes: Sequence[str]) -> None:
    record.plan_memory += map(plan_memory.compare, plan_memory.cases(sizes))
    print(f"\n{report.plan_memory_table(record.plan_memory)}")


def _run_plan_fit(record: Record, options: argparse.Namespace, _sizes: Sequence[str]) -> None:
    n_tables = plan_fit.N_QUICK_TABLES if options.quick else plan_fit.N_TABLES
    record.plan_fit += plan_fit.study(n_tables)
    print(f"\n{report.plan_fit_table(record.plan_fit)}")


def _run_fidelity(record: Record, options: argparse.Namespace, _sizes: Sequence[str]) -> None:
    peers = {peer.name: peer.make for peer in _peers(options)}
    candidates = fidelity.our_candidates() | peers | fidelity.simulated_candidates()
    protocol = fidelity.Protocol(n_steps=40) if options.quick else fidelity.Protocol()
    # Compiling torchao's step for every shape would take longer than all the rest.
    with torch.compiler.set_stance("force_eager"):
        for stream in fidelity.STREAMS:
            record.fidelity += fidelity.study(candidates, protocol, stream=stream)
    print(f"\n{report.fidelity_table(record.fidelity)}")


def _run_minimize(record: Record, options: argparse.Namespace, _sizes: Sequence[str]) -> None:
    n_seeds = minimize.N_QUICK_SEEDS if options.quick else minimize.N_SEEDS
    record.minimize += minimize.study(n_seeds=n_seeds)
    print(f"\n{report.minimize_table(record.minimize)}")


STUDIES = {
    "step": Study(_run_step, "time of AdamW's step", cases.ALL, cases.QUICK),
    "family": Study(_run_family, "time of every optimizer's step", ("32M",), ("1M",)),
    "loop": Study(_run_loop, "the same in a training loop", tuple(loop.MODELS), ("1M",)),
    "offload": Study(
        _run_offload, "the step for a model on a GPU", ("1M", "8M", "32M", "gpt2"), ("1M",)
    ),
    "quantize": Study(_run_quantize, "time of (de)quantizing", ("1M", "8M", "32M"), ("1M",)),
    "memory": Study(
        _run_memory, "memory of states, and of a step at its peak", ("8M", "32M"), ("8M",)
    ),
    "plan-memory": Study(
        _run_plan_memory,
        "what `optim8 plan memory` predicts, and what a process takes",
        tuple(plan_memory.BATCHES),
        ("tiny",),
    ),
    "plan-fit": Study(_run_plan_fit, "how often the intervals of `optim8 plan fit` hold the truth"),
    "fidelity": Study(_run_fidelity, "error of AdamW's update against 32-bit AdamW"),
    "minimize": Study(_run_minimize, "final losses with 32-bit and 8-bit states"),
}


def _run_second_level(record: Record, options: argparse.Namespace) -> None:
    """Measure the step with a narrower instruction set, in a child: it is chosen at import."""
    levels = machine.optim8_info()["levels"]
    if machine.optim8_level() == SECOND_LEVEL or SECOND_LEVEL not in levels:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        command = (
            f"step --isa {SECOND_LEVEL} --sizes {SECOND_LEVEL_SIZES} --dtypes float32 --no-peers"
        )
        rounds = ["--rounds", str(_rounds(options)), "--output", str(path)]
        subprocess.run([sys.executable, "-m", "benches", *command.split(), *rounds], check=True)
        record.results += Record.load(path).results


def _peers(options: argparse.Namespace) -> list[optimizers.Candidate]:
    return [] if options.no_peers else optimizers.peers()


def _rounds(options: argparse.Namespace) -> int:
    return options.rounds or (N_QUICK_ROUNDS if options.quick else N_ROUNDS)


def _add(record: Record, results: Sequence[Result]) -> None:
    record.results += results
    print(f"\n{report.results_table(results)}", flush=True)


def _report(path: Path) -> None:
    from benches import plot  # needs matplotlib, which measuring does not

    record = Record.load(path)
    picture = path.with_suffix(".png")
    plot.draw(record, picture)
    print(f"{report.bars_table(record)}\n\nplot: {picture}")


if __name__ == "__main__":
    main()
