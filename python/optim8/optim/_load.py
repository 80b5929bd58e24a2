"""From a state dict to the groups and states of an optimizer: what `load_state_dict` does.

Three kinds of state dicts come here: our own, and those of the optimizers of the same name of torch
and of bitsandbytes. All of a state dict is fitted before anything of the optimizer changes, so that
one that does not fit changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from optim8 import state as states
from optim8.interop import bitsandbytes
from optim8.optim._options import IMPLEMENTATION_KEYS, OPTION_KEYS, Group

if TYPE_CHECKING:
    from optim8.optim._base import Optim8Optimizer


def load_between_hooks(
    optimizer: Optimizer, state_dict: Mapping[str, Any], load: Callable[[dict[str, Any]], None]
) -> None:
    """Load a state dict, and call the optimizer's hooks before and after, as torch does."""
    state_dict = dict(state_dict)
    for pre_hook in optimizer._optimizer_load_state_dict_pre_hooks.values():
        state_dict = pre_hook(optimizer, state_dict) or state_dict
    load(state_dict)
    for post_hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        post_hook(optimizer)


def check_entries(state_dict: Mapping[str, Any]) -> None:
    """Raise unless a state dict has groups and states."""
    for key, kind in (("param_groups", list), ("state", Mapping)):
        if key not in state_dict:
            raise ValueError(f"loaded state dict has no {key!r}, found {list(state_dict)}")
        if not isinstance(state_dict[key], kind):
            found = type(state_dict[key]).__name__
            raise TypeError(f"loaded state dict: {key} is {found}, expected {kind.__name__}")


def check_others(saved: Mapping[Any, Any], ids: list[Any]) -> dict[Any, Any]:
    """Return copies of what is saved of no parameter; raise if it looks like states of one."""
    others = states.others(saved, {*ids})
    for key, value in others.items():
        if isinstance(key, int) or _are_states(value):
            raise ValueError(
                f"loaded state dict has states of parameter {key!r}, which is in none of "
                f"its groups (expected 0 to {len(ids) - 1})"
            )
    return others


def fitted(
    optimizer: Optim8Optimizer, state_dict: Mapping[str, Any], given: list[frozenset[str]]
) -> dict[str, Any]:
    """Return the `state` and `param_groups` that an optimizer has after loading a state dict.

    The options that were `given` to each group stay as they are.

    Raises
    ------
    ValueError, TypeError
        If anything does not fit; names the parameter, says what was found and expected.
    """
    check_entries(state_dict)
    # One copy of all groups: what they share, as a tensor for the learning rate, stays shared.
    saved, saved_groups = state_dict["state"], deepcopy(state_dict["param_groups"])
    is_peers = bitsandbytes.is_theirs(saved, saved_groups)
    if is_peers:
        saved_groups = [bitsandbytes.read_group(optimizer, group) for group in saved_groups]
    may_lack = optimizer.defaults.keys() if is_peers else set()
    groups = _groups(optimizer, saved_groups, may_lack, given)
    return {
        "state": _states(optimizer, saved, saved_groups, groups, is_peers),
        "param_groups": groups,
    }


def _groups(
    optimizer: Optim8Optimizer,
    saved_groups: list[Group],
    may_lack: AbstractSet[str],
    given: list[frozenset[str]],
) -> list[Group]:
    """Return the groups of a state dict with the optimizer's parameters."""
    own = optimizer.param_groups
    if len(saved_groups) != len(own):
        raise ValueError(
            "loaded state dict has a different number of parameter groups: "
            f"found {len(saved_groups)}, expected {len(own)}"
        )
    result = []
    for number, (group, saved, names) in enumerate(zip(own, saved_groups, given, strict=True)):
        read = _group(optimizer, number, group, saved, may_lack)
        result.append({**read, **{name: group[name] for name in names}})
    return result


def _group(
    optimizer: Optim8Optimizer, number: int, group: Group, saved: Group, may_lack: AbstractSet[str]
) -> Group:
    if not isinstance(saved, dict) or not isinstance(saved.get("params"), list):
        raise TypeError(f"parameter group {number} is no dict with a list of 'params'")
    if len(saved["params"]) != len(group["params"]):
        raise ValueError(
            "loaded state dict contains a parameter group that doesn't match the size of "
            f"optimizer's group {number}: found {len(saved['params'])} parameters, "
            f"expected {len(group['params'])}"
        )
    optional = {*IMPLEMENTATION_KEYS, *optimizer._optional_keys, *may_lack}
    # What a user's class adds, state dicts of the class that it extends lack.
    optional.update(optimizer.defaults.keys() - optimizer._own_keys)
    if "format_version" not in saved:
        optional.update(OPTION_KEYS)
    if missing := optimizer.defaults.keys() - saved.keys() - optional:
        raise ValueError(
            f"parameter group {number} has no {', '.join(sorted(missing))}: it is of "
            f"another optimizer than {type(optimizer).__name__}"
        )
    kept = {*optional & optimizer.defaults.keys(), "param_names"} & group.keys()
    result = {key: group[key] for key in kept}
    result.update((k, v) for k, v in saved.items() if k != "params")
    try:
        optimizer._check_entries(result)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"parameter group {number}: {error}") from error
    return {**result, "params": group["params"]}


def _states(
    optimizer: Optim8Optimizer,
    saved: Mapping[Any, Any],
    saved_groups: list[Group],
    groups: list[Group],
    is_peers: bool,
) -> dict[Tensor, states.State]:
    """Return the states of a state dict by parameter."""
    found: dict[Tensor, states.State] = defaultdict(dict)  # as in torch
    ids = [key for group in saved_groups for key in group["params"]]
    made_by = [group for group in saved_groups for _ in group["params"]]
    found.update(check_others(saved, ids))
    for key, saved_group, (index, param, group, name) in zip(
        ids, made_by, states.parameters(groups), strict=True
    ):
        if not saved.get(key):
            continue
        if not is_peers and _is_kept(saved[key], param):
            found[param] = states.others(saved[key], set())
            continue
        label = f"parameter {index}" + (f" ({name})" if name else "")
        state, rule = saved[key], optimizer._rule(group)
        if is_peers:
            state = bitsandbytes.read_state(rule, param, group, state, label)
        elif isinstance(state, dict) and not optimizer._torch_counts_steps:
            state = _with_step(state)
        found[param] = states.fit(rule, param, group, state, {**group, **saved_group}, label)
    return found


def _is_kept(held: object, param: Tensor) -> bool:
    """Whether there are only things of a program's, and nothing that may be a state."""
    if not isinstance(held, Mapping) or states.holds_states(held):
        return False
    tensors = (value for value in held.values() if isinstance(value, Tensor))
    return not any(tensor.shape == param.shape for tensor in tensors)


def _are_states(value: object) -> bool:
    """Whether something under a key of no parameter looks like the states of one."""
    if not isinstance(value, dict):
        return False
    return any(isinstance(value[key], Tensor) for key in value.keys() & states.known_keys())


def _with_step(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of one of torch's optimizers that count no steps, as if of the first."""
    buffers = {name: value for name, value in state.items() if value is not None}
    return {"step": 1.0, **buffers} if buffers else {}
