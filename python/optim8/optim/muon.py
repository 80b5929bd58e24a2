"""Muon, as `torch.optim` defines it, with an 8-bit state."""

from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8 import _native
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import as_number
from optim8.optim._options import Group, Options

_ADJUSTMENTS = {
    "original": lambda rows, columns: sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: sqrt(rows / columns),
}
"""What the learning rate is multiplied by, of the shape of the parameter."""


class Muon(Optim8Optimizer):
    r"""Muon; the same update as `torch.optim.Muon`, with 8-bit momentum: 1.02 bytes a parameter.

    For each matrix, with g its gradient::

        b = momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g     (u = b without nesterov)
        p = p - lr * weight_decay * p
        p = p - lr * f(shape) * orthogonal(u)

    where `orthogonal` is `ns_steps` Newton-Schulz iterations in bfloat16, by torch's matrix
    products; each matrix in turn takes some temporaries of its size.

    Orthogonalization makes the small singular values of the momentum as large as the large ones,
    and the rounding errors in them too. Final losses stay within the spread of seeds
    (`python -m benches minimize`); where that matters, `codec="root"` or blocks of 64 halve what
    rounding adds.

    Sources: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024);
    `torch.optim.Muon` (torch 2.9 and later; this class needs no such torch).

    Parameters
    ----------
    params
        Matrices, named or in groups: CPU tensors of two dimensions, of float32, float64, bfloat16
        or float16. Embeddings, heads and vectors are better left to AdamW.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    weight_decay
        What is taken off a parameter at each step, as a fraction, is `lr * weight_decay`. Default
        0.1.
    momentum
        Decay of the buffer. Default 0.95.
    nesterov
        Whether to look ahead. Default True.
    ns_coefficients
        Of the quintic iteration. Default (3.4445, -4.7750, 2.0315).
    eps
        The least norm that a matrix is divided by. Default 1e-7.
    ns_steps
        Iterations, fewer than 100. Default 5.
    adjust_lr_fn
        f(shape): "original" (None, default): sqrt(max(1, rows / columns)); "match_rms_adamw":
        0.2 * sqrt(max(rows, columns)); "spectral_unclamped": sqrt(rows / columns).
    **options
        Of the states: see `optim8.optim.Options`.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        For the arguments for which torch raises them, with the same messages, and for options
        that are not as described.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.Muon([model.weight], lr=0.02)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['momentum_buffer_codes', 'momentum_buffer_scales', 'step']
    """

    _torch_counts_steps = False

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        for name, label in (
            ("lr", "Learning rate"),
            ("momentum", "momentum"),
            ("weight_decay", "weight decay"),
        ):
            if not group[name] >= 0.0:
                raise ValueError(f"{label} should be >= 0 but is: {group[name]}")
        _check_orthogonal(group)
        if group["param_rounding"] != "nearest":
            raise ValueError(
                f"Invalid param_rounding: {group['param_rounding']!r} (Muon's update is torch's, "
                "which rounds to nearest)"
            )

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of matrices; see `torch.optim.Optimizer.add_param_group`.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            If torch would, or if an option or hyperparameter of the group is out of range.
        """
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2:
                del self.param_groups[-1]
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{param.size()}"
                )

    def _check_entries(self, group: Group) -> None:
        super()._check_entries(group)
        _check_orthogonal(group)

    @staticmethod
    def _rule(group: Group) -> str:
        return "muon"

    def _run(self, groups: list[Any]) -> int:
        _native.check_step(groups)
        for group in self.param_groups:
            _check_orthogonal(group)
        skipped = 0
        for group, (rule, hyper, options, rows) in zip(self.param_groups, groups, strict=True):
            for index, param, grad, *states in rows:
                # The rule writes the direction in place of a parameter.
                direction = torch.zeros_like(grad, memory_format=torch.contiguous_format)
                row = (index, direction, grad, *states)
                call = [(rule, hyper, options, [row])]
                skipped += _native.step(call, torch.get_num_threads())
                if param.numel() > 0:
                    _descend(param.detach(), direction, group)
        return skipped


def _check_orthogonal(group: Group) -> None:
    """Raise for what the native step does not see, with torch's messages where it has one."""
    _numbers(group)
    if group["adjust_lr_fn"] not in (None, *_ADJUSTMENTS):
        raise ValueError(f"Adjust learning rate function {group['adjust_lr_fn']} is not supported")
    if not isinstance(group["ns_steps"], int):
        raise TypeError(f"ns_steps is {group['ns_steps']!r}, expected an int")
    if group["ns_steps"] >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(group["ns_coefficients"]) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")


def _numbers(group: Group) -> tuple[float, float, float, tuple[float, ...]]:
    """Return learning rate, weight decay, eps and the coefficients; raise for what is no number."""
    lr, weight_decay, eps = (as_number(key, group[key]) for key in ("lr", "weight_decay", "eps"))
    coefficients = (as_number("ns_coefficients", value) for value in group["ns_coefficients"])
    return lr, weight_decay, eps, tuple(coefficients)


def _descend(param: Tensor, direction: Tensor, group: Group) -> None:
    lr, weight_decay, eps, coefficients = _numbers(group)
    step = orthogonal(direction, coefficients, group["ns_steps"], eps)
    param.mul_(1 - lr * weight_decay)
    param.add_(step, alpha=-lr * _ADJUSTMENTS[group["adjust_lr_fn"] or "original"](*param.shape))


def orthogonal(matrix: Tensor, coefficients: tuple[float, ...], n_steps: int, eps: float) -> Tensor:
    """Return about the nearest matrix with orthonormal rows or columns, in bfloat16.

    Source: Jordan 2024; a quintic Newton-Schulz iteration `a X + (b A + c A^2) X`, A = X X^T.
    """
    a, b, c = coefficients
    x = matrix.to(torch.bfloat16, copy=True)
    is_tall = matrix.shape[0] > matrix.shape[1]
    if is_tall:
        x = x.T
    x.div_(x.norm().clamp(min=eps))
    for _ in range(n_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x
