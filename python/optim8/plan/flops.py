"""How many floating-point operations a dense transformer takes.

Two counts, for two purposes. `training` is the one for planning: 6 N D, because each token meets
each parameter in one multiplication and one addition forward, and in twice as many backward; with
the attention over the context on top, where the shape is known. It is what the scaling laws mean by
a budget, and it needs no more than a size.

`forward` is the full account of Hoffmann et al., *Training Compute-Optimal Large Language Models*
(2022), arXiv:2203.15556, appendix F, item by item, by which they check 6 N D (table A4).

**A trap.** Their text counts the embedding as a matrix product, 2 S V d, and yet the ratios of
table A4 come out only if both terms of the vocabulary, embedding and logits, are left out of the
operations, while N includes the embedding: `tests/plan/test_flops.py` shows it. In practice an
embedding is looked up and costs nothing, and the logits are a product that does cost.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Operations for each parameter and token in training: 2 forward, 4 backward.
PER_PARAMETER_AND_TOKEN = 6


def training(
    params: float,
    tokens: float,
    n_layers: int | None = None,
    width: int | None = None,
    context: int | None = None,
) -> float:
    """Return the operations of a training run.

    6 N D, and with a shape also the attention's own: each token compares its query with each key of
    the context and adds up as many values, 2 products of `width` multiplications and additions,
    forward once and backward twice, which is ``12 n_layers width context`` for each token. What a
    causal mask hides counts, as it does in the paper's account.

    Parameters
    ----------
    params : float
        N, with embeddings.
    tokens : float
        D, seen in training.
    n_layers, width, context : int, optional
        Of the model: layers, keys of all heads together, and tokens in a sequence. All or none.

    Returns
    -------
    float
        A multiplication and an addition count as two.

    Raises
    ------
    ValueError
        If a number is not above 0, or only a part of the shape is given.

    Notes
    -----
    Source: Hoffmann et al. 2022, section 3 and appendix F.

    Examples
    --------
    GPT-3, for which Patterson et al. 2021, table 4, have 3.14e23:

    >>> f"{training(175e9, 300e9):.3g}"
    '3.15e+23'
    >>> f"{training(175e9, 300e9, n_layers=96, width=12_288, context=2048):.3g}"
    '3.24e+23'
    """
    shape = {"n_layers": n_layers, "width": width, "context": context}
    for name, value in {"params": params, "tokens": tokens, **shape}.items():
        if value is not None and not value > 0:
            raise ValueError(f"Invalid {name}: {value} (expected above 0)")
    if n_layers is None or width is None or context is None:
        if given := [name for name, value in shape.items() if value is not None]:
            raise ValueError(f"Only {' and '.join(given)} given (expected all of {list(shape)})")
        attention = 0
    else:
        attention = 12 * n_layers * width * context
    return (PER_PARAMETER_AND_TOKEN * params + attention) * tokens


@dataclass(frozen=True)
class Shape:
    """A transformer of Hoffmann et al.

    Attributes
    ----------
    n_layers, width, feed_forward, n_heads, key_size : int
        L, d, f, h and k of the paper.
    vocabulary : int
        V; theirs has 32,000 tokens.
    """

    n_layers: int
    width: int
    feed_forward: int
    n_heads: int
    key_size: int
    vocabulary: int = 32_000

    @property
    def params(self) -> int:
        """Parameters: V d + L (5 d k h + 2 d f).

        The fifth matrix of d by k h is the projection of relative positions. Norms and biases,
        a thousandth, are left out.

        Examples
        --------
        Chinchilla:

        >>> Shape(n_layers=80, width=8192, feed_forward=32_768, n_heads=64, key_size=128).params
        70055362560
        """
        keys = self.key_size * self.n_heads
        layer = 5 * self.width * keys + 2 * self.width * self.feed_forward
        return self.vocabulary * self.width + self.n_layers * layer


def forward(shape: Shape, context: int) -> dict[str, int]:
    """Return the operations of a sequence's way forward, item by item; backward takes twice these.

    Parameters
    ----------
    shape : Shape
        Of the model.
    context : int
        S, tokens in the sequence.

    Returns
    -------
    dict of str to int
        As Hoffmann et al. 2022 list them in appendix F, ``embedding`` included.

    Examples
    --------
    >>> items = forward(Shape(10, 640, 2560, 10, 64), context=2048)
    >>> f"{items['feed forward']:.3g}"
    '1.34e+11'
    """
    keys = shape.key_size * shape.n_heads
    vocabulary = 2 * context * shape.vocabulary * shape.width
    layer = {
        "queries, keys and values": 6 * context * shape.width * keys,
        "scores": 2 * context**2 * keys,
        "softmax": 3 * shape.n_heads * context**2,
        "weighted sum": 2 * context**2 * keys,
        "output": 2 * context * keys * shape.width,
        "feed forward": 4 * context * shape.width * shape.feed_forward,
    }
    items = {name: shape.n_layers * n_flops for name, n_flops in layer.items()}
    return {"embedding": vocabulary, **items, "logits": vocabulary}
