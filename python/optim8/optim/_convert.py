"""From a live torch optimizer to its 8-bit twin."""

import inspect

import torch
from torch.optim import Optimizer
from typing_extensions import Unpack

import optim8.optim
from optim8.optim._base import Optim8Optimizer
from optim8.optim._options import Options


def convert(optimizer: Optimizer, **options: Unpack[Options]) -> Optim8Optimizer:
    """Make the 8-bit twin of a torch optimizer, in the middle of training too.

    It has the same parameters, groups and hyperparameters, and its states are those of `optimizer`,
    quantized. `optimizer` is not changed; delete it to free its states. A learning rate scheduler
    goes on with the twin after `scheduler.optimizer = twin`; so must those that a `SequentialLR` or
    `ChainedScheduler` is made of.

    Parameters
    ----------
    optimizer
        Of a class of `torch.optim` that this package has too.
    **options
        Of the states: see `optim8.optim.Options`.

    Returns
    -------
    Optim8Optimizer
        Of the class of the same name.

    Raises
    ------
    TypeError
        If the optimizer is of another class.
    ValueError, RuntimeError
        If a hyperparameter or state is not supported, as when it is made or loaded.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> optimizer = optim8.convert(optimizer)
    >>> type(optimizer).__module__, optimizer.param_groups[0]["lr"]
    ('optim8.optim.adam', 0.0003)
    """
    name = type(optimizer).__name__
    twin = getattr(optim8.optim, name, None)
    if twin is None or type(optimizer) is not getattr(torch.optim, name, None):
        names = sorted(n for n in optim8.optim.__all__ if hasattr(torch.optim, n))
        raise TypeError(
            f"convert: found {type(optimizer).__module__}.{name}, expected one of torch.optim's "
            + ", ".join(names)
        )
    arguments = inspect.signature(twin).parameters
    defaults = {k: v for k, v in optimizer.defaults.items() if k in arguments}
    # All else that is in a group is loaded, as from a checkpoint.
    groups = [{"params": group["params"]} for group in optimizer.param_groups]
    converted: Optim8Optimizer = twin(groups, **defaults, **options)
    converted.load_state_dict(optimizer.state_dict())
    return converted
