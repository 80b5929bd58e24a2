"""The published answers to what a budget is best spent on, by the names of their approaches.

Hoffmann et al. 2022 have three approaches, and Besiroglu et al. 2024 found that the third was
fitted badly and fitted it anew. They disagree widely, from 18 to 93 tokens for each parameter at
the budget of Chinchilla, so an answer shows them all; the default is the replication, which also
agrees with approaches 1 and 2.

**How approaches 1 and 2 become formulas.** The paper gives exponents of two digits, and a table of
sizes with their budgets. With the printed exponents (0.50 and 0.49) and the best coefficient, its
budgets are missed by up to 4.1 % and 0.5 %; the line through its rows, by least squares of the
logarithms, misses none by more than 0.4 % (exponents 0.4981 and 0.4899), so we take that line. One
row, 67 billion, fits no such line and is left out: its budgets belong to 67.9 (approach 1), 69.5
(2) and 70.0 billion (3).

**Approach 3** has coefficients, and they do not give the paper's own table: the size for a
tabulated budget comes out 3 to 7 % smaller with those of the TeX source, and 18 to 30 % with the
printed ones: two digits of an exponent are too few. ``3`` is the TeX source's, and
``3-table`` the line through the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import linear_regression

from optim8.plan.entries import Entry, load
from optim8.plan.frontier import Frontier
from optim8.plan.loss import ParametricLoss

#: Taken unless another is asked for.
DEFAULT = "replication"


@dataclass(frozen=True, kw_only=True)
class TabulatedFrontier(Entry):
    """A frontier known by some of its points.

    Attributes
    ----------
    params, flops : sequence of float
        Sizes, and the budget for which each is best.
    """

    params: Sequence[float]
    flops: Sequence[float]

    def frontier(self) -> Frontier:
        """Return the power law through the points, by least squares of ln params on ln flops."""
        exponent, constant = linear_regression(
            [log(value) for value in self.flops], [log(value) for value in self.params]
        )
        return Frontier(exp(constant), exponent)


@dataclass(frozen=True, kw_only=True)
class FittedLoss(Entry):
    """A published fit of the parametric loss.

    Attributes
    ----------
    E, A, B, alpha, beta : float
        As in `ParametricLoss`.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self) -> ParametricLoss:
        """Return the formula."""
        return ParametricLoss(self.E, self.A, self.B, self.alpha, self.beta)


@dataclass(frozen=True)
class Approach:
    """An answer to what a budget is best spent on.

    Attributes
    ----------
    title : str
        In words.
    origin : str
        Source and date.
    frontier : Frontier
        The best size for each budget.
    loss : ParametricLoss or None
        That it has the least of, where the approach says.
    """

    title: str
    origin: str
    frontier: Frontier
    loss: ParametricLoss | None


def approaches(more: Iterable[Path] = ()) -> dict[str, Approach]:
    """Return all approaches by name.

    Parameters
    ----------
    more : iterable of Path, optional
        Files of the user's, with entries ``[frontier.name]`` or ``[loss.name]``.

    Returns
    -------
    dict of str to Approach
        In order of their names.

    Raises
    ------
    ValueError
        As in `optim8.plan.entries.load`, or if an entry's numbers have no optimum.

    Examples
    --------
    >>> for name, approach in approaches().items():
    ...     found = approach.frontier.for_flops(5.76e23)
    ...     print(f"{name:<12}{found.params / 1e9:5.1f} {found.tokens_per_param:5.1f}")
    1            67.9  20.8
    2            63.7  23.7
    3            40.4  58.9
    3-printed    32.2  92.6
    3-table      42.5  53.2
    replication  72.2  18.4
    """
    more = list(more)
    found: dict[str, Approach] = {}
    for name, table in load("frontier", TabulatedFrontier, more).items():
        found[name] = Approach(table.title, table.origin, table.frontier(), None)
    for name, fit in load("loss", FittedLoss, more).items():
        found[name] = Approach(fit.title, fit.origin, fit.loss().frontier(), fit.loss())
    return dict(sorted(found.items()))
