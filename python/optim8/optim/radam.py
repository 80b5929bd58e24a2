"""RAdam, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class RAdam(Optim8Optimizer):
    r"""RAdam; the same update as `torch.optim.RAdam`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * m / (1 - beta1^t) * r * sqrt(1 - beta2^t) / (sqrt(v) + eps)

    with the rectification r of the paper's algorithm 2; while the length of the average that it
    computes is at most 5, the last line is `p = p - lr * m / (1 - beta1^t)`.

    The update uses states before they are quantized for the next step.

    Sources: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond" (2020),
    algorithm 2; `torch.optim.RAdam`.

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
        Added to the denominator. Default 1e-8.
    weight_decay
        Added to the gradient, times the parameter; or taken off the parameter, times `lr`, if
        `decoupled_weight_decay`. Default 0.
    decoupled_weight_decay
        Whether weight decay is AdamW's. Default False.
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
    >>> optimizer = optim8.RAdam(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_codes', 'exp_avg_scales', 'exp_avg_sq_codes', 'exp_avg_sq_scales', 'step']
    """

    _optional_keys = ("maximize", "decoupled_weight_decay")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
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
        return "radam"
