"""Fits of the parametric loss: that they find the law, and how sure they say they are."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from benches.plan_fit import LAW, synthetic
from optim8.cli import main
from optim8.plan import fit as fitting
from optim8.plan import runs
from optim8.plan.fit import (
    DELTA,
    GRID,
    Objective,
    Runs,
    descend,
    fit,
    ill_determined,
    resample,
    shift,
)
from optim8.plan.loss import ParametricLoss
from plan_command import ask

NO_SHIFT = (0.0, 0.0)


def write(path, runs, header="params,tokens,loss"):
    rows = zip(runs.params, runs.tokens, runs.loss, strict=True)
    lines = [",".join(repr(float(value)) for value in row) for row in rows]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def test_the_objective_is_the_papers():
    """Hoffmann et al. 2022, equation 3, written out; with runs on both sides of delta."""
    runs = synthetic(0, noise=0.001)
    a, b, e = np.log([LAW.A, LAW.B, LAW.E])
    total = 0.0
    sides = set()
    for params, tokens, loss in zip(runs.params, runs.tokens, runs.loss, strict=True):
        terms = [a - LAW.alpha * np.log(params), b - LAW.beta * np.log(tokens), e]
        residual = abs(np.log(np.exp(terms).sum()) - np.log(loss))
        sides.add(bool(residual <= 1e-3))
        total += residual**2 / 2 if residual <= 1e-3 else 1e-3 * (residual - 1e-3 / 2)
    assert sides == {True, False}
    point = np.array([a, b, e, LAW.alpha, LAW.beta])
    found = Objective(runs, NO_SHIFT).value(point)
    assert found * DELTA**2 == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("start", [GRID[17], GRID[1234], GRID[-1]])
def test_the_gradient_is_that_of_the_objective(start):
    objective = Objective(synthetic(1), (20.0, 24.0))
    point = shift(np.array(start, float), (20.0, 24.0)) + 0.01

    def gradient(at):
        return objective.value_and_gradient(at)[1]

    scale = np.linalg.norm(gradient(point))
    assert check_grad(objective.value, gradient, point) < 1e-4 * scale


def test_the_grid_is_the_papers():
    assert len(GRID) == len(set(GRID)) == 4500


def test_centering_moves_no_value():
    runs, point = synthetic(2), np.array([6.0, 7.0, 0.5, 0.3, 0.4])
    centered = Objective(runs, (19.0, 25.0)).value(shift(point, (19.0, 25.0)))
    assert centered == pytest.approx(Objective(runs, NO_SHIFT).value(point))


@pytest.mark.parametrize("seed", range(2))
def test_few_descents_find_what_descents_from_all_over_the_grid_do(seed):
    """The lowest 24 starts against every 211th of the grid, whose descents none is lower than."""
    runs = synthetic(seed, n_runs=30, noise=0.01)
    spread = GRID[::211]
    few, wide = fit(runs), fit(runs, spread, len(spread))
    for name in ("E", "alpha", "beta"):
        assert getattr(few, name) == pytest.approx(getattr(wide, name), rel=2e-3)
    assert objective_of(few, runs) <= objective_of(wide, runs) * (1 + 1e-5)


def objective_of(law, runs):
    point = np.array([np.log(law.A), np.log(law.B), np.log(law.E), law.alpha, law.beta])
    return Objective(runs, NO_SHIFT).value(point)


def test_a_descent_ends_where_nothing_lower_is_near():
    runs = synthetic(4)
    objective = Objective(runs, (20.0, 24.0))
    start = np.array([np.log(LAW.A), np.log(LAW.B), np.log(LAW.E), LAW.alpha, LAW.beta])
    value, end = descend(objective, shift(start, (20.0, 24.0)))
    random = np.random.default_rng(0)
    near = [end + 1e-4 * random.standard_normal(5) for _ in range(200)]
    assert min(map(objective.value, near)) > value * (1 - 1e-5)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """By chance fewer than 7 of 10 do once in 80 if 90 % should, and 5 times in 6 if half do."""
    n_held = dict.fromkeys(("E", "alpha", "beta"), 0)
    for seed in range(10):
        runs = synthetic(100 + seed, n_runs=40)
        law = fit(runs, n_descents=3)
        intervals = resample(runs, law, 60, seed).intervals(0.9)
        for name in n_held:
            low, high = intervals[name]
            n_held[name] += low <= getattr(LAW, name) <= high
    assert min(n_held.values()) >= 7, n_held


def test_more_confidence_means_wider_intervals():
    runs = synthetic(5, n_runs=20)
    resampled = resample(runs, fit(runs, n_descents=3), 60, 0)
    for name, (low, high) in resampled.intervals(0.9).items():
        inner_low, inner_high = resampled.intervals(0.5)[name]
        assert low < inner_low < inner_high < high


def test_what_varies_by_more_than_twofold_is_ill_determined():
    assert ill_determined({"A": (1.0, 2.1), "B": (1.0, 1.9), "E": (-1.0, 1.0)}) == ["A", "E"]


def test_the_command_fits_and_says_what_it_cannot_tell(tmp_path, capsys):
    table = write(tmp_path / "runs.csv", synthetic(6))
    plot = tmp_path / "plot.svg"
    options = (table, "--flops", "1e23", "--resamples", "60", "--seed", "3")
    found = ask(capsys, "fit", *options, "--plot", str(plot))
    assert list(found["intervals"]) == ["E", "A", "B", "alpha", "beta"]
    for name, (low, high) in found["intervals"].items():
        assert low < found[name] < high
    assert {"A", "B"} <= set(found["ill_determined"])
    best = ParametricLoss(*(found[name] for name in found["intervals"])).frontier()
    assert found["params"] == pytest.approx(best.for_flops(1e23).params)
    assert found["params"] * found["tokens"] * 6 == pytest.approx(1e23)
    low, high = found["optimum_intervals"]["params"]
    assert low < found["params"] < high
    assert "<svg" in plot.read_text()
    assert ask(capsys, "fit", *options) == found
    main(["plan", "fit", *options])
    shown = " ".join(capsys.readouterr().out.split())
    assert "A and B are ill-determined" in shown
    assert "times that of the largest run" in shown


def test_clean_runs_leave_nothing_ill_determined(tmp_path, capsys):
    table = write(tmp_path / "runs.csv", synthetic(7, noise=1e-4))
    found = ask(capsys, "fit", table, "--resamples", "30")
    assert found["ill_determined"] == []
    assert found["E"] == pytest.approx(LAW.E, rel=1e-3)
    assert found["alpha"] == pytest.approx(LAW.alpha, rel=5e-3)
    assert found["beta"] == pytest.approx(LAW.beta, rel=5e-3)
    assert "params" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("params,loss\n1,1\n", "runs.csv: line 1: no column tokens (found: params, loss)"),
        ("", "runs.csv: line 1: no column params and tokens and loss"),
        ("params,tokens,loss\n1,1,1\n1,1,-2\n",
         "runs.csv: line 3: column loss: expected a number above 0, found '-2'"),
        ("params,tokens,loss\n1,x,1\n",
         "runs.csv: line 2: column tokens: expected a number, found 'x'"),
        ("params,tokens,loss\n1,1\n",
         "runs.csv: line 2: column loss: expected a number, found ''"),
        ("params,tokens,loss\n" + "1,1,1\n" * 5, "Too few runs: 5 (expected more than 5"),
        ("params,tokens,loss\n" + "1,1,1\n" * 9, "Too few different params: 1 (expected 3"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(text, message, tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "fit", str(path)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_table_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "fit", str(tmp_path / "none.csv")])
    assert "none.csv" in capsys.readouterr().err


def test_columns_may_stand_in_any_order_beside_others(tmp_path, capsys):
    runs = synthetic(8, n_runs=12)
    plain = write(tmp_path / "plain.csv", runs)
    other = tmp_path / "other.csv"
    rows = zip(runs.loss, runs.tokens, runs.params, strict=True)
    lines = [f"run {i}, " + ", ".join(repr(float(v)) for v in row) for i, row in enumerate(rows)]
    other.write_text("\ufeffname, loss, tokens, params\n" + "\n".join(lines) + "\n")
    options = ("--resamples", "5")
    assert ask(capsys, "fit", plain, *options) == ask(capsys, "fit", str(other), *options)


def few_runs():
    """Return six runs, of which many resamples lack three sizes or three numbers of tokens."""
    law = ParametricLoss(E=1.8, A=480.0, B=2080.0, alpha=0.35, beta=0.37)
    params = np.array([1e8, 1e8, 3e8, 3e8, 1e9, 1e9])
    tokens = np.array([2e9, 6e9, 2e10, 2e9, 6e9, 2e10])
    noise = 1 + 1e-3 * np.array([1, -1, 2, -2, 1, -1])
    return Runs(params, tokens, np.array(list(map(law.predict, params, tokens))) * noise), law


def test_resamples_without_variety_are_drawn_again_and_depend_on_the_seed():
    few, law = few_runs()
    found = [resample(few, law, 12, seed).laws for seed in (0, 1, 1)]
    assert [len(laws) for laws in found] == [12, 12, 12]
    assert found[0] != found[1] == found[2]


def test_few_different_tokens_are_refused_as_few_sizes_are():
    few, _ = few_runs()
    for name in ("params", "tokens"):
        with pytest.raises(ValueError, match=f"Too few different {name}: 2 "):
            replace(few, **{name: np.array([1e8, 2e8] * 3)})


def test_confidence_and_seed_of_the_command_count(tmp_path, capsys):
    few, _ = few_runs()
    table = tmp_path / "runs.csv"
    rows = zip(few.params.tolist(), few.tokens.tolist(), few.loss.tolist(), strict=True)
    table.write_text("params,tokens,loss\n" + "".join(f"{p!r},{t!r},{x!r}\n" for p, t, x in rows))
    question = (str(table), "--flops", "1e20", "--resamples", "12")
    wide, narrow, other = (
        ask(capsys, "fit", *question, *more)
        for more in ((), ("--confidence", "0.3"), ("--seed", "2"))
    )
    for key, name in (("intervals", "alpha"), ("optimum_intervals", "params")):
        assert wide[key][name][0] < narrow[key][name][0]
        assert narrow[key][name][1] < wide[key][name][1]
        assert wide[key][name] != other[key][name]


def test_a_byte_order_mark_and_spaces_are_no_part_of_the_first_column(tmp_path):
    table = tmp_path / "runs.csv"
    table.write_text("\ufeffparams, tokens\n1, 2\n", encoding="utf-8")
    found = runs.read(table, {"params": float, "tokens": float})
    assert {name: column.tolist() for name, column in found.items()} == {
        "params": [1.0],
        "tokens": [2.0],
    }


def test_descents_begin_at_the_lowest_of_all_starts(monkeypatch):
    few, _ = few_runs()
    monkeypatch.setattr(fitting, "descend", lambda objective, at: (objective.value(at), at))
    found = fitting.fit(few, n_descents=1)
    point = np.array([np.log(found.A), np.log(found.B), np.log(found.E), found.alpha, found.beta])
    objective = fitting.Objective(few, (0.0, 0.0))
    lowest = min(objective.value(np.array(start)) for start in fitting.GRID)
    assert objective.value(point) == pytest.approx(lowest)
