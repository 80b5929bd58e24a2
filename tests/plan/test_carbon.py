"""Energy and emissions: the published figures, and what must hold of any."""

import json
import math
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.cli import main
from optim8.plan import measure
from optim8.plan.carbon import PRACTICES, Footprint, Grid, footprint, improved
from optim8.plan.entries import load
from optim8.plan.hardware import Device
from plan_command import ask, shown

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


@given(AMOUNTS, AMOUNTS)
def test_practices_change_what_they_are_said_to(kwh, tco2e):
    for name, practice in PRACTICES.items():
        least, most = improved(Footprint(kwh, tco2e), practice)
        assert most.tco2e < least.tco2e < tco2e
        assert tco2e / least.tco2e == pytest.approx(practice.low)
        assert (least.kwh < kwh) == (name != "map")


def test_all_practices_together_are_the_published_hundred_and_thousand():
    """Patterson et al. 2022: up to 100 times the energy and 1000 times the emissions."""
    energy = math.prod(p.high for p in PRACTICES.values() if p.saves_energy)
    assert energy == 100
    assert math.prod(practice.high for practice in PRACTICES.values()) == 1000


@pytest.mark.parametrize(("model", "grid"), [("T5", "taiwan-2019"), ("Switch", "georgia-us-2020")])
def test_grids_of_published_runs_are_entries(model, grid):
    assert load("grid", Grid)[grid].kg_per_kwh == PUBLISHED[model][4]


@pytest.mark.parametrize(
    ("device", "watts", "source"),
    [("tpu-v3", 283, "measured"), ("h100", 700, "from memory"), ("b200", 1000, "design power")],
)
def test_a_device_gives_its_watts(device, watts, source, capsys):
    main(["plan", "carbon", "--hours", "1", "--device", device, "--json"])
    assumed = json.loads(capsys.readouterr().out)["assumptions"]["watts"]
    assert assumed["value"] == watts
    assert source in assumed["source"]


class FakeTracker:
    """Stands in for codecarbon's, to see how it is called; it measures nothing."""

    def __init__(self, **arguments):
        assert arguments.pop("log_level") == "error"
        assert arguments == {"country_iso_code": "FRA", "save_to_file": False}
        self.final_emissions_data = SimpleNamespace(energy_consumed=2.0)
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        assert self.calls == ["start"]
        return 0.5


@pytest.fixture
def codecarbon(monkeypatch):
    fake = SimpleNamespace(OfflineEmissionsTracker=FakeTracker)
    monkeypatch.setitem(sys.modules, "codecarbon", fake)


@pytest.mark.usefixtures("codecarbon")
def test_a_command_is_run_and_measured(capfd, tmp_path):
    made = tmp_path / "made"
    program = f"open({str(made)!r}, 'w').close(); print('noise')"
    question = "plan carbon --json --country fra --measure --"
    main([*question.split(), sys.executable, "-c", program])
    found = json.loads(capfd.readouterr().out)
    assert (found["kwh"], found["tco2e"]) == (2.0, 0.0005)
    assert found["hours"] > 0
    assert made.exists()


@pytest.mark.usefixtures("codecarbon")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--measure"], "--measure: expected a command, after --"),
        (["--measure", "--country", "FR", "--", "x"], "Invalid country: 'FR' (expected three"),
        (["--measure", "--pue", "2", "--", "x"], "expected no --pue with --measure"),
        (["--hours", "1", "--", "x"], "expected --measure with the command 'x'"),
        (["--country", "FRA", "--measure", "--", sys.executable, "-c", "exit(3)"], "status 3"),
        (["--country", "FRA", "--measure", "--", "/no/such/program"], "No such file"),
        (["--hours", "1", "--device", "tpu-v5p"], "no power is published for tpu-v5p"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message, capfd):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "carbon", *arguments])
    assert exit_.value.code == 2
    assert message in capfd.readouterr().err


def test_without_codecarbon_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(SystemExit):
        main(["plan", "carbon", "--measure", "--", "true"])
    assert "pip install codecarbon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kg_per_kwh = 'much'", "kg_per_kwh is 'much' (expected float)"),
        ("kg_per_kwh = true", "kg_per_kwh is True (expected float)"),
        ("kg_per_kwh = 1\ncolor = 'green'", "has unknown color"),
        ("", "missing 1 required keyword-only argument: 'kg_per_kwh'"),
    ],
)
def test_entries_of_the_users_are_checked(text, message, tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(f"[grid.mine]\ntitle = 'mine'\nsource = 'me'\ndate = '2026'\n{text}\n")
    with pytest.raises(SystemExit):
        main(["plan", "carbon", "--hours", "1", "--data", str(file), "--grid", "mine"])
    shown = capsys.readouterr().err
    assert "mine.toml: [grid.mine]" in shown
    assert message in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intensity": -0.1}, "Invalid intensity: -0.1"),
        ({"pue": 0.9}, "Invalid pue: 0.9"),
        ({"watts": 0}, "Invalid watts: 0"),
        ({"hours": -1}, "Invalid hours: -1"),
    ],
    ids=str,
)
def test_a_run_without_sense_has_no_footprint(change, message):
    usual = {"hours": 2, "devices": 3, "watts": 500, "pue": 1, "intensity": 0}
    assert footprint(**usual) == Footprint(3.0, 0.0)
    with pytest.raises(ValueError, match=message):
        footprint(**{**usual, **change})


