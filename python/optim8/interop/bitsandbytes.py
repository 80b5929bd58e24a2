"""State dicts of bitsandbytes, in and out.

It keeps the states of a parameter as `state1` and `state2`: float32, or bytes with scales
(`absmax1`, `absmax2`) and codebooks (`qmap1`, `qmap2`); newer versions one level down, under a key
of their own. Its blocks run through the whole tensor, and the codebook of `state1` has negative
values even where the state has none. Where all states of a parameter have our blocks and codebooks
their bytes are taken as they are; others are quantized anew. Its Adam decays weights as AdamW does.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from optim8 import _native
from optim8._classes import own_class
from optim8.quant import codebook, codec_named, quantize_tensor
from optim8.state import Group, State, dequantize, is_quantized, parameters, rule_states

if TYPE_CHECKING:
    from optim8.optim import Optim8Optimizer

NESTED = "__bnb_optimizer_quant_state__"
"""The key under which newer versions keep all but `step`."""

BLOCK_SIZE = 256
"""Of its 8-bit states, in every version of the last years."""

CODEC = "dynamic"
"""Of ours, that with its codebooks."""

_FROM_BETAS = {"SGD": "momentum", "LARS": "momentum", "RMSprop": "alpha"}
"""Classes without betas, whose first beta is this in bitsandbytes."""

_RULES = (
    "adagrad",
    "adam",
    "adamw",
    "ademamix",
    "lamb",
    "lars_momentum",
    "lion",
    "rmsprop",
    "sgd_momentum",
)
"""Native rules with as many states as bitsandbytes has."""

_CLASSES = ("Adagrad", "Adam", "AdamW", "AdEMAMix", "LAMB", "LARS", "Lion", "RMSprop", "SGD")
"""That both have."""

_WITHOUT = {"maximize": False, "nesterov": False, "dampening": 0.0, "lr_decay": 0.0}
"""Options that bitsandbytes lacks, or takes and does not use, at the values that mean nothing."""

_ITS_KEYS = ("lr", "betas", "eps", "weight_decay", "alpha", "t_alpha", "t_beta3")
"""Of its groups, whatever the class."""


def is_theirs(states: Mapping[Any, Any], groups: list[Any]) -> bool:
    """Whether a state dict is of bitsandbytes: by its states, or its groups if there are none."""
    if not states:
        mark = {"format_version", *_ITS_KEYS}
        return any(isinstance(g, dict) and mark & g.keys() == {*_ITS_KEYS} for g in groups)
    return any(isinstance(s, Mapping) and (NESTED in s or "state1" in s) for s in states.values())


def read_group(optimizer: Optim8Optimizer, group: Group) -> dict[str, Any]:
    """Return a group under our names, without those of its keys that this class has no use for."""
    name, theirs = own_class(optimizer).__name__, dict(group)
    if name in _FROM_BETAS and "betas" in theirs:
        theirs[_FROM_BETAS[name]] = float(theirs["betas"][0])
    if name == "Adam":
        theirs["decoupled_weight_decay"] = bool(theirs.get("weight_decay"))
    unknown = set(_ITS_KEYS) - optimizer.defaults.keys()
    # Unless another codec was asked for, codes stay what they are.
    return {**{k: v for k, v in theirs.items() if k not in unknown}, "codec": CODEC}


def read_state(
    rule: str, param: Tensor, group: Group, state: Mapping[str, Any], param_name: str
) -> dict[str, Any]:
    """Return the state of a parameter under our names, quantized if all of it can stay bytes.

    Raises
    ------
    ValueError
        If a part is missing or has another shape than the parameter.
    """
    flat = {**state, **state.get(NESTED, {})}
    parts = [_part(flat, place, param, param_name) for place in _places(rule)]
    known = rule_states(rule)
    by_name = dict(zip(known.kinds, parts, strict=False))
    ours: dict[str, Any] = {"step": flat.get("step", 0)}
    if all(part.fits(param, group, known.is_signed(name)) for name, part in by_name.items()):
        shape = _native.scales_shape(tuple(param.shape), BLOCK_SIZE)
        for name, part in by_name.items():
            ours[f"{name}_codes"] = part.values
            ours[f"{name}_scales"] = None if part.scales is None else part.scales.reshape(shape)
    else:
        ours.update((name, part.full()) for name, part in by_name.items())
    return ours


def to_bitsandbytes_state_dict(optimizer: Optim8Optimizer) -> dict[str, Any]:
    """Return the state dict of a bitsandbytes optimizer that goes on where this one is.

    Parameters
    ----------
    optimizer
        Of a class that bitsandbytes has too: Adagrad, Adam, AdamW, AdEMAMix, LAMB, LARS, Lion,
        RMSprop or SGD, without the options that bitsandbytes lacks (`amsgrad`, `centered`, ...).

    Returns
    -------
    dict
        For `load_state_dict` of the class of the same name, or that name with `8bit`. States that
        are in full here are so there.

    Raises
    ------
    TypeError
        If bitsandbytes has no such class or option.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.Lion(model.parameters())
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> saved = optim8.interop.to_bitsandbytes_state_dict(optimizer)
    >>> sorted(saved["state"][0][optim8.interop.bitsandbytes.NESTED])
    ['absmax1', 'qmap1', 'state1']
    """
    _check_export(optimizer)
    states = {}
    for index, param, group, _ in parameters(optimizer.param_groups):
        rule = optimizer._rule(group)
        full = dequantize(rule, param, group, optimizer.state.get(param, {}))
        if full.keys() >= rule_states(rule).kinds.keys():
            step = int(optimizer.state[param]["step"])
            states[index] = _write_state(rule, param, group, full, step)
    groups = [_write_group(optimizer, group) for group in optimizer.state_dict()["param_groups"]]
    return {"state": states, "param_groups": groups}


def _check_export(optimizer: Optim8Optimizer) -> None:
    """Raise for a class or an option that bitsandbytes lacks."""
    name = own_class(optimizer).__name__
    if name not in _CLASSES:
        raise TypeError(
            f"to_bitsandbytes_state_dict: found {name}, expected one of {', '.join(_CLASSES)}"
        )
    for group in optimizer.param_groups:
        rule = optimizer._rule(group)
        if rule == "adam" and group["weight_decay"]:
            raise TypeError(
                f"to_bitsandbytes_state_dict: found weight_decay={group['weight_decay']!r} with "
                "decoupled_weight_decay=False, expected True: bitsandbytes' Adam decays as AdamW"
            )
        if rule not in _RULES:
            raise TypeError(
                f"to_bitsandbytes_state_dict: found the rule {rule!r} of {name}, expected one of "
                + ", ".join(_RULES)
            )
        for option, nothing in _WITHOUT.items():
            if group.get(option, nothing) != nothing:
                raise TypeError(
                    f"to_bitsandbytes_state_dict: found {option}={group[option]!r}, expected "
                    f"{nothing!r}: bitsandbytes' {name} does without it"
                )


class _Part:
    """One state of a parameter: full values, or codes with scales and a codebook."""

    def __init__(self, values: Tensor, scales: Tensor | None, table: Tensor | None) -> None:
        self.values, self.scales, self.table = values, scales, table

    def fits(self, param: Tensor, group: Group, signed: bool) -> bool:
        """Whether its bytes can be taken as they are."""
        if self.scales is None or self.table is None or group["block_size"] != BLOCK_SIZE:
            return False
        shape = _native.scales_shape(tuple(param.shape), BLOCK_SIZE)
        # Blocks begin anew with each slice here: that is the same if none straddles two.
        is_same = len(shape) == 1 or prod(param.shape[1:]) % BLOCK_SIZE == 0
        ours = codebook(group["codec"], signed)
        return (
            is_quantized(param, group)
            and is_same
            and self.scales.numel() == prod(shape)
            and torch.equal(self.table.cpu(), ours)
        )

    def full(self) -> Tensor:
        """Return the values that are meant."""
        if self.scales is None or self.table is None:
            return self.values
        n = self.values.numel()
        block_size = BLOCK_SIZE
        while self.scales.numel() * block_size < n:
            block_size *= 2
        scales = self.scales.reshape(-1).repeat_interleave(block_size)[:n]
        values = self.table[self.values.reshape(-1).long()] * scales
        return values.reshape(self.values.shape)


def _places(rule: str) -> tuple[tuple[int, int | None], ...]:
    """Where the states of a rule are: the state's number, and the index within it if it is two."""
    if rule == "ademamix":
        return (1, 0), (1, 1), (2, None)
    n_states = len(rule_states(rule).kinds)
    return tuple((number, None) for number in range(1, min(n_states, 2) + 1))


