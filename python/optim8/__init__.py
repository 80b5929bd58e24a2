"""8-bit optimizer states for PyTorch, computed by Rust.

Two lines of a training script change::

    import optim8

    optimizer = optim8.AdamW(model.parameters(), lr=3e-4)  # was: torch.optim.AdamW(...)

Classes, arguments, schedulers, hooks, groups and checkpoints are torch's; Adam's states take about
2.03 bytes a parameter instead of 8.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

_process = os.getpid()  # children forked from it have none of its threads, as Rust has to know

if TYPE_CHECKING:
    from optim8._public import *  # noqa: F403  (the list of names is there)
else:
    # Torch takes a second to import, and half of the command line has no use for it.
    def __getattr__(name: str) -> Any:
        if find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        if name in ("__all__", "__version__") or not name.startswith("__"):
            public = import_module("optim8._public")
            globals().update({known: getattr(public, known) for known in public.__all__})
            if hasattr(public, name):
                return getattr(public, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("optim8._public").__all__})
