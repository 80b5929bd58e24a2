"""Transfer from upstream to downstream: the hull, the law through it, and what is left to gain."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.cli import main
from optim8.plan import transfer
from optim8.plan.transfer import Subsamples, TransferLaw, corners, fit, subsample
from plan_command import ask

LAW = TransferLaw(k=0.6, alpha=2.0, irreducible_error=0.15)
errors = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=30).map(
    lambda points: tuple(np.array(column) / 50 for column in zip(*points, strict=True))
)


def synthetic(seed, n_runs=100, scatter=0.02, law=LAW):
    """Return runs that lie above the law's error by an exponential distance."""
    random = np.random.default_rng(seed)
    upstream = random.uniform(0.15, 0.8, n_runs)
    worse = scatter * random.exponential(size=n_runs)
    return upstream, np.minimum(law.predict(upstream) + worse, 1)


def write(path, upstream, downstream):
    rows = zip(upstream.tolist(), downstream.tolist(), strict=True)
    path.write_text(
        "\n".join(["upstream_error,downstream_error", *(f"{u!r},{d!r}" for u, d in rows)])
    )
    return str(path)


@given(errors)
def test_no_run_is_better_than_the_hull(runs):
    upstream, downstream = runs
    up, down = corners(upstream, downstream)
    assert up[0] == upstream.min()
    assert up[-1] == upstream.max()
    assert set(zip(up, down, strict=True)) <= set(zip(upstream, downstream, strict=True))
    assert np.all(downstream >= np.interp(upstream, up, down) - 1e-12)
    assert np.all(np.diff(np.diff(down) / np.diff(up)) > -1e-9)


@given(errors, st.randoms())
def test_the_hull_does_not_depend_on_order_or_repetition(runs, random):
    upstream, downstream = runs
    order = [random.randrange(len(upstream)) for _ in range(20)] + list(range(len(upstream)))
    random.shuffle(order)
    for one, other in zip(corners(*runs), corners(upstream[order], downstream[order]), strict=True):
        assert one.tolist() == other.tolist()


@given(st.floats(0.1, 1), st.floats(1.05, 8), st.floats(0, 0.5))
def test_runs_without_scatter_give_their_law_back(k, alpha, irreducible_error):
    law = TransferLaw(k, alpha, irreducible_error)
    upstream = np.linspace(0.1, 0.9, 12)
    found = fit(upstream, law.predict(upstream))
    assert found.alpha == pytest.approx(alpha, rel=1e-3)
    assert found.k == pytest.approx(k, rel=1e-3)
    assert found.irreducible_error == pytest.approx(irreducible_error, abs=1e-3)


def test_bad_runs_below_the_hull_change_nothing():
    upstream, downstream = synthetic(0)
    worse = np.minimum(downstream + 0.3, 1)
    both = np.concatenate([upstream, upstream]), np.concatenate([downstream, worse])
    assert fit(*both) == fit(upstream, downstream)


def test_the_fit_is_the_least_of_squares_with_no_error_below_zero():
    """Against a dense grid of k and the irreducible error, at the exponent found."""
    upstream, downstream = synthetic(1, law=TransferLaw(0.9, 1.3, 0.0))
    up, down = corners(upstream, downstream)
    found = fit(upstream, downstream)

    def squares(k, alpha, error):
        return ((k * up**alpha + error - down) ** 2).sum()

    least = squares(found.k, found.alpha, found.irreducible_error)
    assert found.irreducible_error >= 0
    for k in found.k * np.linspace(0.8, 1.2, 41):
        for alpha in np.maximum(found.alpha * np.linspace(0.9, 1.1, 11), 1):
            for error in np.linspace(0, 0.2, 41):
                assert squares(k, alpha, error) >= least * (1 - 1e-6)


def coverage(n_runs, n_tables):
    n_held = 0
    for seed in range(n_tables):
        upstream, downstream = synthetic(seed, n_runs)
        parts = subsample(upstream, downstream, 40, seed)
        low, high = parts.intervals(fit(upstream, downstream), 0.9)["irreducible_error"]
        n_held += low <= LAW.irreducible_error <= high
    return n_held / n_tables


@pytest.mark.parametrize("n_runs", [12, 100])
def test_intervals_of_the_irreducible_error_hold_it_most_of_the_time(n_runs):
    """The docstring of the module says what larger studies find."""
    assert coverage(n_runs, 20) >= 0.55


