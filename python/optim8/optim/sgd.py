"""SGD, as `torch.optim` defines it, and SGDW, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._momentum import MomentumOptimizer
from optim8.optim._options import Group, Options


class SGD(MomentumOptimizer):
    r"""SGD; the same update as `torch.optim.SGD`, with an 8-bit momentum buffer.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        b = momentum * b + (1 - dampening) * g     (b = g at the first step)
        p = p - lr * b                             (nesterov: p - lr * (g + momentum * b))

    Without momentum no state is kept but the number of steps.

    Sources: Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum
    in deep learning" (2013); `torch.optim.SGD`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    momentum
        Decay of the buffer b. Default 0.
    dampening
        What is taken off a new gradient's share. Default 0.
    weight_decay
        Added to the gradient, times the parameter; a number or a 1-element tensor. Default 0.
    nesterov
        Whether to look ahead; needs momentum and no dampening. Default False.
    foreach, fused
        Accepted for torch's sake: all values mean the one native pass. Not both can be True.
    maximize
        Whether to go up. Default False.
    differentiable
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
    >>> optimizer = optim8.SGD(model.parameters(), momentum=0.9)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['momentum_buffer_codes', 'momentum_buffer_scales', 'step']
    """

    _optional_keys = ("maximize", "nesterov")
    _torch_counts_steps = False

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _rule(group: Group) -> str:
        return "sgd_momentum" if group["momentum"] else "sgd"


class SGDW(MomentumOptimizer):
    r"""SGD with decoupled weight decay, and an 8-bit momentum buffer.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        p = p - lr * weight_decay * p
        b = momentum * b + (1 - dampening) * g     (b = g at the first step)
        p = p - lr * b                             (nesterov: p - lr * (g + momentum * b))

    The weight decay is multiplied by `lr`, as in `torch.optim.AdamW`; where the paper keeps the
    learning rate within the buffer, it is outside, as in `torch.optim.SGD`.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 1.

    Parameters
    ----------
    params, lr, momentum, dampening, nesterov, maximize, **options
        As in `SGD`.
    weight_decay
        What is taken off a parameter at each step, as a fraction, is `lr * weight_decay`. Default
        1e-2.

    Raises
    ------
    ValueError, TypeError
        For hyperparameters and options that are out of range.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.SGDW(model.parameters(), momentum=0.9)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['momentum_buffer_codes', 'momentum_buffer_scales', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 1e-2,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _rule(group: Group) -> str:
        return "sgd_momentum" if group["momentum"] else "sgd"

    def _hyper(self, rule: str, group: Group) -> dict[str, float]:
        return {**super()._hyper(rule, group), "decoupled_weight_decay": 1.0}
