"""Intervals from resampling: what fits to runs drawn anew, or to parts of the runs, agree on.

Where these fits lie to both sides of the fit to all runs, an interval between their quantiles will
do (the percentile method, Efron 1979). Where they err to one side, it would leave out the truth,
which is on the other; then the interval is one around the fit to all runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Return the quantiles between which lies `confidence` of the values.

    Examples
    --------
    >>> interval(np.arange(101.0), 0.5)
    (25.0, 75.0)
    """
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def symmetric_interval(
    estimate: float, values: NDArray[np.float64], confidence: float
) -> tuple[float, float]:
    """Return the interval around an estimate within which lies `confidence` of the values.

    Examples
    --------
    >>> symmetric_interval(0.0, np.arange(101.0), 0.5)
    (-50.0, 50.0)
    """
    distance = float(np.quantile(np.abs(values - estimate), confidence))
    return estimate - distance, estimate + distance
