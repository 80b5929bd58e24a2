"""The states of one parameter: their names, how they are made, loaded and seen.

An optimizer's state of a parameter is a dict of plain tensors under flat names: `step` and what
other numbers its rule carries, 0-dim float32, and for each state of torch's name NAME

- in full: `NAME`, of the parameter's shape, float32 (float64 for float64 parameters), or
- quantized: `NAME_codes`, uint8 of the parameter's shape, and `NAME_scales`, one float32 a block.

All states of a parameter are kept in one of the two forms, contiguous in row-major order whatever
the strides of the parameter. The form follows from the options of its group (`is_quantized`);
nothing else about it is stored, so a checkpoint is tensors and numbers only. A state that is a copy
of the parameters has their dtype, in both forms.

States of any form become those of another in one place, `fit`, when a state dict is loaded.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from copy import deepcopy
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from optim8 import _native
from optim8.quant import (
    FLOATS,
    QuantizedTensor,
    codec_named,
    dequantize_into,
    empty,
    quantize_tensor,
)

State = dict[str, Tensor]
Group = Mapping[str, Any]
Expected = dict[str, tuple[torch.dtype, tuple[int, ...]]]

_KEEPS_FULL = "_optim8_keeps_full"


class RuleStates:
    """The states of a rule: names, what they hold, how to get their tensors out of a state dict."""

    def __init__(self, rule: str) -> None:
        entry = _native.RULES[rule]
        self.kinds = entry["states"]
        self.scalars = ("step", *entry["scalars"])
        pairs = [key for name in self.kinds for key in self.keys(name, quantized=True)]
        self._mark = next((key for key in pairs if key not in self.kinds), None)
        self._full = _items(*self.scalars, *self.kinds)
        self._quantized = _items(*self.scalars, *pairs)

    def keys(self, name: str, quantized: bool) -> tuple[str, ...]:
        """Return under which keys the tensors of a state are."""
        if quantized and self.kinds[name] != "copy":
            return f"{name}_codes", f"{name}_scales"
        return (name,)

    def is_signed(self, name: str) -> bool:
        """Whether a state may be negative."""
        return self.kinds[name] == "signed"

    def is_quantized(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict of a parameter holds codes."""
        return self._mark in state

    def are(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict of a parameter has the scalars and states of this rule, all of them.

        It may have what no rule has: programs keep things of theirs there.
        """
        quantized = self.is_quantized(state)
        keys = [key for name in self.kinds for key in self.keys(name, quantized)]
        return state.keys() & known_keys() == {*self.scalars, *keys}

    def tensors(self, state: State) -> tuple[Tensor, ...]:
        """Return the scalars and the state tensors in the order in which the rule takes them."""
        return (self._quantized if self._mark in state else self._full)(state)


def _items(*keys: str) -> Callable[[State], tuple[Tensor, ...]]:
    """Return what gets the values of some keys; always a tuple, unlike `itemgetter`."""
    if len(keys) == 1:
        return lambda state: (state[keys[0]],)
    return itemgetter(*keys)


rule_states = cache(RuleStates)


@cache
def known_keys() -> frozenset[str]:
    """Return the keys of all scalars and states of all rules."""
    keys: set[str] = set()
    for states in map(rule_states, _native.RULES):
        keys.update(states.scalars)
        for name in states.kinds:
            keys.update(states.keys(name, quantized=False), states.keys(name, quantized=True))
    return frozenset(keys)


def holds_states(state: Mapping[str, Any] | None) -> bool:
    """Whether there are states in what is held for a parameter, and not only a program's things."""
    return state is not None and not known_keys().isdisjoint(state)


def others(held: Mapping[Any, Any], own: AbstractSet[Any]) -> dict[Any, Any]:
    """Return copies of what is held besides what is ours."""
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
        for key, value in held.items()
        if key not in own
    }


