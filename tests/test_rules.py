"""What is special about one optimizer, beyond what all are tested for."""

import numpy as np
import pytest
import torch

import optim8
from optim8 import _native
from reference import lamb
from specs import assert_same, snapshot, step, stepped, tensor

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
