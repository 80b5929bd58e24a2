"""How much memory a process uses, as its operating system counts it.

Linux keeps the present and the largest resident set of each process in ``/proc/self/status``.
Elsewhere ``getrusage`` tells the largest, and stands in for the present one too. It would do on
Linux as well, but there a child starts from the largest resident set of the parent that started
it, which would hide all that a small child uses.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int | None:
    """Return this process's resident set, in bytes, or None where it cannot be told."""
    return _status("VmRSS") if _STATUS.exists() else _largest_by_getrusage()


def peak_resident_bytes() -> int | None:
    """Return the largest resident set that this process ever had, in bytes, or None."""
    return _status("VmHWM") if _STATUS.exists() else _largest_by_getrusage()


def _status(field: str) -> int | None:
    found = re.search(rf"^{field}:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _largest_by_getrusage() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # Unix only

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