@cache
def variants(rule: str) -> tuple[str, ...]:
    """Return a rule and those that switches of its group, such as `momentum`, put in its place.

    Their names begin with that of the plainest, and a word for each switch follows.
    """
    plainest = min((r for r in _native.RULES if f"{rule}_".startswith(f"{r}_")), key=len)
    others = (r for r in _native.RULES if f"{r}_".startswith(f"{plainest}_") and r != rule)
    return rule, *others


def variant_of(rule: str, state: Mapping[str, Any]) -> str:
    """Return the variant of a rule whose states these are; the rule itself if they are of none.

    A switch may have been thrown since they were made. States that are of no use now stay, as they
    do in torch, and those that are missing are made at the next step.
    """
    return next((one for one in variants(rule) if rule_states(one).are(state)), rule)


def nbytes(state_of: Mapping[Tensor, State]) -> int:
    """Return the bytes of all states of an optimizer."""
    held = (state[key] for state in state_of.values() if isinstance(state, dict) for key in state)
    return sum(value.nbytes for value in held if isinstance(value, Tensor))


def names_of(group: Group) -> list[str] | list[None]:
    """Return the names of a group's parameters; none where some were taken out or put in since."""
    names: list[str] = group.get("param_names") or []
    n_params = len(group["params"])
    return names if len(names) == n_params else [None] * n_params


def parameters(
    groups: list[dict[str, Any]],
) -> Iterator[tuple[int, Tensor, dict[str, Any], str | None]]:
    """Yield index, parameter, group and name (if any) of every parameter."""
    index = 0
    for group in groups:
        for param, name in zip(group["params"], names_of(group), strict=True):
            yield index, param, group, name
            index += 1


def keep_full(param: Tensor) -> None:
    """Mark a parameter whose states are to be kept in full whatever its group says."""
    setattr(param, _KEEPS_FULL, True)


def is_quantized(param: Tensor, group: Group) -> bool:
    """Whether the options of the group say that this parameter's states are bytes."""
    if group["state_bits"] != 8 or param.numel() < group["min_quantized_numel"]:
        return False
    return not getattr(param, _KEEPS_FULL, False)


def create(rule: str, param: Tensor, group: Group, initial: Mapping[str, float]) -> State:
    """Make the states of a parameter at step 0.

    Those that are not in `initial` are zero, or copies of the parameter.
    """
    states = rule_states(rule)
    state = {name: _scalar(initial.get(name, 0.0)) for name in states.scalars}
    quantized = is_quantized(param, group)
    for name, kind in states.kinds.items():
        if kind == "copy":
            state[name] = param.detach().clone(memory_format=torch.contiguous_format)
            continue
        value = initial.get(name, 0.0)
        for key, (dtype, shape) in _expected(rule, name, param, group, quantized).items():
            fill: float = value
            if dtype == torch.uint8:
                # The code of 1, which times the scale is the value.
                codec = codec_named(group["codec"])
                fill = _code_of(1.0 if value else 0.0, codec, kind == "signed")
            state[key] = empty(shape, dtype).fill_(fill)
    return state


def fit(
    rule: str,
    param: Tensor,
    group: Group,
    saved: Mapping[str, Any],
    saved_group: Group,
    param_name: str,
) -> State:
    """Make the states of a parameter from those of a state dict, in new tensors.

    Bytes in the blocks and the codec that the group asks for are taken as they are. All else is
    converted: full states of any floating dtype, and bytes in other blocks.

    Parameters
    ----------
    rule, param, group
        Whose states they are to be, and the options that say how they are to be kept.
    saved, saved_group
        The states, torch's or our own, and the options that say what bytes among them mean.
    param_name
        For errors.

    Raises
    ------
    ValueError, TypeError
        If `saved` does not fit; says what was found and expected.
    """
    if not isinstance(saved, Mapping):
        raise TypeError(f"{param_name}: state is {type(saved).__name__}, expected dict")
    rule = variant_of(rule, saved)
    states = rule_states(rule)
    quantized = states.is_quantized(saved)
    expected = {
        key: what
        for name in states.kinds
        for key, what in _expected(rule, name, param, saved_group, quantized).items()
    }
    if not states.are(saved):
        found, wanted = ", ".join(map(str, saved)), ", ".join([*states.scalars, *expected])
        raise ValueError(f"{param_name}: found states {found}; expected {wanted}")
    for key, (dtype, shape) in expected.items():
        dtypes = (dtype,) if key not in states.kinds else FLOATS
        check_tensor(f"{key} of {param_name}", saved[key], dtypes, shape)

    state = {name: _number(name, saved[name], param_name) for name in states.scalars}
    as_it_is = quantized == is_quantized(param, group) and (
        not quantized or all(group[key] == saved_group[key] for key in ("block_size", "codec"))
    )
    for key, (dtype, _) in expected.items():
        state[key] = saved[key].detach().to("cpu", dtype, copy=as_it_is).contiguous()
    if not as_it_is:
        state = _converted(rule, param, group, state, saved_group)
    return {**state, **others(saved, known_keys())}


