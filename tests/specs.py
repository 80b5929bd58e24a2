"""What the tests know of each optimizer. To add one, add its line; `test_registry` demands it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import optim8
import reference


@dataclass(frozen=True)
class Spec:
    """One native rule: the class and arguments that select it, and what it is compared with."""

    rule: str
    cls: type
    torch_cls: type | None
    reference: Callable[..., Any]
    kwargs: dict[str, Any] = field(default_factory=dict)
    slow: tuple[str, ...] = ("exp_avg_sq",)
    """The states that are rounded stochastically, at the default betas."""


SPECS = [
    Spec(
        rule=name + ("_amsgrad" if amsgrad else ""),
        cls=getattr(optim8, cls),
        torch_cls=getattr(torch.optim, cls),
        reference=partial(reference.adam, decoupled=cls == "AdamW", amsgrad=amsgrad),
        kwargs={"amsgrad": amsgrad},
    )
    for name, cls in (("adam", "Adam"), ("adamw", "AdamW"))
    for amsgrad in (False, True)
]
CLASSES = {spec.cls: spec for spec in SPECS if not any(spec.kwargs.values())}
"""One spec a class, its plain form."""


def by_rule(spec):
    """Return the id of a parametrized test."""
    return spec.rule


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
                p.grad = tensor(p.shape, p.dtype, seed + 1000 * (n + 1) + index)
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
