"""LAMB, with 8-bit states."""

import math

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8 import _native
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import as_number, check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class LAMB(Optim8Optimizer):
    r"""LAMB, with 8-bit states: Adam whose step in each tensor is as long as the tensor is large.

    For each tensor, with g the gradient (negated if `maximize`) divided by
    `max(1, ||all gradients|| / max_grad_norm)`, where what is not finite does not count, and t the
    step::

        m = beta1 * m + (1 - beta1) * g            (m = beta1 * m + g without grad_averaging)
        v = beta2 * v + (1 - beta2) * g^2
        r = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * p
        p = p - lr * ||p|| / ||r|| * r

    with 1 in place of the trust ratio ||p|| / ||r|| where either norm is zero, or where
    `weight_decay` is 0 unless `always_adapt`.

    Source: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes"
    (2020), algorithm 2. (bitsandbytes' LAMB is another: Adam with clipped updates.)

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    betas
        Decay of the first and the second moment. Default (0.9, 0.999).
    eps
        Added to the denominator. Default 1e-6.
    weight_decay
        Added to Adam's step, times the parameter. Default 0.01.
    max_grad_norm
        The norm to which all gradients together are clipped; None for no clipping. Default 1.0.
    grad_averaging
        Whether new gradients have the share `1 - beta1` in the first moment. Default True.
    trust_clip
        Whether the trust ratio is at most 1. Default False.
    always_adapt
        Whether tensors without weight decay are adapted too. Default False.
    maximize
        Whether to go up. Default False.
    **options
        Of the states: see `optim8.optim.Options`.

    Raises
    ------
    ValueError, TypeError
        For hyperparameters and options that are out of range.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.LAMB(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_codes', 'exp_avg_scales', 'exp_avg_sq_codes', 'exp_avg_sq_scales', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        max_grad_norm: float | None = 1.0,
        grad_averaging: bool = True,
        trust_clip: bool = False,
        always_adapt: bool = False,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "grad_averaging": grad_averaging,
            "trust_clip": trust_clip,
            "always_adapt": always_adapt,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_betas(group)
        check_not_negative(group, "eps", "weight_decay")
        _limit(group)

    @staticmethod
    def _rule(group: Group) -> str:
        return "lamb"

    _grad_norm = 0.0
    """Of all gradients of this step, if a group clips them."""

    def _before_step(self) -> None:
        self._grad_norm = 0.0
        if any(group["max_grad_norm"] is not None for group in self.param_groups):
            params = (p for group in self.param_groups for p in group["params"])
            grads = {i: p.grad for i, p in enumerate(params) if p.grad is not None}
            self._grad_norm = _native.sum_of_squares(grads, torch.get_num_threads()) ** 0.5

    def _hyper(self, rule: str, group: Group) -> dict[str, float]:
        excess = max(1.0, self._grad_norm / _limit(group))
        return {**super()._hyper(rule, group), "grad_scale": 1.0 / excess}


def _limit(group: Group) -> float:
    """Return what the norm of all gradients is clipped to; raise if it cannot be."""
    if group["max_grad_norm"] is None:
        return math.inf
    limit = as_number("max_grad_norm", group["max_grad_norm"])
    if not limit > 0:
        raise ValueError(f"Invalid max_grad_norm value: {limit}")
    return limit
