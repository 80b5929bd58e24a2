"""Time of the step of a model that lives on a GPU and whose optimizer lives on the CPU.

Full fine-tuning of a model that leaves no room for its optimizer is done so (ZeRO-Offload, Ren et
al. 2021): after a backward pass the gradients are copied to the host, the CPU steps, and the new
parameters are copied back. Host memory is pinned, so that the copies are the GPU's own. Whether the
host has room is then decided by its bytes for each parameter, and its step is what the GPU waits
for.

Timed are the whole turn ("offload") and the step in it ("offload step").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

import torch
from torch import Tensor, nn

from benches import answer
from benches.cases import Case
from benches.optimizers import Candidate, suitable
from benches.record import Result
from benches.step import GRADIENT_SCALE, normal, results
from benches.timing import MemoryRoof, Timing, no_garbage_collection

GPU = "cuda"


@dataclass
class _Run:
    """One candidate's parameters, on both sides."""

    on_gpu: list[Tensor]
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    samples_ns: dict[str, list[int]] = field(
        default_factory=lambda: {"offload": [], "offload step": []}
    )

    def iterate(self, gradients: Sequence[Tensor]) -> None:
        torch.cuda.synchronize()
        start = perf_counter_ns()
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient, non_blocking=True)
        torch.cuda.synchronize()
        arrived = perf_counter_ns()
        self.optimizer.step()
        stepped = perf_counter_ns()
        for target, parameter in zip(self.on_gpu, self.parameters, strict=True):
            target.copy_(parameter.detach(), non_blocking=True)
        torch.cuda.synchronize()
        self.samples_ns["offload"].append(perf_counter_ns() - start)
        self.samples_ns["offload step"].append(stepped - arrived)


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
        Of parameters and gradients, on both sides.
    candidates : sequence of Candidate
        Those not suitable are left out.
    roof : MemoryRoof
        Of this run.
    n_rounds : int
        Turns of each candidate.

    Returns
    -------
    list of Result
        Two for each candidate that ran; none without a GPU.

    Raises
    ------
    WrongAnswerError
        If an optimizer does something else than AdamW.
    """
    if not torch.cuda.is_available():
        print(f"offload {case.name}: skipped, torch finds no GPU")
        return []
    start = list(normal(case, dtype, seed=2))
    gradients = [tensor.to(GPU).mul_(GRADIENT_SCALE) for tensor in normal(case, dtype, seed=1)]
    runs = {}
    for candidate in suitable(candidates, case, dtype):
        parameters = [nn.Parameter(tensor.clone().pin_memory()) for tensor in start]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.to("cpu").pin_memory()
        optimizer = candidate.make(parameters, **answer.HYPERPARAMETERS)
        answer.check(candidate.name, optimizer, parameters, candidate.tolerance)
        on_gpu = [tensor.to(GPU) for tensor in start]
        runs[candidate.name] = _Run(on_gpu, parameters, optimizer)
    with no_garbage_collection():
        for _ in range(n_rounds):
            for run in runs.values():
                roof.sample()
                run.iterate(gradients)
    optimizers = {name: run.optimizer for name, run in runs.items()}
    found = []
    for bench in ("offload", "offload step"):
        timings = {name: Timing.of(run.samples_ns[bench]) for name, run in runs.items()}
        found += results(bench, case, dtype, optimizers, timings, roof)
    return found
