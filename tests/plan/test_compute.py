"""The compute-optimal frontier: the published figures, and what must hold of any."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.cli import main
from optim8.plan.compute import DEFAULT, approaches
from optim8.plan.frontier import Frontier
from plan_command import ask

APPROACHES = approaches()

#: Hoffmann et al. 2022, tables 3 (approach 1) and A3 (2 and 3): for each size, operations
#: and tokens. The paper prints 1.26e24 for 175e9 by approach 3, a misprint: 6 N D is 1.26e25.
PUBLISHED = {
    400e6: ((1.92e19, 8.0e9), (1.84e19, 7.7e9), (2.21e19, 9.2e9)),
    1e9: ((1.21e20, 20.2e9), (1.20e20, 20.0e9), (1.62e20, 27.1e9)),
    10e9: ((1.23e22, 205.1e9), (1.32e22, 219.5e9), (2.46e22, 410.1e9)),
    67e9: ((5.76e23, 1.5e12), (6.88e23, 1.7e12), (1.71e24, 4.1e12)),
    175e9: ((3.85e24, 3.7e12), (4.54e24, 4.3e12), (1.26e25, 12.0e12)),
    280e9: ((9.90e24, 5.9e12), (1.18e25, 7.1e12), (3.52e25, 20.1e12)),
    520e9: ((3.43e25, 11.0e12), (4.19e25, 13.4e12), (1.36e26, 43.5e12)),
    1e12: ((1.27e26, 21.2e12), (1.59e26, 26.5e12), (5.65e26, 94.1e12)),
    10e12: ((1.30e28, 216.2e12), (1.75e28, 292.0e12), (8.55e28, 1425.5e12)),
}
COLUMNS = ("1", "2", "3-table")
ROWS = [
    (name, params, *row[column])
    for params, row in PUBLISHED.items()
    for column, name in enumerate(COLUMNS)
]
names = st.sampled_from(list(APPROACHES))
budgets = st.floats(1e15, 1e30)


@pytest.mark.parametrize(("name", "params", "flops", "tokens"), ROWS)
def test_it_reproduces_the_published_table(name, params, flops, tokens):
    """To 0.4 % in operations; in tokens, of which some are printed with two digits, to 1 %.

    Two entries fit no law that the others do. The row of 67 billion is one of 67.9, 69.5 and 70.0
    billion. Approach 3's 20.1e12 tokens for 280 billion are not its own operations, which leave
    20.95e12.
    """
    found = APPROACHES[name].frontier.for_params(params)
    if params == 67e9:
        size = {"1": 67.9e9, "2": 69.5e9, "3-table": 70.0e9}[name]
        found = APPROACHES[name].frontier.for_params(size)
        assert found.flops == pytest.approx(flops, rel=0.004)
        return
    if (name, params) == ("3-table", 280e9):
        assert flops / 6 / params == pytest.approx(20.95e12, rel=0.001)
        tokens = 20.95e12
    assert found.flops == pytest.approx(flops, rel=0.004)
    assert found.tokens == pytest.approx(tokens, rel=0.01)


def test_the_misprint_is_ten_times_too_small():
    """All sizes but 67 billion leave 6 N D; with 1.26e24 the law would not pass the row."""
    flops, tokens = PUBLISHED[175e9][2]
    assert flops == pytest.approx(6 * 175e9 * tokens, rel=0.001)
    assert APPROACHES["3-table"].frontier.for_params(175e9).flops > 9 * 1.26e24


@pytest.mark.parametrize("params", [size for size in PUBLISHED if size != 67e9])
def test_the_coefficients_of_approach_3_miss_its_own_table(params):
    flops, _ = PUBLISHED[params][2]
    unrounded = APPROACHES["3"].frontier.for_flops(flops).params / params
    printed = APPROACHES["3-printed"].frontier.for_flops(flops).params / params
    assert 0.92 < unrounded < 0.98
    assert 0.69 < printed < 0.82


@pytest.mark.parametrize(
    ("name", "params", "tokens_per_param"),
    [("3-printed", 32.2e9, 93), ("3", 40.4e9, 59), ("replication", 72.2e9, 18.4)],
)
def test_sources_disagree_at_the_budget_of_chinchilla(name, params, tokens_per_param):
    found = APPROACHES[name].frontier.for_flops(5.76e23)
    assert found.params == pytest.approx(params, rel=0.002)
    assert found.tokens_per_param == pytest.approx(tokens_per_param, rel=0.005)


@pytest.mark.parametrize(("name", "exponent"), [("1", 0.50), ("2", 0.49), ("3", 0.46)])
def test_exponents_are_those_printed(name, exponent):
    """Hoffmann et al. 2022, table 2."""
    assert round(APPROACHES[name].frontier.exponent, 2) == exponent


def test_the_replication_has_its_published_exponent():
    """Besiroglu et al. 2024: a = 0.5126 (0.02)."""
    assert APPROACHES["replication"].frontier.exponent == pytest.approx(0.5126, abs=5e-5)


def test_approach_1_says_what_chinchilla_was_chosen_by():
    """Hoffmann et al. 2022, section 4: at 1e21 operations approach 1 says 2.86e9 parameters."""
    assert APPROACHES["1"].frontier.for_flops(1e21).params == pytest.approx(2.86e9, rel=0.02)


@given(names, budgets, st.floats(1.001, 1e3))
def test_a_larger_budget_never_means_a_smaller_model_or_fewer_tokens(name, flops, times):
    frontier = APPROACHES[name].frontier
    small, large = frontier.for_flops(flops), frontier.for_flops(flops * times)
    assert large.params > small.params
    assert large.tokens > small.tokens


@given(names, budgets)
def test_the_reverse_undoes(name, flops):
    frontier = APPROACHES[name].frontier
    found = frontier.for_flops(flops)
    assert 6 * found.params * found.tokens == pytest.approx(flops)
    for back in (frontier.for_params(found.params), frontier.for_tokens(found.tokens)):
        assert back.flops == pytest.approx(flops)
        assert back.params == pytest.approx(found.params)
        assert back.tokens == pytest.approx(found.tokens)


@given(
    st.sampled_from([name for name, law in APPROACHES.items() if law.loss]),
    budgets,
    st.floats(0.01, 100).filter(lambda times: abs(times - 1) > 0.01),
)
def test_no_other_size_has_a_lower_loss_for_the_budget(name, flops, times):
    law = APPROACHES[name]
    best = law.frontier.for_flops(flops)
    other = law.loss.predict(best.params * times, best.tokens / times)
    assert law.loss.predict(best.params, best.tokens) < other


def test_the_default_is_the_replication_beside_the_spread(capsys):
    found = ask(capsys, "compute", "--flops", "5.76e23")
    assert found["approach"] == DEFAULT == "replication"
    assert found["flops"] == 5.76e23
    assert set(found["spread"]) == set(APPROACHES)
    ratios = [other["tokens_per_param"] for other in found["spread"].values()]
    assert round(min(ratios)) == 18
    assert round(max(ratios)) == 93
    assert found["loss"] == pytest.approx(1.974, abs=1e-3)
    assert "Besiroglu" in found["assumptions"]["approach"]["source"]


@pytest.mark.parametrize("name", APPROACHES)
def test_the_command_answers_in_both_directions(name, capsys):
    forward = ask(capsys, "compute", "--flops", "1e21", "--approach", name)
    assert forward["approach"] == name
    for key in ("params", "tokens"):
        back = ask(capsys, "compute", f"--{key}", repr(forward[key]), "--approach", name)
        assert back["flops"] == pytest.approx(1e21)


def test_a_law_of_the_users_own_joins_in(tmp_path, capsys):
    laws = tmp_path / "laws.toml"
    laws.write_text(
        '[loss.ours]\ntitle = "ours"\nE = 1.0\nA = 10.0\nB = 10.0\nalpha = 0.5\nbeta = 0.5\n'
        'source = "runs"\ndate = "2026-01"\n'
    )
    found = ask(capsys, "compute", "--flops", "6e20", "--approach", "ours", "--data", str(laws))
    assert found["params"] == pytest.approx(1e10)
    assert found["loss"] == pytest.approx(1 + 20 / 1e5)
    laws.write_text(laws.read_text().replace("alpha = 0.5", "alpha = -0.5"))
    with pytest.raises(SystemExit):
        ask(capsys, "compute", "--flops", "6e20", "--data", str(laws))
    assert "There is no optimum with alpha = -0.5" in capsys.readouterr().err


def test_the_table_shows_every_approach(capsys):
    main(["plan", "compute", "--params", "1e9"])
    shown = capsys.readouterr().out
    assert all(f"by {name}" in shown for name in APPROACHES if name != DEFAULT)


def test_it_draws(tmp_path, capsys):
    main(["plan", "compute", "--flops", "1e20", "--plot", str(tmp_path / "plot.svg")])
    assert "tokens for each parameter" in capsys.readouterr().out
    assert "<svg" in (tmp_path / "plot.svg").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of the arguments --flops --params --tokens is required"),
        (["--flops", "-1"], "--flops: expected a number above 0, found '-1'"),
        (["--tokens", "many"], "--tokens: expected a number, found 'many'"),
        (["--flops", "1", "--params", "1"], "not allowed with argument --flops"),
        (["--flops", "1", "--approach", "4"], "unknown approach '4' (known: 1, 2, 3,"),
    ],
)
def test_nonsense_is_refused(options, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "compute", *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("coefficient", "exponent"), [(0, 0.5), (1, 0), (1, 1), (1, float("nan"))])
def test_a_frontier_without_sense_is_refused(coefficient, exponent):
    with pytest.raises(ValueError, match="Invalid"):
        Frontier(coefficient, exponent)
