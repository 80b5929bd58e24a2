"""Every public name of the package, which `optim8` itself loads at the first use of any of them."""

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
    ScheduleFreeAdamW,
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
    "ScheduleFreeAdamW",
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
