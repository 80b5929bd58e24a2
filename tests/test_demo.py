"""The demo, from end to end at a tiny size, and the parts that its figures rest on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from optim8.cli import main
from optim8.demo import command, process, report, text, train

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
N_STEPS = 30


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train with one thread: on a busy machine, threads wait for each other most of the time."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for child processes
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def test_demo_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--size", "tiny", "--steps", str(N_STEPS), "--out", str(tmp_path)])

    shown = capsys.readouterr().out
    for name, _, _ in report.ROWS:
        assert name in shown
    assert process.BASELINE in shown
    assert process.OURS in shown
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG_SIGNATURE)

    baseline, ours = json.loads((tmp_path / "demo.json").read_text())
    assert baseline["state_bytes"] / baseline["n_parameters"] == pytest.approx(8, rel=1e-3)
    assert 2 < ours["state_bytes"] / ours["n_parameters"] < 2.3  # small tensors stay in 32 bits
    for run in (baseline, ours):
        assert run["step_seconds"] > 0
        assert len(run["losses"]) == N_STEPS
        assert [run["held_out_losses"][at][0] for at in (0, -1)] == [0, N_STEPS]
    # Before the first step nothing differs; after it, only by the states' rounding.
    assert ours["losses"][0] == baseline["losses"][0]
    assert ours["held_out_losses"][0] == baseline["held_out_losses"][0]
    assert baseline["losses"][-1] < baseline["losses"][0] - 1
    # Held-out losses, as a batch's may turn on a byte that the model has hardly met.
    for (_, old), (_, new) in zip(
        baseline["held_out_losses"], ours["held_out_losses"], strict=True
    ):
        assert new == pytest.approx(old, abs=0.02)


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "rich" else object())
    with pytest.raises(SystemExit, match=r"needs rich; install with: pip install 'optim8\[demo\]'"):
        main(["demo", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_failed_run_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    task = process.Task("no.such.Optimizer", "tiny", 1, 0)
    with pytest.raises(RuntimeError, match=r"no\.such\.Optimizer ended with status 1"):
        process.run(task, lambda *_: None)
    assert "KeyError" in capfd.readouterr().err


@pytest.mark.parametrize("n_steps", [1, 7, 23])
def test_held_out_loss_is_taken_first_last_and_at_even_distances(n_steps: int) -> None:
    result = train.train(process.Task(process.BASELINE, "tiny", n_steps, 0), lambda *_: None)
    steps = [step for step, _ in result.held_out_losses]
    assert steps[0] == 0
    assert steps[-1] == n_steps
    assert len(steps) == min(n_steps, train.N_HELD_OUT_LOSSES) + 1
    distances = {after - before for before, after in pairwise(steps)}
    assert max(distances) - min(distances) <= 1


def test_seed_decides_the_run() -> None:
    runs = [
        train.train(process.Task(process.BASELINE, "tiny", 2, seed), lambda *_: None).losses
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_text_is_split_by_file(tmp_path: Path) -> None:
    n_files = text.HELD_OUT_EVERY + 2
    for index in range(n_files):
        (tmp_path / f"{index:03}.py").write_bytes(bytes([index]) * 10)
    for folder in text.SKIPPED_FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "skipped.py").write_bytes(b"\xff")
    (tmp_path / "notes.txt").write_bytes(b"\xff")
    split = text.standard_library(tmp_path)
    held_out = {0, text.HELD_OUT_EVERY}
    assert set(split.held_out.tolist()) == held_out
    assert set(split.training.tolist()) == set(range(n_files)) - held_out


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="standard library"):
        text.standard_library(tmp_path)


def test_pieces_are_runs_of_the_text() -> None:
    pieces = text.sample(torch.arange(10, dtype=torch.uint8), 200, 4, torch.Generator())
    assert pieces.shape == (200, 4)
    assert (pieces.diff() == 1).all()
    assert (int(pieces.min()), int(pieces.max())) == (0, 9)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere what is in use is not told")
def test_peak_memory_sees_what_has_been_freed() -> None:
    """In a process of its own, as peaks do not go down."""
    program = """
import torch
from optim8.demo import memory

before = memory.resident_bytes()
large = torch.ones(512 << 20, dtype=torch.uint8)
del large
assert memory.peak_resident_bytes() >= before + 0.9 * (512 << 20)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
