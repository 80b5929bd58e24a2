"""8-bit optimizer states for PyTorch, computed by Rust.

Two lines of a training script change::

    import optim8

    optimizer = optim8.AdamW(model.parameters(), lr=3e-4)  # was: torch.optim.AdamW(...)

Classes, arguments, schedulers, hooks, groups and checkpoints are torch's; Adam's states take about
2.03 bytes a parameter instead of 8.
"""

from optim8 import interop, nn
from optim8._native import __version__
from optim8.groups import param_groups
from optim8.optim import (
    LAMB,
    LARS,
    SGD,
    SGDW,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    AdEMAMix,
    Graft,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    StableAdamW,
    convert,
    dequantize_state,
)
from optim8.quant import QuantizedTensor, codebook, quantize, register_codebook

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "SGDW",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Graft",
    "Lion",
    "Muon",
    "NAdam",
    "QuantizedTensor",
    "RAdam",
    "RMSprop",
    "StableAdamW",
    "__version__",
    "codebook",
    "convert",
    "dequantize_state",
    "interop",
    "nn",
    "param_groups",
    "quantize",
    "register_codebook",
]
