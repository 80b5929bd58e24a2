"""RMSprop, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_lr, check_not_negative
from optim8.optim._options import Group, Options


class RMSprop(Optim8Optimizer):
    r"""RMSprop; the same update as `torch.optim.RMSprop`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        v = alpha * v + (1 - alpha) * g^2
        a = alpha * a + (1 - alpha) * g            (centered only; else a = 0)
        b = momentum * b + g / (sqrt(v - a^2) + eps)
        p = p - lr * b

    The update uses states before they are quantized for the next step. Where they are quantized, a
    variance `v - a^2` of less than `v / 64` counts as that: it is a difference of two numbers that
    are known to about a hundredth.

    Sources: Tieleman and Hinton, lecture 6.5 (2012); Graves, "Generating Sequences With Recurrent
    Neural Networks" (2013), for the centered form; `torch.optim.RMSprop`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-2.
    alpha
        Decay of the averages, v (`square_avg`) and a (`grad_avg`). Default 0.99.
    eps
        Added to the denominator. Default 1e-8.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    momentum
        Decay of the buffer b (`momentum_buffer`), which is not kept if it is 0. Default 0.
    centered
        Whether to divide by the root of the variance. Default False.
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
    >>> optimizer = optim8.RMSprop(model.parameters(), momentum=0.9)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.bias])
    ['momentum_buffer', 'square_avg', 'step']
    """

    _optional_keys = ("maximize",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_not_negative(group, "eps", "momentum", "weight_decay", "alpha")

    @staticmethod
    def _rule(group: Group) -> str:
        centered, momentum = bool(group["centered"]), group["momentum"] > 0
        return "rmsprop" + "_centered" * centered + "_momentum" * bool(momentum)
