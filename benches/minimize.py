"""Whether training with 8-bit states ends where training with 32-bit states does.

Every optimizer solves two small real problems from several seeds, which choose the first weights
and the order of the data, once with 32-bit and once with 8-bit states: from one seed both see the
same data. What a run ends with is its loss on held-out data, the same for all seeds. An optimizer
is within the spread on a problem if, of the final losses over its seeds::

    | mean(8-bit) - mean(32-bit) | <= standard deviation(32-bit)

that is, if to swap the states moves the result by no more than another seed typically does. It
must hold in both directions: a better loss would be luck, or another algorithm than the one asked
for. Pairing the seeds makes the difference of the means a sharper measure than independent runs
would, where it alone varies by sqrt(2 / seeds) of a standard deviation.

The problems are

- `digits`: logistic regression of scikit-learn's handwritten digits. It is convex, so what stays
  between two runs is noise of the last steps. Its states are quantized although tensors of so few
  elements are not as a rule, and some border pixels are zero in every image: no gradient reaches
  their weights;
- `gpt`: the demo's GPT of size "tiny", on the demo's text.

Learning rates rise and fall as in the demo, and gradients are clipped as there. Runs are spread
over processes of one thread each, so that losses do not depend on the number of processors.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product
from multiprocessing import get_context

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from optim8.demo.model import GPT
from optim8.demo.sizes import SIZES
from optim8.demo.text import sample, standard_library
from optim8.demo.train import MAX_GRADIENT_NORM, learning_rate_factor, mean_loss

N_SEEDS, N_QUICK_SEEDS = 5, 2


@dataclass(frozen=True)
class Setting:
    """An optimizer's peak learning rate on each problem, and what is not its default."""

    digits: float
    gpt: float
    arguments: dict[str, object] = field(default_factory=dict)


#: Learning rates were tuned by hand, with 32-bit states and seeds that the study does not use, for
#: a low held-out loss among 1, 3, 10, 30, ...; for `gpt`, AdamW and NAdam have Adam's. A momentum
#: of 0.9 is usual. What matters is that all train well: the study compares no two optimizers.
SETTINGS = {
    "Adadelta": Setting(100, 3),
    "Adagrad": Setting(3, 0.01),
    "Adam": Setting(0.3, 3e-3),
    "AdamW": Setting(0.3, 3e-3),
    "Adamax": Setting(0.3, 3e-3),
    # The default of the slow average, 0.9999, is for runs of 10,000 steps and more.
    "AdEMAMix": Setting(0.03, 1e-3, {"betas": (0.9, 0.999, 0.99)}),
    "Graft": Setting(1, 0.1),
    "LAMB": Setting(0.03, 0.01),
    "LARS": Setting(10, 3, {"momentum": 0.9, "weight_decay": 1e-4}),
    "Lion": Setting(0.01, 1e-3),
    "Muon": Setting(0.3, 0.01),
    "NAdam": Setting(0.3, 3e-3),
    "RAdam": Setting(0.3, 0.01),
    "RMSprop": Setting(0.01, 1e-3, {"momentum": 0.9}),
    # Small batches change the signs of gradients, and would shrink unbounded steps to nothing.
    "Rprop": Setting(1e-3, 1e-3, {"step_sizes": (1e-3, 1e-2)}),
    "ScheduleFreeAdamW": Setting(0.3, 3e-3),
    "SGD": Setting(1, 0.1, {"momentum": 0.9}),
    "SGDW": Setting(1, 0.1, {"momentum": 0.9}),
    "StableAdamW": Setting(0.3, 3e-3),
}


@dataclass(frozen=True)
class Problem:
    """What is minimized: a model with a method `loss`, and its data.

    Attributes
    ----------
    n_steps : int
        Of a run.
    make_model : callable
        Makes it, with weights that depend on torch's seed.
    sample : callable
        Draws the rows of a step with a generator.
    held_out : callable
        Returns batches of rows, always the same.
    options : dict
        Of our optimizers.
    """

    n_steps: int
    make_model: Callable[[], nn.Module]
    sample: Callable[[torch.Generator], Tensor]
    held_out: Callable[[], Sequence[Tensor]]
    options: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training run's held-out losses, before it and after."""

    start: float
    end: float


@dataclass(frozen=True)
class Minimum:
    """What an optimizer's runs on a problem ended with, one for each seed.

    Attributes
    ----------
    problem, optimizer : str
        Names in `PROBLEMS` and `SETTINGS`.
    start : float
        Held-out loss before the first step, the mean over the seeds.
    ends_32_bit, ends_8_bit : list of float
        Held-out losses after the last, in nats, by seed.
    """

    problem: str
    optimizer: str
    start: float
    ends_32_bit: list[float]
    ends_8_bit: list[float]

    @classmethod
    def of(
        cls, problem: str, optimizer: str, runs_32_bit: Sequence[Run], runs_8_bit: Sequence[Run]
    ) -> Minimum:
        """Gather the runs of all seeds."""
        start = statistics.mean(run.start for run in runs_32_bit)
        ends = ([run.end for run in runs] for runs in (runs_32_bit, runs_8_bit))
        return cls(problem, optimizer, start, *ends)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds with 32-bit states."""
        return statistics.stdev(self.ends_32_bit)

    @property
    def difference(self) -> float:
        """Mean with 8-bit states minus mean with 32-bit states."""
        return statistics.mean(self.ends_8_bit) - statistics.mean(self.ends_32_bit)

    @property
    def is_within_spread(self) -> bool:
        """Whether 8-bit states moved the result by no more than a seed does."""
        return abs(self.difference) <= self.spread


class LogisticRegression(nn.Linear):
    """The class of an image of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__(64, 10)

    def loss(self, rows: Tensor) -> Tensor:
        """Mean cross entropy of rows of shape (n, 65): 64 pixels and the class."""
        return functional.cross_entropy(self(rows[:, :-1]), rows[:, -1].long())


