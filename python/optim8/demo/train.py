"""One training run of the demo, and the program of the process that it runs in.

What is measured, and how:

- *state bytes*: of all tensors in ``optimizer.state``, whichever optimizer it is;
- *time of a step*: around ``optimizer.step()`` alone, right after a backward pass, as it happens
  in training, where torch's threads are still busy waiting; the median of all steps;
- *peak memory*: how far the process's resident set rose, at its highest, above what it was just
  before the optimizer was made, when the model and the text were there. That is states,
  gradients, activations and temporaries;
- *held-out loss*: of the same pieces of text, before the first step, at even distances and at the
  end.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from time import perf_counter

import torch
from torch import Tensor, nn

import optim8
from optim8.demo.memory import peak_resident_bytes, resident_bytes
from optim8.demo.model import GPT
from optim8.demo.process import BASELINE, OURS, Result, Task, tell_result, tell_step
from optim8.demo.sizes import SIZES
from optim8.demo.text import sample, standard_library

#: The one line in which the runs differ.
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]] = {
    BASELINE: lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, fused=True),
    OURS: lambda parameters, lr: optim8.AdamW(parameters, lr=lr),
}

#: Bytes of held-out text that a loss is taken of, in pieces of the model's context.
HELD_OUT_BYTES = 8192

#: How often it is taken, besides before the first step.
N_HELD_OUT_LOSSES = 10

#: Gradients are scaled down to this norm, as is usual for language models.
MAX_GRADIENT_NORM = 1.0


def train(task: Task, on_step: Callable[[int, float], None]) -> Result:
    """Train a model and measure the optimizer.

    Parameters
    ----------
    task : Task
        What to train.
    on_step : callable
        Called with the number of steps done and the last one's loss.

    Returns
    -------
    Result
        With a held-out loss before the first step and after the last.
    """
    size = SIZES[task.size]
    length = size.context + 1  # a piece: what the model sees, and the byte after it
    text = standard_library()
    order = torch.Generator().manual_seed(task.seed)
    held_out = sample(text.held_out, HELD_OUT_BYTES // size.context, length, order)
    held_out_batches = held_out.split(size.batch)
    torch.manual_seed(task.seed)
    model = GPT(size.n_layers, size.width, size.n_heads, size.context)
    _load_libraries(model, held_out)

    resident_before = resident_bytes()
    optimizer = OPTIMIZERS[task.optimizer](model.parameters(), size.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, task.n_steps)
    )
    losses, step_seconds = [], []
    held_out_losses = [(0, mean_loss(model, held_out_batches))]
    for n_done in range(1, task.n_steps + 1):
        loss = model.loss(sample(text.training, size.batch, length, order))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        start = perf_counter()
        optimizer.step()
        step_seconds.append(perf_counter() - start)
        optimizer.zero_grad()
        scheduler.step()
        losses.append(loss.item())
        if n_done * N_HELD_OUT_LOSSES // task.n_steps > len(held_out_losses) - 1:
            held_out_losses.append((n_done, mean_loss(model, held_out_batches)))
        on_step(n_done, losses[-1])
    peak = peak_resident_bytes()

    return Result(
        optimizer=task.optimizer,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        state_bytes=state_bytes(optimizer),
        step_seconds=statistics.median(step_seconds),
        peak_bytes=None if peak is None or resident_before is None else peak - resident_before,
        losses=losses,
        held_out_losses=held_out_losses,
    )


def learning_rate_factor(step: int, n_steps: int) -> float:
    """Return the part of the peak learning rate at a step: a linear rise, then half a cosine.

    Examples
    --------
    >>> [round(learning_rate_factor(step, 100), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    n_warmup = max(1, n_steps // 10)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup))


@torch.no_grad()
def mean_loss(model: GPT, batches: Iterable[Tensor]) -> float:
    """Return the mean loss of batches of pieces of text, in nats per byte."""
    losses = [(model.loss(pieces).item(), len(pieces)) for pieces in batches]
    return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all tensors in an optimizer's states."""
    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


def _load_libraries(model: GPT, pieces: Tensor) -> None:
    """Make torch load what it loads at first use, which would else count as the run's memory."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))]).step()
    model.loss(pieces[:1, :2]).backward()
    model.zero_grad()


if __name__ == "__main__":
    tell_result(train(Task(**json.loads(sys.argv[1])), tell_step))