def _converted(rule: str, param: Tensor, group: Group, state: State, made_by: Group) -> State:
    """Return states that another group's options have made as this group's options say."""
    states = rule_states(rule)
    converted = {name: state[name] for name in states.scalars}
    for name, values in dequantize(rule, param, made_by, state).items():
        if states.kinds[name] != "copy" and is_quantized(param, group):
            codes, scales = _quantize_state(values, states.is_signed(name), group)
            converted[f"{name}_codes"], converted[f"{name}_scales"] = codes, scales
        else:
            converted[name] = values
    return converted


def dequantize(rule: str, param: Tensor, group: Group, state: State) -> State:
    """Return every state but the scalars in full, in new tensors."""
    states = rule_states(variant_of(rule, state))
    values = {}
    for name in states.kinds:
        if name in state:
            values[name] = state[name].clone()
        elif f"{name}_codes" in state:
            codes, scales = state[f"{name}_codes"], state[f"{name}_scales"]
            values[name] = empty(tuple(param.shape), _full_dtype(param))
            form = (group["codec"], states.is_signed(name), group["block_size"])
            how = QuantizedTensor(codes, scales, *form, (), param.dtype)
            dequantize_into(codes, scales, values[name], how)
    return values


def _full_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _expected(rule: str, name: str, param: Tensor, group: Group, quantized: bool) -> Expected:
    """Return dtype and shape of each tensor of a state."""
    shape = tuple(param.shape)
    keys = rule_states(rule).keys(name, quantized)
    if len(keys) == 2:
        scales_shape = _native.scales_shape(shape, group["block_size"])
        return {keys[0]: (torch.uint8, shape), keys[1]: (torch.float32, scales_shape)}
    is_copy = rule_states(rule).kinds[name] == "copy"
    return {name: (param.dtype if is_copy else _full_dtype(param), shape)}


@cache
def _code_of(value: float, codec: _native.Codec, signed: bool) -> int:
    return codec.codebook(signed).index(value)


def _quantize_state(values: Tensor, signed: bool, group: Group) -> tuple[Tensor, Tensor]:
    codec = codec_named(group["codec"])
    codes, scales = quantize_tensor(values, codec, signed, group["block_size"])
    if not signed:
        # A second moment is never zero unless it is zero: the update divides by its root.
        zero = _code_of(0.0, codec, signed)
        codes.masked_fill_((codes == zero) & (values > 0), zero + 1)
    return codes, scales


def check_tensor(
    name: str, value: object, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]
) -> None:
    """Raise unless a value is a dense tensor of one of some dtypes, and of a shape."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {type(value).__name__}, expected Tensor")
    if value.layout != torch.strided or value.device.type == "meta":
        raise TypeError(f"{name} is {value.layout} on {value.device}, expected a dense tensor")
    if value.dtype not in dtypes:
        expected = " or ".join(map(str, dtypes))
        raise TypeError(f"{name} has dtype {value.dtype}, expected {expected}")
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {shape}")


def _number(name: str, value: object, param_name: str) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError(f"{name} of {param_name} is {value!r}, expected a number")
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} of {param_name} is {value!r}, expected a number from 0 on")
    return _scalar(float(value))


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float32, device="cpu")
