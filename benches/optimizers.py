"""The optimizers that are compared, each made by a function of parameters and hyperparameters.

bitsandbytes and torchao are compared where they are installed (the dependency group `peers`).
Nothing here knows how they are measured.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import nn

from benches.cases import Case

#: Makes an optimizer from parameters and AdamW's hyperparameters as keywords.
MakeOptimizer = Callable[..., torch.optim.Optimizer]

CODECS = ("minifloat", "dynamic", "root", "linear")

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
    block_size : int, default 1
        Only tensors of a multiple of this many elements get 8-bit states.
    """

    name: str
    make: MakeOptimizer
    tolerance: float
    max_elements: int | None = None
    dtypes: Sequence[torch.dtype] | None = None
    block_size: int = 1

    def reason_to_skip(self, case: Case, dtype: torch.dtype) -> str | None:
        """Say why it is not timed on a case, or nothing if it is."""
        if self.dtypes is not None and dtype not in self.dtypes:
            return f"not timed on {dtype}"
        if self.max_elements is not None and case.n_elements > self.max_elements:
            return f"not timed on more than {self.max_elements:,} elements"
        if any(prod(shape) % self.block_size for shape in case.shapes):
            return f"keeps 32-bit states where size is no multiple of {self.block_size}"
        return None


def suitable(candidates: Iterable[Candidate], case: Case, dtype: torch.dtype) -> list[Candidate]:
    """Return those to be timed on a case, and print why the others are not."""
    kept = []
    for candidate in candidates:
        reason = candidate.reason_to_skip(case, dtype)
        if reason is None:
            kept.append(candidate)
        else:
            print(f"{case.name} {dtype}: {candidate.name} skipped, {reason}")
    return kept


def ours() -> list[Candidate]:
    """Return optim8's AdamW with each codec."""
    import optim8

    tolerances = {"minifloat": 0.03, "dynamic": 0.03, "root": 0.03, "linear": 0.1}
    return [
        Candidate(f"optim8 {codec}", partial(optim8.AdamW, codec=codec), tolerances[codec])
        for codec in CODECS
    ]


def torchs() -> list[Candidate]:
    """Return torch's own AdamW, both fast implementations.

    In float16 its foreach step computes in float16, and is wrong by half and more of the update.
    """
    fused, foreach = (partial(torch.optim.AdamW, **{flag: True}) for flag in ("fused", "foreach"))
    foreach_dtypes = (torch.float32, torch.bfloat16, torch.float64)
    return [
        Candidate(BASELINE, fused, 1e-5),
        Candidate("torch foreach", foreach, 1e-5, dtypes=foreach_dtypes),
    ]


def peers() -> list[Candidate]:
    """Return those other 8-bit optimizers that are installed, and say which are not."""
    candidate = partial(Candidate, tolerance=0.05, max_elements=PEER_LIMIT, dtypes=(torch.float32,))
    known = [
        candidate("bitsandbytes", _bitsandbytes),
        candidate("torchao", _torchao, block_size=256),
    ]
    return [peer for peer in known if is_installed(peer.name)]


def is_installed(peer: str) -> bool:
    """Whether a peer can be imported; say so if not."""
    if importlib.util.find_spec(peer) is not None:
        return True
    print(f"{peer} skipped, not installed (dependency group `peers`)")
    return False


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
