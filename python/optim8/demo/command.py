"""The command `optim8 demo`: train twice, show how far it is, report."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from optim8.demo.process import BASELINE, OURS, Result, Task, run
from optim8.demo.sizes import DEFAULT_SIZE, SIZES

#: What the demo needs besides the package's own dependencies, as the extra `demo` lists them.
EXTRAS = ("matplotlib", "rich")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of `optim8`."""
    sizes = "; ".join(
        f"{name}: {size.about} parameters, {size.n_steps} steps" for name, size in SIZES.items()
    )
    parser = commands.add_parser(
        "demo",
        help="train a small GPT with torch's AdamW and with optim8's, and compare",
        description="Train a byte-level GPT on the text of Python's standard library, once with "
        f"{BASELINE}(fused=True) and once with {OURS}, from the same seed and with the same "
        "batches. Prints what each took, and writes a plot of both losses.",
        epilog="example: optim8 demo --steps 200 --out results",
    )
    parser.add_argument(
        "--size", choices=SIZES, default=DEFAULT_SIZE, help=f"{sizes} (%(default)s)"
    )
    parser.add_argument("--steps", type=_positive, help="training steps, else the size's own")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        help="folder for demo.png and demo.json (%(default)s)",
    )
    parser.set_defaults(run=main)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of steps above 0, not {value}")
    return value


def main(options: argparse.Namespace) -> None:
    """Train with each optimizer, print the table, write the plot and the record."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"optim8 demo: needs {' and '.join(missing)}; install with: pip install 'optim8[demo]'"
        )
    from optim8.demo import report

    options.out.mkdir(parents=True, exist_ok=True)
    picture, record = options.out / "demo.png", options.out / "demo.json"
    baseline, ours = (_train(name, options) for name in (BASELINE, OURS))
    print()
    report.show(baseline, ours)
    report.plot(baseline, ours, picture)
    report.save(baseline, ours, record)
    print(f"\nloss curves: {picture}\nall figures: {record}")


def _train(optimizer: str, options: argparse.Namespace) -> Result:
    """Do one run behind a progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    n_steps = options.steps or SIZES[options.size].n_steps
    columns = (
        "{task.description:<17}",
        BarColumn(),
        MofNCompleteColumn(),
        "loss {task.fields[loss]:.2f}",
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, refresh_per_second=2) as progress:  # the cores are for the training
        bar = progress.add_task(optimizer, total=n_steps, loss=float("nan"))
        return run(
            Task(optimizer, options.size, n_steps, options.seed),
            lambda n_done, loss: progress.update(bar, completed=n_done, loss=loss),
        )
