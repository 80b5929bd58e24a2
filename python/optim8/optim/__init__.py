"""The optimizers: torch's by name, signature and update, with 8-bit states.

To add one whose rule is in Rust (`optim8._native.RULES`), write a class on `Optim8Optimizer` with
torch's signature, `_check` and `_rule`, and name it here.
"""

from optim8.optim._base import Optim8Optimizer, Options, dequantize_state
from optim8.optim.adam import Adam, AdamW

__all__ = ["Adam", "AdamW", "Optim8Optimizer", "Options", "dequantize_state"]
