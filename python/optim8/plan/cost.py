"""Time and money: what a training run and a served token cost.

    device-hours = FLOPs / (peak FLOP/s of a device x utilization) / 3600
    cost         = device-hours x price of one

Utilization is the part of the peak that training reaches: 0.20 for GPT-3 on V100 to 0.39 for GShard
on TPU v3, from table 4 of Patterson et al. 2021 (arXiv:2104.10350). Serving takes about 2 FLOPs for
each parameter and token, a third of training's 6 (Appenzeller, Bornstein and Casado, *Navigating
the High Cost of AI Compute*, a16z, April 2023). What a dollar buys grows exponentially; Hobbhahn
and Besiroglu (*Trends in GPU price-performance*, Epoch AI, June 2022) find that it doubles every
2.46 years, and advise against values below 2 or above 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from optim8.plan.entries import Entry
from optim8.plan.quantity import check_positive

_SECONDS_PER_HOUR = 3600
_HOURS_PER_DAY = 24


@dataclass(frozen=True, kw_only=True)
class Price(Entry):
    """What an hour of the device of this name costs.

    Attributes
    ----------
    usd_per_hour : float
        In US dollars of its date.
    """

    usd_per_hour: float

    @property
    def year(self) -> int:
        """Of its date."""
        return int(self.date[:4])


@dataclass(frozen=True, kw_only=True)
class Trend(Entry):
    """How fast prices fall.

    Attributes
    ----------
    doubling_years : float
        In which the operations that a dollar buys double.
    low, high : float or None
        Ends of the 95 % interval, where it is published.
    """

    doubling_years: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Cost:
    """What a run takes.

    Attributes
    ----------
    device_hours : float
        Hours times devices.
    days : float
        That it lasts.
    cost : float
        In the currency of the price.
    """

    device_hours: float
    days: float
    cost: float


def training(
    flops: float, peak_flops: float, devices: float, utilization: float, price: float
) -> Cost:
    """Return time and cost of a run.

    Parameters
    ----------
    flops : float
        Operations of the whole run.
    peak_flops : float
        Operations a second of one device at its peak.
    devices : float
        That work at once.
    utilization : float
        Part of the peak that is reached: above 0, up to 1.
    price : float
        Of a device for an hour; 0 or more.

    Returns
    -------
    Cost

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    GPT-3 on A100 at 100 %, which a16z puts at $560,000:

    >>> round(training(3.14e23, 312e12, 1, 1.0, 2.0).cost, -3)
    559000.0
    """
    check_positive(flops=flops, peak_flops=peak_flops, devices=devices)
    hours = device_hours(flops, peak_flops, utilization)
    if price < 0:
        raise ValueError(f"Invalid price: {price} (expected 0 or more)")
    return Cost(hours, hours / devices / _HOURS_PER_DAY, hours * price)


def device_hours(flops: float, peak_flops: float, utilization: float) -> float:
    """Return the hours that one device needs for some operations; as in `training`."""
    if not 0 < utilization <= 1:
        raise ValueError(f"Invalid utilization: {utilization} (expected above 0, up to 1)")
    return flops / (peak_flops * utilization) / _SECONDS_PER_HOUR


def serving(
    params: float, tokens: float, peak_flops: float, utilization: float, price: float
) -> float:
    """Return the cost of serving tokens: 2 operations for each parameter and token.

    Parameters
    ----------
    params : float
        Parameters that are active for a token.
    tokens : float
        Read and written.
    peak_flops, utilization, price : float
        As in `training`.

    Examples
    --------
    A16z's $0.0002 to $0.0014 of computing for 1000 tokens of GPT-3:

    >>> 0.0002 < serving(175e9, 1000, 312e12, 1.0, 2.0) < 0.0014
    True
    """
    check_positive(params=params, tokens=tokens)
    return training(2 * params * tokens, peak_flops, 1, utilization, price).cost


def seconds_per_token(params: float, bytes_per_param: float, bandwidth: float) -> float:
    """Return the least time to write one token alone: every weight is read once.

    Parameters
    ----------
    params : float
        Parameters that are active for a token.
    bytes_per_param : float
        As they are stored.
    bandwidth : float
        Of the memory that holds them, in bytes a second.

    Examples
    --------
    >>> seconds_per_token(7e9, 2, 1e12)
    0.014
    """
    check_positive(params=params, bytes_per_param=bytes_per_param, bandwidth=bandwidth)
    return params * bytes_per_param / bandwidth


def price_in(price: float, years: float, doubling_years: float) -> float:
    """Return what the work that a price buys today costs some years later (earlier if negative).

    Parameters
    ----------
    price : float
        Of the work, today.
    years : float
        From today.
    doubling_years : float
        As in `Trend`.

    Examples
    --------
    >>> price_in(2.0, 2.46, 2.46)
    1.0
    """
    check_positive(doubling_years=doubling_years)
    return float(price * 2 ** (-years / doubling_years))