#: One image in so many is held out.
HELD_OUT_EVERY = 5


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return training and held-out rows: pixels from 0 to 1, and the class."""
    from sklearn.datasets import load_digits  # takes a second to import

    pixels, classes = load_digits(return_X_y=True)
    rows = torch.cat([torch.as_tensor(pixels) / 16, torch.as_tensor(classes)[:, None]], 1).float()
    is_held_out = torch.arange(len(rows)) % HELD_OUT_EVERY == 0
    return rows[~is_held_out], rows[is_held_out]


def _sample_digits(generator: torch.Generator) -> Tensor:
    training, _ = _digits()
    return training[torch.randint(len(training), (64,), generator=generator)]


_TINY = SIZES["tiny"]
_text = cache(standard_library)


def _sample_text(generator: torch.Generator) -> Tensor:
    return sample(_text().training, _TINY.batch, _TINY.context + 1, generator)


@cache
def _held_out_text() -> Sequence[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return sample(_text().held_out, 512, _TINY.context + 1, generator).split(256)


PROBLEMS = {
    "digits": Problem(
        n_steps=400,
        make_model=LogisticRegression,
        sample=_sample_digits,
        held_out=lambda: (_digits()[1],),
        options={"min_quantized_numel": 0},
    ),
    "gpt": Problem(
        n_steps=200,
        make_model=partial(GPT, _TINY.n_layers, _TINY.width, _TINY.n_heads, _TINY.context),
        sample=_sample_text,
        held_out=_held_out_text,
    ),
}


def make_optimizers(name: str, model: nn.Module, lr: float, **options: object) -> list[Optimizer]:
    """Make what trains a model: an optimizer, and AdamW of what Muon is not meant for."""
    import optim8

    arguments = {"lr": lr, **SETTINGS[name].arguments, **options}
    if name == "Graft":
        magnitude = optim8.SGD(model.parameters(), momentum=0.9, **arguments)
        direction = optim8.AdamW(model.parameters(), weight_decay=0.0, **arguments)
        return [optim8.Graft(magnitude, direction)]
    if name == "Muon":
        hidden = model.layers if isinstance(model, GPT) else model
        matrices = [p for p in hidden.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
        return [optim8.Muon(matrices, **arguments), optim8.AdamW(others, lr=1e-3, **options)]
    return [getattr(optim8, name)(model.parameters(), **arguments)]


def train(problem: Problem, optimizer: str, lr: float, seed: int, state_bits: int) -> Run:
    """Train a model.

    Parameters
    ----------
    problem : Problem
        What is minimized.
    optimizer : str
        A name in `SETTINGS`.
    lr : float
        Its peak learning rate.
    seed : int
        Of the first weights and the order of the data.
    state_bits : int
        8 or 32.
    """
    torch.manual_seed(seed)
    model = problem.make_model()
    optimizers = make_optimizers(optimizer, model, lr, state_bits=state_bits, **problem.options)
    factor = partial(learning_rate_factor, n_steps=problem.n_steps)
    schedulers = [LambdaLR(each, factor) for each in optimizers]
    order = torch.Generator().manual_seed(seed)
    start = mean_loss(model, problem.held_out())
    for _ in range(problem.n_steps):
        model.loss(problem.sample(order)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        for each in (*optimizers, *schedulers):
            each.step()
        model.zero_grad()
    for each in optimizers:
        if hasattr(each, "eval"):  # Schedule-Free evaluates elsewhere than it trains
            each.eval()
    return Run(start, mean_loss(model, problem.held_out()))


def study(
    problems: Iterable[str] = tuple(PROBLEMS),
    names: Iterable[str] = tuple(SETTINGS),
    n_seeds: int = N_SEEDS,
    *,
    quiet: bool = False,
) -> list[Minimum]:
    """Solve problems with optimizers, from every seed, with states of 32 and of 8 bits.

    Parameters
    ----------
    problems : iterable of str
        In `PROBLEMS`.
    names : iterable of str
        In `SETTINGS`.
    n_seeds : int
        At least two, or there is no spread.
    quiet : bool, default False
        Print no progress to stderr.

    Returns
    -------
    list of Minimum
        By problem, then in the order of the names.
    """
    cases = list(product(problems, names))
    tasks = list(product(cases, (32, 8), range(n_seeds)))
    runs: list[Run] = []
    with ProcessPoolExecutor(
        torch.get_num_threads(), get_context("spawn"), torch.set_num_threads, (1,)
    ) as pool:
        for run in pool.map(_run, tasks):
            runs.append(run)
            if not quiet:
                end = "\n" if len(runs) == len(tasks) else ""
                print(f"\rrun {len(runs)}/{len(tasks)}", end=end, file=sys.stderr)
    groups = iter(zip(*[iter(runs)] * n_seeds, strict=True))  # by case, then by bits
    return [Minimum.of(*case, next(groups), next(groups)) for case in cases]


def _run(task: tuple[tuple[str, str], int, int]) -> Run:
    (problem, optimizer), state_bits, seed = task
    lr = getattr(SETTINGS[optimizer], problem)
    return train(PROBLEMS[problem], optimizer, lr, seed, state_bits)
