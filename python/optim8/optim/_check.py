"""torch's checks of hyperparameters, as most of its optimizers make them, with their messages."""

from typing import Any, SupportsFloat

from torch import Tensor

Group = dict[str, Any]


def as_number(name: str, value: object) -> float:
    """Return a hyperparameter as a float; raise if it is none."""
    # Most are, and to ask for the protocol takes longer than all else that a group costs.
    if isinstance(value, (float, int)):
        return float(value)
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"{name} is {value!r}, expected a number")
    try:
        return float(value)
    except (ValueError, TypeError, RuntimeError):  # a tensor or an array of several
        raise ValueError(f"{name} is {value!r}, expected a number") from None


def check_lr(group: Group) -> None:
    """Raise for a learning rate that is negative or of more than one element."""
    lr = group["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")


def check_betas(group: Group, expected: int = 2) -> None:
    """Raise for decays outside of [0, 1)."""
    if len(group["betas"]) != expected:
        raise ValueError(f"Invalid betas: {group['betas']} (expected {expected} numbers)")
    for index, beta in enumerate(group["betas"]):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}")


def check_not_negative(group: Group, *names: str) -> None:
    """Raise for negative values."""
    for name in names:
        if not group[name] >= 0.0:
            label = "epsilon" if name == "eps" else name
            raise ValueError(f"Invalid {label} value: {group[name]}")
