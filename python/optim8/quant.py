"""Blockwise quantization to bytes: what optimizer states are stored as, for any tensor.

A tensor is cut into blocks; each has one float32 scale, its largest magnitude, and each element one
byte, an index into a codebook of 256 values. What is stored means exactly
`codebook[code] * scale`. The arithmetic is Rust's; here are the names that people call it by.

Source: Dettmers, Lewis, Shleifer and Zettlemoyer, "8-bit Optimizers via Block-wise Quantization"
(ICLR 2022). Unlike the paper's, blocks do not cross slices along the first dimension that hold a
block or more, and zero always comes back as zero.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from optim8 import _native

Array = TypeVar("Array", Tensor, np.ndarray[Any, Any])

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes of what can be quantized."""

_codecs = {name: _native.Codec.builtin(name) for name in _native.CODECS}


def codec_named(name: str) -> _native.Codec:
    """Find a codec, built in or registered; `ValueError` with the known names otherwise."""
    try:
        return _codecs[name]
    except (KeyError, TypeError):
        raise ValueError(f"Invalid codec: {name!r} (known: {', '.join(_codecs)})") from None


def check_block_size(block_size: int) -> None:
    """Raise `TypeError` or `ValueError` unless it is a power of two from 32 to 4096."""
    if not isinstance(block_size, int):
        raise TypeError(f"block_size must be an int, found {block_size!r}")
    _native.scales_shape((), max(block_size, 0))


def codebook(name: str, signed: bool) -> Tensor:
    """Return the 256 values that the codes of a codec stand for.

    Parameters
    ----------
    name
        "minifloat", "dynamic", "root", "linear", or a name given to `register_codebook`.
    signed
        The codebook for values of both signs, or that for values which cannot be negative.

    Returns
    -------
    Tensor
        float32, shape (256,). Sorted, but for the signed one of "minifloat", whose codes are a sign
        bit and seven bits of magnitude: its codes from 128 on stand for minus the values of the
        first 128, so there are two zeros, 0.0 and -0.0. (`register_codebook` takes sorted ones.)

    Raises
    ------
    ValueError
        If there is no codec of that name.

    Examples
    --------
    >>> import optim8
    >>> optim8.codebook("dynamic", signed=False)[[0, 255]]
    tensor([0., 1.])
    """
    return torch.tensor(codec_named(name).codebook(signed), dtype=torch.float32, device="cpu")


def register_codebook(name: str, signed: Iterable[float], unsigned: Iterable[float]) -> None:
    """Make a codec of two tables, to be used by its name wherever a codec is named.

    Checkpoints hold the name and not the tables: register it before loading one.

    Parameters
    ----------
    name
        A new name. Registering the same tables again does nothing.
    signed, unsigned
        256 finite values each, in float32 sorted, with 0 among them once and 1 as the largest;
        those of `signed` from -1 on, those of `unsigned` from 0 on.

    Raises
    ------
    ValueError
        If the name is taken by other tables, or the values are not as described.

    Examples
    --------
    >>> import optim8
    >>> thirds = [i / 255 for i in range(256)]
    >>> optim8.register_codebook("even", [2 * x - 1 for x in thirds[:-1]] + [1.0], thirds)
    Traceback (most recent call last):
        ...
    ValueError: codebook 'even' must be sorted, finite and hold 0 once and 1 as its largest value...
    """
    codec = _native.Codec.custom(name, [float(x) for x in signed], [float(x) for x in unsigned])
    known = _codecs.setdefault(name, codec)
    if any(known.codebook(sign) != codec.codebook(sign) for sign in (True, False)):
        raise ValueError(f"codec {name!r} exists already, with other values")


@dataclass(frozen=True, eq=False)
class QuantizedTensor(Generic[Array]):
    """A tensor as bytes and scales; what `quantize` returns.

    Attributes
    ----------
    codes
        uint8, of the tensor's shape.
    scales
        float32, the largest magnitude of each block: shape (slices, blocks) if every slice along
        dimension 0 holds at least `block_size` elements, else (blocks,).
    codec
        The name of the codec.
    signed
        Which of the codec's codebooks `codes` index.
    block_size
        Elements that share a scale.
    shape
        Of the tensor.
    dtype
        Of the tensor, and so of `dequantize()`: a torch dtype, or a NumPy dtype if it was an array.
    """

    codes: Array
    scales: Array
    codec: str
    signed: bool
    block_size: int
    shape: tuple[int, ...]
    dtype: Any

    def dequantize(self, dtype: Any = None) -> Array:
        """Return the values that the codes stand for, `codebook[code] * scale`.

        Parameters
        ----------
        dtype
            float32, float64, float16 or bfloat16, of torch or of NumPy as the tensor was; by
            default the tensor's own.

        Returns
        -------
        Tensor or ndarray
            A new tensor of shape `shape`.

        Raises
        ------
        TypeError, ValueError
            If the dtype is another one, or codes and scales do not fit each other.
        """
        dtype = self.dtype if dtype is None else dtype
        if isinstance(self.codes, np.ndarray):
            dtype = np.dtype(dtype)
            out = np.empty(self.shape, dtype.newbyteorder("="))
            dequantize_into(_tensor(self.codes), _tensor(self.scales), _tensor(out), self)
            return out.astype(dtype, copy=False)
        values = empty(self.shape, dtype)
        dequantize_into(self.codes, self.scales, values, self)
        return values


