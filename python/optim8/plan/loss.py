"""The parametric loss of a language model: what size and data each contribute.

Hoffmann et al., *Training Compute-Optimal Large Language Models* (2022), arXiv:2203.15556, section
3.3 (approach 3)::

    L(N, D) = E + A / N^alpha + B / D^beta

E is the entropy of the text, which no model gets below; the other terms are what a model of N
parameters, and training on D tokens, fall short of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from optim8.plan.flops import PER_PARAMETER_AND_TOKEN
from optim8.plan.frontier import Frontier


@dataclass(frozen=True)
class ParametricLoss:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Attributes
    ----------
    E, A, B, alpha, beta : float
        Losses are in nats for each token.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def predict(self, params: float, tokens: float) -> float:
        """Return the loss of a model of `params` parameters after `tokens` tokens.

        Examples
        --------
        >>> replication = ParametricLoss(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
        >>> round(replication.predict(params=70e9, tokens=1.4e12), 3)
        1.974
        """
        return float(self.E + self.A / params**self.alpha + self.B / tokens**self.beta)

    def frontier(self) -> Frontier:
        """Return what size has the least loss for each budget.

        With D = C / 6 N, the derivative of the loss by N vanishes at ``N = G (C / 6)^a``, where
        ``G = (alpha A / beta B)^(1 / (alpha + beta))`` and ``a = beta / (alpha + beta)``: equation
        4 of the paper. E plays no part.

        Raises
        ------
        ValueError
            If more parameters or more tokens would not lower the loss, so that there is no optimum.

        Examples
        --------
        >>> replication = ParametricLoss(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
        >>> f"{replication.frontier().for_flops(5.76e23).params:.3g}"
        '7.22e+10'
        """
        for name, value in (
            ("A", self.A),
            ("B", self.B),
            ("alpha", self.alpha),
            ("beta", self.beta),
        ):
            if not value > 0:
                raise ValueError(
                    f"There is no optimum with {name} = {value:.3g} (expected above 0)"
                )
        total = self.alpha + self.beta
        scale = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        exponent = self.beta / total
        return Frontier(scale / PER_PARAMETER_AND_TOKEN**exponent, exponent)
