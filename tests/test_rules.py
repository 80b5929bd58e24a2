"""What is special about one optimizer, beyond what all are tested for."""

import math

import numpy as np
import pytest
import torch

import optim8
from optim8 import _native
from reference import lamb
from specs import CLASSES, TORCH_CLASSES, assert_same, snapshot, step, stepped, tensor

SMALL = {"min_quantized_numel": 0}


def test_adagrads_sum_still_grows_after_ten_thousand_steps():
    """A step's share of the sum is then far below the steps of the grid."""
    sizes = torch.linspace(0.3, 1.0, 256)
    p = torch.zeros(256, requires_grad=True)
    p.grad = sizes.clone()
    optimizer = optim8.Adagrad([p], **SMALL)
    sums = []
    for n in range(12_001):
        optimizer.step()
        if n in (10_000, 12_000):
            sums.append(optim8.dequantize_state(optimizer, p)["sum"])
    grown = ((sums[1] - sums[0]) / sizes**2).mean().item()
    assert grown == pytest.approx(2000, rel=0.05)
    assert (sums[1] / (12_001 * sizes**2) - 1).abs().max() < 0.1


def test_adagrad_begins_with_its_initial_value():
    p = torch.ones(5000, requires_grad=True)
    p.grad = torch.full((5000,), 2.0)
    optimizer = optim8.Adagrad([p], initial_accumulator_value=5.0)
    optimizer.step()
    assert optim8.dequantize_state(optimizer, p)["sum"].unique().tolist() == [9.0]


@pytest.mark.parametrize("cls", [optim8.SGD, optim8.RMSprop])
@pytest.mark.parametrize("shape", [(10,), (5000,)])
def test_momentum_may_be_switched_on_and_off(cls, shape):
    """As some learning rate schedulers do."""
    optimizer, [p] = stepped(cls, [shape])
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.step()
    assert any(name.startswith("momentum_buffer") for name in optimizer.state[p])
    optimizer.param_groups[0]["momentum"] = 0.0
    optimizer.step()
    assert bool(p.isfinite().all())


def test_a_variance_that_is_lost_in_quantization_does_not_throw_parameters_off():
    """Gradients of one sign and size: the variance falls to nothing, the averages are coarse."""
    p = torch.zeros(5000, requires_grad=True)
    optimizer = optim8.RMSprop([p], lr=1.0, centered=True, alpha=0.9)
    for n in range(200):
        p.grad = 1.0 + 1e-3 * tensor((5000,), seed=n)
        before = p.detach().clone()
        optimizer.step()
        assert (p.detach() - before).abs().max() < 9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_sum_of_squares(dtype):
    tensors = [tensor((50_001,), dtype), tensor((60, 80), dtype).t(), tensor((0,), dtype)]
    expected = sum(float((t.double() ** 2).sum()) for t in tensors)
    found = _native.sum_of_squares(dict(enumerate(tensors)), 1)
    assert found == pytest.approx(expected, rel=1e-7)
    assert all(_native.sum_of_squares(dict(enumerate(tensors)), n) == found for n in (2, 5))
    with pytest.raises(TypeError, match=r"gradient of parameter 3: dtype torch\.int64"):
        _native.sum_of_squares({3: torch.ones(3, dtype=torch.int64)}, 1)


@pytest.mark.parametrize("limit", [None, 0.5, 1e6])
def test_lamb_clips_all_gradients_together(limit):
    params = [tensor(shape, torch.float64, i).requires_grad_() for i, shape in enumerate([9, 30])]
    for i, p in enumerate(params):
        p.grad = tensor(p.shape, torch.float64, 7 + i)
    start = [p.detach().numpy().copy() for p in params]
    norm = np.sqrt(sum(float((p.grad**2).sum()) for p in params))
    optimizer = optim8.LAMB(params, lr=0.1, max_grad_norm=limit)
    optimizer.step()
    zero = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
    hyper = {**optimizer._hyper("lamb", optimizer.param_groups[0])}
    hyper["grad_scale"] = 1.0 if limit is None else 1 / max(1.0, norm / limit)
    for before, p in zip(start, params, strict=True):
        expected, _ = lamb(before, p.grad.numpy(), zero, 1, hyper)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-12)


