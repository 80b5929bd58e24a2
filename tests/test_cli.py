"""The command `optim8`: help, errors, and what `optim8 info` shows."""

import os
import re
import subprocess
import sys

import pytest
import torch

from optim8 import _native
from optim8.cli import main


def test_info_shows_what_runs_here(capsys: pytest.CaptureFixture[str]) -> None:
    main(["info"])
    shown = dict(
        re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
    )
    native = _native.info()
    assert shown["optim8"] == _native.__version__
    assert shown["torch"] == torch.__version__
    assert shown["instruction set"].split()[0] == native["level"]
    assert native["levels"] == re.findall(r"\w+", shown["instruction set"].partition("has ")[2])
    assert int(shown["threads"].split()[0]) <= torch.get_num_threads()
    assert shown["thread backend"] == native["threads_backend"]
    if sys.platform == "linux":  # where torch has a team to borrow
        assert native["threads_backend"] == "openmp"


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"], ["demo", "--help"]])
def test_help_ends_well(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    assert "usage: optim8" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["demo", "--steps", "0"]])
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "optim8" in capsys.readouterr().err


def test_version_is_the_native_modules(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"optim8 {_native.__version__}\n"


def test_help_needs_no_torch() -> None:
    program = (
        "import contextlib, sys, optim8.cli\n"
        "with contextlib.suppress(SystemExit): optim8.cli.main(['--help'])\n"
        "assert 'torch' not in sys.modules and 'optim8._native' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_package_has_its_public_names_and_no_others() -> None:
    program = (
        "import optim8\n"
        "assert not hasattr(optim8, 'no_such_name') and not hasattr(optim8, '_private')\n"
        "assert set(optim8.__all__) <= set(dir(optim8))\n"
        "from optim8 import *\n"
        "assert AdamW is optim8.AdamW and optim8.nn.StableEmbedding\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="no such pipes")
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = "from optim8.cli import main; main(['plan', 'carbon', '--hours', '1', '--json'])"
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_reader_that_goes_before_the_buffer_is_written_is_told_by_the_status():
    program = "from optim8.cli import main; main(['plan', 'carbon', '--hours', '1', '--json'])"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=buffered,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_info_counts_no_more_threads_than_there_may_be(monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10**6)
    main(["info"])
    [line] = [x for x in capsys.readouterr().out.splitlines() if x.startswith("threads ")]
    assert int(line.split()[1]) == _native.info()["max_threads"] < 10**6
