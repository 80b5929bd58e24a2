"""The same bits for any number of threads and on every instruction set."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from optim8 import _native

LEVELS = _native.info()["levels"]


@cache
def digests(level, n_threads, *arguments):
    """Run `digest.py` in a process of its own, as the level is chosen once in each."""
    run = subprocess.run(
        [sys.executable, Path(__file__).parent / "digest.py", str(n_threads), *arguments],
        env={**os.environ, "OPTIM8_ISA": level},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    ran_on, *lines = run.stdout.splitlines()
    assert ran_on == level
    assert len(lines) > 20
    return lines


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "scalar"])
def test_every_level_computes_what_scalar_does(level):
    assert digests(level, 2) == digests("scalar", 2)


@pytest.mark.parametrize("n_threads", [1, 5])
def test_every_number_of_threads_computes_the_same(n_threads):
    assert digests(LEVELS[-1], n_threads) == digests(LEVELS[-1], 2)


def test_flushed_denormals_are_the_same_for_every_number_of_threads():
    """It is a register of each thread, and torch sets it in the calling one."""
    assert digests(LEVELS[-1], 1, "flush") == digests(LEVELS[-1], 2, "flush")


def test_levels_that_must_be_tested_are_here():
    """A machine that lacks one passes silently, unless it was named as required."""
    required = os.environ.get("OPTIM8_REQUIRE_LEVELS", "")
    assert set(filter(None, required.split(","))) <= set(LEVELS)


def test_an_unknown_level_is_refused():
    run = subprocess.run(
        [sys.executable, "-c", "from optim8.cli import main; main(['info'])"],
        env={**os.environ, "OPTIM8_ISA": "nope"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("optim8: OPTIM8_ISA=nope is not available on this CPU: expected")
