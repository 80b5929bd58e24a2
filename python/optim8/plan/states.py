"""How many bytes an optimizer's states take, exactly, tensor by tensor.

What a rule keeps is told by the native module (`optim8._native.RULES`), and how states are stored
is said in `optim8.state`; both are asked here, without torch, so that a plan takes milliseconds.
An optimizer is named as its class, in small letters, for its default arguments; variants have the
names of their rules (``adamw_amsgrad``, ``sgd_momentum``, ``rmsprop_centered``). With ``torch-``
before the name it is that of `torch.optim`, which keeps its states in the parameter's own type.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from optim8.plan.model import DTYPE_BYTES, Shape

#: Rules that classes use by default, where the name is not that of the class in small letters.
RULES_OF_CLASSES = {
    "schedulefreeadamw": "schedule_free_adamw",
    "sgdw": "sgd",
    "stableadamw": "stable_adamw",
}

#: Names that begin the rules which `torch.optim` has too, and whether it counts steps there.
TORCH_COUNTS_STEPS = {
    "adadelta": True,
    "adagrad": True,
    "adam": True,
    "adamax": True,
    "adamw": True,
    "muon": False,
    "nadam": True,
    "radam": True,
    "rmsprop": True,
    "rprop": True,
    "sgd": False,
}

TORCH = "torch-"

_SCALAR_BYTES = _SCALE_BYTES = 4  # of float32


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, as far as its memory goes.

    Attributes
    ----------
    name : str
        As in the head of this module; dashes may stand for underscores after ``torch-``.
    state_bits : int
        8, or 32 for states in full. torch's optimizers have full ones whatever this says.
    block_size : int
        Elements that share a scale.
    min_quantized_numel : int
        Tensors with fewer elements keep full states.

    Raises
    ------
    ValueError
        If there is no such optimizer, or an option is out of its range.

    Examples
    --------
    >>> Optimizer("adamw").state_bytes([(8192,)], "float32")
    16644
    >>> Optimizer("torch-adamw").state_bytes([(8192,)], "float32")
    65540
    """

    name: str = "adamw"
    state_bits: int = 8
    block_size: int = 256
    min_quantized_numel: int = 4096

    def __post_init__(self) -> None:
        from optim8 import _native  # not needed for help

        if self.rule not in _native.RULES:
            known = ", ".join(sorted([*_native.RULES, *RULES_OF_CLASSES]))
            raise ValueError(f"unknown optimizer {self.name!r} (known: {known}; or torch-NAME)")
        if self.is_torch and self._family not in TORCH_COUNTS_STEPS:
            known = ", ".join(TORCH + family for family in TORCH_COUNTS_STEPS)
            raise ValueError(f"torch.optim has no {self._family} (known: {known})")
        if self.state_bits not in (8, 32):
            raise ValueError(f"Invalid state_bits: {self.state_bits} (expected 8 or 32)")
        if self.block_size not in {2**power for power in range(5, 13)}:
            raise ValueError(
                f"Invalid block_size: {self.block_size} (expected a power of two, 32 to 4096)"
            )

    @property
    def is_torch(self) -> bool:
        """Whether it is one of `torch.optim`."""
        return self.name.startswith(TORCH)

    @property
    def rule(self) -> str:
        """The native rule that keeps the same states."""
        name = self.name.removeprefix(TORCH).replace("-", "_")
        return RULES_OF_CLASSES.get(name, name)

    @property
    def _family(self) -> str:
        return self.rule.partition("_")[0]

    def state_bytes(self, shapes: Iterable[Shape], dtype: str) -> int:
        """Return the bytes of the states of parameters.

        Parameters
        ----------
        shapes : iterable of tuple of int
            One for each parameter.
        dtype : str
            Of the parameters: a name in `DTYPE_BYTES`.

        Returns
        -------
        int
            Scales and step counters included.
        """
        from optim8 import _native

        rule = _native.RULES[self.rule]
        n_scalars = 1 + len(rule["scalars"])
        n_copies = sum(kind == "copy" for kind in rule["states"].values())
        n_states = len(rule["states"]) - n_copies
        own_bytes = DTYPE_BYTES[dtype]
        if self.is_torch:
            n_scalars -= not TORCH_COUNTS_STEPS[self._family]
            full_bytes = own_bytes
        else:
            full_bytes = max(own_bytes, DTYPE_BYTES["float32"])
        total = 0
        for shape in shapes:
            numel = math.prod(shape)
            total += n_scalars * _SCALAR_BYTES + n_copies * numel * own_bytes
            if self.is_torch or self.state_bits == 32 or numel < self.min_quantized_numel:
                total += n_states * numel * full_bytes
            else:
                scales = math.prod(_native.scales_shape(shape, self.block_size))
                total += n_states * (numel + scales * _SCALE_BYTES)
        return total