def test_stable_adamw_shortens_steps_while_second_moments_lag():
    steps = {}
    for factor in (1.0, 100.0):
        p = torch.ones(5000, requires_grad=True)
        optimizer = optim8.StableAdamW([p], lr=1e-2, weight_decay=0.0)
        for n in range(60):
            p.grad = tensor((5000,), seed=n)
            optimizer.step()
        p.grad = tensor((5000,), seed=99) * factor
        before = p.detach().clone()
        optimizer.step()
        steps[factor] = (p.detach() - before).square().mean().sqrt().item()
    # The gradient's root mean square over that of the second moment is then about 100 / 10.
    assert steps[100.0] < 0.15 * 1e-2
    assert 0.1e-2 < steps[1.0] < 1e-2


def test_what_is_not_a_number_shows_in_lions_parameters():
    """It has no sign, but its block of states would stand still, with nothing to be seen."""
    p = torch.zeros(4, requires_grad=True)
    optimizer = optim8.Lion([p], lr=0.5)
    p.grad = torch.tensor([1.0, float("nan"), -2.0, -0.0])
    optimizer.step()
    assert str(p.tolist()) == "[-0.5, nan, 0.5, 0.0]"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_one_bad_gradient_does_not_change_how_lamb_clips_the_others(bad):
    def first(bad):
        params = [torch.ones(5000, requires_grad=True) for _ in range(2)]
        optimizer = optim8.LAMB(params, max_grad_norm=1.0)
        for i, p in enumerate(params):
            p.grad = tensor(p.shape, seed=i)
        params[1].grad[7] = bad
        optimizer.step()
        return optimizer.state[params[0]]["exp_avg_scales"]

    if bad == 1e30:  # whose square is beyond float32, but its norm is known
        assert bool((first(bad) < 1e-25).all())
        assert bool((first(bad) > 0).all())
    else:
        torch.testing.assert_close(first(bad), first(0.0), rtol=1e-3, atol=0.0)


def schedule_free(dtype=torch.float64, **kwargs):
    return stepped(optim8.ScheduleFreeAdamW, [(60, 80)], 5, dtype, state_bits=32, **kwargs)


def test_schedule_free_evaluates_at_the_average_and_trains_on_where_it_was():
    """The average of the iterates z by their weights, which are equal after the first steps."""
    p = tensor((50,), torch.float64).requires_grad_()
    optimizer = optim8.ScheduleFreeAdamW([p], lr=0.01, betas=(0.9, 0.0))
    iterates = []
    for n in range(6):
        p.grad = tensor((50,), torch.float64, seed=n)
        optimizer.step()
        iterates.append(optimizer.state[p]["z"].clone())
    y = p.detach().clone()
    optimizer.eval()
    torch.testing.assert_close(p.detach(), torch.stack(iterates).mean(0), rtol=1e-6, atol=1e-8)
    evaluated = p.detach().clone()
    optimizer.eval()
    assert torch.equal(p.detach(), evaluated)
    optimizer.train()
    torch.testing.assert_close(p.detach(), y)


def test_schedule_free_refuses_to_step_in_evaluation_and_changes_nothing():
    optimizer, _ = schedule_free()
    optimizer.eval()
    before = snapshot(optimizer)
    with pytest.raises(
        RuntimeError, match=r"step\(\) in evaluation; call optimizer\.train\(\) first"
    ):
        optimizer.step()
    assert_same(before, snapshot(optimizer))


def test_schedule_free_saves_which_mode_it_is_in():
    optimizer, [p] = schedule_free()
    optimizer.eval()
    q = p.detach().clone().requires_grad_()
    other = optim8.ScheduleFreeAdamW([q], state_bits=32)
    other.load_state_dict(optimizer.state_dict())
    for o in (optimizer, other):
        o.train()
        step(o, 2, seed=5)
    assert torch.equal(p, q)


