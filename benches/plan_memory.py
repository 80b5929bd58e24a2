"""What `optim8 plan memory` predicts, beside what a training process really takes.

Each case trains the demo's GPT for some steps in a fresh child process, and is compared twice:

- the bytes of the optimizer's states, which must be equal;
- the peak: how far the process's resident set rises, at its highest, above what it was when torch
  was imported and a model of one layer, with the same width, batch and types, had been trained and
  thrown away, so that libraries had loaded and sized their work space. The model, its gradients,
  states, activations and temporaries are part of the rise.

The peak is of the tensors, if the allocator gives back what is freed. glibc's default one keeps
holes between tensors of less than 32 MiB, so the child is told to map each piece of 64 KiB or more
on its own; the rise with the default allocator is measured too, and is the last column.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product

import torch
from torch.utils.checkpoint import checkpoint

import optim8
from benches.memory import RETURNING_ALLOCATOR, peak_growth, state_nbytes
from optim8.demo.model import GPT
from optim8.demo.sizes import SIZES
from optim8.plan.activations import Batch
from optim8.plan.memory import Setup, of_model
from optim8.plan.model import from_size
from optim8.plan.states import Optimizer

#: Sequences in a batch: such that tensors outweigh what libraries take (tiny), or that bfloat16,
#: which many processors emulate, takes seconds and not minutes (medium).
BATCHES = {"tiny": 64, "small": 4, "medium": 1}

#: Planner's names, and what they make.
OPTIMIZERS = {
    "torch-adamw": partial(torch.optim.AdamW, fused=True),
    "adamw": optim8.AdamW,
}

#: The first step makes the states, so the second is the first with all there is.
N_STEPS = 2


@dataclass(frozen=True)
class Case:
    """What a child trains."""

    size: str
    dtype: str
    optimizer: str
    is_checkpointed: bool


@dataclass(frozen=True)
class Comparison:
    """Predicted and measured bytes of a case; `default_peak` is with the default allocator."""

    case: str
    predicted_states: int
    states: int
    predicted_peak: int
    peak: int
    default_peak: int

    @property
    def error(self) -> float:
        """Of the predicted peak, as a fraction of the measured one."""
        return self.predicted_peak / self.peak - 1


def cases(sizes: Sequence[str]) -> Iterator[Case]:
    """Yield every combination."""
    for size, dtype, optimizer, is_checkpointed in product(
        sizes, ("float32", "bfloat16"), OPTIMIZERS, (False, True)
    ):
        yield Case(size, dtype, optimizer, is_checkpointed)


def compare(case: Case) -> Comparison:
    """Predict a case, and measure it in two child processes."""
    size = SIZES[case.size]
    batch = Batch(BATCHES[case.size], size.context, case.is_checkpointed)
    predicted = of_model(from_size(size), batch, Setup(Optimizer(case.optimizer), dtype=case.dtype))
    states, peak = _run_child(case, {**os.environ, **RETURNING_ALLOCATOR})
    _, default_peak = _run_child(case, dict(os.environ))
    name = f"{case.size} {case.dtype} {case.optimizer}" + " checkpoint" * case.is_checkpointed
    return Comparison(name, predicted.states, states, predicted.peak, peak, default_peak)


def measure_here(case: Case) -> tuple[int, int]:
    """Measure in this process, which should be fresh; return bytes of states, and the peak."""
    size = SIZES[case.size]
    _train(case, n_layers=1)
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what it has freed is not to be there before
    kept = []
    peak = peak_growth(lambda: kept.append(_train(case, size.n_layers)))
    return state_nbytes(kept[0]), peak


def _train(case: Case, n_layers: int) -> torch.optim.Optimizer:
    size = SIZES[case.size]
    model = GPT(n_layers, size.width, size.n_heads, size.context).to(getattr(torch, case.dtype))
    if case.is_checkpointed:
        for layer in model.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    optimizer = OPTIMIZERS[case.optimizer](model.parameters())
    for _ in range(N_STEPS):
        model.loss(torch.randint(256, (BATCHES[case.size], size.context + 1))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def _run_child(case: Case, environment: dict[str, str]) -> tuple[int, int]:
    command = [sys.executable, "-m", "benches.plan_memory", json.dumps(asdict(case))]
    child = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    states, peak = json.loads(child.stdout.splitlines()[-1])
    return states, peak


if __name__ == "__main__":
    print(json.dumps(measure_here(Case(**json.loads(sys.argv[1])))))
