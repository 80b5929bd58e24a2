"""Energy and emissions: the published figures, and what must hold of any."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.cli import main
from optim8.plan.carbon import footprint

#: Patterson et al. 2021, table 4: chips, days, watts, PUE, gross kg per kWh; MWh and gross tCO2e.
PUBLISHED = {
    "Evolved Transformer": (200, 6.8, 208, 1.10, 0.431, 7.5, 3.2),
    "T5": (512, 20, 310, 1.12, 0.545, 85.7, 46.7),
    "Meena": (1024, 30, 289, 1.09, 0.415, 232, 96.4),
    "GShard-600B": (1024, 3.1, 288, 1.09, 0.201, 24.1, 4.8),
    "Switch": (1024, 27, 245, 1.10, 0.403, 179, 72.2),
    "GPT-3": (10_000, 14.8, 330, 1.10, 0.429, 1287, 552.1),
}
AMOUNTS = st.floats(1e-3, 1e6)


@pytest.mark.parametrize("model", PUBLISHED)
def test_it_reproduces_the_published_table_to_one_percent(model):
    chips, days, watts, pue, intensity, mwh, tco2e = PUBLISHED[model]
    found = footprint(days * 24, chips, watts, pue, intensity)
    assert found.kwh / 1000 == pytest.approx(mwh, rel=0.01)
    assert found.tco2e == pytest.approx(tco2e, rel=0.015)  # 4.8 has two digits


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.floats(1, 3), st.floats(0, 2), st.floats(1.001, 100))
def test_energy_is_linear_in_each_factor(hours, devices, watts, pue, intensity, times):
    one = footprint(hours, devices, watts, pue, intensity)
    assert footprint(hours * times, devices, watts, pue, intensity).kwh > one.kwh
    assert footprint(hours, devices * times, watts, pue, intensity).tco2e == pytest.approx(
        footprint(hours, devices, watts * times, pue, intensity).tco2e
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--hours", "-1"], "--hours: expected a number above 0, found '-1'"),
        (["--hours", "nan"], "--hours: expected a finite number, found 'nan'"),
        (["--hours", "1", "--pue", "0.5"], "Invalid pue: 0.5 (expected 1 or more"),
        (["--hours", "1", "--grid", "moon"], "unknown grid 'moon' (known: "),
        (["--hours", "1", "--devices", "1.5"], "--devices: expected a whole number, found '1.5'"),
    ],
)
def test_nonsense_is_refused(option, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "carbon", *option])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_what_is_given_is_what_is_assumed(capsys):
    main(["plan", "carbon", "--hours", "2", "--watts", "100", "--pue", "1.5", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["kwh"] == pytest.approx(0.3)
    assert found["assumptions"]["watts"] == {"value": 100.0, "source": "given"}
    assert "Patterson" in found["assumptions"]["intensity"]["source"]
