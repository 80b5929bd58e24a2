"""AdamW with states in a format that exists here only as a round trip through it.

Other people's formats can be compared without their libraries (or their GPUs): all that a format
does to an optimizer is that a state comes back from memory a little different from what was stored.
So AdamW is written out in float32, and each state passes through a function `round_trip` after each
step. This is slow and saves no memory; it is an independent check of formats, not an optimizer to
train with.

Sources: Dettmers et al. 2022 (dynamic tree quantization), arXiv 2110.02861; Gonzalez Ortiz et al.
2026 (FlashOptim), arXiv 2602.23349.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

RoundTrip = Callable[[Tensor], Tensor]

#: Smaller tensors keep float32 states, in every library compared here.
MIN_QUANTIZED_NUMEL = 4096


@dataclass(frozen=True)
class StateFormat:
    """How Adam's two states are stored: a round trip for each, bytes per parameter for both."""

    exp_avg: RoundTrip
    exp_avg_sq: RoundTrip
    bytes_per_parameter: float


class SimulatedAdamW(torch.optim.Optimizer):
    """AdamW whose states are stored in `state_format`; formula as in `torch.optim.AdamW`."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        state_format: StateFormat,
    ) -> None:
        self.state_format = state_format
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step on the parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, object]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        exp_avg = state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
        exp_avg_sq = state["exp_avg_sq"].lerp_(parameter.grad.square(), 1 - beta2)
        parameter.mul_(1 - lr * group["weight_decay"])
        denominator = (exp_avg_sq / (1 - beta2 ** state["step"])).sqrt_().add_(eps)
        parameter.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1 ** state["step"]))
        if parameter.numel() >= MIN_QUANTIZED_NUMEL:
            exp_avg.copy_(self.state_format.exp_avg(exp_avg))
            exp_avg_sq.copy_(self.state_format.exp_avg_sq(exp_avg_sq))


def blockwise(
    block_size: int, normalized: RoundTrip, scale_dtype: torch.dtype = torch.float32
) -> RoundTrip:
    """Apply a round trip defined on [-1, 1] to blocks divided by their largest magnitude."""

    def round_trip(x: Tensor) -> Tensor:
        padding = -x.numel() % block_size
        blocks = functional.pad(x.flatten(), (0, padding)).view(-1, block_size)
        scales = blocks.abs().amax(dim=1, keepdim=True).to(scale_dtype).float()
        # A scale of 16 bits may be less than the largest magnitude, or zero where that is small.
        y = torch.where(scales > 0, blocks / scales, 0.0).clamp(-1.0, 1.0)
        restored = normalized(y) * scales
        return restored.flatten()[: x.numel()].view_as(x)

    return round_trip


def to_nearest(codebook: Tensor) -> RoundTrip:
    """Replace each value by the nearest in a sorted codebook."""
    midpoints = (codebook[1:] + codebook[:-1]) / 2
    return lambda y: codebook[torch.bucketize(y, midpoints)]


def dynamic_codebook(signed: bool) -> Tensor:
    """Return the 256 values of dynamic tree quantization, ascending."""
    values = [0.0, 1.0]
    for decade in range(7):
        n = 2**decade if signed else 2 ** (decade + 1)
        fractions = 0.1 + 0.9 * (torch.arange(n, dtype=torch.float64) + 0.5) / n
        decade_values = (10.0 ** (decade - 6) * fractions).tolist()
        values += decade_values
        if signed:
            values += [-value for value in decade_values]
    return torch.tensor(sorted(values), dtype=torch.float32)


def softsign(y: Tensor) -> Tensor:
    """FlashOptim's first moment: 2x/(1+|x|) in 127 levels a side."""
    companded = (127 * (2 * y / (1 + y.abs()))).round() / 127
    return companded / (2 - companded.abs())


def paper(block_size: int = 256) -> StateFormat:
    """Dynamic, nearest, zero allowed: the paper, bitsandbytes on GPUs, torchao."""
    exp_avg, exp_avg_sq = (
        blockwise(block_size, to_nearest(dynamic_codebook(signed))) for signed in (True, False)
    )
    return StateFormat(exp_avg, exp_avg_sq, 2 + 8 / block_size)


def flashoptim() -> StateFormat:
    """Softsign and square-root companding in groups of 32 with float16 scales."""
    return StateFormat(
        exp_avg=blockwise(32, softsign, torch.float16),
        exp_avg_sq=_of_root(blockwise(32, lambda y: (255 * y).round() / 255, torch.float16)),
        bytes_per_parameter=2 + 4 / 32,
    )


def _of_root(round_trip: RoundTrip) -> RoundTrip:
    return lambda x: round_trip(x.sqrt()).square()
