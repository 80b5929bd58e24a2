"""Time of the step inside a training loop, right after a backward pass.

There a step meets what a benchmark of its own does not: gradients in fresh memory, caches full of
activations, and torch's OpenMP threads, which go on spinning for some milliseconds after their
last work and take the processor from any other threads. The backward that follows is timed too: a
step that leaves threads spinning would slow it down.

Each candidate trains its own copy of a small GPT. They take turns of some iterations, of which the
first is not timed: it finds in the caches what the others have left there, and not, as in a
training loop, what the iteration before has.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import torch
from torch import Tensor

from benches import machine
from benches.answer import WrongAnswerError
from benches.memory import state_nbytes
from benches.optimizers import BASELINE, Candidate
from benches.record import Result
from benches.timing import MemoryRoof, Timing, no_garbage_collection
from optim8.demo.model import GPT
from optim8.demo.text import sample, standard_library

#: Name to (layers, width) of GPTs of about that many parameters.
MODELS = {"100k": (2, 56), "1M": (5, 128), "8M": (10, 256), "32M": (10, 512)}

BATCH, CONTEXT, N_HEADS = 2, 64, 4
LR = 1e-3

#: Iterations of a turn. In one turn more states are made, and the answer is checked after it.
IN_TURN = 4

#: Part of the change of the parameters that may differ from the baseline's after it.
TOLERANCE = 0.2


@dataclass
class _Run:
    """One candidate's training run."""

    model: GPT
    optimizer: torch.optim.Optimizer
    samples_ns: dict[str, list[int]] = field(default_factory=lambda: {"loop": [], "backward": []})

    def take_turn(self, batches: Sequence[Tensor], *, timed: bool) -> None:
        for index, pieces in enumerate(batches):
            start = perf_counter_ns()
            self.optimizer.zero_grad()
            self.model.loss(pieces).backward()
            middle = perf_counter_ns()
            self.optimizer.step()
            end = perf_counter_ns()
            if timed and index > 0:
                self.samples_ns["loop"].append(end - middle)
                self.samples_ns["backward"].append(middle - start)

    def change(self, initial: Tensor) -> Tensor:
        return _flat(self.model) - initial


def measure(
    name: str, candidates: Sequence[Candidate], roof: MemoryRoof, *, n_rounds: int
) -> list[Result]:
    """Train a GPT with each candidate in turns, and time its steps and backward passes.

    Parameters
    ----------
    name : str
        Of a model in `MODELS`.
    candidates : sequence of Candidate
        The baseline must be among them.
    roof : MemoryRoof
        Of this run.
    n_rounds : int
        Turns of each candidate.

    Returns
    -------
    list of Result
        Of the bench "loop", and of the bench "backward" for the passes between steps.

    Raises
    ------
    WrongAnswerError
        If the first steps differ from the baseline's by more than 8-bit states explain.
    """
    torch.manual_seed(0)
    n_layers, width = MODELS[name]
    model = GPT(n_layers, width, N_HEADS, CONTEXT)
    initial = _flat(model)
    runs = {}
    for candidate in candidates:
        own = copy.deepcopy(model)
        runs[candidate.name] = _Run(own, candidate.make(own.parameters(), lr=LR))
    text = standard_library().training
    generator = torch.Generator().manual_seed(0)
    with no_garbage_collection():
        for turn in range(1 + n_rounds):
            batches = [sample(text, BATCH, CONTEXT + 1, generator) for _ in range(IN_TURN)]
            for run in runs.values():
                run.take_turn(batches, timed=turn > 0)
            if turn == 0:
                _check({candidate: run.change(initial) for candidate, run in runs.items()})
    roof.sample()
    n_elements = initial.numel()
    return [
        Result(
            bench=bench,
            case=name,
            dtype="float32",
            level=machine.optim8_level(),
            candidate=candidate,
            n_elements=n_elements,
            timing=Timing.of(run.samples_ns[bench]),
            bytes_per_element=12 + 2 * state_nbytes(run.optimizer) / n_elements,
            roof=roof.bytes_per_second,
        )
        for bench in ("loop", "backward")
        for candidate, run in runs.items()
    ]


def _flat(model: GPT) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _check(changes: dict[str, Tensor]) -> None:
    expected = changes[BASELINE]
    for name, change in changes.items():
        error = float((change - expected).norm() / expected.norm())
        if not error <= TOLERANCE:
            raise WrongAnswerError(
                f"{name}: change differs by {error:.2e}, expected at most {TOLERANCE}"
            )
