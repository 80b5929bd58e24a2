"""Lion, with an 8-bit state."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class Lion(Optim8Optimizer):
    r"""Lion, with an 8-bit state: about 1.02 bytes a parameter.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        p = p - lr * weight_decay * p
        p = p - lr * sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g

    Its learning rate should be three to ten times smaller than AdamW's, and its weight decay as
    many times larger.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-4.
    betas
        Share of the average in the sign, and decay of the average. Default (0.9, 0.99).
    weight_decay
        What is taken off a parameter at each step, as a fraction, is `lr * weight_decay`. Default
        0.
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
    >>> optimizer = optim8.Lion(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_codes', 'exp_avg_scales', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_betas(group)
        check_not_negative(group, "weight_decay")

    @staticmethod
    def _rule(group: Group) -> str:
        return "lion"
