"""State dicts that torch's 32-bit optimizers load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from optim8._classes import own_class
from optim8.state import dequantize, holds_states, known_keys, others, parameters, rule_states

if TYPE_CHECKING:
    from optim8.optim import Optim8Optimizer


def to_torch_state_dict(optimizer: Optim8Optimizer) -> dict[str, Any]:
    """Return the state dict of a torch optimizer that goes on where this one is.

    Parameters
    ----------
    optimizer
        Of a class that `torch.optim` has too.

    Returns
    -------
    dict
        For `load_state_dict` of the class of the same name in `torch.optim`: states in full, in new
        tensors, and the hyperparameters that torch knows.

    Raises
    ------
    TypeError
        If torch has no such class.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.AdamW(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> back = torch.optim.AdamW(model.parameters())
    >>> back.load_state_dict(optim8.interop.to_torch_state_dict(optimizer))
    """
    name = own_class(optimizer).__name__
    twin = getattr(torch.optim, name, None)
    if twin is None:
        raise TypeError(f"to_torch_state_dict: torch.optim has no {name}")
    # Of what torch does not know only our options go: schedulers keep numbers of theirs in groups.
    ours = optimizer.defaults.keys() - twin([torch.zeros(1, 1)]).defaults.keys()
    saved = optimizer.state_dict()
    groups = [{k: v for k, v in g.items() if k not in ours} for g in saved["param_groups"]]
    counts = optimizer._torch_counts_steps
    states = {}
    for index, param, group, _ in parameters(optimizer.param_groups):
        rule = optimizer._rule(group)
        state = optimizer.state.get(param, {})
        if not holds_states(state):
            if not optimizer._initial(group):
                states[index] = others(state, set())
                continue
            # torch makes states that do not begin with zero at once.
            state = {**state, **optimizer._create(rule, param, group)}
        full = dequantize(rule, param, group, state)
        if counts and not full.keys() >= rule_states(rule).kinds.keys():
            # A switch was thrown since the last step, and torch makes all states at the first one.
            full = {**optimizer._create(rule, param, {**group, "state_bits": 32}), **full}
        scalars = {k: state[k].clone() for k in rule_states(rule).scalars if counts or k != "step"}
        states[index] = {**full, **scalars, **others(state, known_keys())}
    states = {index: state for index, state in states.items() if state}
    kept = others(saved["state"], {index for index, *_ in parameters(optimizer.param_groups)})
    return {"state": {**states, **kept}, "param_groups": groups}