@pytest.mark.parametrize(
    ("watts", "energy", "emissions", "cleanest"),
    [
        (1000, "8.0 kWh", "0.8 kg CO2e", None),
        (10, "80 Wh", "8 g CO2e", "0.8 g CO2e to 1.6 g CO2e"),
        (10_000, "80.0 kWh", "8 kg CO2e", "0.8 kg CO2e to 1.6 kg CO2e"),
        (10**6, "8,000.0 kWh", "0.800 t CO2e", "80 kg CO2e to 0.160 t CO2e"),
    ],
)
def test_amounts_are_shown_in_units_that_fit(watts, energy, emissions, cleanest, capsys):
    question = "carbon --hours 4 --devices 2 --pue 1 --intensity 0.1 --watts"
    text = shown(capsys, f"{question} {watts}")
    for amount in filter(None, (energy, emissions, cleanest)):
        assert amount in text
    found = ask(capsys, f"{question} {watts}")
    assert found["kwh"] == pytest.approx(8 * watts / 1000)


def test_watts_that_are_given_go_before_those_of_the_device(capsys):
    """Of this device none are known, which matters only where none are given."""
    found = ask(capsys, "carbon --hours 1 --device tpu-v5p --watts 100 --pue 1")
    assert found["kwh"] == pytest.approx(0.1)


@pytest.mark.parametrize("given", ["--watts 5", "--pue 1.2", "--intensity 0.1", "--device h100"])
def test_what_is_measured_cannot_be_given(given, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "carbon", "--measure", *given.split(), "--", "true"])
    assert f"expected no {given.split()[0]} with --measure" in capsys.readouterr().err


def of_the_user(path, intensity):
    """Write a file with a grid of the user's, under a name that we have too."""
    path.write_text(
        f"[grid.us-2020]\ntitle = 'mine'\nsource = 'me'\ndate = '2026'\nkg_per_kwh = {intensity}\n"
    )
    return str(path)


def test_files_of_the_users_go_before_ours_and_later_ones_before_earlier(tmp_path, capsys):
    files = [of_the_user(tmp_path / f"{n}.toml", n) for n in (1, 2)]
    question = f"carbon --hours 1 --watts 1000 --pue 1 --data {files[0]}"
    assert ask(capsys, question)["tco2e"] == pytest.approx(0.001)
    assert ask(capsys, f"{question} --data {files[1]}")["tco2e"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid", "mine.toml: "),
        ("grid = 3", "mine.toml: grid is no table of entries"),
        ("[grid]\nmine = 3", "mine.toml: [grid.mine] is no table"),
        ("[device.x]\ntitle = 'x'\nsource = 'x'\ndate = 'x'\nyear = 1\npeak_tflops = 1\n"
         "bandwidth_gb_s = 1\nfrom_memory = [1]", "[device.x]: from_memory is [1] (expected list"),
    ],
)  # fmt: skip
def test_files_that_hold_no_entries_are_refused(text, message, tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "carbon", "--hours", "1", "--device", "h100", "--data", str(file)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


class Tracker:
    """Stands in for codecarbon's; it takes half an hour, and may measure nothing."""

    kilograms = 0.5

    def __init__(self, **_):
        self.final_emissions_data = mock.Mock(energy_consumed=2.0)

    def start(self):
        pass

    def stop(self):
        return self.kilograms


@pytest.fixture
def tracker(monkeypatch):
    """Put `Tracker` in place, with a clock that goes half an hour on whenever it is read."""
    monkeypatch.setitem(sys.modules, "codecarbon", mock.Mock(OfflineEmissionsTracker=Tracker))
    times = iter(range(0, 10**6, 1800))
    monkeypatch.setattr(measure, "perf_counter", lambda: next(times))


@pytest.mark.usefixtures("tracker")
def test_time_is_measured_in_hours_and_nothing_measured_is_an_error(monkeypatch, capfd):
    program = ["--measure", "--", sys.executable, "-c", ""]
    main(["plan", "carbon", "--json", *program])
    assert json.loads(capfd.readouterr().out)["hours"] == 0.5
    monkeypatch.setattr(Tracker, "kilograms", None)
    with pytest.raises(SystemExit):
        main(["plan", "carbon", "--json", *program])
    assert "codecarbon could not measure this machine" in capfd.readouterr().err


@pytest.mark.usefixtures("tracker")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--country", "U5A", "--measure", "--", "true"], "Invalid country: 'U5A'"),
        (["--measure", "--", "/no/such/program"], "No such file"),
    ],
)
def test_a_tracker_is_stopped_if_it_was_started(arguments, message, monkeypatch, capfd):
    calls = []
    for name in ("start", "stop"):
        monkeypatch.setattr(Tracker, name, lambda _, name=name: calls.append(name))
    with pytest.raises(SystemExit):
        main(["plan", "carbon", *arguments])
    assert message in capfd.readouterr().err
    assert calls == (["start", "stop"] if "/no/such/program" in arguments else [])


def test_numbers_from_memory_are_said_to_be():
    entries = [entry for entry in load("device", Device).values() if not entry.checked]
    assert entries
    assert all("from memory, not checked" in entry.origin for entry in entries)
