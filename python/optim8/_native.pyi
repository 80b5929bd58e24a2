"""The compiled part of optim8: Rust's arithmetic on torch tensors (`rust/py`)."""

from typing import Any, TypedDict, final

from torch import Tensor

class _Rule(TypedDict):
    states: list[str]
    signed: list[bool]
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
    "Known",
    "__version__",
    "dequantize",
    "info",
    "quantize",
    "scales_shape",
    "step",
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

@final
class Known:
    def __new__(cls) -> Known: ...

def info() -> _Info: ...
def scales_shape(shape: tuple[int, ...], block_size: int) -> tuple[int, ...]: ...
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
def step(
    groups: list[tuple[str, dict[str, float], dict[str, Any], list[tuple[Any, ...]]]],
    n_threads: int,
    known: Known,
) -> int: ...
