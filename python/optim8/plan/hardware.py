"""Accelerators and processors: what they can do, hold and draw.

The entries are in ``data/devices.toml``. Peak rates are for dense matrices of bfloat16 with float32
sums; vendors' headlines are often of sparse ones, twice as high.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from optim8.plan.answer import Choice
from optim8.plan.entries import Entry


@dataclass(frozen=True, kw_only=True)
class Device(Entry):
    """An accelerator, or the processors of one machine.

    Attributes
    ----------
    year : int
        It came out.
    peak_tflops : float
        1e12 operations a second, dense bfloat16 unless the title names another type.
    memory_gb : float or None
        1e9 bytes; None where it is the host's.
    bandwidth_gb_s : float
        Of that memory, 1e9 bytes a second.
    tdp_watts : float or None
        Thermal design power; None where it is not published.
    measured_watts : float or None
        Mean of the whole system for each device in training, where somebody has measured it.
    measured_source : str
        Who.
    from_memory : list of str
        Fields that have not been checked in the source, where others have.
    """

    year: int
    peak_tflops: float
    bandwidth_gb_s: float
    memory_gb: float | None = None
    tdp_watts: float | None = None
    measured_watts: float | None = None
    measured_source: str = ""
    from_memory: list[str] = field(default_factory=list)

    def is_checked(self, attribute: str) -> bool:
        """Whether somebody has read a number in the source."""
        return self.checked and attribute not in self.from_memory

    def watts(self) -> Choice:
        """Return the mean power to plan with: measured if known, else the thermal design power.

        Raises
        ------
        ValueError
            If neither is known.
        """
        if self.measured_watts is not None:
            return Choice(self.measured_watts, f"{self.title}, measured; {self.measured_source}")
        if self.tdp_watts is None:
            raise ValueError(f"no power is published for {self.name} (give --watts)")
        recalled = "" if self.is_checked("tdp_watts") else "; from memory, not checked"
        return Choice(self.tdp_watts, f"{self.title}, thermal design power{recalled}")
