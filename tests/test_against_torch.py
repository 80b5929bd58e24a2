"""Full states: torch's own results, inputs and errors (`optim_db` is torch's table of them)."""

import copy
import inspect
import math
import warnings

import pytest
import torch

import optim8
from specs import TORCH_CLASSES, accepted, step, stepped, tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

DB = {info.optim_cls: info for info in common_optimizers.optim_db}
CLASS = pytest.mark.parametrize("cls", TORCH_CLASSES, ids=lambda cls: cls.__name__)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def info_of(cls):
    return DB[TORCH_CLASSES[cls]]


def inputs(cls, dtype):
    # Of the parameters' dtype: with a float32 lr, torch computes part of a float64 step in float32.
    lr, beta1, beta2 = torch.tensor([0.01, 0.8, 0.95], dtype=dtype)
    extra = [
        {"betas": (0.5, 0.7), "eps": 1e-3},
        {"lr": lr},
        {"weight_decay": 0.1, "amsgrad": True, "maximize": True},
        {"momentum": 0.9, "dampening": 0.3, "centered": True},
        {"foreach": False},
        {"foreach": True},
        {"fused": True},
    ]
    extra = [accepted(cls, **kwargs) for kwargs in extra]
    if "amsgrad" in inspect.signature(cls).parameters:
        extra.append({"lr": lr, "betas": (beta1, beta2.reshape(1))})
    table = info_of(cls).optim_inputs_func(device="cpu", dtype=dtype)
    return [given.kwargs for given in table] + extra


def assert_near(ours, theirs, tolerance, what):
    """Equal to `tolerance` of the largest element: averages of both signs cancel."""
    size = theirs.abs().max().item() if theirs.numel() else 0.0
    torch.testing.assert_close(
        ours, theirs, rtol=tolerance, atol=tolerance * size, msg=lambda m: f"{what}: {m}"
    )


@CLASS
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{"state_bits": 32}, {}], ids=["bits32", "small"])
def test_full_states_give_torchs_results(cls, dtype, options):
    shapes = [(), (0,), (7,), (50, 3), (2, 3, 4, 5)]
    if options:
        shapes.append((70, 90))
    for kwargs in inputs(cls, dtype):
        ours = [tensor(shape, dtype, i).requires_grad_() for i, shape in enumerate(shapes)]
        theirs = copy.deepcopy(ours)
        optimizer = cls(ours, **copy.deepcopy(kwargs), **options)
        expected = TORCH_CLASSES[cls](theirs, **copy.deepcopy(kwargs))
        for n in range(8):
            for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                a.grad = tensor(a.shape, dtype, 100 * n + i)
                b.grad = a.grad.clone()
            optimizer.step()
            expected.step()
        for a, b in zip(ours, theirs, strict=True):
            assert_near(a.detach(), b.detach(), TOLERANCE[dtype], kwargs)
            # SGD in torch counts no steps, and keeps no buffer that it does not need.
            torchs = {k: v for k, v in expected.state[b].items() if v is not None}
            assert list(optimizer.state[a]) == list({"step": None, **torchs})
            for name, value in torchs.items():
                assert optimizer.state[a][name].dtype == value.dtype
                assert_near(optimizer.state[a][name], value, TOLERANCE[dtype], (name, kwargs))


def error_inputs():
    for cls in TORCH_CLASSES:
        for given in info_of(cls).optim_error_inputs_func(device="cpu", dtype=torch.float32):
            yield pytest.param(cls, given, id=f"{cls.__name__}-{given.optimizer_error_input.desc}")


@pytest.mark.parametrize(("cls", "given"), list(error_inputs()))
def test_same_errors_as_torch(cls, given):
    arguments = given.optimizer_error_input
    params = arguments.params if arguments.params is not None else [torch.ones(2)]
    torch_cls = TORCH_CLASSES[cls]
    for constructor in (torch_cls, cls):
        if issubclass(given.error_type, Warning):
            with pytest.warns(given.error_type, match=given.error_regex):
                constructor(copy.copy(params), **arguments.kwargs)
        else:
            with pytest.raises(given.error_type, match=given.error_regex):
                constructor(copy.copy(params), **arguments.kwargs)


@CLASS
@pytest.mark.parametrize(
    "kwargs",
    [
        {"lr": -1.0},
        {"eps": -1.0},
        {"betas": (0.9, 1.5)},
        {"foreach": True, "fused": True},
        {"fused": True, "differentiable": True},
        {"betas": (torch.tensor([0.9, 0.9]), torch.tensor(0.9))},
        {"betas": (torch.tensor(0.9), torch.tensor([0.9, 0.9]))},
        {"betas": (0, 0.9)},
        {"nonsense": 1},
        {"params": []},
        {"params": [1]},
        {"params": [torch.ones(2, requires_grad=True) * 2]},
    ],
    ids=str,
)
def test_same_exception_as_torch(cls, kwargs):
    if not {*kwargs} <= {"nonsense", *inspect.signature(cls).parameters}:
        pytest.skip("not arguments of this class")
    kwargs = {"params": [torch.ones(2)], **kwargs}
    is_adam = "amsgrad" in inspect.signature(cls).parameters
    if isinstance(kwargs.get("betas", (1.0,))[0], int) and not is_adam:
        pytest.skip("only Adam and AdamW want floats")
    with pytest.raises((ValueError, TypeError, RuntimeError)) as expected:
        TORCH_CLASSES[cls](**kwargs)
    with pytest.raises(expected.type) as ours:
        cls(**kwargs)
    assert str(ours.value) == str(expected.value)


