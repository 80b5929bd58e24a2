"""Energy and emissions of a run.

Patterson et al., *Carbon Emissions and Large Neural Network Training* (2021), arXiv:2104.10350,
equations of section 2::

    kWh   = hours x processors x average watts per processor x PUE / 1000
    tCO2e = kWh x kg of CO2 equivalent per kWh / 1000

The watts are those of the whole system for each processor (memory, network, fans, a share of the
host), measured where possible; a data sheet's thermal design power is another number. PUE, power
usage effectiveness, is what the building draws for each watt that reaches the computers.
"""

from __future__ import annotations

from dataclasses import dataclass

from optim8.plan.entries import Entry
from optim8.plan.quantity import check_positive


@dataclass(frozen=True, kw_only=True)
class Grid(Entry):
    """How clean a power grid is.

    Attributes
    ----------
    kg_per_kwh : float
        Kilograms of CO2 equivalent for each kilowatt-hour.
    """

    kg_per_kwh: float


@dataclass(frozen=True)
class Practice:
    """One of the four ways to emit less, and by how much: Patterson et al. 2022, arXiv:2204.05149.

    Attributes
    ----------
    about : str
        What to do.
    low, high : float
        By which emissions are divided, at least and at most.
    saves_energy : bool
        Whether energy is divided by as much.
    """

    about: str
    low: float
    high: float
    saves_energy: bool = True


#: The four. Factors are those of the paper's announcement (Google, February 2022).
PRACTICES = {
    "model": Practice("an efficient or sparse architecture", 3, 10),
    "machine": Practice("processors made for machine learning", 2, 5),
    "mechanization": Practice("a cloud's data center instead of one's own", 1.4, 2),
    "map": Practice("the cleanest location", 5, 10, saves_energy=False),
}


@dataclass(frozen=True)
class Footprint:
    """What a run takes and emits.

    Attributes
    ----------
    kwh : float
        Energy from the grid, in kilowatt-hours.
    tco2e : float
        Emissions, in metric tons of CO2 equivalent.
    """

    kwh: float
    tco2e: float


def footprint(
    hours: float, devices: float, watts: float, pue: float, intensity: float
) -> Footprint:
    """Return energy and emissions of a run.

    Parameters
    ----------
    hours : float
        That the run takes.
    devices : float
        Processors that it takes at once.
    watts : float
        Mean power of the system for each processor.
    pue : float
        Power usage effectiveness of the building, 1 or more.
    intensity : float
        Of the grid, in kilograms of CO2 equivalent for each kilowatt-hour; 0 or more.

    Returns
    -------
    Footprint

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    GPT-3's training, as Patterson et al. have it (table 4):

    >>> found = footprint(hours=355.2, devices=10_000, watts=330, pue=1.1, intensity=0.429)
    >>> round(found.kwh / 1000), round(found.tco2e)
    (1289, 553)
    """
    check_positive(hours=hours, devices=devices, watts=watts)
    if pue < 1:
        raise ValueError(f"Invalid pue: {pue} (expected 1 or more: what reaches the building)")
    if intensity < 0:
        raise ValueError(f"Invalid intensity: {intensity} (expected 0 or more)")
    kwh = hours * devices * watts * pue / 1000
    return Footprint(kwh, kwh * intensity / 1000)


def improved(found: Footprint, practice: Practice) -> tuple[Footprint, Footprint]:
    """Return what a run would take with a practice that it does not follow yet.

    Parameters
    ----------
    found : Footprint
        What it takes now.
    practice : Practice
        One of `PRACTICES`.

    Returns
    -------
    tuple of Footprint
        With the smallest and with the largest effect.

    Examples
    --------
    >>> improved(Footprint(kwh=1000, tco2e=0.5), PRACTICES["map"])
    (Footprint(kwh=1000, tco2e=0.1), Footprint(kwh=1000, tco2e=0.05))
    """
    least, most = (
        Footprint(found.kwh / factor if practice.saves_energy else found.kwh, found.tco2e / factor)
        for factor in (practice.low, practice.high)
    )
    return least, most
