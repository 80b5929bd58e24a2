"""The options that every optimizer takes beyond torch's, and their checks."""

from operator import itemgetter
from typing import Any, TypeAlias

from typing_extensions import TypedDict

from optim8.quant import check_block_size, codec_named

FORMAT_VERSION = 1
"""Of the states in checkpoints, as `optim8.state` describes them."""

Group: TypeAlias = dict[str, Any]


class Options(TypedDict, total=False):
    """The keyword arguments that every optimizer takes beyond torch's; all may stand in a group.

    Attributes
    ----------
    state_bits
        8 (default), or 32 to keep states in full (float32; float64 for float64 parameters).
    block_size
        Elements that share one scale: a power of two from 32 to 4096. Default 256.
    codec
        "minifloat" (default), "dynamic" (the paper's), "root" (in a block whose largest gradients
        are 10,000 times the others, these make steps of 10 times their size), "linear" or a name
        given to `optim8.register_codebook`.
    state_rounding
        "stochastic" (default): states round to either neighbour with probabilities that keep their
        expected value, and reproducibly. "nearest": to nearest, where averages that move by less
        than half a step of their grid stay where they are.
    param_rounding
        Of bfloat16 parameters, and of states that are copies of them: "nearest" (default), or
        "stochastic", so that updates are not lost which are small beside their parameter; float16
        parameters are refused then. Wider ones are computed as they are stored.
    min_quantized_numel
        Tensors with fewer elements keep full states. Default 4096.
    nonfinite
        "propagate" (default): a NaN or infinity in a gradient spoils its own block, as it would the
        element in torch; with LAMB and LARS, which take its norm, the tensor. "skip": such blocks
        are left as they were, and counted, and so are those of a gradient whose square overflows
        (of 1.8e19 and more in float32).
    seed
        Of all stochastic rounding, from 0 to 2**64 - 1. Default 0.
    """

    state_bits: int
    block_size: int
    codec: str
    state_rounding: str
    param_rounding: str
    min_quantized_numel: int
    nonfinite: str
    seed: int


DEFAULTS: Options = {
    "state_bits": 8,
    "block_size": 256,
    "codec": "minifloat",
    "state_rounding": "stochastic",
    "param_rounding": "nearest",
    "min_quantized_numel": 4096,
    "nonfinite": "propagate",
    "seed": 0,
}
OPTION_KEYS = (*DEFAULTS, "format_version")
_CHOICES: dict[str, tuple[object, ...]] = {
    "state_bits": (8, 32),
    "state_rounding": ("stochastic", "nearest"),
    "param_rounding": ("nearest", "stochastic"),
    "nonfinite": ("propagate", "skip"),
    "format_version": (FORMAT_VERSION,),
}
IMPLEMENTATION_KEYS = ("foreach", "fused", "capturable", "differentiable")
"""torch's switches between implementations of a step, which older state dicts may lack."""

FORM_KEYS = ("state_bits", "min_quantized_numel", "block_size", "codec")
"""Options that say how states are stored: where there are some, only loading changes them."""
form_values = itemgetter(*FORM_KEYS)
other_values = itemgetter(*(key for key in OPTION_KEYS if key not in FORM_KEYS))

_INSTEAD = {
    "optim_bits": "write state_bits=8 or state_bits=32",
    "min_8bit_size": "write min_quantized_numel",
    "percentile_clipping": "clip gradients with torch.nn.utils.clip_grad_norm_ before the step",
    "block_wise": "states are always quantized in blocks, of block_size elements",
    "is_paged": "states are on the CPU already, where the system pages them",
}
"""What to write in place of names that people bring from bitsandbytes."""


def check_implementation(optimizer: str, group: Group) -> None:
    """Every value of `foreach` and `fused` is served by the one native pass."""
    foreach, fused, capturable, differentiable = map(group.get, IMPLEMENTATION_KEYS)
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if capturable:
        raise RuntimeError(
            f"{optimizer} does not support capturable=True: it runs on the CPU, where there are no "
            "graphs to capture"
        )
    if differentiable:
        raise RuntimeError(
            f"{optimizer} does not support differentiable=True: autograd does not record its step"
        )


def check_options(group: Group) -> None:
    for key, choices in _CHOICES.items():
        if group[key] not in choices:
            expected = " or ".join(map(repr, choices))
            raise ValueError(f"Invalid {key}: {group[key]!r} (expected {expected})")
    for key, limit in (("min_quantized_numel", 2**63), ("seed", 2**64)):
        if not isinstance(group[key], int):
            raise TypeError(f"{key} must be an int, found {group[key]!r}")
        if not 0 <= group[key] < limit:
            raise ValueError(f"Invalid {key}: {group[key]} (expected 0 to {limit - 1})")
    check_block_size(group["block_size"])
    codec_named(group["codec"])


def check_names(optimizer: str, options: Options) -> None:
    """Raise for a name that is no option's, and say what to write instead where that is known."""
    if unknown := options.keys() - DEFAULTS.keys():
        name = min(unknown)
        instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise TypeError(
            f"{optimizer}.__init__() got an unexpected keyword argument {name!r}{instead}"
        )


def check_group_names(group: Group) -> None:
    """Raise for a name of bitsandbytes in a group, where any other may stand."""
    for name in group.keys() & _INSTEAD.keys():
        raise TypeError(f"parameter group has an unexpected {name!r}: {_INSTEAD[name]}")
