"""The compiled part of optim8: Rust's arithmetic on torch tensors (`rust/py`)."""

from typing import Any, TypeAlias, TypedDict, final

from torch import Tensor

_StepGroup: TypeAlias = tuple[str, dict[str, float], dict[str, Any], list[tuple[Any, ...]]]

class _Rule(TypedDict):
    states: dict[str, str]
    hyper: list[str]
    scalars: list[str]

class _Info(TypedDict):
    version: str
    level: str
    levels: list[str]
    threads_backend: str
    max_threads: int

__version__: str
__all__ = [
    "CODECS",
    "RULES",
    "Codec",
    "__version__",
    "check_step",
    "dequantize",
    "info",
    "prefer_large_pages",
    "quantize",
    "scales_shape",
    "step",
    "step_lengths",
    "sum_of_squares",
]
CODECS: list[str]
RULES: dict[str, _Rule]

@final
class Codec:
    @staticmethod
    def builtin(name: str) -> Codec: ...
    @staticmethod
    def custom(name: str, signed: list[float], unsigned: list[float]) -> Codec: ...
    @property
    def name(self) -> str: ...
    def codebook(self, signed: bool) -> list[float]: ...

def info() -> _Info: ...
def scales_shape(shape: tuple[int, ...], block_size: int) -> tuple[int, ...]: ...
def prefer_large_pages(address: int, nbytes: int) -> None: ...
def quantize(
    x: Tensor,
    codes: Tensor,
    scales: Tensor,
    *,
    codec: Codec,
    signed: bool,
    block_size: int,
    n_threads: int,
) -> None: ...
def dequantize(
    codes: Tensor,
    scales: Tensor,
    out: Tensor,
    *,
    codec: Codec,
    signed: bool,
    block_size: int,
    n_threads: int,
) -> None: ...
def sum_of_squares(grads: dict[int, Tensor], n_threads: int) -> float: ...
def check_step(groups: list[_StepGroup]) -> None: ...
def step(
    groups: list[_StepGroup],
    n_threads: int,
    factors: list[float] | None = None,
) -> int: ...
def step_lengths(
    groups: list[_StepGroup],
    n_threads: int,
    write_states: bool,
) -> tuple[int, list[float]]: ...
