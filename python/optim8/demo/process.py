"""A training run in a process of its own, seen from the process that starts it.

The child (``train``) is told what to do by one JSON argument and tells what it does by JSON lines
on its standard output: a step's number and loss after each step, and the result at the end. So
the parent needs no torch, and what the child measures of itself is one run's alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

#: The two that the demo compares.
BASELINE, OURS = "torch.optim.AdamW", "optim8.AdamW"


@dataclass(frozen=True)
class Task:
    """What a child is told to do.

    Attributes
    ----------
    optimizer : str
        `BASELINE` or `OURS`.
    size : str
        A name in `optim8.demo.sizes.SIZES`.
    n_steps : int
        How many steps to train.
    seed : int
        Of the weights and of the order of the text.
    """

    optimizer: str
    size: str
    n_steps: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What a run took and what came out.

    Attributes
    ----------
    optimizer : str
        As in the task.
    n_parameters : int
        Of the model.
    state_bytes : int
        Of all tensors in the optimizer's states.
    step_seconds : float
        Median time of ``optimizer.step()``.
    peak_bytes : int or None
        Largest rise of the resident set above what it was before the optimizer was made; None
        where the system does not tell.
    losses : list of float
        Of each step's batch, in nats per byte.
    held_out_losses : list of (int, float)
        Steps done, and the held-out loss then.
    """

    optimizer: str
    n_parameters: int
    state_bytes: int
    step_seconds: float
    peak_bytes: int | None
    losses: list[float]
    held_out_losses: list[tuple[int, float]]


def run(task: Task, on_step: Callable[[int, float], None]) -> Result:
    """Do a task in a child process.

    Parameters
    ----------
    task : Task
        What to train.
    on_step : callable
        Called with the number of steps done and the last one's loss.

    Returns
    -------
    Result
        What the child measured.

    Raises
    ------
    RuntimeError
        If the child ends without a result; what it had to say is on standard error.
    """
    command = [sys.executable, "-m", "optim8.demo.train", json.dumps(asdict(task))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                message: dict[str, Any] = json.loads(line)
                if "result" in message:
                    return Result(**message["result"])
                on_step(message["step"], message["loss"])
        except BaseException:
            child.kill()
            raise
    raise RuntimeError(f"training with {task.optimizer} ended with status {child.returncode}")


def tell_step(n_done: int, loss: float) -> None:
    """Tell the parent of a step; for the child."""
    _tell({"step": n_done, "loss": loss})


def tell_result(result: Result) -> None:
    """Tell the parent the result; for the child."""
    _tell({"result": asdict(result)})


def _tell(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)
