"""Time of an optimizer's step, for sets of tensors from a small one to GPT-2's.

Each candidate has parameters of its own, and all see the same gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from benches import answer, machine
from benches.cases import Case
from benches.memory import state_nbytes
from benches.optimizers import Candidate, suitable
from benches.record import Result
from benches.timing import MemoryRoof, Timing, alternate

#: Bytes per element that all candidates together may need: parameters, states, temporaries.
MAX_BYTES_PER_ELEMENT = 64

#: Large, since torch keeps second moments of float16 parameters in float16, and a thousandth of a
#: square must not be too small for that.
GRADIENT_SCALE = 8.0


def measure(
    case: Case,
    dtype: torch.dtype,
    candidates: Sequence[Candidate],
    roof: MemoryRoof,
    *,
    n_rounds: int,
) -> list[Result]:
    """Check, then time every candidate that is suitable for this case.

    Parameters
    ----------
    case : Case
        The tensors.
    dtype : torch.dtype
        Of parameters and gradients.
    candidates : sequence of Candidate
        Those not suitable are left out.
    roof : MemoryRoof
        Of this run.
    n_rounds : int
        Turns of each candidate.

    Returns
    -------
    list of Result
        One for each candidate that ran; none where the machine has too little memory.

    Raises
    ------
    WrongAnswerError
        If an optimizer does something else than AdamW.
    """
    if case.n_elements * MAX_BYTES_PER_ELEMENT > machine.available_memory():
        print(
            f"step {case.name}: skipped, needs {MAX_BYTES_PER_ELEMENT} bytes of memory per element"
        )
        return []
    gradients = [tensor.mul_(GRADIENT_SCALE) for tensor in normal(case, dtype, seed=1)]
    start = list(normal(case, dtype, seed=2))
    made = {}
    for candidate in suitable(candidates, case, dtype):
        parameters = [nn.Parameter(tensor.clone()) for tensor in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer = candidate.make(parameters, **answer.HYPERPARAMETERS)
        answer.check(candidate.name, optimizer, parameters, candidate.tolerance)
        made[candidate.name] = optimizer
    return time("step", case, dtype, made, roof, n_rounds=n_rounds)


def time(
    bench: str,
    case: Case,
    dtype: torch.dtype,
    optimizers: Mapping[str, torch.optim.Optimizer],
    roof: MemoryRoof,
    *,
    n_rounds: int,
) -> list[Result]:
    """Time optimizers, by the names of candidates, that have stepped on a case before."""
    actions = {name: optimizer.step for name, optimizer in optimizers.items()}
    timings = alternate(actions, roof, n_rounds=n_rounds, hot=case.hot)
    return results(bench, case, dtype, optimizers, timings, roof)


def results(
    bench: str,
    case: Case,
    dtype: torch.dtype,
    optimizers: Mapping[str, torch.optim.Optimizer],
    timings: Mapping[str, Timing],
    roof: MemoryRoof,
) -> list[Result]:
    """Return what was timed of optimizers on a case, by the names of candidates."""
    return [
        Result(
            bench=bench,
            case=case.name,
            dtype=str(dtype).removeprefix("torch."),
            level=machine.optim8_level(),
            candidate=name,
            n_elements=case.n_elements,
            timing=timing,
            # A parameter is read and written, a gradient read, a state read and written.
            bytes_per_element=3 * dtype.itemsize
            + 2 * state_nbytes(optimizers[name]) / case.n_elements,
            roof=roof.bytes_per_second,
        )
        for name, timing in timings.items()
    ]


def normal(case: Case, dtype: torch.dtype, seed: int) -> Iterator[Tensor]:
    """Yield a normal tensor of each of a case's shapes."""
    generator = torch.Generator().manual_seed(seed)
    for shape in case.shapes:
        yield torch.randn(shape, dtype=dtype, generator=generator)
