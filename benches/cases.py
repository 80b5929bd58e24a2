"""The sets of tensors that optimizers are stepped on."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

Shape = tuple[int, ...]

#: A case of more elements does not fit in the caches, whoever steps on it.
HOT_LIMIT = 1_000_000


@dataclass(frozen=True)
class Case:
    """Tensors of these shapes, under a name that may be given on the command line."""

    name: str
    shapes: tuple[Shape, ...]

    @property
    def n_elements(self) -> int:
        """Of all tensors together."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def hot(self) -> bool:
        """Whether to measure it in the caches, where a previous step has brought it."""
        return self.n_elements <= HOT_LIMIT


def gpt2_small_shapes() -> tuple[Shape, ...]:
    """Return the tensors of GPT-2 small: 124 million parameters, its head tied to the embedding."""
    width, n_layers, n_tokens, context = 768, 12, 50_257, 1024
    norm: tuple[Shape, ...] = ((width,), (width,))
    layer = (
        *norm,
        *((width, 3 * width), (3 * width,)),  # query, key, value
        *((width, width), (width,)),  # projection
        *norm,
        *((width, 4 * width), (4 * width,)),  # MLP, out
        *((4 * width, width), (width,)),  # MLP, back
    )
    return ((n_tokens, width), (context, width), *(layer * n_layers), *norm)


def parse(name: str) -> Case:
    """Make the case of a name: "32M", "100k", "1000x10k", "gpt2" or a plain number.

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> parse("1M").shapes, parse("1000x10k").n_elements
    (((1000000,),), 10000000)
    """
    if name == "gpt2":
        return Case(name, gpt2_small_shapes())
    count, _, size = name.rpartition("x")
    return Case(name, ((_number(size),),) * _number(count or "1"))


def _number(text: str) -> int:
    digits, unit = text.rstrip("kM"), {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    if not digits.isdigit():
        raise ValueError(
            f"size {text!r}: expected a number such as 10000, 10k, 8M, 1000x10k, or gpt2"
        )
    return int(digits) * unit


#: All sizes of `step`.
ALL = ("10k", "100k", "1M", "8M", "32M", "128M", "1000x10k", "gpt2")

#: Sizes for a first look.
QUICK = ("100k", "1M", "8M")
