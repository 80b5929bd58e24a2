"""StableAdamW, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class StableAdamW(Optim8Optimizer):
    r"""StableAdamW, with 8-bit states: AdamW that clips its updates, not its gradients.

    For each tensor, with g the gradient (negated if `maximize`) and t the step::

        b1 = (beta1^t - beta1) / (beta1^t - 1),  b2 likewise
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g^2
        r = sqrt(mean(g^2 / max(v, eps^2)))
        p = p - lr / max(1, r) * (m / (sqrt(v) + eps) + weight_decay * p)

    The update uses states before they are quantized for the next step.

    Source: Wortsman et al., "Stable and low-precision training for large-scale vision-language
    models" (2023), algorithm 2.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    betas
        Decay of the first and the second moment. Default (0.9, 0.99).
    eps
        Added to the denominator. Default 1e-6.
    weight_decay
        What is taken off a parameter at each step, as a fraction, times the learning rate. Default
        1e-2.
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
    >>> optimizer = optim8.StableAdamW(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_codes', 'exp_avg_scales', 'exp_avg_sq_codes', 'exp_avg_sq_scales', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-6,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_betas(group)
        check_not_negative(group, "eps", "weight_decay")

    @staticmethod
    def _rule(group: Group) -> str:
        return "stable_adamw"
