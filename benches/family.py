"""Time of every optimizer's 8-bit step against torch's fastest 32-bit one of the same name.

In torch that is the fused implementation where there is one, else the one over lists of tensors.
Optimizers that torch lacks are timed alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from benches import step
from benches.answer import WrongAnswerError
from benches.cases import Case
from benches.record import Result
from benches.timing import MemoryRoof

#: Arguments that give an optimizer all the states that it usually has.
OPTIMIZERS: dict[str, dict[str, object]] = {
    "Adadelta": {},
    "Adagrad": {},
    "Adam": {},
    "AdamW": {},
    "Adamax": {},
    "AdEMAMix": {},
    "LAMB": {},
    "LARS": {"momentum": 0.9, "weight_decay": 1e-4},
    "Lion": {},
    "Muon": {},
    "NAdam": {},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9},
    "Rprop": {},
    "ScheduleFreeAdamW": {},
    "SGD": {"momentum": 0.9},
    "SGDW": {"momentum": 0.9},
    "StableAdamW": {},
}

#: Optimizers of matrices, whose step is more than a pass over the elements: torch's products in
#: bfloat16 take seconds for large ones where the CPU has none of its own.
MATRICES = {"Muon": Case("8 of 256x256", ((256, 256),) * 8)}

BASELINE, OURS = "torch", "optim8"

#: Of the change in three steps, between 8-bit and full states. Lion's steps are signs: where one is
#: not the same, the difference is twice the step.
TOLERANCE = 0.3

N_CHECKED = 100_000


def measure(case: Case, roof: MemoryRoof, *, n_rounds: int) -> list[Result]:
    """Check, then time every optimizer on a case, in float32.

    Raises
    ------
    WrongAnswerError
        If steps with 8-bit states differ from those with full ones by more than their coarseness.
    """
    import optim8

    results = []
    for name, arguments in OPTIMIZERS.items():
        ours, theirs = getattr(optim8, name), getattr(torch.optim, name, None)
        timed = MATRICES.get(name, case)
        check(name, partial(ours, **arguments), timed.shapes[0])
        makers = {OURS: partial(ours, **arguments)}
        if theirs is not None:
            switches = inspect.signature(theirs).parameters
            fastest = [switch for switch in ("fused", "foreach") if switch in switches][:1]
            flags = dict.fromkeys(fastest, True)
            makers = {BASELINE: partial(theirs, **arguments, **flags), **makers}
        named = replace(timed, name=f"{name} {timed.name}")
        made = _stepped(timed, makers)
        results += step.time("family", named, torch.float32, made, roof, n_rounds=n_rounds)
    return results


def check(name: str, make: partial[torch.optim.Optimizer], shape: tuple[int, ...]) -> None:
    """Compare three steps with 8-bit states with three steps with full ones."""
    changes = []
    if len(shape) == 1:
        shape = (N_CHECKED,)
    for bits in (8, 32):
        generator = torch.Generator().manual_seed(0)
        parameter = nn.Parameter(torch.randn(shape, generator=generator))
        start = parameter.detach().clone()
        optimizer = make([parameter], state_bits=bits)
        for _ in range(3):
            parameter.grad = torch.randn(shape, generator=generator)
            optimizer.step()
        changes.append(parameter.detach() - start)
    error = float((changes[0] - changes[1]).norm() / changes[1].norm())
    if not error <= TOLERANCE:
        raise WrongAnswerError(f"{name}: relative error {error:.2e}, expected at most {TOLERANCE}")


def _stepped(
    case: Case, makers: Mapping[str, partial[torch.optim.Optimizer]]
) -> dict[str, torch.optim.Optimizer]:
    """Make optimizers of parameters of their own, which see the same gradients, and step them."""
    gradients = [torch.randn(shape) for shape in case.shapes]
    made = {}
    for candidate, make in makers.items():
        parameters = [nn.Parameter(torch.randn(shape)) for shape in case.shapes]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        made[candidate] = make(parameters)
        made[candidate].step()
    return made
