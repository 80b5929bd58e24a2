"""Fitting the parametric loss to runs, and how sure the fit is.

Hoffmann et al., *Training Compute-Optimal Large Language Models* (2022), arXiv:2203.15556, section
3.3, equation 3. With a = ln A, b = ln B, e = ln E, minimize over (a, b, e, alpha, beta)::

    sum_i Huber_delta( LSE(a - alpha ln N_i, b - beta ln D_i, e) - ln L_i ),    delta = 1e-3

where LSE is the logarithm of the sum of exponentials, by L-BFGS from every point of a grid of 4,500
starts, and keep the best. Besiroglu et al. 2024, arXiv:2404.10102, found how this goes wrong: with
the *mean* over runs in place of the sum, the objective is so small that L-BFGS takes it for settled
and stops early. Here it is the sum, divided by the square of delta, which makes it of the order of
the number of runs or more; and the gradient is analytic.

**Fewer descents, the same optimum.** Evaluating the objective at all 4,500 starts takes tenths of a
second, descending from all of them minutes. So only the `N_DESCENTS` lowest starts are descended
from. Besides, ln N and ln D are centered for the descent. That changes neither the objective nor
its optimum, only the coordinates: a and alpha, which in the others can hardly move but together,
become nearly independent. `tests/plan/test_fit.py` compares with descents from all over the grid.

**How sure.** Runs are drawn anew with replacement and fitted from the fit to all runs; an interval
lies between quantiles of what these fits say. A resample that lacks the variety that a fit needs is
drawn again. A and B come out wide even where the loss is known well, since A
is the loss that is left to gain at *one* parameter, far outside of all runs: a small change of
alpha, there, is a large one of A. So the intervals of E, alpha, beta and of the optimum are what to
look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from optim8.plan.bootstrap import interval
from optim8.plan.frontier import Optimum
from optim8.plan.loss import ParametricLoss
from optim8.plan.runs import Array

#: Where the Huber loss turns from a square to a line, in nats of ln L.
DELTA = 1e-3

#: All starts: a, b, e, alpha, beta, as in the paper.
GRID = tuple(
    product(
        range(0, 26, 5),
        range(0, 26, 5),
        (-1.0, -0.5, 0.0, 0.5, 1.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
        (0.0, 0.5, 1.0, 1.5, 2.0),
    )
)

#: Of coefficients: where runs do not determine them, fits go as far as numbers do.
LARGEST_LOG = 690.0

#: How many of them are descended from.
N_DESCENTS = 24

#: Different sizes, and different numbers of tokens, that a fit needs: two parameters and E.
MIN_DISTINCT = 3

#: An interval whose ends differ by more than this factor leaves the quantity ill-determined.
ILL_DETERMINED_FACTOR = 2.0


@dataclass(frozen=True)
class Runs:
    """Finished runs.

    Attributes
    ----------
    params, tokens, loss : array of shape (n,)
        Of each run: parameters, tokens seen, and the loss reached, in nats for each token.

    Raises
    ------
    ValueError
        If there are not more runs than the five unknowns, or too few different sizes or numbers of
        tokens to tell these apart.
    """

    params: Array
    tokens: Array
    loss: Array

    def __post_init__(self) -> None:
        n_unknowns = len(fields(ParametricLoss))
        if len(self.loss) <= n_unknowns:
            raise ValueError(
                f"Too few runs: {len(self.loss)} (expected more than {n_unknowns}, the unknowns)"
            )
        for name in ("params", "tokens"):
            if (n_distinct := len(np.unique(getattr(self, name)))) < MIN_DISTINCT:
                raise ValueError(
                    f"Too few different {name}: {n_distinct} (expected {MIN_DISTINCT} or more)"
                )

    def at(self, indices: NDArray[np.int64]) -> Runs:
        """Return the runs of these indices."""
        return Runs(self.params[indices], self.tokens[indices], self.loss[indices])


class Objective:
    """The sum of Huber losses, over the square of `DELTA`, and its gradient.

    Parameters are (a, b, e, alpha, beta) with ln N and ln D taken from their `centers`: see
    `shift`.
    """

    def __init__(self, runs: Runs, centers: Sequence[float]) -> None:
        self._log_params = np.log(runs.params) - centers[0]
        self._log_tokens = np.log(runs.tokens) - centers[1]
        self._log_loss = np.log(runs.loss)

    def value(self, point: Array) -> float:
        """Return the objective."""
        return self.value_and_gradient(point)[0]

    def value_and_gradient(self, point: Array) -> tuple[float, Array]:
        """Return the objective and its gradient, an array of shape (5,)."""
        a, b, e, alpha, beta = point
        terms = np.empty((3, len(self._log_loss)))
        terms[0] = a - alpha * self._log_params
        terms[1] = b - beta * self._log_tokens
        terms[2] = e
        largest = terms.max(axis=0)
        shares = np.exp(terms - largest)
        total = shares.sum(axis=0)
        shares /= total
        residual = largest + np.log(total) - self._log_loss
        slope = np.clip(residual / DELTA, -1, 1)  # Huber's derivative, over DELTA
        value = float(slope @ residual - DELTA / 2 * (slope @ slope)) / DELTA
        by_term = shares * slope / DELTA
        sums = by_term.sum(axis=1)
        slopes = -(by_term[0] @ self._log_params), -(by_term[1] @ self._log_tokens)
        return value, np.array([*sums, *slopes])


def shift(point: Array, centers: Sequence[float]) -> Array:
    """Return a point in coordinates whose origin of (ln N, ln D) is moved by `centers`."""
    a, b, e, alpha, beta = point
    return np.array([a - alpha * centers[0], b - beta * centers[1], e, alpha, beta])


def descend(objective: Objective, start: Array) -> tuple[float, Array]:
    """Return the objective, and the point, where L-BFGS from a start ends."""
    found = minimize(
        objective.value_and_gradient,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-12, "gtol": 1e-6},
    )
    return float(found.fun), np.asarray(found.x)


def fit(
    runs: Runs, starts: Sequence[Sequence[float]] = GRID, n_descents: int = N_DESCENTS
) -> ParametricLoss:
    """Return the parametric loss that fits runs best.

    Parameters
    ----------
    runs : Runs
        To fit.
    starts : sequence, optional
        Points (a, b, e, alpha, beta).
    n_descents : int, optional
        From how many of the starts, those of the lowest objective, to descend.

    Returns
    -------
    ParametricLoss

    Examples
    --------
    Runs without noise give their law back:

    >>> law = ParametricLoss(E=1.8, A=480.0, B=2080.0, alpha=0.35, beta=0.37)
    >>> shapes = list(product([1e8, 3e8, 1e9], [2e9, 6e9, 2e10]))
    >>> losses = [law.predict(params, tokens) for params, tokens in shapes]
    >>> found = fit(Runs(*np.array(shapes).T, np.array(losses)))
    >>> round(found.E, 2), round(found.alpha, 2), round(found.beta, 2)
    (1.8, 0.35, 0.37)
    """
    centers = _centers(runs)
    objective = Objective(runs, centers)
    points = [shift(np.array(start), centers) for start in starts]
    points.sort(key=objective.value)
    with _one_thread():
        ends = [descend(objective, point) for point in points[:n_descents]]
    _, best = min(ends, key=lambda end: end[0])
    return _law(best, centers)


@dataclass(frozen=True)
class Resampled:
    """What fits to resamples of the runs say.

    Attributes
    ----------
    laws : list of ParametricLoss
        The fit to each resample.
    """

    laws: list[ParametricLoss]

    @cached_property
    def _values(self) -> dict[str, Array]:
        columns = zip(*(astuple(law) for law in self.laws), strict=True)
        names = (field.name for field in fields(ParametricLoss))
        return {name: np.array(column) for name, column in zip(names, columns, strict=True)}

    def intervals(self, confidence: float) -> dict[str, tuple[float, float]]:
        """Return, for each coefficient, the interval that holds `confidence` of the fits."""
        return {name: interval(values, confidence) for name, values in self._values.items()}

    def optima(self, flops: float) -> list[Optimum]:
        """Return the best size for a budget by each fit that has one.

        Raises
        ------
        ValueError
            If none has.
        """
        found = []
        for law in self.laws:
            try:
                best = law.frontier().for_flops(flops)
            except (ValueError, ArithmeticError):
                continue
            if np.isfinite(best.params) and best.params > 0 < best.tokens:
                found.append(best)
        if not found:
            raise ValueError("the runs determine no optimum: by no resample is there a best size")
        return found


def resample(runs: Runs, law: ParametricLoss, n_resamples: int, seed: int) -> Resampled:
    """Fit resamples of runs.

    Parameters
    ----------
    runs : Runs
        All of them.
    law : ParametricLoss
        Their fit, from which those of the resamples start.
    n_resamples : int
        How many.
    seed : int
        Of the draws.

    Returns
    -------
    Resampled
    """
    random = np.random.default_rng(seed)
    centers = _centers(runs)
    start = shift(
        np.array([np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta]), centers
    )
    laws: list[ParametricLoss] = []
    with _one_thread():
        while len(laws) < n_resamples:
            try:
                drawn = runs.at(random.integers(len(runs.loss), size=len(runs.loss)))
            except ValueError:  # too little variety
                continue
            laws.append(_law(descend(Objective(drawn, centers), start)[1], centers))
    return Resampled(laws)


def ill_determined(intervals: dict[str, tuple[float, float]]) -> list[str]:
    """Return the names of the intervals whose ends differ by more than `ILL_DETERMINED_FACTOR`.

    Examples
    --------
    >>> ill_determined({"A": (300.0, 900.0), "E": (1.7, 1.8)})
    ['A']
    """
    return [
        name for name, (low, high) in intervals.items() if not high <= ILL_DETERMINED_FACTOR * low
    ]


def _one_thread() -> AbstractContextManager[object]:
    # SciPy's L-BFGS of five unknowns wakes the threads of its BLAS at every step: 320 ms of
    # processor time for a descent that takes 6.
    limits: AbstractContextManager[object] = threadpool_limits(1, user_api="blas")
    return limits


def _centers(runs: Runs) -> tuple[float, float]:
    return float(np.log(runs.params).mean()), float(np.log(runs.tokens).mean())


def _law(point: Array, centers: Sequence[float]) -> ParametricLoss:
    a, b, e, alpha, beta = shift(point, [-center for center in centers])
    e, a, b = (float(value) for value in np.exp(np.clip([e, a, b], -LARGEST_LOG, LARGEST_LOG)))
    return ParametricLoss(E=e, A=a, B=b, alpha=float(alpha), beta=float(beta))
