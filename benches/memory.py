"""Memory: what states take, and what a step takes on top of them while it runs.

The second is measured by the kernel of the operating system: its record of the largest resident set
is reset just before a step and read just after. In a process that has run other things the
allocator may have free memory in hand, in which temporaries hide, so each measurement is a fresh
child process, told to return every large piece of memory when it is freed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benches import optimizers
from benches.answer import HYPERPARAMETERS

#: A temporary of this size or more is mapped on its own, and unmapped when freed.
MMAP_THRESHOLD = 64 * 1024

#: Environment of a child whose allocator returns what is freed.
RETURNING_ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": "0",
}


@dataclass(frozen=True)
class Memory:
    """What one optimizer takes on one tensor."""

    candidate: str
    n_elements: int
    dtype: str
    state_bytes: int
    step_peak_bytes: int

    @property
    def state_bytes_per_parameter(self) -> float:
        """States, scales and tables included."""
        return self.state_bytes / self.n_elements


def state_nbytes(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter] | None = None
) -> int:
    """Return the bytes of the tensors in states of some or all parameters, shared ones once."""
    states = (
        optimizer.state.values() if parameters is None else map(optimizer.state.get, parameters)
    )
    tensors = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for state in states
        for value in state.values()
        if isinstance(value, Tensor)
        for tensor in _parts(value)
    }
    return sum(tensors.values())


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the plain tensors that a tensor subclass (torchao's) is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [part for name in names for part in _parts(getattr(tensor, name))]


def peak_growth(action: Callable[[], object]) -> int:
    """Return by how many bytes the resident set grew at the peak of an action (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")  # see man 5 proc: resets VmHWM
    before = _status_bytes("VmRSS")
    action()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    match = re.search(
        rf"^{field}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    if match is None:
        raise RuntimeError(f"/proc/self/status: {field} is missing")
    return int(match.group(1)) * 1024


def measure_here(name: str, n_elements: int, dtype: torch.dtype) -> Memory:
    """Measure in this process, which should be fresh."""
    parameter = nn.Parameter(torch.randn(n_elements, dtype=dtype))
    parameter.grad = torch.randn(n_elements, dtype=dtype)
    optimizer = optimizers.find(name).make([parameter], **HYPERPARAMETERS)
    for _ in range(2):  # the first makes the states, the second whatever else is made once
        optimizer.step()
    peak = peak_growth(optimizer.step)
    return Memory(
        name, n_elements, str(dtype).removeprefix("torch."), state_nbytes(optimizer), peak
    )


def measure(name: str, n_elements: int, dtype: str = "float32") -> Memory:
    """Measure one optimizer on one tensor in a child process."""
    command = [sys.executable, "-m", "benches.memory", name, str(n_elements), dtype]
    environment = {**os.environ, **RETURNING_ALLOCATOR}
    child = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return Memory(**json.loads(child.stdout.splitlines()[-1]))


if __name__ == "__main__":
    _, name_argument, size_argument, dtype_argument = sys.argv
    print(
        json.dumps(
            asdict(measure_here(name_argument, int(size_argument), getattr(torch, dtype_argument)))
        )
    )
