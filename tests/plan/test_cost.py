"""Time and money: the published figures, and what must hold of any."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optim8.cli import main
from optim8.plan import cost
from optim8.plan.cost import Price, Trend, price_in, serving, training
from optim8.plan.entries import load
from optim8.plan.flops import training as training_flops
from optim8.plan.hardware import Device
from optim8.plan.quantity import check_positive
from plan_command import ask, shown

AMOUNTS = st.floats(1e-3, 1e24)
FRACTIONS = st.floats(0.01, 1)
PRICES = st.floats(1e-3, 100)

#: Patterson et al. 2021, table 4: chips, days, device, achieved TFLOP/s, FLOPs of the run.
PUBLISHED = {
    "T5": (512, 20, "tpu-v3", 45.6, 4.05e22),
    "Meena": (1024, 30, "tpu-v3", 42.3, 1.12e23),
    "GShard-600B": (1024, 3.1, "tpu-v3", 48.0, 1.33e22),
    "Switch": (1024, 27, "tpu-v3", 34.4, 8.22e22),
    "GPT-3": (10_000, 14.8, "v100", 24.6, 3.14e23),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_it_reproduces_the_days_of_published_runs(model):
    chips, days, name, achieved, flops = PUBLISHED[model]
    peak = load("device", Device)[name].peak_tflops
    found = training(flops, peak * 1e12, chips, achieved / peak, 1)
    assert found.days == pytest.approx(days, rel=0.02)


def test_gpt_3_costs_what_a16z_says():
    """Navigating the High Cost of AI Compute, April 2023: $560,000 on A100 at 100 %."""
    a100, price = (
        load(kind, of)["a100-80gb"] for kind, of in (("device", Device), ("price", Price))
    )
    found = training(3.14e23, a100.peak_tflops * 1e12, 1000, 1.0, price.usd_per_hour)
    assert found.cost == pytest.approx(560_000, rel=0.005)


def test_serving_takes_a_third_of_training():
    for_training = training(training_flops(175e9, 1e6), 312e12, 1, 0.3, 2).cost
    assert serving(175e9, 1e6, 312e12, 0.3, 2) == pytest.approx(for_training / 3)


@given(AMOUNTS, AMOUNTS, st.integers(1, 10**6), FRACTIONS, PRICES, st.floats(1.01, 100))
def test_cost_is_linear_in_price_and_does_not_depend_on_devices(
    flops, peak, devices, utilization, price, times
):
    one = training(flops, peak, devices, utilization, price)
    assert training(flops, peak, devices, utilization, price * times).cost == pytest.approx(
        one.cost * times
    )
    several = training(flops, peak, devices * 2, utilization, price)
    assert several.cost == one.cost
    assert several.days == pytest.approx(one.days / 2)


@given(AMOUNTS, AMOUNTS, FRACTIONS, FRACTIONS)
def test_more_utilization_never_takes_longer(flops, peak, one, other):
    low, high = sorted((one, other))
    assert training(flops, peak, 1, high, 1).days <= training(flops, peak, 1, low, 1).days


@given(PRICES, st.floats(-20, 20), st.floats(0.5, 10))
def test_what_becomes_cheaper_was_dearer(price, years, doubling):
    later = price_in(price, years, doubling)
    assert (later <= price) == (years >= 0) or later == pytest.approx(price)
    assert price_in(later, -years, doubling) == pytest.approx(price)


def test_entries_say_where_they_come_from_and_how_sure_they_are():
    for kind, of in (("device", Device), ("price", Price), ("trend", Trend)):
        for entry in load(kind, of).values():
            assert entry.source
            assert 2018 <= int(entry.date[:4]) <= 2026
    devices = load("device", Device)
    assert not devices["rtx-4090"].is_checked("peak_tflops")
    assert devices["h100"].is_checked("peak_tflops")
    assert not devices["h100"].is_checked("tdp_watts")
    for device in devices.values():
        assert set(device.from_memory) <= set(Device.__dataclass_fields__)
    assert load("price", Price).keys() <= devices.keys()


def test_a_device_of_the_users_is_known(capsys, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[device.mine]\ntitle = "Mine"\nyear = 2026\npeak_tflops = 1\nbandwidth_gb_s = 1\n'
        'source = "me"\ndate = "2026"\n'
    )
    question = "plan cost --flops 3.6e15 --device mine --price 3 --utilization 0.5 --json --data"
    main([*question.split(), str(mine)])
    found = json.loads(capsys.readouterr().out)
    assert (found["device_hours"], found["cost"]) == (2, 6)


def test_the_command_has_the_keys_that_others_rely_on(capsys, tmp_path):
    question = (
        "plan cost --params 175e9 --tokens 300e9 --device a100-80gb --devices 64 "
        "--utilization 0.3 --price 2.0 --price-year 2026 --start-year 2028 --json --plot"
    )
    main([*question.split(), str(tmp_path / "cost.png")])
    found = json.loads(capsys.readouterr().out)
    assert found["flops"] == pytest.approx(3.15e23)
    assert found["device_hours"] == pytest.approx(3.15e23 / (312e12 * 0.3) / 3600)
    assert found["days"] == pytest.approx(found["device_hours"] / 64 / 24)
    assert found["cost"] == pytest.approx(found["device_hours"] * 2 * 2 ** (-2 / 2.46))
    assert found["assumptions"]["utilization"] == {"value": 0.3, "source": "given"}
    assert (tmp_path / "cost.png").stat().st_size > 0


def test_a_typical_price_is_brought_from_its_year(capsys):
    question = "plan cost --flops 1e20 --device h100 --trend huang --start-year"
    costs = []
    for year in ("2025", "2026"):
        main([*question.split(), year, "--json"])
        costs.append(json.loads(capsys.readouterr().out)["cost"])
    assert costs[1] == pytest.approx(costs[0] * 2 ** (-1 / 1.08))


@pytest.mark.parametrize("price", ["", "--price 2 ", "--price 2 --price-year 2020 "])
def test_no_trend_is_assumed_unless_a_year_is_given(price, capsys):
    main(f"plan cost --flops 1e20 {price}--json".split())
    assert json.loads(capsys.readouterr().out)["price"] == 2


def test_attention_comes_on_top(capsys):
    question = (
        "plan cost --params 1e9 --tokens 1e6 --n-layers 24 --width 2048 --context 1024 --json"
    )
    main(question.split())
    found = json.loads(capsys.readouterr().out)["flops"]
    assert found == pytest.approx(1e6 * (6e9 + 12 * 24 * 2048 * 1024))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "expected --params and --tokens, or --flops"),
        ("--params 1e9", "expected --params and --tokens, or --flops"),
        ("--flops 1e20 --tokens 5", "expected --flops, or --params and --tokens, found both"),
        ("--flops -1", "--flops: expected a number above 0, found '-1'"),
        ("--flops 1e20 --utilization 1.5", "--utilization: expected a fraction above 0, up to 1"),
        ("--flops 1e20 --device abacus", "unknown device 'abacus' (known: "),
        ("--flops 1e20 --device rtx-4090", "no price is known for 'rtx-4090' (give --price;"),
        ("--flops 1e20 --trend wishes", "unknown trend 'wishes' (known: "),
        ("--params 1 --tokens 1 --n-layers 3", "Only n_layers given (expected all of"),
    ],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "cost", *arguments.split()])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_it_answers_without_torch():
    program = (
        "import sys; from optim8.cli import main; "
        "main('plan cost --flops 1e20 --json'.split()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"price": -1.0}, "Invalid price: -1.0"),
        ({"utilization": 0.0}, "Invalid utilization: 0.0"),
        ({"utilization": 1.1}, "Invalid utilization: 1.1"),
        ({"devices": 0}, "Invalid devices: 0"),
        ({"flops": -1.0}, "Invalid flops: -1.0"),
    ],
    ids=str,
)
def test_a_run_without_sense_has_no_cost(change, message):
    usual = {"flops": 1e20, "peak_flops": 1e14, "devices": 8, "utilization": 0.5, "price": 0.0}
    assert cost.training(**usual).cost == 0
    with pytest.raises(ValueError, match=message):
        cost.training(**{**usual, **change})


def test_serving_and_trends_without_sense_are_refused():
    with pytest.raises(ValueError, match="Invalid tokens: 0"):
        cost.serving(1e9, 0, 1e14, 0.5, 1.0)
    with pytest.raises(ValueError, match="Invalid doubling_years: 0"):
        cost.price_in(1.0, 1, 0)


SERVED = "cost --params 1e9 --tokens 1e9 --device a100-80gb --devices 4 --price 3 --peak 1e14"


def test_what_serving_costs_and_takes(capsys):
    later = "--utilization 0.5 --bytes-per-param 1 --price-year 2025 --start-year 2027"
    found = ask(capsys, f"{SERVED} {later} --doubling-years 2")
    assert found["price"] == 1.5
    assert found["device_hours"] == pytest.approx(6e18 / 0.5e14 / 3600)
    assert found["cost_per_million_tokens"] == pytest.approx(2e15 / 0.5e14 / 3600 * 1.5)
    bandwidth = load("device", Device)["a100-80gb"].bandwidth_gb_s * 1e9
    assert found["least_seconds_per_token"] == pytest.approx(1e9 / bandwidth / 4)


def test_the_band_is_of_the_trends_interval_and_only_of_another_year(capsys):
    trend = load("trend", Trend)["gpus"]
    question = "cost --flops 1e22 --price 2 --price-year 2025 --start-year"
    found = ask(capsys, f"{question} 2028")
    ends = sorted(found["device_hours"] * 2 * 2 ** (-3 / end) for end in (trend.low, trend.high))
    band = f"${ends[0]:,.2f} to ${ends[1]:,.2f}"
    assert band in shown(capsys, f"{question} 2028")
    assert " to $" not in shown(capsys, f"{question} 2025")
    assert " to $" not in shown(capsys, f"{question} 2028 --doubling-years 2")


def test_a_run_of_hours_is_told_in_hours_and_what_carbon_is_asked(capsys):
    text = shown(capsys, "cost --flops 1.0e19 --device a100-80gb --price 1 --utilization 0.5")
    hours = 1e19 / (312e12 * 0.5) / 3600
    assert f"{hours:,.2f} hours" in text
    assert f"--hours {hours:.6g}" in text
    days = shown(capsys, "cost --flops 1.0e21 --device a100-80gb --price 1 --utilization 0.5")
    assert f"{100 * hours / 24:,.1f} days" in days


def test_width_and_context_are_not_mixed_up(capsys):
    """Their product is the same; what refuses one has to name it."""
    with pytest.raises(SystemExit):
        ask(capsys, "cost --params 1 --tokens 1 --n-layers 3 --width 5")
    assert "Only n_layers and width given" in capsys.readouterr().err


def test_a_typical_price_is_of_its_own_year(capsys):
    found = ask(capsys, "cost --flops 1e20 --device h100 --start-year 2030")
    price, trend = load("price", Price)["h100"], load("trend", Trend)["gpus"]
    assert found["assumptions"]["price_year"]["value"] == price.year
    expected = price.usd_per_hour * 2 ** (-(2030 - price.year) / trend.doubling_years)
    assert found["price"] == pytest.approx(expected)


def test_what_is_no_number_is_not_above_zero():
    with pytest.raises(ValueError, match=r"Invalid hours: nan \(expected above 0\)"):
        check_positive(hours=float("nan"))
