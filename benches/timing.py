"""Timing candidates against each other, fairly, on a machine that is not quiet.

Everything compared is measured in one process and in turns: a disturbance, a change of clock speed
or a warm cache then meets all candidates alike, and the ratio of two of them means something even
where their absolute times do not. Of many turns the minimum (what the machine can do) and the
median (what one gets) are kept.

Every turn starts with the same thing, torch's in-place multiplication of a tensor too large for
the caches (`MemoryRoof`), which serves three ends:

- it measures the memory bandwidth that an in-place operation can reach, again and again through the
  run;
- it leaves no candidate's data in the caches, as a backward pass does, so that no candidate profits
  from being small or suffers from being next to a large one;
- it takes longer than idle OpenMP threads spin, so that one candidate's threads do not compete with
  the next one's, and it leaves torch's own threads awake, as they are in training.

A "hot" case is then run a few times untimed, so that what fits in the caches is in them.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import torch

Action = Callable[[], object]

#: Untimed repetitions that bring a hot case into the caches.
N_WARM = 3

#: Timed repetitions in one turn of a hot case.
N_HOT = 10


@dataclass(frozen=True)
class Timing:
    """Minimum and median of many repetitions, in nanoseconds."""

    minimum_ns: float
    median_ns: float
    n_samples: int

    @classmethod
    def of(cls, samples_ns: list[int]) -> Timing:
        """Summarize samples."""
        return cls(min(samples_ns), statistics.median(samples_ns), len(samples_ns))


class MemoryRoof:
    """The memory bandwidth of torch's in-place multiplication, sampled before every turn.

    An optimizer's step reads whatever it writes, as an in-place operation does; a copy would pay
    for reading its target from memory without using it, and so make everything else look good.

    Parameters
    ----------
    n_elements : int, default 32_000_000
        Of float32; far more than any cache holds, or else this is no bandwidth of memory.
    """

    BYTES_PER_ELEMENT = 8

    def __init__(self, n_elements: int = 32_000_000) -> None:
        self._tensor = torch.ones(n_elements)
        self._samples_ns: list[int] = []

    def sample(self) -> None:
        """Multiply once."""
        start = perf_counter_ns()
        self._tensor.mul_(1.0)
        self._samples_ns.append(perf_counter_ns() - start)

    @property
    def bytes_per_second(self) -> float:
        """The best rate seen."""
        return self._tensor.numel() * self.BYTES_PER_ELEMENT / min(self._samples_ns) * 1e9


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector from running inside a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alternate(
    actions: Mapping[str, Action], roof: MemoryRoof, *, n_rounds: int, hot: bool
) -> dict[str, Timing]:
    """Time actions in turns.

    Parameters
    ----------
    actions : mapping of str to callable
        What to time, by name.
    roof : MemoryRoof
        Sampled before every turn.
    n_rounds : int
        How often each action has its turn. The order is reversed every other round, so that none
        always follows the same other.
    hot : bool
        Time repetitions with the caches as the action itself left them, not as the roof did.

    Returns
    -------
    dict of str to Timing
        By name.
    """
    samples: dict[str, list[int]] = {name: [] for name in actions}
    order = list(actions)
    with no_garbage_collection():
        for _ in range(n_rounds):
            for name in order:
                action = actions[name]
                roof.sample()
                for _ in range(N_WARM if hot else 0):
                    action()
                for _ in range(N_HOT if hot else 1):
                    start = perf_counter_ns()
                    action()
                    samples[name].append(perf_counter_ns() - start)
            order.reverse()
    return {name: Timing.of(samples_ns) for name, samples_ns in samples.items()}
