"""Every rule of the binary has a class that reaches it, a reference and a spec."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch

import optim8
from benches import family, minimize
from optim8 import _native
from optim8.optim import Optim8Optimizer, Options
from optim8.optim._base import _IN_TUPLES
from specs import CLASSES, OWN_TESTS, SPECS, TORCH_CLASSES, by_rule

ROW_WITH_MOMENTUM = ("LARS", "SGD", "SGDW")
"""Classes whose row of the README begins with what they take with momentum."""


def test_every_rule_has_a_spec():
    assert {spec.rule for spec in SPECS} | OWN_TESTS.keys() == set(_native.RULES)


def test_every_public_optimizer_has_a_spec():
    public = {
        value
        for value in (getattr(optim8, name) for name in optim8.__all__)
        if inspect.isclass(value) and issubclass(value, Optim8Optimizer)
    }
    assert public == {*CLASSES, *OWN_TESTS.values()}


@pytest.mark.parametrize("cls", [*CLASSES, *OWN_TESTS.values()], ids=lambda cls: cls.__name__)
def test_every_optimizer_is_in_the_readme_and_in_the_benchmarks(cls):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = [line.split("|")[1:] for line in readme.splitlines() if line.startswith("| `")]
    [row] = [row for row in rows if f"`{cls.__name__}`" in row[0]]
    param = torch.zeros(80, 1024, requires_grad=True)
    param.grad = torch.ones_like(param)
    optimizer = cls([param], **({"momentum": 0.9} if cls.__name__ in ROW_WITH_MOMENTUM else {}))
    optimizer.step()
    of_copy = 4 if "copy of the parameters" in row[2] else 0
    found = optimizer.state_nbytes() / param.numel() - of_copy
    assert float(re.match(r"[ 0-9.]+", row[2])[0]) == pytest.approx(found, abs=0.006)
    assert cls.__name__ in family.OPTIMIZERS
    assert cls.__name__ in minimize.SETTINGS


def test_every_optimizer_is_known_to_minimize():
    public = {
        name
        for name in optim8.__all__
        if inspect.isclass(cls := getattr(optim8, name)) and issubclass(cls, torch.optim.Optimizer)
    }
    assert minimize.SETTINGS.keys() == public


@pytest.mark.parametrize("spec", SPECS, ids=by_rule)
def test_class_selects_rule(spec):
    optimizer = spec.cls([torch.zeros(1)], **spec.kwargs)
    group = optimizer.param_groups[0]
    rule = optimizer._rule(group)
    assert rule == spec.rule
    optimizer._before_step()
    hyper = optimizer._hyper(rule, group)
    assert list(hyper) == _native.RULES[rule]["hyper"]
    # What is not in the group is 0: it had better be meant so.
    derived = {*_IN_TUPLES, "decoupled_weight_decay", "grad_scale"}
    assert set(hyper) <= {*group, *derived}


@pytest.mark.parametrize("cls", TORCH_CLASSES, ids=lambda cls: cls.__name__)
def test_signature_is_that_of_torch(cls):
    ours = dict(inspect.signature(cls.__init__).parameters)
    assert ours.pop("options").kind is inspect.Parameter.VAR_KEYWORD
    theirs = inspect.signature(TORCH_CLASSES[cls].__init__).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


def test_options_are_documented():
    assert all(f"    {name}\n" in Options.__doc__ for name in Options.__annotations__)


LAYERS = [
    "_native",
    "_classes",
    "quant",
    "state",
    "interop.bitsandbytes",
    "optim._options",
    "optim._check",
    "optim._load",
    "optim._watch",
    "optim._base",
    "optim._momentum",
]


def test_imports_point_downward():
    """From `optim.<name>` through `LAYERS`, but for imports that only types need; no circles."""
    layers = [f"optim8.{name}" for name in LAYERS]
    root = Path(optim8.__file__).parent
    files = [root / f"{name.replace('.', '/')}.py" for name in LAYERS[1:]]
    for file in [*files, *(root / "optim").glob("[a-z]*.py")]:
        name = ".".join(file.relative_to(root.parent).with_suffix("").parts)
        below = layers[: layers.index(name)] if name in layers else layers
        tree = ast.parse(file.read_text())
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "optim8":
                imported = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert imported & set(below), f"{name} imports {node.module}"


def test_info_names_what_runs():
    info = _native.info()
    assert info["version"] == optim8.__version__
    assert info["level"] in info["levels"]
    assert info["levels"][0] == "scalar"
