"""Rprop, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_lr
from optim8.optim._options import Group, Options


class Rprop(Optim8Optimizer):
    r"""Rprop; the same update as `torch.optim.Rprop`, with 8-bit states.

    With g the gradient (negated if `maximize`), h the one before (`prev`), s the step size, which
    begins as `lr`, eta and s_min to s_max the pairs below, and all operations by element::

        s = s * eta+            where g * h > 0
        s = s * eta- and g = 0  where g * h < 0
        s = clamp(s, s_min, s_max)
        p = p - sign(g) * s
        h = g

    It is for gradients of all data: those of small batches change their signs too often. The
    update uses states before they are quantized for the next step. Of h in 8 bits only the sign is
    kept, as only the sign is used.

    Sources: Riedmiller and Braun, "A direct adaptive method for faster backpropagation learning:
    the RPROP algorithm" (1993); `torch.optim.Rprop`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        What step sizes begin as; a number or a 1-element tensor. Default 1e-2.
    etas
        The factors (eta-, eta+), on both sides of 1. Default (0.5, 1.2).
    step_sizes
        The least and the greatest step size. Default (1e-6, 50).
    capturable, differentiable
        Only False.
    foreach
        Accepted for torch's sake: all values mean the one native pass.
    maximize
        Whether to go up. Default False.
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
    >>> optimizer = optim8.Rprop(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['prev_codes', 'prev_scales', 'step', 'step_size_codes', 'step_size_scales']
    """

    _optional_keys = ("maximize",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        eta_minus, eta_plus = group["etas"]
        if not 0.0 < eta_minus < 1.0 < eta_plus:
            raise ValueError(f"Invalid eta values: {eta_minus}, {eta_plus}")

    @staticmethod
    def _rule(group: Group) -> str:
        return "rprop"

    @staticmethod
    def _initial(group: Group) -> dict[str, float]:
        return {"step_size": float(group["lr"])}
