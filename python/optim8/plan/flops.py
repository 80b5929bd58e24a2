"""How many operations training takes.

A multiplication and an addition count as two. Each parameter takes part in one of both for each
token in the forward pass, and in two in the backward pass: 6 N D for N parameters and D tokens
(Kaplan et al. 2020, arXiv:2001.08361, section 2.1). The products of queries with keys and of
weights with values come on top: 12 L w s for each token, with L layers of width w and sequences of
s tokens (Chowdhery et al. 2022, *PaLM*, arXiv:2204.02311, appendix B).
"""

from __future__ import annotations


def training(
    params: float,
    tokens: float,
    n_layers: int | None = None,
    width: int | None = None,
    context: int | None = None,
) -> float:
    """Return the operations of a training run.

    Parameters
    ----------
    params : float
        Parameters that are active for a token.
    tokens : float
        That the model is trained on.
    n_layers, width, context : int, optional
        Of the model; all three or none. With them attention is counted too.

    Raises
    ------
    ValueError
        If a number is not above 0, or only some of the model's are given.

    Examples
    --------
    GPT-3 (Patterson et al. 2021, table 4, have 3.14e23):

    >>> training(175e9, 300e9)
    3.15e+23
    """
    given = {"params": params, "tokens": tokens}
    shape = {"n_layers": n_layers, "width": width, "context": context}
    known = {name: value for name, value in shape.items() if value is not None}
    if len(known) not in (0, len(shape)):
        raise ValueError(f"expected all of {', '.join(shape)} or none, found {', '.join(known)}")
    for name, value in {**given, **known}.items():
        if value <= 0:
            raise ValueError(f"Invalid {name}: {value} (expected above 0)")
    attention = 1.0
    for value in known.values():
        attention *= value
    return tokens * (6 * params + (12 * attention if known else 0))
