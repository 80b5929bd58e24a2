"""Adadelta, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_lr, check_not_negative
from optim8.optim._options import Group, Options


class Adadelta(Optim8Optimizer):
    r"""Adadelta; the same update as `torch.optim.Adadelta`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        v = rho * v + (1 - rho) * g^2
        d = sqrt(u + eps) / sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d^2
        p = p - lr * d

    The update uses states before they are quantized for the next step.

    Sources: Zeiler, "ADADELTA: An Adaptive Learning Rate Method" (2012), algorithm 1;
    `torch.optim.Adadelta`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1.0.
    rho
        Decay of both averages, v (`square_avg`) and u (`acc_delta`). Default 0.9.
    eps
        Added under both roots. Default 1e-6.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    foreach
        Accepted for torch's sake: all values mean the one native pass.
    maximize
        Whether to go up. Default False.
    capturable, differentiable
        Only False.
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
    >>> optimizer = optim8.Adadelta(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['acc_delta_codes', 'acc_delta_scales', 'square_avg_codes', 'square_avg_scales', 'step']
    """

    _optional_keys = ("maximize",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        if not 0.0 <= group["rho"] <= 1.0:
            raise ValueError(f"Invalid rho value: {group['rho']}")
        check_not_negative(group, "eps", "weight_decay")

    @staticmethod
    def _rule(group: Group) -> str:
        return "adadelta"
