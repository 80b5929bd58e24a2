"""The command `optim8`.

Each subcommand is a function that adds its parser to the command's, with a default `run`: a
function of the parsed options. To add one, write that function and name it in `COMMANDS`. What a
subcommand needs is imported when it runs, so that help is printed at once.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TypeAlias

from optim8.demo import command as demo
from optim8.plan import cli as plan

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Do as the command line says.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process, unless given.
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads has seen enough. What is still in the buffer must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optim8", description="8-bit optimizer states for PyTorch, computed by Rust."
    )
    parser.add_argument("--version", action="version", version=f"optim8 {version('optim8')}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for add in COMMANDS:
        add(commands)
    return parser


def _add_info(commands: Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="show versions, the instruction set in use, and threads",
        description="Show versions, the instruction set in use, and threads: what a report of a "
        "problem should include.",
    )
    parser.set_defaults(run=_info)


def _info(_options: argparse.Namespace) -> None:
    import torch  # before the native module, which looks for the threads that torch brings

    from optim8 import _native

    try:
        native = _native.info()
    except RuntimeError as error:  # OPTIM8_ISA names what this machine does not have
        sys.exit(f"optim8: {error}")
    n_threads = torch.get_num_threads()
    for name, value in {
        "optim8": native["version"],
        "torch": torch.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "instruction set": f"{native['level']} (this machine has {', '.join(native['levels'])})",
        "threads": f"{min(n_threads, native['max_threads'])} "
        f"(torch uses {n_threads}, this process may use {native['max_threads']})",
        "thread backend": native["threads_backend"],
    }.items():
        print(f"{name:<17}{value}")


COMMANDS: tuple[Callable[[Commands], None], ...] = (_add_info, demo.add_parser, plan.add_parser)