@CLASS
def test_bad_hyperparameter_of_a_group_is_refused(cls):
    optimizer = cls([torch.ones(2)])
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        optimizer.add_param_group({"params": [torch.ones(2)], "lr": -1})
    assert len(optimizer.param_groups) == 1


FREE = {
    "nesterov in a group without momentum": (
        "SGD",
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.0},
        {},
    ),
    "whole betas in a group": ("AdamW", {}, {"betas": (0, 0.9)}, {}),
    "a schedule that overshoots": ("AdamW", {}, {}, {"lr": -0.01}),
    "momentum later": ("SGD", {"dampening": 0.5}, {}, {"momentum": 0.9}),
    "momentum off": ("SGD", {"momentum": 0.9, "nesterov": True}, {}, {"momentum": 0.0}),
}


@pytest.mark.parametrize("case", FREE)
def test_groups_are_as_free_as_in_torch(case):
    """Hyperparameters may take values that a constructor refuses, at once or in between."""
    name, arguments, of_group, later = FREE[case]

    def make(cls, **options):
        params = [tensor((50, 3), seed=i).requires_grad_() for i in range(2)]
        groups = [{"params": params[:1], **of_group}, {"params": params[1:]}]
        return cls(groups, lr=0.1, **arguments, **options)

    ours, theirs = make(getattr(optim8, name)), make(getattr(torch.optim, name))
    for optimizer in (ours, theirs):
        step(optimizer, 3)
        for group in optimizer.param_groups:
            group.update(later)
        step(optimizer, 3, seed=5)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(optimizer, 2, seed=9)
    for mine, torchs in zip(ours.param_groups, theirs.param_groups, strict=True):
        for a, b in zip(mine["params"], torchs["params"], strict=True):
            assert_near(a.detach(), b.detach(), 1e-6, case)


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"lr": None}, "lr is None, expected a number"),
        ({"lr": "0.1"}, "lr is '0.1', expected a number"),
        ({"eps": []}, r"eps is \[\], expected a number"),
        ({"betas": (0.9, None)}, "betas is None, expected a number"),
    ],
    ids=str,
)
def test_what_is_no_number_is_refused_and_nothing_is_changed(entries, error):
    optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
    optimizer.param_groups[0].update(entries)
    before = p.detach().clone()
    with pytest.raises(TypeError, match=error):
        optimizer.step()
    assert torch.equal(p, before)
    assert optimizer.state[p]["step"] == 3
    with pytest.raises(TypeError, match=error):
        optimizer.add_param_group({"params": [torch.ones(2)], **entries})


def test_a_hyperparameter_that_was_deleted_is_missed():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    del optimizer.param_groups[0]["lr"]
    with pytest.raises(KeyError, match="lr"):
        optimizer.step()


@CLASS
@pytest.mark.parametrize("state_bits", [8, 32])
def test_an_infinite_parameter_stays_and_spoils_nothing(cls, state_bits):
    """As a mask's, whose gradient is 0; without weight decay it does not enter the gradient."""
    start = tensor((5000,))
    start[7] = -torch.inf
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    arguments = accepted(cls, weight_decay=0.0)
    optimizer = cls([ours], state_bits=state_bits, **arguments)
    expected = TORCH_CLASSES[cls]([theirs], **arguments)
    for n in range(3):
        ours.grad = tensor((5000,), seed=n)
        ours.grad[7] = 0.0
        theirs.grad = ours.grad.clone()
        optimizer.step()
        expected.step()
    assert ours[7] == theirs[7] == -torch.inf
    assert int(ours.isfinite().sum()) == int(theirs.isfinite().sum()) == 4999


@CLASS
@pytest.mark.parametrize("name", ["capturable", "differentiable"])
def test_what_cannot_be_served_is_refused(cls, name):
    if name not in inspect.signature(cls).parameters:
        pytest.skip("not an argument of this class")
    with pytest.raises(RuntimeError, match=f"{cls.__name__} does not support {name}=True"):
        cls([torch.ones(2)], **{name: True})
    optimizer, _ = stepped(cls, [(3,)])
    optimizer.param_groups[0][name] = True
    with pytest.raises(RuntimeError, match=f"does not support {name}=True"):
        optimizer.step()


