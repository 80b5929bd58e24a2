"""Golden bytes: what a stored state is, for ever.

A checkpoint written today must mean the same to every later version: the names, the layout, the
codes and, because resumed runs repeat themselves, the roundings. If this fails, either it is a bug
or the format has changed, which, from the first release on, needs a new `format_version` and a line
in the changelog. Then `python tests/test_golden.py` writes the file anew.
"""

import json
from pathlib import Path

import pytest
import torch

import optim8
from optim8 import _native
from specs import SPECS, by_rule

PATH = Path(__file__).parent / "data" / "golden_states.json"
CODEBOOKS = PATH.with_name("golden_codebooks.json")


def states(cls, kwargs, codec, dtype):
    """Return the states of a small parameter after three steps, as hex."""
    numbers = torch.arange(2 * 40, dtype=dtype).reshape(2, 40)
    p = (numbers / 64 - 0.5).requires_grad_()
    optimizer = cls([p], codec=codec, block_size=32, min_quantized_numel=0, **kwargs)
    for n in range(3):
        # Exact in float32 on every machine.
        p.grad = ((numbers * 37 + n * 11) % 101 - 50) / 64
        p.grad[1, 5] = 0.0
        optimizer.step()
    return {
        name: [str(value.dtype), list(value.shape), bytes_of(value).hex()]
        for name, value in optimizer.state[p].items()
    }


def bytes_of(value):
    return value.reshape(-1).view(torch.uint8).numpy().tobytes()


def codebooks():
    """Return the values that the codes of each codec stand for, as hex."""
    return {
        f"{codec}-{'signed' if signed else 'unsigned'}": optim8.codebook(codec, signed=signed)
        .numpy()
        .tobytes()
        .hex()
        for codec in _native.CODECS
        for signed in (True, False)
    }


CASES = {
    f"{by_rule(spec)}-{codec}": (spec.cls, spec.kwargs, codec, torch.float32)
    for spec in SPECS
    for codec in _native.CODECS
} | {
    f"{cls.__name__}-{dtype}": (cls, {}, "minifloat", dtype)
    for cls, dtypes in (
        (optim8.AdamW, (torch.bfloat16, torch.float16, torch.float64)),
        (optim8.ScheduleFreeAdamW, (torch.bfloat16, torch.float16, torch.float64)),
        (optim8.Muon, (torch.float32,)),  # its states do not depend on torch's matrix products
    )
    for dtype in dtypes
}


@pytest.mark.parametrize("case", CASES)
def test_states_are_the_golden_bytes(case):
    assert states(*CASES[case]) == json.loads(PATH.read_text())[case]


def test_codes_stand_for_the_golden_values():
    assert codebooks() == json.loads(CODEBOOKS.read_text())


def test_group_options_are_the_golden_ones():
    optimizer = SPECS[0].cls([torch.zeros(1)])
    options = {
        "state_bits": 8,
        "block_size": 256,
        "codec": "minifloat",
        "state_rounding": "stochastic",
        "param_rounding": "nearest",
        "min_quantized_numel": 4096,
        "nonfinite": "propagate",
        "seed": 0,
        "format_version": 1,
    }
    saved = optimizer.state_dict()["param_groups"][0]
    assert {name: saved[name] for name in options} == options


if __name__ == "__main__":
    golden = {case: states(*arguments) for case, arguments in CASES.items()}
    PATH.write_text(json.dumps(golden, indent=1) + "\n")
    CODEBOOKS.write_text(json.dumps(codebooks(), indent=1) + "\n")
