"""What a record must say about where it was made, or its numbers mean nothing later."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import torch

PACKAGES = ("optim8", "torch", "numpy", "bitsandbytes", "torchao")


def describe() -> dict[str, object]:
    """Return the CPU, its caches, versions, threads, limits and date, ready for JSON."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cpu_family_model": _cpu_field("cpu family") + "/" + _cpu_field("model"),
        "n_cpus": os.cpu_count(),
        "cgroup_cpus": cgroup_cpus(),
        "caches": _caches(),
        "memory_bytes": _memory("MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "torch_threads": torch.get_num_threads(),
        "optim8": optim8_info(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("OMP_", "GOMP_", "OPTIM8_", "MKL_", "ATEN_CPU_"))
        },
    }


def optim8_info() -> dict[str, object]:
    """Return what optim8's native module says of itself."""
    from optim8 import _native

    return dict(_native.info())


def optim8_level() -> str:
    """Return the instruction set that optim8 uses in this process."""
    return str(optim8_info()["level"])


def cpu_name() -> str:
    """Return the CPU's model name, or the architecture where the system does not tell."""
    return _cpu_field("model name") or platform.processor() or platform.machine()


def available_memory() -> int:
    """Return how many bytes a process may still take; many where the system does not tell."""
    return _memory("MemAvailable") or 1 << 62


def cgroup_cpus() -> float | None:
    """Return how many CPUs the control group grants, or None where it sets no limit."""
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        return int(quota[0]) / int(quota[1])
    return None


def _cpu_field(name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match.group(1).strip() if match else ""


def _memory(name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else 0


def _caches() -> dict[str, str]:
    indices = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"))
    return {
        f"L{_read(index / 'level')} {_read(index / 'type').lower()}": _read(index / "size")
        for index in indices
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    try:
        return subprocess.run(
            command, cwd=here, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