def quantize(
    x: Array, *, codec: str = "minifloat", signed: bool | None = None, block_size: int = 256
) -> QuantizedTensor[Array]:
    """Quantize a tensor to one byte an element and one float32 scale a block.

    Every value is divided by the largest magnitude of its block and becomes the nearest of the
    codec's 256 values. Zero comes back as zero, and the largest positive magnitude as it was. A
    block with a NaN or an infinity comes back as NaN; no other block is touched by it.

    Parameters
    ----------
    x
        A CPU tensor or a NumPy array of float32, float64, float16 or (torch) bfloat16, of any
        shape and strides.
    codec
        How a normalized value becomes a byte: "minifloat", "dynamic", "root", "linear" or a
        registered name.
    signed
        Whether to use the codebook for both signs. With False, negative values become zero, and
        negative infinity does. By default, True if any value is negative.
    block_size
        Elements that share one scale: a power of two from 32 to 4096.

    Returns
    -------
    QuantizedTensor
        Of torch tensors or NumPy arrays, as `x`.

    Raises
    ------
    TypeError
        If `x` has another dtype, or is no tensor.
    ValueError
        If the codec is unknown or the block size no such power of two.
    RuntimeError
        If `x` is sparse or not on the CPU.

    Examples
    --------
    >>> import optim8, torch
    >>> q = optim8.quantize(torch.tensor([0.0, 0.5, -2.0, 4.0]))
    >>> q.codes
    tensor([  0,  80, 239, 127], dtype=torch.uint8)
    >>> q.scales
    tensor([4.])
    >>> q.dequantize()
    tensor([ 0.0000,  0.5020, -1.9919,  4.0000])
    """
    check_block_size(block_size)
    if isinstance(x, np.ndarray):
        q = quantize(_tensor(x), codec=codec, signed=signed, block_size=block_size)
        return QuantizedTensor(
            q.codes.numpy(), q.scales.numpy(), codec, q.signed, block_size, x.shape, x.dtype
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"expected a torch tensor or a NumPy array, found {type(x).__name__}")
    values = x.detach().resolve_neg()
    if signed is None:
        signed = _may_be_negative(values)
    codes, scales = quantize_tensor(values, codec_named(codec), signed, block_size)
    return QuantizedTensor(codes, scales, codec, signed, block_size, tuple(x.shape), x.dtype)


def quantize_tensor(
    values: Tensor, codec: _native.Codec, signed: bool, block_size: int
) -> tuple[Tensor, Tensor]:
    """Return new codes and scales of a tensor."""
    shape = tuple(values.shape)
    codes = empty(shape, torch.uint8)
    scales = empty(_native.scales_shape(shape, block_size), torch.float32)
    _native.quantize(
        values,
        codes,
        scales,
        codec=codec,
        signed=signed,
        block_size=block_size,
        n_threads=torch.get_num_threads(),
    )
    return codes, scales


def dequantize_into(
    codes: Tensor, scales: Tensor, out: Tensor, format: "QuantizedTensor[Any]"
) -> None:
    """Write the values of codes and scales to `out`."""
    _native.dequantize(
        codes,
        scales,
        out,
        codec=codec_named(format.codec),
        signed=format.signed,
        block_size=format.block_size,
        n_threads=torch.get_num_threads(),
    )


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a new tensor whose memory is soon there to be written, as NumPy's is.

    In small pages, the system takes longer to provide it than we do to fill it.
    """
    tensor = torch.empty(shape, dtype=dtype, device="cpu")  # whatever the default device is
    _native.prefer_large_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def _may_be_negative(values: Tensor) -> bool:
    is_ours = values.is_cpu and values.layout == torch.strided and values.dtype in FLOATS
    if not is_ours or values.numel() == 0:
        return False  # what tensors there may be is for the native call to say
    # Where some are negative, some of the first ones mostly are: all are looked at only if not.
    some = values[: max(1, 4096 * len(values) // values.numel())] if values.ndim else values
    return _has_negative(some) or _has_negative(values)


def _has_negative(values: Tensor) -> bool:
    # One pass and no temporary. A NaN says nothing about the other values: assume both signs.
    return not bool(values.amin() >= 0)


def _tensor(x: np.ndarray[Any, Any]) -> Tensor:
    # torch takes neither read-only arrays nor negative strides, nor the other order of bytes: those
    # are copied.
    return torch.from_numpy(np.require(x, x.dtype.newbyteorder("="), ("C", "W")))
