"""Adam and AdamW, as `torch.optim` defines them, with 8-bit states."""

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class Adam(Optim8Optimizer):
    r"""Adam; the same update as `torch.optim.Adam`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2          (amsgrad: v_max = max(v_max, v))
        p = p - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    with v_max in the last line's place of v if `amsgrad`. The update uses m and v before they are
    quantized for the next step.

    Sources: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015); Reddi, Kale and
    Kumar, "On the Convergence of Adam and Beyond" (2018); `torch.optim.Adam`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    betas
        Decay of the first and the second moment: two numbers or two 1-element tensors. Default
        (0.9, 0.999).
    eps
        Added to the denominator. Default 1e-8.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    amsgrad
        Whether to divide by the largest second moment so far. Default False.
    foreach, fused
        Accepted for torch's sake: all values mean the one native pass. Not both can be True.
    maximize
        Whether to go up. Default False.
    capturable, differentiable
        Only False.
    decoupled_weight_decay
        Whether weight decay is AdamW's. Default False.
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
    >>> optimizer = optim8.Adam(model.parameters(), lr=1e-3)
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
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_not_negative(group, "eps")
        check_betas(group)
        check_not_negative(group, "weight_decay")

    @staticmethod
    def _check_together(defaults: Group) -> None:
        check_scalar("lr", defaults["lr"], defaults)
        betas = defaults["betas"]
        if not any(all(isinstance(beta, kind) for beta in betas) for kind in (float, Tensor)):
            raise ValueError("betas must be either both floats or both Tensors")
        for index, beta in enumerate(betas):
            check_scalar(f"betas[{index}]", beta, defaults)

    @staticmethod
    def _rule(group: Group) -> str:
        rule = "adamw" if group["decoupled_weight_decay"] else "adam"
        return rule + ("_amsgrad" if group["amsgrad"] else "")


class AdamW(Adam):
    r"""AdamW; the same update as `torch.optim.AdamW`, with 8-bit states.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        p = p - lr * weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g^2          (amsgrad: v_max = max(v_max, v))
        p = p - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    with v_max in the last line's place of v if `amsgrad`. The update uses m and v before they are
    quantized for the next step.

    Sources: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019);
    `torch.optim.AdamW`.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, maximize, foreach, capturable, differentiable, fused, **options
        As in `Adam`.
    weight_decay
        What is taken off a parameter at each step, as a fraction, is `lr * weight_decay`. Default
        0.01.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As `Adam`.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.AdamW(
    ...     [
    ...         {"params": [model.weight], "block_size": 128},
    ...         {"params": [model.bias], "weight_decay": 0.0},
    ...     ],
    ...     lr=3e-4,
    ... )
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.bias])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
            **options,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True


def check_scalar(name: str, value: Any, group: Group) -> None:
    """Raise torch's errors for a hyperparameter that is a tensor and may not be."""
    if not isinstance(value, Tensor):
        return
    if group["foreach"] and not group["capturable"]:
        raise ValueError(
            f"{name} as a Tensor is not supported for capturable=False and foreach=True"
        )
    if value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element")
