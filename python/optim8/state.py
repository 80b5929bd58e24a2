"""The states of one parameter: their names, how they are made, loaded and seen.

An optimizer's state of a parameter is a dict of plain tensors under flat names: `step` and what
other numbers its rule carries, 0-dim float32, and for each state of torch's name NAME

- in full: `NAME`, of the parameter's shape, float32 (float64 for float64 parameters), or
- quantized: `NAME_codes`, uint8 of the parameter's shape, and `NAME_scales`, one float32 a block.

All states of a parameter are kept in one of the two forms, contiguous in row-major order whatever
the strides of the parameter. The form follows from the options of its group (`is_quantized`);
nothing else about it is stored, so a checkpoint is tensors and numbers only.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from optim8 import _native
from optim8.quant import QuantizedTensor, codec_named, dequantize_into, quantize_tensor

State = dict[str, Tensor]
Group = Mapping[str, Any]
Expected = dict[str, tuple[torch.dtype, tuple[int, ...]]]

_KEEPS_FULL = "_optim8_keeps_full"

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class RuleStates:
    """The states of a rule: names, signs, and how to get their tensors out of a state dict."""

    def __init__(self, rule: str) -> None:
        entry = _native.RULES[rule]
        self.signed = dict(zip(entry["states"], entry["signed"], strict=True))
        self.scalars = ("step", *entry["scalars"])
        names = tuple(self.signed)
        pairs = [part for name in names for part in (f"{name}_codes", f"{name}_scales")]
        self._mark = pairs[0] if pairs else None
        self._full = _items(*self.scalars, *names)
        self._quantized = _items(*self.scalars, *pairs)

    def tensors(self, state: State) -> tuple[Tensor, ...]:
        """Return the scalars and the state tensors in the order in which the rule takes them."""
        return (self._quantized if self._mark in state else self._full)(state)


def _items(*keys: str) -> Callable[[State], tuple[Tensor, ...]]:
    """Return what gets the values of some keys; always a tuple, unlike `itemgetter`."""
    if len(keys) == 1:
        return lambda state: (state[keys[0]],)
    return itemgetter(*keys)


rule_states = cache(RuleStates)


def parameters(
    groups: list[dict[str, Any]],
) -> Iterator[tuple[int, Tensor, dict[str, Any], str | None]]:
    """Yield index, parameter, group and name (if any) of every parameter."""
    index = 0
    for group in groups:
        names = group.get("param_names") or [None] * len(group["params"])
        for param, name in zip(group["params"], names, strict=True):
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
    """Make the states of a parameter at step 0: those not in `initial` are zero."""
    states = rule_states(rule)
    state = {name: _scalar(0.0 if name == "step" else 1.0) for name in states.scalars}
    for name, signed in states.signed.items():
        value = initial.get(name, 0.0)
        for key, (dtype, shape) in _expected(name, param, group).items():
            fill: float = value
            if dtype == torch.uint8:
                # The last code is that of 1, which times the scale is the value.
                fill = 255 if value else _zero_code(codec_named(group["codec"]), signed)
            state[key] = torch.full(shape, fill, dtype=dtype, device="cpu")
    return state


def fit(rule: str, param: Tensor, group: Group, saved: Mapping[str, Any], param_name: str) -> State:
    """Make the states of a parameter from those of a state dict, in new tensors.

    Full states, torch's or our own, of any floating dtype, are brought into the form that the
    group's options say. Bytes are taken as they are, and must be of that form already.

    Raises
    ------
    ValueError, TypeError
        If `saved` does not fit; says what was found and expected.
    """
    signs = rule_states(rule).signed
    if not isinstance(saved, Mapping):
        raise TypeError(f"{param_name}: state is {type(saved).__name__}, expected dict")
    full = {name: (_full_dtype(param), tuple(param.shape)) for name in signs}
    scalars = rule_states(rule).scalars
    is_full = set(saved) == {*scalars, *full}
    expected = full
    if not is_full:
        expected = {k: v for name in signs for k, v in _expected(name, param, group).items()}
    if set(saved) != {*scalars, *expected}:
        found, wanted = ", ".join(map(str, saved)), ", ".join([*scalars, *expected])
        raise ValueError(f"{param_name}: found states {found}; expected {wanted}")
    for key, (dtype, shape) in expected.items():
        _check(f"{key} of {param_name}", saved[key], _FLOATS if is_full else (dtype,), shape)

    state = {name: _number(name, saved[name], param_name) for name in scalars}
    for name, signed in signs.items():
        for key, (dtype, _) in _expected(name, param, group).items():
            if key in saved:
                state[key] = saved[key].detach().to("cpu", dtype, copy=True).contiguous()
        if is_full and is_quantized(param, group):
            values = saved[name].detach().to("cpu", _full_dtype(param))
            codes, scales = _quantize_state(values, signed, group)
            state[f"{name}_codes"], state[f"{name}_scales"] = codes, scales
    return state


def dequantize(rule: str, param: Tensor, group: Group, state: State) -> State:
    """Return every state but `step` in full, in new tensors."""
    values = {}
    for name, signed in rule_states(rule).signed.items():
        if name in state:
            values[name] = state[name].clone()
            continue
        codes, scales = state[f"{name}_codes"], state[f"{name}_scales"]
        values[name] = torch.empty(param.shape, dtype=_full_dtype(param), device="cpu")
        how = QuantizedTensor(
            codes, scales, group["codec"], signed, group["block_size"], (), param.dtype
        )
        dequantize_into(codes, scales, values[name], how)
    return values


def _full_dtype(param: Tensor) -> torch.dtype:
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def _expected(name: str, param: Tensor, group: Group) -> Expected:
    shape = tuple(param.shape)
    if not is_quantized(param, group):
        return {name: (_full_dtype(param), shape)}
    return {
        f"{name}_codes": (torch.uint8, shape),
        f"{name}_scales": (torch.float32, _native.scales_shape(shape, group["block_size"])),
    }


@cache
def _zero_code(codec: _native.Codec, signed: bool) -> int:
    return codec.codebook(signed).index(0.0)


def _quantize_state(values: Tensor, signed: bool, group: Group) -> tuple[Tensor, Tensor]:
    codec = codec_named(group["codec"])
    codes, scales = quantize_tensor(values, codec, signed, group["block_size"])
    if not signed:
        # A second moment is never zero unless it is zero: the update divides by its root.
        zero = _zero_code(codec, signed)
        codes.masked_fill_((codes == zero) & (values > 0), zero + 1)
    return codes, scales


def _check(
    name: str, value: object, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]
) -> None:
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
