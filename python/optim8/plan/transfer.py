"""Whether more pre-training will still help a downstream task.

Abnar et al., *Exploring the Limits of Large Scale Pre-training* (2022), arXiv:2110.02095: over
thousands of runs, the downstream error follows the upstream error, and size, data and epochs act
through the latter only::

    downstream error = k * (upstream error)^alpha + irreducible error

The irreducible error is what stays when upstream is solved; 1 minus it is the *saturation value*.
It belongs to the task, to what was pre-trained on and to the number of examples, and for most tasks
it is far above 0: the least error of the task itself lies lower.

**The hull, not the points.** The law is fitted to the upper convex hull of the points (upstream
accuracy, downstream accuracy). A point on it is within reach of everybody, by choosing between two
trained models at random; those below are runs whose hyperparameters did not suit the task; and the
hull does not depend on how often a region was sampled. The paper finds errors of prediction ten
times smaller so.

**How it is fitted.** By least squares over the corners of the hull, which is our choice: we know of
none that the paper names. For a given alpha the other two are linear, so the search is over alpha
alone, and there is no start to choose: a grid of exponents, narrowed until it is fine. Errors are
no less than 0, and so are k and the irreducible error. Alpha is no less than 1, as a hull bends to
no other side: where runs follow an alpha below 1, their hull is a straight line, from which nothing
about saturation can be learnt.

**How sure.** The hull of n runs never quite reaches what is possible, and falls short of it by
about n^(-2/3), as hulls do whose edge is a curve. So the fit errs to one side, towards a larger
irreducible error, and a bootstrap does not show by how much: its quantiles held the true one in 2
to 15 % of simulated tables. Fits to a quarter of the runs, drawn without replacement, fall short by
4^(2/3) = 2.5 times as much, so their distance to the fit of all runs is one and a half times what
this itself is short of. An interval is thus symmetric around the fit to all runs, of the distance
that `confidence` of the fits to subsamples keep. Of few runs a quarter is too little for a hull:
the part is larger, up to a half, its fits fall short by less, and the distance is widened to what
it would be with a quarter. Of simulated tables of 40 to 200 runs, intervals of 90 % held the
irreducible error in 65 to 85 %: a rough guide, and still too narrow. Of tables of 8 to 30 runs,
whose intervals are up to seven times as wide as those of 100, they held it in 93 % and more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np

from optim8.plan.bootstrap import symmetric_interval
from optim8.plan.runs import Array

#: As many corners as the law has unknowns.
MIN_CORNERS = 3

#: Between which alpha is sought.
EXPONENTS = (1.0, 100.0)

#: Of the runs in a subsample.
FRACTION = 0.25

#: That a subsample has even of few runs, unless it is more than half of them.
MIN_RUNS = 10

#: With how many runs the distance to what is possible falls: as runs^-RATE.
RATE = 2 / 3

_N_EXPONENTS = 61
_N_NARROWINGS = 6
_N_TRIES = 20


@dataclass(frozen=True)
class TransferLaw:
    """downstream error = k * upstream error ^ alpha + irreducible error.

    Attributes
    ----------
    k, alpha, irreducible_error : float
        Errors are 1 minus accuracy.
    """

    k: float
    alpha: float
    irreducible_error: float

    def predict(self, upstream_error: Array) -> Array:
        """Return the downstream error that goes with an upstream error."""
        return self.k * upstream_error**self.alpha + self.irreducible_error


def corners(upstream_error: Array, downstream_error: Array) -> tuple[Array, Array]:
    """Return the corners of the upper convex hull of the accuracies.

    Parameters
    ----------
    upstream_error, downstream_error : array of shape (n,)
        Of each run, from 0 to 1.

    Returns
    -------
    tuple of array
        Upstream and downstream errors of the corners, by increasing upstream error.

    Examples
    --------
    The second run is worse than a mixture of its neighbours:

    >>> up, down = corners(np.array([0.2, 0.3, 0.4, 0.6]), np.array([0.1, 0.2, 0.2, 0.5]))
    >>> up.tolist()
    [0.2, 0.4, 0.6]
    """
    found: list[tuple[float, float]] = []
    for point in sorted(zip(upstream_error.tolist(), downstream_error.tolist(), strict=True)):
        if found and found[-1][0] == point[0]:  # sorted: the better of the two is there
            continue
        while len(found) > 1 and not _turns_up(found[-2], found[-1], point):
            found.pop()
        found.append(point)
    up, down = np.array(found).T
    return up, down


def fit(upstream_error: Array, downstream_error: Array) -> TransferLaw:
    """Return the law that fits the corners of the runs' hull best.

    Parameters
    ----------
    upstream_error, downstream_error : array of shape (n,)
        Of each run, from 0 to 1.

    Returns
    -------
    TransferLaw

    Raises
    ------
    ValueError
        If the hull has fewer than `MIN_CORNERS` corners.

    Examples
    --------
    >>> upstream = np.linspace(0.2, 0.8, 9)
    >>> found = fit(upstream, TransferLaw(0.6, 2.0, 0.15).predict(upstream))
    >>> round(found.k, 3), round(found.alpha, 3), round(found.irreducible_error, 3)
    (0.6, 2.0, 0.15)
    """
    up, down = corners(upstream_error, downstream_error)
    if len(up) < MIN_CORNERS:
        raise ValueError(
            f"Too few corners in the upper hull of the accuracies: {len(up)} (expected "
            f"{MIN_CORNERS} or more: a straight hull shows no saturation)"
        )
    low, high = np.log(EXPONENTS)
    for _ in range(_N_NARROWINGS):
        grid = np.linspace(low, high, _N_EXPONENTS)
        slopes, constants, squares = _linear(np.exp(grid), up, down)
        best = int(squares.argmin())
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, _N_EXPONENTS - 1)]
    return TransferLaw(float(slopes[best]), float(np.exp(grid[best])), float(constants[best]))


@dataclass(frozen=True)
class Subsamples:
    """What fits to parts of the runs say.

    Attributes
    ----------
    laws : list of TransferLaw
        The fit to each part.
    fraction : float
        Of the runs in a part.
    """

    laws: list[TransferLaw]
    fraction: float

    def intervals(self, law: TransferLaw, confidence: float) -> dict[str, tuple[float, float]]:
        """Return, for each coefficient, the interval around it that holds `confidence` of the fits.

        Parameters
        ----------
        law : TransferLaw
            Of all runs.
        confidence : float
            Above 0, up to 1.

        Examples
        --------
        >>> laws = [TransferLaw(1.0, 2.0, 0.1 + excess / 1000) for excess in range(101)]
        >>> low, high = Subsamples(laws, 0.25).intervals(laws[0], 0.5)["irreducible_error"]
        >>> round(low, 3), round(high, 3)
        (0.05, 0.15)
        """
        widening = _excess(FRACTION) / _excess(self.fraction)
        found = {}
        for name, value in asdict(law).items():
            values = np.array([getattr(other, name) for other in self.laws])
            low, high = symmetric_interval(value, value + widening * (values - value), confidence)
            found[name] = (max(low, 0.0), high)
        return found


def subsample(
    upstream_error: Array, downstream_error: Array, n_subsamples: int, seed: int
) -> Subsamples:
    """Fit parts of the runs; one whose hull has too few corners is drawn again.

    Parameters
    ----------
    upstream_error, downstream_error : array of shape (n,)
        Of each run.
    n_subsamples : int
        How many.
    seed : int
        Of the draws.

    Raises
    ------
    ValueError
        If hardly any part of the runs has a hull with enough corners.
    """
    random = np.random.default_rng(seed)
    n_runs = len(upstream_error)
    size = max(round(n_runs * FRACTION), min(MIN_RUNS, n_runs // 2))
    laws: list[TransferLaw] = []
    for _ in range(n_subsamples * _N_TRIES):
        drawn = random.permutation(n_runs)[:size]
        with suppress(ValueError):
            laws.append(fit(upstream_error[drawn], downstream_error[drawn]))
        if len(laws) == n_subsamples:
            return Subsamples(laws, size / n_runs)
    raise ValueError(
        f"Too few runs for an interval: of {size} at a time, hardly any have a hull of "
        f"{MIN_CORNERS} corners"
    )


def _excess(fraction: float) -> float:
    """By how much more than all runs a part of them falls short, as a share of the latter."""
    return float(fraction**-RATE) - 1


def _turns_up(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    """Say whether the errors' line gets steeper at the middle one of three points."""
    run, rise = middle[0] - first[0], middle[1] - first[1]
    return run * (last[1] - first[1]) - rise * (last[0] - first[0]) > 0


def _linear(exponents: Array, up: Array, down: Array) -> tuple[Array, Array, Array]:
    """Return, for each exponent, the best k and irreducible error, and the sum of squares left."""
    powers = up ** exponents[:, None]
    means = powers.mean(axis=1)
    centered = powers - means[:, None]
    tiny = np.finfo(float).tiny
    slopes = centered @ (down - down.mean()) / np.maximum((centered**2).sum(axis=1), tiny)
    slopes = np.maximum(slopes, 0)
    constants = down.mean() - slopes * means
    through_zero = powers @ down / np.maximum((powers**2).sum(axis=1), tiny)
    slopes = np.where(constants < 0, through_zero, slopes)
    constants = np.maximum(constants, 0)
    return (
        slopes,
        constants,
        ((slopes[:, None] * powers + constants[:, None] - down) ** 2).sum(axis=1),
    )
