"""Moving in and out: live optimizers and state dicts of other libraries."""

from optim8.interop.convert import convert

__all__ = ["convert"]
