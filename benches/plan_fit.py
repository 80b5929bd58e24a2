"""How often the intervals of `optim8 plan fit` hold the truth.

Tables of runs are simulated by a known law, each with its own sizes, numbers of tokens and noise,
and fitted as the command fits them: from the whole grid of starts, with intervals from resamples.
An interval of 90 % should hold the coefficient that its table was made with for about 90 % of them.
Of A and B that says little, since they are ill-determined (`optim8.plan.fit` says why).
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from typing import TYPE_CHECKING

import numpy as np

from optim8.plan.loss import ParametricLoss

if TYPE_CHECKING:  # it needs SciPy, and to read a record does not
    from optim8.plan.fit import Runs

N_TABLES, N_QUICK_TABLES = 200, 10
N_RESAMPLES = 100
CONFIDENCE = 0.9

#: Besiroglu et al. 2024, arXiv:2404.10102.
LAW = ParametricLoss(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


@dataclass(frozen=True)
class Coverage:
    """How often the intervals of one coefficient held the truth.

    Attributes
    ----------
    name : str
        Of the coefficient.
    n_held, n_tables : int
        Tables whose interval held it, and all.
    confidence : float
        What share should.
    """

    name: str
    n_held: int
    n_tables: int
    confidence: float


def synthetic(seed: int, n_runs: int = 60, noise: float = 0.005, law: ParametricLoss = LAW) -> Runs:
    """Return runs of 6e18 to 3e21 operations, 2 to 300 tokens a parameter, noise on ln L."""
    from optim8.plan.fit import Runs

    random = np.random.default_rng(seed)
    flops = 10 ** random.uniform(18.8, 21.5, n_runs)
    tokens_per_param = np.exp(random.uniform(np.log(2), np.log(300), n_runs))
    params = np.sqrt(flops / 6 / tokens_per_param)
    tokens = params * tokens_per_param
    loss = np.array([law.predict(*run) for run in zip(params, tokens, strict=True)])
    return Runs(params, tokens, loss * np.exp(noise * random.standard_normal(n_runs)))


def held(seed: int, n_resamples: int = N_RESAMPLES) -> list[bool]:
    """Return of each coefficient whether the interval of one table holds it."""
    from optim8.plan.fit import fit, resample

    runs = synthetic(seed)
    intervals = resample(runs, fit(runs), n_resamples, seed).intervals(CONFIDENCE)
    return [
        intervals[name][0] <= truth <= intervals[name][1] for name, truth in asdict(LAW).items()
    ]


def study(n_tables: int = N_TABLES, n_resamples: int = N_RESAMPLES) -> list[Coverage]:
    """Fit simulated tables, and count.

    Parameters
    ----------
    n_tables, n_resamples : int
        Tables, and resamples of each.

    Returns
    -------
    list of Coverage
        One for each coefficient of the law.
    """
    with ProcessPoolExecutor(cpu_count(), get_context("spawn")) as pool:
        tables = list(pool.map(partial(held, n_resamples=n_resamples), range(n_tables)))
    return [
        Coverage(name, sum(column), n_tables, CONFIDENCE)
        for name, column in zip(asdict(LAW), zip(*tables, strict=True), strict=True)
    ]
