"""Muon: torch's results with full states, nearly those with 8-bit ones, and matrices only."""

import copy
import inspect
import math
import warnings
from decimal import Decimal
from types import SimpleNamespace

import pytest
import torch

import optim8
from optim8.optim import muon as muon_module
from specs import assert_same, snapshot, step, stepped, tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

DB = {info.optim_cls.__name__: info for info in common_optimizers.optim_db}
pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch before 2.9")
# Before 2.15, the iterations normalize a momentum in bfloat16 itself where there is no nesterov.
COPIES_MOMENTUM = torch.__version__ >= "2.15"
ORTHOGONAL = muon_module.orthogonal
SHAPES = [(70, 90), (90, 64), (50, 3)]


def run(cls, dtype=torch.float32, n_steps=5, **kwargs):
    """Return the optimizer, the parameters and their change."""
    params = [tensor(shape, dtype, i).requires_grad_() for i, shape in enumerate(SHAPES)]
    start = [p.detach().clone() for p in params]
    optimizer = cls(params, **kwargs)
    step(optimizer, n_steps)
    return optimizer, params, [p.detach() - s for p, s in zip(params, start, strict=True)]


def error(found, expected):
    """Return the largest relative error of some tensors."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).double().norm() / b.double().norm()) for a, b in pairs)


def inputs():
    table = DB["Muon"].optim_inputs_func(device="cpu") if "Muon" in DB else []
    extra = [{"nesterov": False, "momentum": 0.3}, {"adjust_lr_fn": "match_rms_adamw"}]
    return [given.kwargs for given in table] + extra


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_full_states_give_torchs_results(dtype):
    for kwargs in inputs():
        if dtype == torch.bfloat16 and not kwargs.get("nesterov", True) and not COPIES_MOMENTUM:
            continue
        _, _, found = run(optim8.Muon, dtype, **kwargs, state_bits=32)
        _, _, expected = run(torch.optim.Muon, dtype, **kwargs)
        # The iterations round to bfloat16, and may round a last bit of the momentum otherwise; a
        # parameter in bfloat16 moves by a few of its own units.
        assert error(found, expected) < (0.25 if dtype == torch.bfloat16 else 0.02), kwargs


def test_quantized_momentum_gives_nearly_the_same():
    optimizer, params, found = run(optim8.Muon, lr=0.02, min_quantized_numel=0)
    _, _, expected = run(torch.optim.Muon, lr=0.02)
    assert error(found, expected) < 0.1
    names = ["momentum_buffer_codes", "momentum_buffer_scales", "step"]
    assert sorted(optimizer.state[params[0]]) == names


def test_signature_is_that_of_torch():
    ours = dict(inspect.signature(optim8.Muon.__init__).parameters)
    del ours["options"]
    theirs = inspect.signature(torch.optim.Muon.__init__).parameters
    assert [(p.name, p.kind, p.default) for p in ours.values()] == [
        (p.name, p.kind, p.default) for p in theirs.values()
    ]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"lr": -1.0},
        {"momentum": -1.0},
        {"weight_decay": -1.0},
        {"adjust_lr_fn": "x"},
        {"lr": torch.ones(2)},
        {"params": [torch.ones(3)]},
    ],
    ids=str,
)
def test_same_exception_as_torch(kwargs):
    kwargs = {"params": [torch.ones(2, 2)], **kwargs}
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        torch.optim.Muon(**kwargs)
    with pytest.raises(ValueError) as ours:  # noqa: PT011
        optim8.Muon(**kwargs)
    assert str(ours.value) == str(expected.value)


def test_a_vector_is_refused_and_the_groups_stay():
    optimizer = optim8.Muon([torch.ones(2, 2)])
    with pytest.raises(ValueError, match="only supports 2D parameters"):
        optimizer.add_param_group({"params": [torch.ones(2)]})
    assert len(optimizer.param_groups) == 1


def test_nothing_is_changed_when_a_gradient_is_refused():
    params = [torch.ones(80, 80, requires_grad=True) for _ in range(2)]
    params[0].grad, params[1].grad = torch.ones(80, 80), torch.ones(80, 80).to_sparse()
    optimizer = optim8.Muon(params)
    with pytest.raises(RuntimeError, match=r"gradient of parameter 1.*sparse"):
        optimizer.step()
    assert bool((params[0] == 1).all())
    assert len(optimizer.state) == 0


def test_blocks_that_are_skipped_give_no_direction():
    p = tensor((64, 64)).requires_grad_()
    optimizer = optim8.Muon([p], nonfinite="skip", lr=0.1, weight_decay=0.0)
    p.grad = torch.full((64, 64), float("nan"))
    start = p.detach().clone()
    optimizer.step()
    assert torch.equal(p.detach(), start)
    assert optimizer.skipped_blocks == 16


@pytest.mark.parametrize("options", [{}, {"min_quantized_numel": 0}], ids=str)
def test_checkpoints_and_torch_both_ways(options):
    optimizer, params, _ = run(optim8.Muon, lr=0.02, **options)
    copies = [p.detach().clone().requires_grad_() for p in params]
    other = optim8.Muon(copies)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    theirs = torch.optim.Muon([p.detach().clone().requires_grad_() for p in params])
    theirs.load_state_dict(optim8.interop.to_torch_state_dict(optimizer))
    step(optimizer)
    step(other)
    step(theirs)
    assert_same(snapshot(optimizer), snapshot(other))
    with torch.no_grad():
        assert error(theirs.param_groups[0]["params"], params) < 0.01
    twin = optim8.convert(theirs, **options)
    assert type(twin) is optim8.Muon
    step(twin)


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"adjust_lr_fn": "nope"}, "nope is not supported"),
        ({"ns_steps": 5.0}, "ns_steps is 5.0, expected an int"),
        ({"ns_coefficients": (1.0, "2", 3.0)}, "ns_coefficients is '2', expected a number"),
        ({"eps": None}, "eps is None, expected a number"),
        ({"lr": "0.1"}, "lr is '0.1', expected a number"),
    ],
    ids=str,
)
def test_nothing_moves_if_a_hyperparameter_of_any_group_is_wrong(entries, error):
    groups = [{"params": [torch.ones(80, 80, requires_grad=True)]} for _ in range(2)]
    optimizer = optim8.Muon(groups)
    optimizer.param_groups[1].update(entries)
    with pytest.raises((ValueError, TypeError), match=error):
        step(optimizer)
    assert bool((groups[0]["params"][0] == 1).all())


def test_matrices_without_elements_are_stepped_to_themselves():
    params = [torch.ones(80, 80, requires_grad=True), torch.ones(80, 0, requires_grad=True)]
    step(optim8.Muon(params))
    assert not bool((params[0] == 1).all())


def test_a_group_that_is_refused_leaves_nothing_behind():
    optimizer = optim8.Muon([torch.ones(80, 80, requires_grad=True)])
    with pytest.raises(ValueError, match="only supports 2D"):
        optimizer.add_param_group({"params": [torch.ones(5, requires_grad=True)], "block_size": 64})
    optimizer.add_param_group({"params": [torch.ones(90, 90, requires_grad=True)]})
    step(optimizer)
    assert [group["block_size"] for group in optimizer.param_groups] == [256, 256]


def muon(n=2, **kwargs):
    params = [tensor((64, 96), seed=i).requires_grad_() for i in range(n)]
    return optim8.Muon(params, **kwargs), params


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"ns_steps": 100}, "Number of steps must be less than 100"),
        ({"ns_coefficients": (1.0, 2.0)}, "Coefficients must be a tuple of exactly 3 values"),
    ],
    ids=str,
)
def test_muon_refuses_what_torch_refuses_in_a_step(kwargs, match):
    with pytest.raises(ValueError, match=match):
        muon(**kwargs)


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        ({"adjust_lr_fn": "nope"}, "nope is not supported"),
        ({"ns_steps": 5.0}, "ns_steps is 5.0, expected an int"),
        ({"weight_decay": None}, "weight_decay is None, expected a number"),
    ],
    ids=str,
)
def test_muon_moves_nothing_if_a_hyperparameter_is_wrong_since_the_last_step(entries, match):
    optimizer, params = muon()
    step(optimizer)
    before = snapshot(optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer.param_groups[0].update(entries)
    with pytest.raises((ValueError, TypeError), match=match):
        step(optimizer)
    after = snapshot(optimizer)
    assert_same({**before, "groups": []}, {**after, "groups": []})
    saved["param_groups"][0].update(entries)
    other, _ = muon()
    with pytest.raises(ValueError, match=f"parameter group 0: .*{match}"):
        other.load_state_dict(saved)
    assert len(params) == 2


def test_muon_goes_on_from_torchs():
    theirs = torch.optim.Muon([tensor((64, 96)).requires_grad_()], lr=0.02)
    step(theirs, 2)
    ours = optim8.convert(theirs, state_bits=32)
    [p], [q] = (o.param_groups[0]["params"] for o in (ours, theirs))
    assert p is q
    torch.testing.assert_close(ours.state[p]["momentum_buffer"], theirs.state[p]["momentum_buffer"])
    saved = optim8.interop.to_torch_state_dict(ours)
    assert saved["state"][0].keys() == theirs.state_dict()["state"][0].keys()


def test_muon_divides_by_eps_at_least():
    changes = []
    for cls, options in ((optim8.Muon, {"state_bits": 32}), (torch.optim.Muon, {})):
        p = tensor((64, 96)).requires_grad_()
        start = p.detach().clone()
        step(cls([p], lr=0.1, weight_decay=0.0, eps=1e5, **options))
        changes.append(p.detach() - start)
    torch.testing.assert_close(*changes, rtol=0.05, atol=1e-6)


def test_muon_counts_the_skipped_blocks_of_all_matrices():
    optimizer, params = muon(nonfinite="skip")
    for p, n_bad in zip(params, (1, 2), strict=True):
        p.grad = torch.ones(64, 96)
        p.grad.view(-1)[: 256 * n_bad : 256] = math.nan
    optimizer.step()
    assert optimizer.skipped_blocks == 3
    step(optimizer)
    assert optimizer.skipped_blocks == 3


@pytest.mark.parametrize(
    "entries",
    [
        {"weight_decay": Decimal("0.1")},
        {"eps": Decimal("1e-7")},
        {"weight_decay": torch.tensor([[[0.1]]])},
        {"ns_coefficients": [Decimal("3.4445"), torch.tensor([-4.775]), 2.0315]},
    ],
    ids=str,
)
def test_numbers_of_any_kind_are_numbers(entries):
    results = []
    for given in ({}, entries):
        optimizer, [p] = stepped(optim8.Muon, [(80, 80)])
        optimizer.param_groups[0].update(given)
        step(optimizer, 1)
        results.append(p.detach())
    torch.testing.assert_close(*results)


def exactly_orthogonal(matrix, n_steps):
    """Return what the iterations come to in float64."""
    a, b, c = 3.4445, -4.775, 2.0315
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    for _ in range(n_steps):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("products", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (1, 40), (40, 1)], ids=str)
def test_products_of_either_dtype_make_a_stack_of_matrices_orthogonal(shape, products):
    matrices = (tensor((3, *shape)) * torch.tensor([1e-3, 1.0, 1e6])[:, None, None]).bfloat16()
    before = matrices.clone()
    found = muon_module.orthogonal(matrices, (3.4445, -4.775, 2.0315), 5, 1e-7, products)
    assert found.dtype == torch.bfloat16
    assert torch.equal(matrices, before)
    expected = [exactly_orthogonal(matrix, 5) for matrix in matrices]
    assert error(found, expected) < 0.03


@pytest.mark.parametrize("limit", [1, 3 * 64 * 96], ids=["alone", "in threes"])
def test_matrices_of_one_shape_and_dtype_are_taken_together(monkeypatch, limit):
    def made():
        shapes = [(64, 96)] * 4 + [(96, 64), (64, 96), (0, 5)]
        dtypes = [torch.float32] * 5 + [torch.bfloat16, torch.float32]
        params = [
            tensor(shape, dtype, i).requires_grad_()
            for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
        ]
        return optim8.Muon(params, lr=0.02), params, [p.detach().clone() for p in params]

    optimizer, params, start = made()
    step(optimizer, 2)
    sizes = []
    monkeypatch.setattr(muon_module, "_STACK_ELEMENTS", limit)
    monkeypatch.setattr(
        muon_module,
        "orthogonal",
        lambda stack, *args: sizes.append(tuple(stack.shape)) or ORTHOGONAL(stack, *args),
    )
    other, others, _ = made()
    step(other, 2)
    alone = [(1, 64, 96)] * 4 + [(1, 96, 64), (1, 64, 96)]
    in_threes = [(3, 64, 96), (1, 64, 96), (1, 96, 64), (1, 64, 96)]
    assert sizes == 2 * (alone if limit == 1 else in_threes)
    changes, expected = (
        [p.detach() - s for p, s in zip(ps[:5], start, strict=False)] for ps in (others, params)
    )
    assert error(changes, expected) < 0.02
    assert all(float(other.state[p]["step"]) == 2 for p in others)


def test_what_is_not_finite_stays_in_its_matrix():
    for nonfinite in ("propagate", "skip"):
        optimizer, params = muon(3, nonfinite=nonfinite)
        start = [p.detach().clone() for p in params]
        for p in params:
            p.grad = torch.ones(64, 96)
        params[1].grad[3, 5] = math.nan
        optimizer.step()
        assert [bool(p.isfinite().all()) for p in params] == [True, nonfinite == "skip", True]
        assert not any(torch.equal(p, s) for p, s in zip(params, start, strict=True))


def test_matrices_are_stepped_where_they_are_whatever_the_default_device():
    optimizer, params = muon()
    expected = copy.deepcopy((optimizer, params))
    with torch.device("meta"):
        for p in params:
            p.grad = torch.ones(64, 96, device="cpu")
        optimizer.step()
    other, others = expected
    for p in others:
        p.grad = torch.ones(64, 96)
    other.step()
    assert_same(snapshot(optimizer), snapshot(other))


def test_autocasting_changes_no_product():
    found = []
    for enabled in (False, True):
        optimizer, params = muon()
        for p in params:
            p.grad = torch.ones(64, 96)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            optimizer.step()
        found.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("machine", "amx", "avx512", "bfloat16", "expected"),
    [
        ("x86_64", True, True, True, True),
        ("x86_64", False, True, True, True),
        ("x86_64", False, False, True, False),
        ("x86_64", False, None, True, False),
        ("AMD64", None, None, True, True),
        ("aarch64", False, False, True, True),
        ("aarch64", False, False, False, False),
        ("aarch64", False, False, None, False),
    ],
)
def test_products_are_of_bfloat16_where_they_are_fast(
    monkeypatch, machine, amx, avx512, bfloat16, expected
):
    def supported():
        if bfloat16 is None:
            raise RuntimeError("no such operator")
        return bfloat16

    found = {"_is_amx_tile_supported": amx, "_is_avx512_bf16_supported": avx512}
    known = {name: lambda has=has: has for name, has in found.items() if has is not None}
    cpu = SimpleNamespace(**known)
    ops = SimpleNamespace(mkldnn=SimpleNamespace(_is_mkldnn_bf16_supported=supported))
    monkeypatch.setattr(muon_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(muon_module, "torch", SimpleNamespace(cpu=cpu, ops=ops))
    assert muon_module._multiplies_bfloat16() == expected
