"""How the command starts: quickly, without what the question has no use for."""

import subprocess
import sys

import pytest

from optim8.cli import main

QUESTIONS = ("compute", "fit", "transfer")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["fit", "--help"], ["compute", "--flops", "5.76e23"]],
)
def test_what_needs_no_model_and_no_fit_imports_neither_torch_nor_scipy(arguments):
    """These take 0.2 s; importing torch takes a second, and SciPy's optimizers half of one."""
    program = (
        "import contextlib, sys, optim8.cli\n"
        "with contextlib.suppress(SystemExit): optim8.cli.main(['plan', *sys.argv[1:]])\n"
        "slow = {'torch', 'scipy', 'matplotlib', 'numpy', 'optim8._native'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)


def test_fits_need_no_torch(tmp_path):
    runs = tmp_path / "runs.csv"
    lines = [f"{n}e8,{d}e9,{2 + 1 / n + 1 / d}" for n in (1, 2, 4) for d in (1, 2, 4)]
    runs.write_text("\n".join(["params,tokens,loss", *lines]))
    program = (
        "import sys, optim8.cli\n"
        "optim8.cli.main(['plan', 'fit', sys.argv[1], '--resamples', '2'])\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(runs)], check=True, capture_output=True)


@pytest.mark.parametrize("question", QUESTIONS)
def test_help_shows_a_worked_example(question, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", question, "--help"])
    assert exit_.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "example, " in shown
    assert f"optim8 plan {question} " in shown.partition("example, ")[2]
