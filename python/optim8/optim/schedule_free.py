"""Schedule-Free AdamW, with an 8-bit second moment."""

import torch
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8 import state as states
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import as_number, check_betas, check_lr, check_not_negative
from optim8.optim._options import Group, Options


class ScheduleFreeAdamW(Optim8Optimizer):
    r"""Schedule-Free AdamW, with an 8-bit second moment: no schedule of learning rates is needed.

    With g the gradient (negated if `maximize`), t the step, and all operations by element::

        rate = lr * min(1, t / warmup_steps) * sqrt(1 - beta2^t)
        w = t^r * (largest rate so far)^weight_lr_power,  c = w / (sum of all w)
        v = beta2 * v + (1 - beta2) * g^2
        z = z - rate * (g / (sqrt(v) + eps) + weight_decay * y)
        x = (1 - c) * x + c * z
        y = beta1 * x + (1 - beta1) * z

    In training the parameters are y, at which gradients are taken; for evaluation they have to be
    the average x. Call `optimizer.eval()` where the model's `eval()` is called, and
    `optimizer.train()` before training goes on; save the model and the optimizer in one mode. An
    optimizer begins in training. The iterates z are states in the parameters' dtype, which are not
    quantized; x is not stored, but worked out with the group's beta1, which no scheduler should
    change.

    Sources: Defazio et al., "The Road Less Scheduled" (2024), algorithm 1; the authors'
    `AdamWScheduleFree`.

    Parameters
    ----------
    params
        Parameters, named parameters or groups: CPU tensors of float32, float64, bfloat16 or
        float16.
    lr
        Learning rate; a number or a 1-element tensor. Default 2.5e-3.
    betas
        The share of the average in y, above 0, and the decay of the second moment. Default
        (0.9, 0.999).
    eps
        Added to the denominator. Default 1e-8.
    weight_decay
        Added to the update, times y. Default 0.
    warmup_steps
        Over how many steps the learning rate rises to `lr`. Default 0.
    r
        Power of the step in the weights of the average. Default 0.
    weight_lr_power
        Power of the learning rate in the weights of the average. Default 2.
    foreach
        Accepted for the authors' sake: all values mean the one native pass.
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
    >>> optimizer = optim8.ScheduleFreeAdamW(model.parameters(), warmup_steps=10)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.eval()
    >>> optimizer.step()
    Traceback (most recent call last):
        ...
    RuntimeError: ScheduleFreeAdamW: step() in evaluation; call optimizer.train() first
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
            "foreach": foreach,
            "maximize": maximize,
            "train_mode": True,
        }
        super().__init__(params, defaults, options)

    def train(self) -> None:
        """Make the parameters those of training, y."""
        self._switch(train_mode=True)

    def eval(self) -> None:
        """Make the parameters those of evaluation, x."""
        self._switch(train_mode=False)

    @torch.no_grad()
    def _switch(self, train_mode: bool) -> None:
        ways = []
        for index, param, group, _ in states.parameters(self.param_groups):
            state = self.state.get(param, {})
            if group["train_mode"] == train_mode or "z" not in state:
                continue
            beta1 = as_number("betas", group["betas"][0])
            _check_beta1(beta1)
            states.check_tensor(
                f"z of parameter {index}", state["z"], (param.dtype,), tuple(param.shape)
            )
            ways.append((param, state["z"], 1 - beta1 if train_mode else 1 - 1 / beta1))
        # As in a step, all is checked before any of them moves.
        for param, z, way in ways:
            param.lerp_(z, way)
        for group in self.param_groups:
            group["train_mode"] = train_mode

    def _before_step(self) -> None:
        if not all(group["train_mode"] for group in self.param_groups):
            raise RuntimeError(
                f"{type(self).__name__}: step() in evaluation; call optimizer.train() first"
            )

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_betas(group)
        _check_beta1(group["betas"][0])
        check_not_negative(group, "eps", "weight_decay", "warmup_steps", "r", "weight_lr_power")

    @staticmethod
    def _rule(group: Group) -> str:
        return "schedule_free_adamw"


def _check_beta1(beta1: float) -> None:
    """Raise where there is no way from y back to x."""
    if not beta1 > 0:
        raise ValueError(f"Invalid beta parameter at index 0: {beta1}")