@CLASS
def test_sparse_and_complex_are_refused_by_name_and_nothing_is_changed(cls):
    good, bad = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    good.grad = torch.ones(3)
    bad.grad = torch.ones(3).to_sparse()
    optimizer = cls([good, bad])
    with pytest.raises(RuntimeError, match=r"gradient of parameter 1.*sparse"):
        optimizer.step()
    complex_param = torch.ones(3, dtype=torch.complex64, requires_grad=True)
    complex_param.grad = torch.ones_like(complex_param)
    optimizer.param_groups[0]["params"][1] = complex_param
    with pytest.raises(TypeError, match=r"parameter 1: dtype torch\.complex64"):
        optimizer.step()
    optimizer.param_groups[0]["params"][1] = torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer.param_groups[0]["params"][1].grad = torch.ones(3, device="meta")
    with pytest.raises(RuntimeError, match="parameter 1: device meta where cpu"):
        optimizer.step()
    assert good.tolist() == [1, 1, 1]
    assert len(optimizer.state) == 0


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"state_bits": 4}, "Invalid state_bits: 4 .expected 8 or 32"),
        ({"block_size": 100}, "power of two"),
        ({"codec": "x"}, "Invalid codec"),
        ({"state_rounding": "x"}, "Invalid state_rounding"),
        ({"nonfinite": "x"}, "Invalid nonfinite"),
        ({"min_quantized_numel": -1}, "Invalid min_quantized_numel: -1"),
        ({"seed": 2**64}, "Invalid seed"),
        ({"seed": 0.5}, "seed must be an int"),
        ({"format_version": 2}, "format_version"),
    ],
    ids=str,
)
def test_options_are_checked(option, error):
    with pytest.raises((ValueError, TypeError), match=error):
        optim8.AdamW([torch.ones(2)], **option)
    optimizer = optim8.AdamW([torch.ones(2)])
    with pytest.raises((ValueError, TypeError), match=error):
        optimizer.add_param_group({"params": [torch.ones(2)], **option})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    "option", [{"param_rounding": "x"}, {"min_quantized_numel": 2**63}], ids=str
)
def test_more_options_are_checked(option):
    [name] = option
    with pytest.raises(ValueError, match=f"Invalid {name}"):
        optim8.AdamW([torch.ones(2)], **option)


def test_the_largest_seed_is_one():
    results = []
    for seed in (2**64 - 1, 2**63 - 1, 2**63):
        p = tensor((5000,)).requires_grad_()
        optimizer = optim8.AdamW([p], seed=seed)
        step(optimizer)
        results.append(bytes(optimizer.state[p]["exp_avg_sq_codes"].numpy()))
    assert len(set(results)) == 3


NAN = float("nan")


@pytest.mark.parametrize(
    ("cls", "kwargs", "match"),
    [
        (optim8.AdamW, {"lr": NAN}, "Invalid learning rate: nan"),
        (optim8.AdamW, {"lr": torch.tensor([])}, "Tensor lr must be 1-element"),
        (optim8.AdamW, {"eps": NAN}, "Invalid epsilon value: nan"),
        (optim8.AdamW, {"betas": (0.9, NAN)}, "Invalid beta parameter at index 1: nan"),
        (optim8.AdamW, {"betas": (0.9, 0.99, 0.999)}, r"Invalid betas: .*expected 2 numbers"),
        (optim8.SGD, {"weight_decay": -1.0}, "Invalid weight_decay value: -1"),
        (optim8.SGD, {"nesterov": True}, "Nesterov momentum requires"),
        (optim8.SGD, {"momentum": 0.9, "dampening": 0.1, "nesterov": True}, "Nesterov momentum"),
    ],
    ids=str,
)
def test_hyperparameters_without_sense_are_refused(cls, kwargs, match):
    with pytest.raises(ValueError, match=match):
        cls([torch.ones(2)], **kwargs)


def outcome(constructor, **kwargs):
    """Return the error that a constructor raises, as text, or None."""
    try:
        constructor([torch.ones(2)], **kwargs)
    except (ValueError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@pytest.mark.parametrize("value", [-1.0, -1e-9, 0.0, 1.0, 1.5, NAN], ids=str)
@pytest.mark.parametrize("cls", TORCH_CLASSES, ids=lambda cls: cls.__name__)
def test_numbers_are_refused_where_torch_refuses_them(cls, value):
    if cls is optim8.SGD and math.isnan(value):
        pytest.skip("torch's SGD alone takes NaN")
    for name, parameter in inspect.signature(cls).parameters.items():
        if isinstance(parameter.default, tuple):
            first, second = parameter.default
            values = [(value, second), (first, value)]
        elif isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            values = [value]
        else:
            continue
        for one in values:
            found, expected = (outcome(c, **{name: one}) for c in (cls, TORCH_CLASSES[cls]))
            assert found == expected, (name, one)
