"""Which optimizer of this package one is, where a user's class extends it."""

from torch.optim import Optimizer

_FOLDER = "optim8.optim."


def own_class(optimizer: Optimizer) -> type[Optimizer]:
    """Return the optimizer of this package that one is or extends; its own class if there is none.

    The base class of them all is none.
    """
    classes = (one for one in type(optimizer).__mro__ if one.__module__.startswith(_FOLDER))
    found = next(classes, None)
    is_base = found is None or found.__module__.rpartition(".")[2].startswith("_")
    return type(optimizer) if found is None or is_base else found