def test_schedule_free_switches_before_its_first_step():
    p = tensor((50,)).requires_grad_()
    before = p.detach().clone()
    optimizer = optim8.ScheduleFreeAdamW([p])
    optimizer.eval()
    optimizer.train()
    step(optimizer)
    assert not torch.equal(p, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_schedule_frees_iterates_are_kept_like_the_parameters(dtype):
    p = tensor((70, 80), dtype).t().requires_grad_()
    optimizer = optim8.ScheduleFreeAdamW([p])
    step(optimizer)
    state = optimizer.state[p]
    assert state["z"].dtype == dtype
    assert state["exp_avg_sq_codes"].dtype == torch.uint8
    assert optimizer.state_nbytes() / p.numel() == pytest.approx(dtype.itemsize + 1.02, abs=0.02)


@pytest.mark.parametrize("initial", [0.1, 1.0])
def test_adagrad_begins_with_a_small_initial_value_too(initial):
    p = torch.ones(5000, requires_grad=True)
    p.grad = torch.full((5000,), 2.0)
    optimizer = optim8.Adagrad([p], initial_accumulator_value=initial)
    optimizer.step()
    [found] = optim8.dequantize_state(optimizer, p)["sum"].unique().tolist()
    assert found == pytest.approx(4 + initial)


#: Of the classes that torch does not have, as their papers or authors have them.
OWN_DEFAULTS = {
    "AdEMAMix": {
        "lr": 1e-3, "betas": (0.9, 0.999, 0.9999), "alpha": 2.0, "t_alpha": None, "t_beta3": None,
        "eps": 1e-8, "weight_decay": 0.0, "maximize": False,
    },
    "LAMB": {
        "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.01, "max_grad_norm": 1.0,
        "grad_averaging": True, "trust_clip": False, "always_adapt": False, "maximize": False,
    },
    "LARS": {
        "lr": 1.0, "momentum": 0, "dampening": 0, "weight_decay": 0, "nesterov": False,
        "trust_coeff": 1e-3, "eps": 1e-8, "trust_clip": False, "always_adapt": False,
        "maximize": False,
    },
    "Lion": {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0, "maximize": False},
    "SGDW": {
        "lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 1e-2, "nesterov": False,
        "maximize": False,
    },
    "ScheduleFreeAdamW": {
        "lr": 2.5e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "warmup_steps": 0,
        "r": 0.0, "weight_lr_power": 2.0, "foreach": None, "maximize": False, "train_mode": True,
    },
    "StableAdamW": {
        "lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 1e-2, "maximize": False,
    },
}  # fmt: skip


def test_defaults_of_the_classes_that_torch_does_not_have():
    ours = optim8.AdamW([torch.zeros(1)]).defaults
    options = {name for name in ours if name in optim8.optim.Options.__annotations__}
    own = {cls for cls in CLASSES if cls not in TORCH_CLASSES}
    assert {cls.__name__ for cls in own} == OWN_DEFAULTS.keys()
    for cls in own:
        found = cls([torch.zeros(1)]).defaults
        hyper = {k: v for k, v in found.items() if k not in {*options, "format_version"}}
        assert hyper == OWN_DEFAULTS[cls.__name__], cls


def refused():
    """Yield what the classes that torch does not have refuse: each number below its range."""
    free = {"dampening"}
    for name, defaults in OWN_DEFAULTS.items():
        for key, value in defaults.items():
            if key in free or isinstance(value, bool) or key == "foreach":
                continue
            if isinstance(value, tuple):
                for index in range(len(value)):
                    for bad in (-0.1, 1.0, math.nan):
                        yield name, {key: (*value[:index], bad, *value[index + 1 :])}
                yield name, {key: (*value, 0.9)}
                yield name, {key: value[:-1]}
                continue
            for bad in (-1e-9, math.nan):
                yield name, {key: bad}
    for name, key in (("AdEMAMix", "t_alpha"), ("AdEMAMix", "t_beta3"), ("LAMB", "max_grad_norm")):
        yield name, {key: 0.0}
    yield "ScheduleFreeAdamW", {"betas": (0.0, 0.999)}
    for name in ("LARS", "SGDW"):
        yield name, {"nesterov": True}
        yield name, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}


@pytest.mark.parametrize(("name", "kwargs"), list(refused()), ids=str)
def test_numbers_out_of_range_are_refused(name, kwargs):
    with pytest.raises(ValueError, match=r"Invalid|Nesterov"):
        getattr(optim8, name)([torch.ones(2)], **kwargs)


