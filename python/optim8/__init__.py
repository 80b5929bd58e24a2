"""8-bit optimizer states for PyTorch, computed by Rust.

Two lines of a training script change::

    import optim8

    optimizer = optim8.AdamW(model.parameters(), lr=3e-4)  # was: torch.optim.AdamW(...)

Classes, arguments, schedulers, hooks, groups and checkpoints are torch's; Adam's states take about
2.03 bytes a parameter instead of 8.
"""

from optim8._native import __version__
from optim8.optim import Adam, AdamW, dequantize_state
from optim8.quant import QuantizedTensor, codebook, quantize, register_codebook

__all__ = [
    "Adam",
    "AdamW",
    "QuantizedTensor",
    "__version__",
    "codebook",
    "dequantize_state",
    "quantize",
    "register_codebook",
]