def test_the_command_says_what_is_left_to_gain(tmp_path, capsys):
    upstream, downstream = synthetic(2)
    table, plot = write(tmp_path / "runs.csv", upstream, downstream), tmp_path / "plot.svg"
    found = ask(capsys, "transfer", table, "--resamples", "50", "--plot", str(plot))
    assert list(found["intervals"]) == ["k", "alpha", "irreducible_error"]
    for name, (low, high) in found["intervals"].items():
        assert low <= found[name] <= high
    left = max(downstream.min() - found["irreducible_error"], 0)
    assert found["left_to_gain"] == pytest.approx(left)
    low, high = found["left_to_gain_interval"]
    assert 0 <= low <= left <= high <= downstream.min()
    assert "<svg" in plot.read_text()
    main(["plan", "transfer", table, "--resamples", "50"])
    shown = capsys.readouterr().out
    assert "left to gain" in shown


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_a_straight_hull_shows_no_saturation(alpha):
    upstream, downstream = synthetic(3, scatter=0, law=TransferLaw(0.6, alpha, 0.1))
    up, down = corners(upstream, np.round(downstream, 12))
    if len(up) == 2:
        with pytest.raises(ValueError, match="a straight hull shows no saturation"):
            fit(up, down)
    else:
        assert fit(up, down).alpha == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("upstream_error\n0.1\n", "runs.csv: line 1: no column downstream_error"),
        ("upstream_error,downstream_error\n0.1,0.2\n10,0.2\n",
         "runs.csv: line 3: column upstream_error: expected a fraction above 0, up to 1,"),
        ("upstream_error,downstream_error\n0.1,0.2\n0.2,0.4\n",
         "Too few corners in the upper hull of the accuracies: 2 (expected 3 or more"),
        ("upstream_error,downstream_error\n", "the table has no runs"),
    ],
)  # fmt: skip
def test_a_wrong_table_is_refused(text, message, tmp_path, capsys):
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "transfer", str(path)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_an_interval_is_as_wide_as_the_part_is_small_and_no_error_is_below_0():
    laws = [TransferLaw(1.0, 2.0, 0.1 + excess / 1000) for excess in range(101)]
    widening = (0.25 ** (-2 / 3) - 1) / (0.5 ** (-2 / 3) - 1)
    low, high = Subsamples(laws, 0.5).intervals(laws[0], 0.2)["irreducible_error"]
    assert (0.1 - low, high - 0.1) == pytest.approx((0.02 * widening, 0.02 * widening))
    assert Subsamples(laws, 0.5).intervals(laws[0], 1.0)["irreducible_error"][0] == 0.0


@pytest.mark.parametrize(("n_runs", "size"), [(12, 6), (30, 10), (100, 25)])
def test_parts_are_a_quarter_or_ten_runs_but_no_more_than_half(n_runs, size):
    upstream = np.linspace(0.2, 0.8, n_runs)
    downstream = TransferLaw(0.6, 2.0, 0.15).predict(upstream)
    found = subsample(upstream, downstream, 5, 0)
    assert found.fraction * n_runs == pytest.approx(size)
    assert [law.alpha for law in found.laws] == pytest.approx([2.0] * 5, rel=1e-3)


def test_parts_are_drawn_without_replacement(monkeypatch):
    sizes = []

    def recorded(upstream, downstream):
        sizes.append(len(np.unique(upstream)))
        return TransferLaw(1.0, 1.0, 0.0)

    monkeypatch.setattr(transfer, "fit", recorded)
    subsample(np.linspace(0.2, 0.8, 40), np.linspace(0.2, 0.8, 40), 20, 0)
    assert sizes == [10] * 20


def test_no_coefficient_is_below_0():
    upstream = np.linspace(0.1, 0.9, 12)
    found = transfer.fit(upstream, upstream**1.5 - 0.02)
    assert found.irreducible_error == 0
    powers, down = upstream**found.alpha, upstream**1.5 - 0.02
    assert found.k == pytest.approx((powers @ down) / (powers @ powers))
    falling = transfer.fit(upstream, 0.5 - 0.4 * upstream + 0.1 * upstream**2)
    assert found.k > 0 == falling.k


def test_nothing_is_left_to_gain_where_the_best_is_better_than_the_law(tmp_path, capsys):
    upstream = np.linspace(0.1, 0.9, 40)
    downstream = TransferLaw(0.6, 3.0, 0.15).predict(upstream)
    downstream[0] = 0.14
    table = tmp_path / "runs.csv"
    rows = zip(upstream.tolist(), downstream.tolist(), strict=True)
    table.write_text("upstream_error,downstream_error\n" + "".join(f"{u},{d}\n" for u, d in rows))
    question = (str(table), "--resamples", "30")
    found = ask(capsys, "transfer", *question)
    assert found["irreducible_error"] > found["best_downstream_error"] == 0.14
    assert found["left_to_gain"] == found["left_to_gain_interval"][0] == 0
    narrow = ask(capsys, "transfer", *question, "--confidence", "0.2")["intervals"]["alpha"]
    assert narrow[1] < found["intervals"]["alpha"][1]
