"""What the tests know of each optimizer. To add one, add its line; `test_registry` demands it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch

import optim8
import reference
from optim8 import _native


@dataclass(frozen=True)
class Spec:
    """One native rule: the class and arguments that select it, and what it is compared with."""

    rule: str
    cls: type
    torch_cls: type | None
    reference: Callable[..., Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    signs: tuple[str, ...] = ()
    """The states of which only the sign is kept in 8 bits."""

    @property
    def kinds(self):
        """What each state holds: "signed" or "unsigned" numbers, or a "copy" of the parameter."""
        return _native.RULES[self.rule]["states"]


def _spec(rule, cls, function, signs=(), **kwargs):
    torch_cls = getattr(torch.optim, cls, None)
    return Spec(rule, getattr(optim8, cls), torch_cls, function, kwargs, signs)


ADAMS = [
    _spec(
        name + ("_amsgrad" if amsgrad else ""),
        cls,
        partial(reference.adam, decoupled=cls == "AdamW", amsgrad=amsgrad),
        amsgrad=amsgrad,
    )
    for name, cls in (("adam", "Adam"), ("adamw", "AdamW"))
    for amsgrad in (False, True)
]
RMSPROPS = [
    _spec(
        "rmsprop" + "_centered" * centered + "_momentum" * bool(momentum),
        "RMSprop",
        reference.rmsprop,
        centered=centered,
        momentum=momentum,
    )
    for centered in (False, True)
    for momentum in (0, 0.9)
]
SPECS = [
    *ADAMS,
    *RMSPROPS,
    _spec("adadelta", "Adadelta", reference.adadelta),
    _spec("adagrad", "Adagrad", reference.adagrad, lr_decay=0.1),
    _spec("adamax", "Adamax", reference.adamax),
    _spec(
        "ademamix",
        "AdEMAMix",
        reference.ademamix,
        t_alpha=10.0,
        t_beta3=3.0,
        betas=(0.9, 0.999, 0.9995),
    ),
    _spec("lamb", "LAMB", reference.lamb),
    _spec("lars", "LARS", reference.lars, trust_coeff=0.02, always_adapt=True),
    _spec("lars_momentum", "LARS", reference.lars, momentum=0.9, dampening=0.2),
    _spec("lion", "Lion", reference.lion),
    _spec("nadam", "NAdam", reference.nadam),
    _spec("radam", "RAdam", reference.radam, betas=(0.9, 0.99)),
    _spec("rprop", "Rprop", reference.rprop, ("prev",)),
    _spec(
        "schedule_free_adamw",
        "ScheduleFreeAdamW",
        reference.schedule_free_adamw,
        warmup_steps=3,
        r=0.5,
    ),
    _spec("sgd", "SGD", reference.sgd),
    _spec("sgd_momentum", "SGD", reference.sgd, momentum=0.9, dampening=0.1),
    _spec("sgd_momentum", "SGD", reference.sgd, momentum=0.9, nesterov=True),
    _spec("sgd_momentum", "SGDW", reference.sgd, momentum=0.9, weight_decay=0.3),
    _spec("stable_adamw", "StableAdamW", reference.stable_adamw),
]
CLASSES = {spec.cls: spec for spec in reversed(SPECS)}
"""One spec a class, its first."""
OWN_TESTS = {"muon": optim8.Muon}
"""Rules that take matrices only, and their classes: see the test files of their names."""
TORCH_CLASSES = {cls: spec.torch_cls for cls, spec in CLASSES.items() if spec.torch_cls}
"""torch's class of the same name."""


needs_names = pytest.mark.skipif(
    torch.__version__ < (2, 6), reason="this torch takes no parameters with names"
)


def accepted(cls, **kwargs):
    """Return those of some arguments that a class has."""
    return {k: v for k, v in kwargs.items() if k in inspect.signature(cls).parameters}


def by_rule(spec):
    """Return the id of a parametrized test."""
    return f"{spec.cls.__name__}-{spec.rule}" + "-nesterov" * spec.kwargs.get("nesterov", False)


def tensor(shape, dtype=torch.float32, seed=0, scale=1.0):
    """Return normal numbers that depend on the seed only."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)


def stepped(cls, shapes, n_steps=3, dtype=torch.float32, seed=0, **kwargs):
    """Return an optimizer and its parameters after some steps with random gradients."""
    params = [tensor(shape, dtype, seed + i).requires_grad_() for i, shape in enumerate(shapes)]
    optimizer = cls(params, **kwargs)
    step(optimizer, n_steps, seed)
    return optimizer, params


def step(optimizer, n_steps=1, seed=0):
    """Step with gradients that depend on the step's number and the seed only."""
    for n in range(n_steps):
        index = 0
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = tensor(p.shape, p.dtype, seed + 1000 * (n + 1) + index).to(p.device)
                index += 1
        optimizer.step()


def snapshot(optimizer):
    """Return copies of all that an optimizer holds, for `assert_same`."""
    return {
        "params": [p.detach().clone() for g in optimizer.param_groups for p in g["params"]],
        "states": [
            {k: v.clone() for k, v in optimizer.state[p].items()} if p in optimizer.state else None
            for g in optimizer.param_groups
            for p in g["params"]
        ],
        "groups": [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
    }


def assert_same(left, right):
    """Bit for bit, NaN included."""
    assert left["groups"] == right["groups"]
    for a, b in zip(left["params"], right["params"], strict=True):
        assert same_bits(a, b)
    for a, b in zip(left["states"], right["states"], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert list(a) == list(b)
            assert all(same_bits(a[k], b[k]) for k in a)


def same_bits(a, b):
    """Whether two tensors have the same dtype, shape and bytes."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)
