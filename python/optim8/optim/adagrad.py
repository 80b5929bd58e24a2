"""Adagrad, as `torch.optim` defines it, with 8-bit states."""

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8 import state as states
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_lr, check_not_negative
from optim8.optim._options import Group, Options


class Adagrad(Optim8Optimizer):
    r"""Adagrad; the same update as `torch.optim.Adagrad`, with an 8-bit sum.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        g = g + weight_decay * p
        s = s + g^2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    The sum s is rounded stochastically, so that it goes on growing however small a step's share of
    it has become.

    Sources: Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization" (2011); `torch.optim.Adagrad`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-2.
    lr_decay
        How fast the learning rate falls. Default 0.
    weight_decay
        Added to the gradient, times the parameter. Default 0.
    initial_accumulator_value
        What the sum begins with. Default 0.
    eps
        Added to the denominator. Default 1e-10.
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
    >>> optimizer = optim8.Adagrad(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['step', 'sum_codes', 'sum_scales']
    """

    _optional_keys = ("maximize",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_not_negative(group, "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    @staticmethod
    def _rule(group: Group) -> str:
        return "adagrad"

    def share_memory(self) -> None:
        """Move all states to shared memory, where processes that train together write to them.

        Those that do not exist yet are made.

        Examples
        --------
        >>> import optim8, torch
        >>> model = torch.nn.Linear(64, 64).share_memory()
        >>> optimizer = optim8.Adagrad(model.parameters())
        >>> optimizer.share_memory()
        >>> optimizer.state[model.weight]["sum_codes"].is_shared()
        True
        """
        for _, param, group, _ in states.parameters(self.param_groups):
            rule, state = self._rule(group), self.state[param]
            if not states.holds_states(state):
                state.update(self._create(rule, param, group))
            for key in state.keys() & states.known_keys():
                state[key].share_memory_()

    @staticmethod
    def _initial(group: Group) -> dict[str, float]:
        return {"sum": float(group["initial_accumulator_value"])}
