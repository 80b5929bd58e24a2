"""Energy and emissions of a real command, as the package codecarbon measures them.

codecarbon (Mila and others, MIT licence) reads the counters of processors and accelerators where
the system shows them, and estimates power from load elsewhere, of the whole machine and not of the
command alone. It is not needed for anything else, so it is imported when it is asked for. Its
offline tracker is used, which looks nothing up on the network.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter

from optim8.plan.carbon import Footprint


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes
    ----------
    hours : float
        From its start to its end.
    footprint : Footprint
        Without the building's share: a PUE of 1.
    """

    hours: float
    footprint: Footprint


def measure(command: Sequence[str], country: str) -> Measured:
    """Run a command and measure the machine meanwhile.

    Parameters
    ----------
    command : sequence of str
        Program and arguments. What it prints goes to standard error.
    country : str
        Three letters (ISO 3166), whose mean intensity is taken.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If codecarbon is not installed, the country has not three letters, or the command fails.
    OSError
        If the command cannot be started.
    """
    if len(country) != 3 or not country.isalpha():
        raise ValueError(f"Invalid country: {country!r} (expected three letters, such as USA)")
    try:
        codecarbon = import_module("codecarbon")
    except ImportError:
        raise ValueError(
            "--measure needs codecarbon; install with: pip install codecarbon"
        ) from None
    tracker = codecarbon.OfflineEmissionsTracker(
        country_iso_code=country.upper(), save_to_file=False, log_level="error"
    )
    start = perf_counter()
    tracker.start()
    try:
        status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    finally:
        kilograms = tracker.stop()
        hours = (perf_counter() - start) / 3600
    if status:
        raise ValueError(f"{command[0]} ended with status {status}")
    if kilograms is None:
        raise ValueError("codecarbon could not measure this machine")
    energy = tracker.final_emissions_data.energy_consumed
    return Measured(hours, Footprint(float(energy), float(kilograms) / 1000))
