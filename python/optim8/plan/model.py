"""What a model is made of: the shapes of its parameters.

Memory, FLOPs and cost follow from shapes, so a planner needs no weights. A decoder-only transformer
is described by a handful of numbers; they come from the demo's sizes, or from the ``config.json``
that lies beside a model of Hugging Face.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim8.demo.sizes import N_BYTES, Size

#: Bytes of an element, by torch's name of the type.
DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}

Shape = tuple[int, ...]

#: Kinds of configuration that `from_config` reads: those of Llama's layers, and GPT-2's.
LLAMA_LIKE = ("llama", "mistral", "qwen2")

_NUMBERS = (
    "n_layers",
    "width",
    "n_heads",
    "n_key_value_heads",
    "head_width",
    "mlp_width",
    "vocabulary",
    "n_positions",
)


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """A decoder-only transformer; each sublayer is normalized first and added to its input.

    Attributes
    ----------
    n_layers, width, n_heads : int
        Of the model.
    n_key_value_heads : int
        `n_heads`, or fewer where queries share keys and values.
    head_width : int
        Of each head.
    mlp_width : int
        Inside the multilayer perceptron.
    vocabulary : int
        Number of tokens.
    n_positions : int
        Learned positions; 0 where positions take no parameters.
    is_gated : bool
        Whether the perceptron multiplies two projections (SwiGLU) or has one (GELU).
    norm : str
        ``"rms"`` or ``"layer"``.
    biases : str
        ``"none"``, ``"qkv"`` (of queries, keys and values only) or ``"all"``.
    is_qkv_joint : bool
        Whether queries, keys and values come from one matrix.
    is_tied : bool
        Whether the output layer is the token embedding.

    Raises
    ------
    ValueError
        If a number is no whole number above 0 (0 or more for `n_positions`).

    Examples
    --------
    >>> from optim8.demo.sizes import SIZES
    >>> from_size(SIZES["small"]).n_parameters
    3311872
    """

    n_layers: int
    width: int
    n_heads: int
    n_key_value_heads: int
    head_width: int
    mlp_width: int
    vocabulary: int
    n_positions: int = 0
    is_gated: bool = False
    norm: str = "rms"
    biases: str = "none"
    is_qkv_joint: bool = True
    is_tied: bool = False

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value, least = getattr(self, name), 0 if name == "n_positions" else 1
            if not _is_whole(value, least):
                raise ValueError(
                    f"Invalid {name}: {value!r} (expected a whole number, {least} or more)"
                )

    @property
    def qkv_width(self) -> int:
        """Width of queries, keys and values together."""
        return (self.n_heads + 2 * self.n_key_value_heads) * self.head_width

    @property
    def embedding_shapes(self) -> list[Shape]:
        """Of token and position embeddings."""
        positions = [(self.n_positions, self.width)] if self.n_positions else []
        return [(self.vocabulary, self.width), *positions]

    @property
    def layer_shapes(self) -> list[Shape]:
        """Of one layer."""
        keys = self.n_key_value_heads * self.head_width
        queries = self.n_heads * self.head_width
        qkv = [self.qkv_width] if self.is_qkv_joint else [queries, keys, keys]
        expand = [self.mlp_width] * (2 if self.is_gated else 1)
        shapes: list[Shape] = [(rows, self.width) for rows in qkv]
        shapes += [(self.width, queries)]
        shapes += [(rows, self.width) for rows in expand]
        shapes += [(self.width, self.mlp_width)]
        if self.biases != "none":
            shapes += [(rows,) for rows in qkv]
        if self.biases == "all":
            shapes += [(rows,) for rows in (self.width, *expand, self.width)]
        return shapes + 2 * self._norm_shapes

    @property
    def output_shapes(self) -> list[Shape]:
        """Of what comes after the layers."""
        head = [] if self.is_tied else [(self.vocabulary, self.width)]
        return [*self._norm_shapes, *head]

    @property
    def shapes(self) -> list[Shape]:
        """Of all parameters."""
        return self.embedding_shapes + self.n_layers * self.layer_shapes + self.output_shapes

    @property
    def n_parameters(self) -> int:
        """Number of parameters; a tied output layer counts once."""
        return n_elements(self.shapes)

    @property
    def _norm_shapes(self) -> list[Shape]:
        return [(self.width,)] * (1 if self.norm == "rms" else 2)


def n_elements(shapes: Iterable[Shape]) -> int:
    """Return the number of elements of tensors of some shapes."""
    return sum(math.prod(shape) for shape in shapes)


def from_size(size: Size) -> Transformer:
    """Return the demo's GPT of a size; see `optim8.demo.model`."""
    return Transformer(
        n_layers=size.n_layers,
        width=size.width,
        n_heads=size.n_heads,
        n_key_value_heads=size.n_heads,
        head_width=size.width // size.n_heads,
        mlp_width=4 * size.width,
        vocabulary=N_BYTES,
        n_positions=size.context,
    )


def from_config(path: Path) -> Transformer:
    """Read a model from the ``config.json`` of Hugging Face's transformers.

    Parameters
    ----------
    path : Path
        Of the file. Its `model_type` has to be gpt2, llama, mistral or qwen2.

    Returns
    -------
    Transformer

    Raises
    ------
    ValueError
        If the file is no JSON, of another type of model, or lacks a number.
    OSError
        If it cannot be read.
    """
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is no table of a model's numbers")
    kind = config.get("model_type")
    try:
        if kind == "gpt2":
            return _gpt2(config)
        if kind in LLAMA_LIKE:
            return _llama_like(config)
    except KeyError as error:
        raise ValueError(f"{path} has no {error}") from None
    except (TypeError, ZeroDivisionError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    known = ", ".join(("gpt2", *LLAMA_LIKE))
    raise ValueError(f"{path}: unknown model_type {kind!r} (known: {known})")


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _width(config: Mapping[str, Any], *names: str) -> tuple[int, int]:
    """Return the width and the number of heads; raise unless one can be divided by the other."""
    for name in names:
        if not _is_whole(config[name], 1):
            raise ValueError(f"{name} is {config[name]!r} (expected a whole number, 1 or more)")
    width, n_heads = (config[name] for name in names)
    return width, n_heads


def _gpt2(config: Mapping[str, Any]) -> Transformer:
    width, n_heads = _width(config, "n_embd", "n_head")
    return Transformer(
        n_layers=config["n_layer"],
        width=width,
        n_heads=n_heads,
        n_key_value_heads=n_heads,
        head_width=width // n_heads,
        mlp_width=config.get("n_inner") or 4 * width,
        vocabulary=config["vocab_size"],
        n_positions=config["n_positions"],
        norm="layer",
        biases="all",
        is_tied=config.get("tie_word_embeddings", True),
    )


def _llama_like(config: Mapping[str, Any]) -> Transformer:
    width, n_heads = _width(config, "hidden_size", "num_attention_heads")
    for biases in ("attention_bias", "mlp_bias"):
        if config.get(biases):
            raise ValueError(f"{biases} is {config[biases]!r} (expected false)")
    return Transformer(
        n_layers=config["num_hidden_layers"],
        width=width,
        n_heads=n_heads,
        n_key_value_heads=config.get("num_key_value_heads") or n_heads,
        head_width=config.get("head_dim") or width // n_heads,
        mlp_width=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        is_gated=True,
        biases="qkv" if config["model_type"] == "qwen2" else "none",
        is_qkv_joint=False,
        is_tied=config.get("tie_word_embeddings", False),
    )
