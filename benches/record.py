"""The record of a run: what was measured, and the machine it was measured on, as JSON.

Records that figures elsewhere rest on are kept in `benches/records`. A record is flat: every timing
is one `Result` with all that identifies it, and ratios are only made when it is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benches import machine
from benches.fidelity import Fidelity
from benches.memory import Memory
from benches.minimize import Minimum
from benches.plan_fit import Coverage
from benches.plan_memory import Comparison
from benches.timing import Timing

DIRECTORY = Path(__file__).parent / "records"


@dataclass(frozen=True)
class Result:
    """One candidate's timing in one case.

    Attributes
    ----------
    bench : str
        "step", "loop", "quantize" or "dequantize".
    case : str
        Name of the case ("32M").
    dtype : str
        Of parameters ("float32").
    level : str
        Instruction set that optim8 used in the process ("avx2").
    candidate : str
        What was timed.
    n_elements : int
        Of the case.
    timing : Timing
        Nanoseconds of one action.
    bytes_per_element : float
        That the action must read and write at least.
    roof : float
        Bytes per second that torch's in-place multiplication reached in the same run.
    """

    bench: str
    case: str
    dtype: str
    level: str
    candidate: str
    n_elements: int
    timing: Timing
    bytes_per_element: float
    roof: float

    @property
    def share_of_roof(self) -> float:
        """Achieved share of the roof; above one where the data was in a cache."""
        bytes_per_second = self.bytes_per_element * self.n_elements / self.timing.minimum_ns * 1e9
        return bytes_per_second / self.roof


@dataclass
class Record:
    """All that one run found."""

    machine: dict[str, object] = field(default_factory=machine.describe)
    results: list[Result] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    fidelity: list[Fidelity] = field(default_factory=list)
    plan_memory: list[Comparison] = field(default_factory=list)
    plan_fit: list[Coverage] = field(default_factory=list)
    minimize: list[Minimum] = field(default_factory=list)

    def save(self, path: Path | None = None) -> Path:
        """Write as JSON, by default into `benches/records` under the CPU's name and the time."""
        path = path or DIRECTORY / f"{self._default_name()}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    def _default_name(self) -> str:
        cpu = re.sub(r"[^a-z0-9]+", "-", str(self.machine["cpu"]).lower()).strip("-")
        minute = re.sub(r"[T:]", "-", str(self.machine["date"])[:16])
        return f"{cpu}-{minute}"

    @classmethod
    def load(cls, path: Path) -> Record:
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        return cls(
            machine=content["machine"],
            results=[
                Result(**{**result, "timing": Timing(**result["timing"])})
                for result in content["results"]
            ],
            memory=[Memory(**memory) for memory in content["memory"]],
            fidelity=[Fidelity(**fidelity) for fidelity in content["fidelity"]],
            # Older records have none of these.
            plan_memory=[Comparison(**found) for found in content.get("plan_memory", ())],
            plan_fit=[Coverage(**coverage) for coverage in content.get("plan_fit", ())],
            minimize=[Minimum(**minimum) for minimum in content.get("minimize", ())],
        )
