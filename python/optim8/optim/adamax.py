"""Adamax, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class Adamax(Optim8Optimizer):
    r"""Adamax; the same update as `torch.optim.Adamax`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, |g| + eps)
        p = p - lr / (1 - beta1^t) * m / u

    The update uses states before they are quantized for the next step.

    Sources: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 2;
    `torch.optim.Adamax`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 2e-3.
    betas
        Decay of the first moment and of the norm. Default (0.9, 0.999).
    eps
        Added to the magnitude of the gradient. Default 1e-8.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    foreach
        Accepted for torch's sake: all values mean the one native pass.
    maximize
        Whether to go up. Default False.
    differentiable, capturable
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
    >>> optimizer = optim8.Adamax(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_codes', 'exp_avg_scales', 'exp_inf_codes', 'exp_inf_scales', 'step']
    """

    _optional_keys = ("maximize",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_not_negative(group, "eps")
        check_betas(group)
        check_not_negative(group, "weight_decay")

    @staticmethod
    def _rule(group: Group) -> str:
        return "adamax"
