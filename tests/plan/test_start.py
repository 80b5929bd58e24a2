"""How the command starts: quickly, without what the question has no use for."""

import os
import re
import subprocess
import sys
from unittest import mock

import pytest

from optim8.cli import main
from plan_command import ask

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


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("compute --params 1e308", "beyond reason"),
        ("compute --tokens 1e-300", "beyond reason"),
        ("cost --params 1e300 --tokens 1e300", "beyond reason"),
        ("cost --flops 1e20 --n-layers 3", "--n-layers with --params and --tokens"),
        ("carbon --hours 1e308 --json", "not JSON compliant"),
        ("carbon --hours 1 --country FRA", "--country with --measure only"),
        ("memory --params 9 --memory 0.5", "a byte or more"),
        ("memory --params 9 --data mine.toml", "unrecognized arguments: --data"),
        ("fit runs.csv --data mine.toml", "unrecognized arguments: --data"),
        ("transfer runs.csv --data mine.toml", "unrecognized arguments: --data"),
    ],
)
def test_what_cannot_be_answered_is_said_without_a_traceback(question, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", *question.split()])
    assert message in " ".join(capsys.readouterr().err.split())


def test_what_is_in_brackets_is_shown_as_it_is(tmp_path, capsys):
    grid = 'kg_per_kwh = 0.5\ntitle = "café [/b] [north]"\nsource = "x"\ndate = "2024"\n'
    (tmp_path / "own.toml").write_text(f"[grid.own]\n{grid}", encoding="utf-8")
    with mock.patch.dict(os.environ, COLUMNS="200"):
        main(["plan", "carbon", "--hours", "1", "--grid", "own", "--data", f"{tmp_path}/own.toml"])
    assert "café [/b] [north]; x, 2024" in capsys.readouterr().out
    (tmp_path / "own.toml").write_text(f"[grid.own]\n{grid}".replace("0.5", "nan"), "utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "carbon", "--hours", "1", "--grid", "own", "--data", f"{tmp_path}/own.toml"])
    assert "kg_per_kwh is nan (expected float)" in capsys.readouterr().err


def test_runs_that_determine_no_optimum_are_an_error(tmp_path, capsys):
    """The loss is the same whatever the size."""
    rows = [f"{n}e8,{d}e9,{2 + 0.001 * (n * d % 7)}" for n in (1, 3, 9) for d in (2, 6, 20)]
    (tmp_path / "runs.csv").write_text("params,tokens,loss\n" + "\n".join(rows) + "\n")
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "fit", f"{tmp_path}/runs.csv", "--flops", "1e21", "--resamples", "3"])
    assert re.search("optimum|beyond reason", capsys.readouterr().err)
    found = ask(capsys, "fit", f"{tmp_path}/runs.csv", "--resamples", "3")
    assert found["ill_determined"]
