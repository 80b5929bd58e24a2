"""AdEMAMix, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class AdEMAMix(Optim8Optimizer):
    r"""AdEMAMix, with 8-bit states: AdamW with a second, much slower first moment.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        p = p - lr * weight_decay * p
        a = beta1 * a + (1 - beta1) * g
        s = beta3(t) * s + (1 - beta3(t)) * g
        v = beta2 * v + (1 - beta2) * g^2
        p = p - lr * (a / (1 - beta1^t) + alpha(t) * s) / (sqrt(v / (1 - beta2^t)) + eps)

    where alpha(t) grows linearly to `alpha` over `t_alpha` steps, and beta3(t) from beta1 to beta3
    over `t_beta3` steps so that the half life grows evenly. States a, s and v are `exp_avg_fast`,
    `exp_avg_slow` and `exp_avg_sq`.

    Source: Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older" (2024),
    equations of section 3; the defaults are those of its code.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    betas
        Decay of the fast first moment, the second moment and the slow first moment. Default
        (0.9, 0.999, 0.9999).
    alpha
        Weight of the slow moment. Default 2.0.
    t_alpha, t_beta3
        Steps of their warmups, usually all of a training run; None (default) for none.
    eps
        Added to the denominator. Default 1e-8.
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
    >>> optimizer = optim8.AdEMAMix(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['exp_avg_fast_codes', 'exp_avg_fast_scales', 'exp_avg_slow_codes', ...]
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 2.0,
        t_alpha: float | None = None,
        t_beta3: float | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "alpha": alpha,
            "t_alpha": t_alpha,
            "t_beta3": t_beta3,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, options)

    _may_be_none = ("t_alpha", "t_beta3")

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_betas(group, expected=3)
        check_not_negative(group, "alpha", "eps", "weight_decay")
        for name in ("t_alpha", "t_beta3"):
            if group[name] is not None and not group[name] > 0:
                raise ValueError(f"Invalid {name} value: {group[name]}")

    @staticmethod
    def _rule(group: Group) -> str:
        return "ademamix"
