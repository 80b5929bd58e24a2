"""Tables: of results for the terminal while they are measured, of a record for the README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean, stdev

from benches import codec, family, optimizers
from benches.fidelity import Fidelity
from benches.memory import Memory
from benches.minimize import Minimum
from benches.plan_fit import Coverage
from benches.plan_memory import Comparison
from benches.record import Record, Result

OURS = f"optim8 {optimizers.CODECS[0]}"

#: What each bench is compared with; "backward" is the time between two steps.
BASELINES = {
    "step": optimizers.BASELINE,
    "loop": optimizers.BASELINE,
    "offload": optimizers.BASELINE,
    "offload step": optimizers.BASELINE,
    "family": family.BASELINE,
    "backward": optimizers.BASELINE,
    "quantize": codec.BASELINE,
    "dequantize": codec.BASELINE,
}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table that is readable as it is and is Markdown too; the first column is text."""
    lines = [list(header), *map(list, rows)]
    widths = [max(2, *(len(line[i]) for line in lines)) for i in range(len(header))]

    def join(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([join(lines[0]), join(rule), *map(join, lines[1:])])


def results_table(results: Sequence[Result]) -> str:
    """Show timings, one table for each case, with ratios to the case's baseline."""

    def case_of(result: Result) -> tuple[str, str, str, str]:
        return result.bench, result.case, result.dtype, result.level

    return "\n\n".join(
        f"{bench} {case} {dtype} (optim8 on {level})\n" + _case_table(list(group))
        for (bench, case, dtype, level), group in groupby(results, key=case_of)
    )


def _case_table(results: Sequence[Result]) -> str:
    baseline = next((r for r in results if r.candidate == BASELINES[r.bench]), None)
    header = ("", "min", "median", "ns/element", "times faster", "(medians)", "of bandwidth", "n")
    return table(
        header,
        (
            (
                result.candidate,
                _duration(result.timing.minimum_ns),
                _duration(result.timing.median_ns),
                f"{result.timing.minimum_ns / result.n_elements:.3f}",
                _number(baseline and baseline.timing.minimum_ns / result.timing.minimum_ns),
                _number(baseline and baseline.timing.median_ns / result.timing.median_ns),
                "" if result.bench in ("backward", "offload") else f"{result.share_of_roof:.0%}",
                str(result.timing.n_samples),
            )
            for result in results
        ),
    )


def memory_table(memory: Iterable[Memory]) -> str:
    """Show what states take and what a step takes on top."""
    return table(
        ("", "elements", "state bytes/parameter", "extra at a step's peak"),
        (
            (
                f"{m.candidate} {m.dtype}",
                f"{m.n_elements:,}",
                f"{m.state_bytes_per_parameter:.3f}",
                f"{m.step_peak_bytes / 1e6:.1f} MB",
            )
            for m in memory
        ),
    )


def plan_memory_table(comparisons: Iterable[Comparison]) -> str:
    """Show what the planner predicts, and what a process took, in MB."""
    return table(
        ("", "states", "measured", "peak", "measured", "error", "default allocator"),
        (
            (
                found.case,
                f"{found.predicted_states / 1e6:.3f}",
                "equal" if found.states == found.predicted_states else f"{found.states / 1e6:.3f}",
                f"{found.predicted_peak / 1e6:.1f}",
                f"{found.peak / 1e6:.1f}",
                f"{found.error:+.1%}",
                f"{found.default_peak / 1e6:.1f}",
            )
            for found in comparisons
        ),
    )


def fidelity_table(fidelity: Iterable[Fidelity]) -> str:
    """Show the update-error study."""
    return table(
        ("states", "gradients", "bytes/parameter", "error", "largest, in lr"),
        (
            (
                f.candidate,
                f.stream,
                f"{f.state_bytes_per_parameter:.2f}",
                f"{f.error:.4f}",
                f"{f.largest_error_in_lr:,.2f}",
            )
            for f in fidelity
        ),
    )


def plan_fit_table(coverages: Iterable[Coverage]) -> str:
    """Show how often intervals held the truth, and by how much chance alone moves that."""
    return table(
        ("", "held", "should", "standard deviation"),
        (
            (
                c.name,
                f"{c.n_held / c.n_tables:.0%} of {c.n_tables}",
                f"{c.confidence:.0%}",
                f"{(c.confidence * (1 - c.confidence) / c.n_tables) ** 0.5:.1%}",
            )
            for c in coverages
        ),
    )


def minimize_table(minima: Iterable[Minimum]) -> str:
    """Show final losses, mean and standard deviation over seeds, one table for each problem."""
    header = ("", "32-bit", "8-bit", "difference, in deviations", "within the spread")
    return "\n\n".join(
        f"{problem}\n"
        + table(
            header,
            (
                (
                    m.optimizer,
                    _mean_and_deviation(m.ends_32_bit),
                    _mean_and_deviation(m.ends_8_bit),
                    f"{m.difference / m.spread:+.2f}",
                    "yes" if m.is_within_spread else "no",
                )
                for m in group
            ),
        )
        for problem, group in groupby(minima, key=lambda m: m.problem)
    )


def _mean_and_deviation(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ± {stdev(values):.4f}"


@dataclass(frozen=True)
class Bar:
    """What must be reached, and how it is read from a record."""

    title: str
    bar: float
    aim: float | None
    measure: Callable[[Record], float | None]
    unit: str = "x"
    higher_is_better: bool = True

    def reached(self, value: float) -> bool:
        """Whether a value is good enough."""
        return value >= self.bar if self.higher_is_better else value <= self.bar


def speedup(
    bench: str,
    case: str,
    other: str,
    *,
    dtype: str = "float32",
    level: str | None = None,
    median: bool = False,
) -> Callable[[Record], float | None]:
    """Make a function of a record: how many times as fast as another ours is."""

    def measure(record: Record) -> float | None:
        wanted = level or record.machine["optim8"]["level"]
        times = {
            r.candidate: r.timing.median_ns if median else r.timing.minimum_ns
            for r in record.results
            if (r.bench, r.case, r.dtype, r.level) == (bench, case, dtype, wanted)
        }
        return times[other] / times[OURS] if {other, OURS} <= times.keys() else None

    return measure


def _memory(field: Callable[[Memory], float]) -> Callable[[Record], float | None]:
    return lambda record: max(
        (field(m) for m in record.memory if m.candidate == OURS), default=None
    )


def _error(record: Record) -> float | None:
    return _errors(record).get("optim8 dynamic, stochastic, block 256")


def _error_against_peer(record: Record) -> float | None:
    ours, peer = _error(record), _errors(record).get("bitsandbytes")
    return ours / peer if ours and peer else None


def _share_within_spread(record: Record) -> float | None:
    return mean(m.is_within_spread for m in record.minimize) if record.minimize else None


def _errors(record: Record) -> dict[str, float]:
    return {f.candidate: f.error for f in record.fidelity if f.stream == "GPT"}


_FUSED = optimizers.BASELINE

BARS = (
    Bar("step, 32 M float32, against torch fused", 1.4, 1.7, speedup("step", "32M", _FUSED)),
    Bar(
        "step, 32 M bfloat16, against torch fused",
        1.2,
        1.4,
        speedup("step", "32M", _FUSED, dtype="bfloat16"),
    ),
    Bar("step, 1 M float32, in cache", 1.2, 1.6, speedup("step", "1M", _FUSED)),
    Bar("step, 1000 tensors of 10,000", 2.0, 3.0, speedup("step", "1000x10k", _FUSED)),
    Bar("in a loop, 1 M", 1.3, 2.6, speedup("loop", "1M", _FUSED, median=True)),
    Bar("in a loop, 8 M", 1.3, 1.6, speedup("loop", "8M", _FUSED, median=True)),
    Bar("step, 32 M float32, AVX2", 0.9, 1.2, speedup("step", "32M", _FUSED, level="avx2")),
    Bar("step, 8 M, against bitsandbytes", 25, 40, speedup("step", "8M", "bitsandbytes")),
    Bar("step, 8 M, against torchao", 25, 40, speedup("step", "8M", "torchao")),
    Bar(
        "quantize 32 M, against bitsandbytes", 20, None, speedup("quantize", "32M", "bitsandbytes")
    ),
    Bar(
        "state bytes per parameter",
        2.04,
        None,
        _memory(lambda m: m.state_bytes_per_parameter),
        unit="",
        higher_is_better=False,
    ),
    Bar(
        "extra memory at the peak of a step",
        8.0,
        None,
        _memory(lambda m: m.step_peak_bytes / 1e6),
        unit=" MB",
        higher_is_better=False,
    ),
    Bar("update error, dynamic", 0.08, 0.04, _error, unit="", higher_is_better=False),
    Bar(
        "the same, of bitsandbytes'",
        0.6,
        None,
        _error_against_peer,
        unit="",
        higher_is_better=False,
    ),
    Bar("final losses within the seeds' spread", 1.0, None, _share_within_spread, unit=" of them"),
)


def bars_table(record: Record) -> str:
    """Show what a record says of those bars that it says something of."""
    rows = []
    for bar in BARS:
        value = bar.measure(record)
        if value is not None:
            shown = [_with_unit(x, bar.unit) for x in (bar.bar, bar.aim, value)]
            rows.append((bar.title, *shown, "yes" if bar.reached(value) else "no"))
    return table(("", "bar", "aim", "measured", "reached"), rows) if rows else ""


def _with_unit(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g}{unit}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _duration(nanoseconds: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds / 1e3:.3g} us"
