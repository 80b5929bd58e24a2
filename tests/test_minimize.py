"""Every optimizer minimizes, with 8-bit states as with full ones.

The fast part of `python -m benches minimize`: its criterion on its smaller problem, in fewer steps
and from fewer seeds.
"""

from dataclasses import replace

import pytest

from benches.minimize import PROBLEMS, SETTINGS, Minimum, study, train

DIGITS = replace(PROBLEMS["digits"], n_steps=200)


pytestmark = pytest.mark.usefixtures("one_thread")  # as in the study's processes


def minimum(name, problem=DIGITS, n_seeds=3):
    """Return what runs with full states and with the problem's options end with."""
    runs = [
        [train(problem, name, SETTINGS[name].digits, seed, bits) for seed in range(n_seeds)]
        for bits in (32, 8)
    ]
    return Minimum.of("digits", name, *runs)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_falls_and_ends_within_the_spread_of_full_states(name):
    found = minimum(name)
    assert max(found.ends_8_bit) < found.start / 4
    assert found.ends_8_bit != found.ends_32_bit, "states were not quantized"
    assert found.is_within_spread, found


def test_states_that_lose_small_second_moments_are_noticed():
    """Evenly spaced codes, rounded to the nearest."""
    poor = {**DIGITS.options, "codec": "linear", "state_rounding": "nearest"}
    assert not minimum("AdamW", replace(DIGITS, options=poor)).is_within_spread


def test_the_criterion_holds_in_both_directions():
    full = [1.0, 2.0, 3.0]  # of standard deviation 1
    for shift, is_within in ((0.9, True), (-0.9, True), (1.1, False), (-1.1, False)):
        found = Minimum("digits", "SGD", 5.0, full, [end + shift for end in full])
        assert found.is_within_spread == is_within


def test_the_study_gathers_the_runs_of_its_processes():
    [found] = study(["digits"], ["SGD"], n_seeds=2, quiet=True)
    problem, lr = PROBLEMS["digits"], SETTINGS["SGD"].digits
    alone = [train(problem, "SGD", lr, seed, 8) for seed in range(2)]
    assert found.ends_8_bit == [run.end for run in alone]
    assert found.start == pytest.approx((alone[0].start + alone[1].start) / 2)
