"""The benchmarks run, at tiny sizes, and notice a wrong answer.

What they measure here is noise; that they measure the right thing is what can be tested.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benches import (
    answer,
    cases,
    family,
    fidelity,
    memory,
    optimizers,
    plan_fit,
    report,
    simulated,
)
from benches.__main__ import STUDIES, main
from benches.fidelity import Fidelity, Protocol
from benches.minimize import Minimum
from benches.record import Record, Result
from benches.timing import MemoryRoof, Timing, alternate

NAMES = [candidate.name for candidate in optimizers.torchs() + optimizers.ours()]

TINY = Protocol(n_layers=1, width=16, context=8, batch=2, n_steps=4, n_last=2)


@pytest.fixture
def small_roof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no real bandwidth, which takes a large tensor and most of the time."""
    monkeypatch.setattr(MemoryRoof.__init__, "__defaults__", (1000,))


def run(study: str, path: Path, *arguments: str) -> Record:
    main([study, "--no-peers", "--rounds", "1", "--output", str(path), *arguments])
    return Record.load(path)


@pytest.mark.usefixtures("small_roof")
def test_step_is_measured_recorded_and_drawn(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = run("step", path, "--sizes", "5000,3x4096")
    assert {(r.case, r.dtype, r.candidate) for r in record.results} == {
        (case, dtype, name)
        for case in ("5000", "3x4096")
        for dtype in ("float32", "bfloat16")
        for name in NAMES
    }
    bytes_per_element = {r.candidate: r.bytes_per_element for r in record.results[: len(NAMES)]}
    assert bytes_per_element[optimizers.BASELINE] == pytest.approx(28, abs=0.01)
    assert bytes_per_element[report.OURS] == pytest.approx(16 + 16 / 256, abs=0.01)
    main(["report", str(path)])
    assert path.with_suffix(".png").stat().st_size > 0


@pytest.mark.usefixtures("small_roof")
def test_loop_and_quantize_are_measured(tmp_path: Path) -> None:
    for study, size in (("loop", "100k"), ("quantize", "5000")):
        record = run(study, tmp_path / "record.json", "--sizes", size)
        assert {r.bench for r in record.results} < report.BASELINES.keys()
        assert report.OURS in {r.candidate for r in record.results}


@pytest.mark.usefixtures("small_roof")
def test_family_is_measured(tmp_path: Path) -> None:
    record = run("family", tmp_path / "record.json", "--sizes", "5000")
    cases = {r.case.split()[0]: r.candidate for r in record.results}
    assert cases.keys() == family.OPTIMIZERS.keys()


def test_every_bar_reads_what_the_studies_write() -> None:
    """A bar that nothing matches would silently be missing from the table."""
    timing = Timing(1.0, 1.0, 1)
    record = Record(
        results=[
            Result(bench, case, dtype, level, candidate, 1, timing, 1.0, 1.0)
            for bench in ("step", "loop", "quantize")
            for case in STUDIES[bench].sizes
            for dtype in ("float32", "bfloat16")
            for level in ("avx2", "avx512")
            for candidate in (*NAMES, "bitsandbytes", "torchao")
        ],
        memory=[memory.Memory(report.OURS, 100, "float32", 203, 0)],
        fidelity=[
            Fidelity(name, 0.1, 1, 2) for name in (*fidelity.our_candidates(), "bitsandbytes")
        ],
        minimize=[Minimum("digits", "SGD", 2.3, [0.1, 0.2], [0.1, 0.2])],
    )
    record.machine["optim8"] = {"level": "avx512"}
    assert [bar.title for bar in report.BARS if bar.measure(record) is None] == []


def test_a_record_keeps_final_losses(tmp_path: Path) -> None:
    minima = [
        Minimum("digits", "SGD", 2.3, [0.1, 0.3], [0.1, 0.2]),
        Minimum("gpt", "SGD", 5.5, [2.5, 2.7], [2.5, 3.5]),
    ]
    record = Record.load(Record(minimize=minima).save(tmp_path / "record.json"))
    assert record.minimize == minima
    shown = report.minimize_table(record.minimize)
    assert "| SGD | 0.2000 ± 0.1414 | 0.1500 ± 0.0707 |" in shown
    assert "0.5 of them" in report.bars_table(record)


def test_coverage_counts_the_tables_whose_intervals_hold_the_truth(tmp_path: Path) -> None:
    coverages = plan_fit.study(n_tables=2, n_resamples=4)
    held = [plan_fit.held(seed, n_resamples=4) for seed in range(2)]
    assert [c.n_held for c in coverages] == [sum(column) for column in zip(*held, strict=True)]
    assert [c.name for c in coverages] == ["E", "A", "B", "alpha", "beta"]
    record = Record.load(Record(plan_fit=coverages).save(tmp_path / "record.json"))
    assert record.plan_fit == coverages
    half = [plan_fit.Coverage("E", 50, 100, 0.9)]
    assert "50% of 100 |    90% |               3.0% |" in report.plan_fit_table(half)


@pytest.mark.parametrize(
    "mistake",
    [
        {"weight_decay": 0.0},
        {"eps": 1.0},
        {"betas": (0.9, 0.5)},
        {"betas": (0.8, 0.999)},
        {"lr": 0.06},
    ],
)
def test_a_wrong_answer_is_noticed(mistake: dict[str, object]) -> None:
    generator = torch.Generator().manual_seed(0)
    for candidate in (optimizers.torchs() + optimizers.ours())[:4]:  # linear's steps are too coarse
        for hyperparameters in (answer.HYPERPARAMETERS, answer.HYPERPARAMETERS | mistake):
            parameter = nn.Parameter(torch.randn(10_000, generator=generator))
            parameter.grad = gradient = torch.randn(10_000, generator=generator)
            before = gradient.clone()
            check = partial(answer.check, candidate.name)
            optimizer = candidate.make([parameter], **hyperparameters)
            if hyperparameters == answer.HYPERPARAMETERS:
                check(optimizer, [parameter], candidate.tolerance)
            else:
                with pytest.raises(answer.WrongAnswerError, match=candidate.name):
                    check(optimizer, [parameter], candidate.tolerance)
            assert gradient.equal(before)


@pytest.mark.parametrize("stream", fidelity.STREAMS)
def test_update_error_of_exact_states_is_zero_and_of_ours_small(stream: str) -> None:
    exact = simulated.StateFormat(Tensor.clone, Tensor.clone, 8)
    candidates = {
        "exact": partial(simulated.SimulatedAdamW, state_format=exact),
        **fidelity.our_candidates(),
        **fidelity.simulated_candidates(),
    }
    study = fidelity.study(candidates, TINY, stream=stream, quiet=True)
    found = {f.candidate: f for f in study}
    assert found["exact"].error < 1e-5
    ours = found[f"{report.OURS}, stochastic, block 256"]
    assert 1e-4 < ours.error < 0.1
    assert ours.state_bytes_per_parameter < 2.04
    assert ours.stream == stream


def test_simulated_codebook_is_ours() -> None:
    import optim8

    for signed in (True, False):
        ours = torch.as_tensor(optim8.codebook("dynamic", signed))
        torch.testing.assert_close(simulated.dynamic_codebook(signed), ours, rtol=3e-7, atol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells of peaks")
def test_memory_of_a_step_is_seen() -> None:
    n_bytes = 64 << 20
    assert memory.peak_growth(lambda: torch.ones(n_bytes // 4)) >= n_bytes // 2
    assert memory.peak_growth(lambda: None) < n_bytes // 8
    measured = memory.measure(report.OURS, 8 << 20)
    assert measured.state_bytes_per_parameter == pytest.approx(2 + 8 / 256, abs=1e-3)
    # A temporary of either state alone would be four times this.
    assert measured.step_peak_bytes < 8_000_000


def test_every_action_has_its_turns() -> None:
    calls: list[str] = []
    actions = {name: partial(calls.append, name) for name in "abc"}
    timings = alternate(actions, MemoryRoof(1000), n_rounds=2, hot=False)
    assert "".join(calls) == "abccba"
    assert {name: timing.n_samples for name, timing in timings.items()} == dict.fromkeys("abc", 2)


def test_names_of_cases() -> None:
    assert cases.parse("gpt2").n_elements == 124_439_808
    assert cases.parse("1000x10k").shapes == ((10_000,),) * 1000
    for nonsense in ("", "M", "1.5M", "x"):
        with pytest.raises(ValueError, match="expected a number"):
            cases.parse(nonsense)
