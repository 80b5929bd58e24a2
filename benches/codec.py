"""Time of quantizing and dequantizing a tensor, against copying it and against bitsandbytes.

`Tensor.clone` reads a float32 tensor and writes one: nothing that reads the tensor and makes a new
one is likely to take much less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benches import machine, optimizers
from benches.answer import WrongAnswerError
from benches.cases import Case
from benches.record import Result
from benches.timing import Action, MemoryRoof, alternate

BLOCK_SIZE = 256

#: What all others are compared with.
BASELINE = "torch clone"

#: Of an element in float32, and of its code and its part of a scale.
FULL_BYTES, QUANTIZED_BYTES = 4, 1 + 4 / BLOCK_SIZE

#: Relative error that 256 values explain, for a normal distribution.
TOLERANCE = 0.03

#: Elements whose codes are compared with a search of the whole codebook.
N_SEARCHED = 64 * BLOCK_SIZE

#: Part of a scale by which the value chosen may be farther than the nearest, where two are
#: almost equally near: positions between values are computed in float32.
TIE = 1e-6


@dataclass(frozen=True)
class Quantizer:
    """A pair of functions, and the codebook whose nearest values it promises, if it does."""

    quantize: Callable[[Tensor], Any]
    dequantize: Callable[[Any], Tensor]
    codebook: Tensor | None = None


def ours() -> dict[str, Quantizer]:
    """Return optim8's quantizers, one for each codec."""
    import optim8

    return {
        f"optim8 {codec}": Quantizer(
            partial(optim8.quantize, codec=codec, signed=True, block_size=BLOCK_SIZE),
            lambda quantized: quantized.dequantize(),
            torch.as_tensor(optim8.codebook(codec, True)),
        )
        for codec in optimizers.CODECS
    }


def peers() -> dict[str, Quantizer]:
    """Return bitsandbytes' quantizer where it is installed, and say so where it is not."""
    if not optimizers.is_installed("bitsandbytes"):
        return {}
    from bitsandbytes import functional

    return {
        "bitsandbytes": Quantizer(
            partial(functional.quantize_blockwise, blocksize=BLOCK_SIZE),
            lambda quantized: functional.dequantize_blockwise(*quantized),
        )
    }


def measure(
    case: Case, quantizers: Mapping[str, Quantizer], roof: MemoryRoof, *, n_rounds: int
) -> list[Result]:
    """Check, then time every quantizer on one float32 tensor.

    Parameters
    ----------
    case : Case
        Its elements are taken as one tensor.
    quantizers : mapping of str to Quantizer
        By name.
    roof : MemoryRoof
        Of this run.
    n_rounds : int
        Turns of each.

    Returns
    -------
    list of Result
        Of the benches "quantize" and "dequantize".

    Raises
    ------
    WrongAnswerError
        If what comes back differs by more than the format explains, or a code is not the nearest.
    """
    x = torch.randn(case.n_elements, generator=torch.Generator().manual_seed(0))
    quantize: dict[str, Action] = {BASELINE: x.clone}
    dequantize: dict[str, Action] = {BASELINE: x.clone}
    for name, quantizer in quantizers.items():
        quantized = quantizer.quantize(x)
        _check(name, quantizer, x, quantizer.dequantize(quantized))
        quantize[name] = partial(quantizer.quantize, x)
        dequantize[name] = partial(quantizer.dequantize, quantized)
    return [
        Result(
            bench=bench,
            case=case.name,
            dtype="float32",
            level=machine.optim8_level(),
            candidate=name,
            n_elements=case.n_elements,
            timing=timing,
            bytes_per_element=FULL_BYTES + (FULL_BYTES if name == BASELINE else QUANTIZED_BYTES),
            roof=roof.bytes_per_second,
        )
        for bench, actions in (("quantize", quantize), ("dequantize", dequantize))
        for name, timing in alternate(actions, roof, n_rounds=n_rounds, hot=case.hot).items()
    ]


def _check(name: str, quantizer: Quantizer, x: Tensor, restored: Tensor) -> None:
    error = float((restored - x).norm() / x.norm())
    if not error <= TOLERANCE:
        raise WrongAnswerError(f"{name}: relative error {error:.2e}, expected at most {TOLERANCE}")
    if quantizer.codebook is not None:
        n = min(N_SEARCHED, x.numel() // BLOCK_SIZE * BLOCK_SIZE)
        _check_nearest(name, x[:n], restored[:n], quantizer.codebook)


def _check_nearest(name: str, x: Tensor, restored: Tensor, codebook: Tensor) -> None:
    """Demand that every value became the nearest of the codebook, found by looking at all."""
    blocks, chosen = (t.view(-1, BLOCK_SIZE).double() for t in (x, restored))
    scales = blocks.abs().amax(dim=1, keepdim=True)
    distances = (blocks / scales).unsqueeze(2).sub(codebook.double()).abs()
    farther = ((blocks - chosen) / scales).abs() - distances.amin(dim=2)
    if not float(farther.max()) <= TIE:
        raise WrongAnswerError(f"{name}: a value is not the nearest, by {float(farther.max()):.2e}")
