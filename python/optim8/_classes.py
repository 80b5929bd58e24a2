"""Which optimizer of this package one is, where a user's class extends it."""

from torch.optim import Optimizer


def own_class(optimizer: Optimizer) -> type[Optimizer]:
    """Return the optimizer of this package that one is or extends; its own class if there is none.

    What only `Optim8Optimizer` is the base of extends none.
    """
    for one in type(optimizer).__mro__:
        package, _, module = one.__module__.rpartition(".")
        if package == "optim8.optim" and not module.startswith("_"):
            return one
    return type(optimizer)
