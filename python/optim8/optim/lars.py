"""LARS, with an 8-bit state."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._check import check_not_negative
from optim8.optim._momentum import MomentumOptimizer
from optim8.optim._options import Group, Options


class LARS(MomentumOptimizer):
    r"""LARS, with an 8-bit momentum buffer: SGD whose learning rate is adapted to each tensor.

    For each tensor, with g the gradient (negated if `maximize`)::

        r = trust_coeff * ||p|| / (||g|| + weight_decay * ||p|| + eps)
        u = r * (g + weight_decay * p)
        b = momentum * b + (1 - dampening) * u     (b = u at the first step)
        p = p - lr * b                             (nesterov: p - lr * (u + momentum * b))

    with r = 1 where either norm is zero, or where `weight_decay` is 0 unless `always_adapt`. Where
    the paper keeps the learning rate within the buffer, it is outside, as in `torch.optim.SGD`.

    Source: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks" (2017),
    algorithm 1 and equation 6. (bitsandbytes' LARS is another: SGD with clipped updates.)

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1.0.
    momentum
        Decay of the buffer b. Default 0.
    dampening
        What is taken off a new gradient's share. Default 0.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    nesterov
        Whether to look ahead; needs momentum and no dampening. Default False.
    trust_coeff
        The trust coefficient, eta in the paper. Default 1e-3.
    eps
        Added to the denominator of r. Default 1e-8.
    trust_clip
        Whether `lr * r` is at most `lr`, as in LARC. Default False.
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
    >>> optimizer = optim8.LARS(model.parameters(), momentum=0.9)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['momentum_buffer_codes', 'momentum_buffer_scales', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        trust_coeff: float = 1e-3,
        eps: float = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "trust_coeff": trust_coeff,
            "eps": eps,
            "trust_clip": trust_clip,
            "always_adapt": always_adapt,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        MomentumOptimizer._check(group)
        check_not_negative(group, "trust_coeff", "eps")

    @staticmethod
    def _rule(group: Group) -> str:
        return "lars_momentum" if group["momentum"] else "lars"
