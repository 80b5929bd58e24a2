"""The optimizers that are compared, each made by a function of parameters and hyperparameters.

bitsandbytes and torchao are compared where they are installed (the dependency group `peers`).
Nothing here knows how they are measured.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

#: Makes an optimizer from parameters and AdamW's hyperparameters as keywords.
MakeOptimizer = Callable[..., torch.optim.Optimizer]

CODECS = ("dynamic", "root", "linear")

#: What all others are compared with.
BASELINE = "torch fused"

#: Peers may take a hundred times as long as we do, so they step on no more elements than this.
PEER_LIMIT = 8_000_000


@dataclass(frozen=True)
class Candidate:
    """An optimizer under the name it has in tables.

    Attributes
    ----------
    name : str
        Unique.
    make : callable
        Makes it.
    tolerance : float
        Relative error of three steps' updates that its states' format explains (see `answer`).
    max_elements : int or None, default None
        Not timed on more.
    dtypes : sequence of torch.dtype or None, default None
        Of parameters that it is timed on; None for all.
    """

    name: str
    make: MakeOptimizer
    tolerance: float
    max_elements: int | None = None
    dtypes: Sequence[torch.dtype] | None = None

    def runs(self, n_elements: int, dtype: torch.dtype) -> bool:
        """Whether it is timed on a case of so many elements of this type."""
        small_enough = self.max_elements is None or n_elements <= self.max_elements
        return small_enough and (self.dtypes is None or dtype in self.dtypes)


def ours() -> list[Candidate]:
    """Return optim8's AdamW with each codec."""
    import optim8

    tolerances = {"dynamic": 0.05, "root": 0.05, "linear": 0.5}
    return [
        Candidate(f"optim8 {codec}", partial(optim8.AdamW, codec=codec), tolerances[codec])
        for codec in CODECS
    ]


def torchs() -> list[Candidate]:
    """Return torch's own AdamW, both fast implementations."""
    return [
        Candidate(BASELINE, partial(torch.optim.AdamW, fused=True), 1e-5),
        Candidate("torch foreach", partial(torch.optim.AdamW, foreach=True), 1e-5),
    ]


def peers() -> list[Candidate]:
    """Return those other 8-bit optimizers that are installed, and say which are not."""
    make = {"bitsandbytes": _bitsandbytes, "torchao": _torchao}
    for library in make:
        if importlib.util.find_spec(library) is None:
            print(f"{library} is not installed (dependency group `peers`): skipped")
    return [
        Candidate(library, make_one, 0.2, PEER_LIMIT, (torch.float32,))
        for library, make_one in make.items()
        if importlib.util.find_spec(library) is not None
    ]


def find(name: str) -> Candidate:
    """Return the candidate of this name."""
    return next(c for c in [*torchs(), *ours(), *peers()] if c.name == name)


def _bitsandbytes(
    params: Sequence[nn.Parameter], **hyperparameters: object
) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of the GPU that it would rather have
        import bitsandbytes
    return bitsandbytes.optim.AdamW8bit(params, **hyperparameters)


def _torchao(params: Sequence[nn.Parameter], **hyperparameters: object) -> torch.optim.Optimizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchao.optim import AdamW8bit
    return AdamW8bit(params, **hyperparameters)
