"""The compute-optimal frontier: what size a budget is best spent on, and the reverse.

Every published answer has the same form. The best number of parameters for C operations is a power
law, ``N = coefficient C^exponent``, and since C = 6 N D (`optim8.plan.flops`), so is the best
number of tokens. One class thus serves them all, forwards and backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from optim8.plan.flops import PER_PARAMETER_AND_TOKEN


@dataclass(frozen=True)
class Optimum:
    """A point of the frontier.

    Attributes
    ----------
    params : float
        Size of the model.
    tokens : float
        To train it on.
    flops : float
        That this takes.
    """

    params: float
    tokens: float
    flops: float

    @property
    def tokens_per_param(self) -> float:
        """How many tokens there are for each parameter."""
        return self.tokens / self.params


@dataclass(frozen=True)
class Frontier:
    """The best size for every budget.

    Attributes
    ----------
    coefficient, exponent : float
        Of ``params = coefficient * flops ** exponent``. The exponent lies between 0 and 1, so that
        a larger budget never means a smaller model or fewer tokens.

    Raises
    ------
    ValueError
        If they are out of range.

    Examples
    --------
    >>> square_root = Frontier(coefficient=0.0913, exponent=0.5)
    >>> found = square_root.for_flops(5.76e23)
    >>> f"{found.params:.3g} {found.tokens_per_param:.3g}"
    '6.93e+10 20'
    """

    coefficient: float
    exponent: float

    def __post_init__(self) -> None:
        if not self.coefficient > 0:
            raise ValueError(f"Invalid coefficient: {self.coefficient} (expected above 0)")
        if not 0 < self.exponent < 1:
            raise ValueError(f"Invalid exponent: {self.exponent} (expected between 0 and 1)")

    def for_flops(self, flops: float) -> Optimum:
        """Return the best size and number of tokens for a budget."""
        params = self.coefficient * flops**self.exponent
        return Optimum(params, flops / PER_PARAMETER_AND_TOKEN / params, flops)

    def for_params(self, params: float) -> Optimum:
        """Return the budget for which a size is best."""
        flops = (params / self.coefficient) ** (1 / self.exponent)
        return Optimum(params, flops / PER_PARAMETER_AND_TOKEN / params, flops)

    def for_tokens(self, tokens: float) -> Optimum:
        """Return the budget for which a number of tokens is best."""
        flops = (PER_PARAMETER_AND_TOKEN * tokens * self.coefficient) ** (1 / (1 - self.exponent))
        return Optimum(flops / PER_PARAMETER_AND_TOKEN / tokens, tokens, flops)