def _part(
    state: Mapping[str, Any], place: tuple[int, int | None], param: Tensor, param_name: str
) -> _Part:
    number, index = place
    names = (f"state{number}", f"absmax{number}", f"qmap{number}")
    values, scales, table = (state.get(name) for name in names)
    is_bytes = isinstance(values, Tensor) and values.dtype == torch.uint8
    if not isinstance(values, Tensor) or (is_bytes and (scales is None or table is None)):
        found = ", ".join(map(str, state))
        raise ValueError(f"{param_name}: found states {found}; expected {', '.join(names)}")
    if index is not None:
        values, scales = values[index], None if scales is None else scales[index]
    if values.shape != param.shape:
        shapes = f"{tuple(values.shape)}, expected {tuple(param.shape)}"
        raise ValueError(f"{names[0]} of {param_name} has shape {shapes}")
    return _Part(values, scales, table) if is_bytes else _Part(values, None, None)


def _write_state(rule: str, param: Tensor, group: Group, full: State, step: int) -> dict[str, Any]:
    quantized = is_quantized(param, group)
    parts: dict[str, Any] = {}
    for (number, index), name in zip(_places(rule), rule_states(rule).kinds, strict=True):
        values, signed = full[name].float(), number == 1
        if not quantized:
            new = {f"state{number}": values}
        else:
            codes, scales = quantize_tensor(
                values.reshape(-1), codec_named(CODEC), signed, BLOCK_SIZE
            )
            new = {f"state{number}": codes.reshape(param.shape), f"absmax{number}": scales}
        if index is not None:
            for key, value in new.items():
                new[key] = torch.stack([*parts[key], value]) if key in parts else value[None]
        parts.update(new)
        if quantized:
            parts[f"qmap{number}"] = codebook(CODEC, signed)
    if rule in ("lamb", "lars_momentum"):
        # Where it adds up the norm of its next update.
        parts["unorm_vec"] = torch.zeros(1, device="cpu")
    return {"step": step, NESTED: parts}


def _write_group(optimizer: Optim8Optimizer, group: dict[str, Any]) -> dict[str, Any]:
    name = own_class(optimizer).__name__
    betas = group.get("betas", (group.get(_FROM_BETAS.get(name, ""), 0.0), 0.0))
    written = {
        "lr": float(group["lr"]),
        "betas": tuple(map(float, betas)),
        "eps": float(group.get("eps", 0.0)),
        "weight_decay": float(group["weight_decay"]),
        "alpha": float(group.get("alpha", 0.0)) if name == "AdEMAMix" else 0.0,
        "t_alpha": group.get("t_alpha"),
        "t_beta3": group.get("t_beta3"),
    }
    # Whatever schedulers and users keep there goes along.
    others = {k: v for k, v in group.items() if k not in optimizer.defaults}
    return {**others, **written}