def test_lamb_clips_by_the_gradients_of_all_groups():
    moments = []
    for n_groups in (1, 2):
        params = [tensor((50,), torch.float64, i).requires_grad_() for i in range(2)]
        groups = [params] if n_groups == 1 else [[p] for p in params]
        optimizer = optim8.LAMB([{"params": group} for group in groups], max_grad_norm=0.5)
        step(optimizer)
        moments.append([optimizer.state[p]["exp_avg"] for p in params])
    for found, expected in zip(*moments, strict=True):
        assert torch.equal(found, expected)


def test_adagrad_shares_the_states_that_it_has():
    optimizer, params = stepped(optim8.Adagrad, [(5000,), (10,)])
    before = snapshot(optimizer)
    optimizer.share_memory()
    assert_same(before, snapshot(optimizer))
    assert all(v.is_shared() for p in params for v in optimizer.state[p].values())


@pytest.mark.parametrize("name", ["alpha", "eps", "weight_decay", "lr"])
def test_only_the_warmups_of_ademamix_may_be_none(name):
    optimizer, _ = stepped(optim8.AdEMAMix, [(10,)])
    optimizer.param_groups[0][name] = None
    with pytest.raises(TypeError, match=f"{name} is None, expected a number"):
        optimizer.step()


def test_schedule_free_refuses_to_step_if_any_group_is_in_evaluation():
    optimizer, _ = stepped(optim8.ScheduleFreeAdamW, [(10,)])
    optimizer.eval()
    optimizer.add_param_group({"params": [torch.zeros(3, requires_grad=True)]})
    with pytest.raises(RuntimeError, match=r"step\(\) in evaluation"):
        step(optimizer)


@pytest.mark.parametrize("beta1", [0.5, 0.8])
def test_schedule_free_evaluates_at_the_average_whatever_beta1_is(beta1):
    p = tensor((50,), torch.float64).requires_grad_()
    optimizer = optim8.ScheduleFreeAdamW([p], lr=0.01, betas=(beta1, 0.0))
    iterates = []
    for n in range(6):
        p.grad = tensor((50,), torch.float64, seed=n)
        optimizer.step()
        iterates.append(optimizer.state[p]["z"].clone())
    optimizer.eval()
    torch.testing.assert_close(p.detach(), torch.stack(iterates).mean(0), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("cls", "kwargs", "expected"),
    [
        (optim8.AdEMAMix, {"betas": (0.1, 0.2, 0.3)}, {"beta1": 0.1, "beta2": 0.2, "beta3": 0.3}),
        (optim8.AdamW, {"betas": (0.1, 0.2)}, {"beta1": 0.1, "beta2": 0.2}),
        (optim8.Rprop, {"etas": (0.1, 1.2)}, {"eta_minus": 0.1, "eta_plus": 1.2}),
        (
            optim8.Rprop,
            {"step_sizes": (0.1, 0.2)},
            {"step_size_min": 0.1, "step_size_max": 0.2},
        ),
        (optim8.SGDW, {}, {"decoupled_weight_decay": 1.0}),
        (optim8.SGD, {}, {"decoupled_weight_decay": 0.0}),
    ],
    ids=str,
)
def test_rules_get_the_hyperparameters_of_their_names(cls, kwargs, expected):
    """The references take them from `_hyper` too, and so do not see what it mixes up."""
    optimizer = cls([torch.zeros(1)], **kwargs)
    [group] = optimizer.param_groups
    found = optimizer._hyper(optimizer._rule(group), group)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda z: z.double(), r"z of parameter 1 has dtype torch\.float64"),
        (lambda z: z[:1], r"z of parameter 1 has shape \(1,\), expected \(60,\)"),
    ],
    ids=["dtype", "shape"],
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_schedule_free_switches_all_parameters_or_none(mode, spoil, match):
    optimizer, params = stepped(optim8.ScheduleFreeAdamW, [(50,), (60,)])
    if mode == "train":
        optimizer.eval()
    optimizer.state[params[1]]["z"] = spoil(optimizer.state[params[1]]["z"])
    before = params[0].detach().clone()
    with pytest.raises((TypeError, ValueError), match=match):
        getattr(optimizer, mode)()
    assert torch.equal(params[0], before)
    assert optimizer.param_groups[0]["train_mode"] == (mode == "eval")
    optimizer.param_groups[0]["betas"] = (0.0, 0.9)
    with pytest.raises(ValueError, match=r"Invalid beta parameter at index 0: 0\.0"):
        getattr(optimizer, mode)()
