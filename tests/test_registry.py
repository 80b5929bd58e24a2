"""Every rule of the binary has a class that reaches it, a reference and a spec."""

import inspect

import pytest
import torch

import optim8
from optim8 import _native
from optim8.optim import Optim8Optimizer, Options
from specs import CLASSES, SPECS, by_rule


def test_every_rule_has_a_spec():
    assert sorted(spec.rule for spec in SPECS) == sorted(_native.RULES)


def test_every_public_optimizer_has_a_spec():
    public = {
        value
        for value in vars(optim8).values()
        if inspect.isclass(value) and issubclass(value, Optim8Optimizer)
    }
    assert public == set(CLASSES)


@pytest.mark.parametrize("spec", SPECS, ids=by_rule)
def test_class_selects_rule(spec):
    optimizer = spec.cls([torch.zeros(1)], **spec.kwargs)
    rule, hyper = optimizer._rule(optimizer.param_groups[0])
    assert rule == spec.rule
    assert list(hyper) == _native.RULES[rule]["hyper"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_signature_is_that_of_torch(cls):
    ours = dict(inspect.signature(cls.__init__).parameters)
    assert ours.pop("options").kind is inspect.Parameter.VAR_KEYWORD
    theirs = inspect.signature(CLASSES[cls].torch_cls.__init__).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_options_are_documented():
    assert all(f"    {name}\n" in Options.__doc__ for name in Options.__annotations__)


def test_info_names_what_runs():
    info = _native.info()
    assert info["version"] == optim8.__version__
    assert info["level"] in info["levels"]
    assert info["levels"][0] == "scalar"
