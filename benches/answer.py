"""Is the answer right? Asked of every optimizer on the tensors that it is then timed on.

AdamW acts on each element alone, so a sample of the elements can be followed in float64, whatever
the size of the tensors. Three steps, with gradients of changing sign and size, go through the
stored states twice. The error is that of the whole change of the parameters, relative to it::

    || change - change in float64 || / || change in float64 ||

and may be what the format of the states explains (`Candidate.tolerance`) and the rounding of
parameters and states of less than 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LR = 0.05
BETAS = (0.9, 0.999)
EPS = 1e-8
WEIGHT_DECAY = 0.5

#: Large rates: each term, weight decay too, is then well above the rounding of bfloat16.
HYPERPARAMETERS = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WEIGHT_DECAY}

#: Gradients are multiplied by each in turn, which is exact in every dtype; the last restores them.
FACTORS = (1.0, -0.5, -0.5)
RESTORE = 4.0

MAX_SAMPLE = 100_000


class WrongAnswerError(AssertionError):
    """An optimizer did something else than it should."""


def check(
    name: str,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    tolerance: float,
) -> float:
    """Take three steps and compare them with AdamW in float64.

    Parameters
    ----------
    name : str
        Of the optimizer, for the message.
    optimizer : torch.optim.Optimizer
        Fresh, with `HYPERPARAMETERS`. It has taken steps afterwards.
    parameters : sequence of nn.Parameter
        Its parameters, with gradients, which are unchanged afterwards.
    tolerance : float
        Of the relative error, beyond the rounding of the parameters' dtype.

    Returns
    -------
    float
        The relative error.

    Raises
    ------
    WrongAnswerError
        If the error is larger than that, or not a number.
    """
    stride = max(1, sum(p.numel() for p in parameters) // MAX_SAMPLE) | 1
    gradients = [p.grad for p in parameters if p.grad is not None]
    start = _sample(parameters, stride)
    first_gradient = _sample(gradients, stride)
    sampled_gradients = []
    scale = 1.0
    for factor in FACTORS:
        for gradient in gradients:
            gradient.mul_(factor)
        scale *= factor
        sampled_gradients.append(first_gradient * scale)
        optimizer.step()
    for gradient in gradients:
        gradient.mul_(RESTORE)
    expected = adamw(start, sampled_gradients) - start
    error = float((_sample(parameters, stride) - start - expected).norm() / expected.norm())
    allowed = tolerance + _rounding(parameters[0].dtype, start, expected)
    if not error <= allowed:
        raise WrongAnswerError(
            f"{name}: relative error {error:.2e}, expected at most {allowed:.2e}"
        )
    return error


def adamw(parameter: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    """Return a parameter after one step of AdamW for each gradient, by definition, in float64."""
    beta1, beta2 = BETAS
    exp_avg, exp_avg_sq = torch.zeros_like(parameter), torch.zeros_like(parameter)
    for step, gradient in enumerate(gradients, start=1):
        exp_avg = beta1 * exp_avg + (1 - beta1) * gradient
        exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * gradient**2
        direction = exp_avg / (1 - beta1**step)
        size = (exp_avg_sq / (1 - beta2**step)).sqrt() + EPS
        parameter = parameter * (1 - LR * WEIGHT_DECAY) - LR * direction / size
    return parameter


def _sample(tensors: Sequence[Tensor], stride: int) -> Tensor:
    """Every `stride`-th element of each tensor, in float64."""
    return torch.cat([tensor.detach().flatten()[::stride].double() for tensor in tensors])


def _rounding(dtype: torch.dtype, start: Tensor, change: Tensor) -> float:
    """Relative error of the change that parameters and states of this type explain.

    A stored state is off by one relative rounding error; a parameter by one of its own size at
    every step.
    """
    eps = torch.finfo(dtype).eps
    return eps * (10 + len(FACTORS) * float(start.norm() / change.norm()))
