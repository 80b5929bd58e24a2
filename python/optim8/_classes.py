"""Which class of this package an optimizer is of, where a user's class extends one."""

from torch.optim import Optimizer


def own_class(optimizer: Optimizer) -> type[Optimizer]:
    """Return the class of this package that an optimizer is of, or its own if there is none."""
    classes = type(optimizer).__mro__
    return next((one for one in classes if one.__module__.startswith("optim8.")), type(optimizer))
