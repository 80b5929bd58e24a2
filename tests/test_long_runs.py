"""What 8-bit states must not do over many steps, and 32-bit ones do not: drive, freeze, explode."""

import pytest
import torch

import optim8
from optim8 import _native

CODEC = pytest.mark.parametrize("codec", _native.CODECS)
N, LR = 4096, 1e-3


def trajectory(make, gradients, dtype=torch.float32, start=0.0):
    """Return the parameter after each step, from all-`start`."""
    p = torch.full((N,), start, dtype=dtype, requires_grad=True)
    optimizer = make([p])
    points = []
    for gradient in gradients:
        p.grad = gradient.to(dtype)
        optimizer.step()
        points.append(p.detach().clone())
    return torch.stack(points)


def noise(n_steps, scale=1.0):
    """Return normal gradients; `scale` is by element."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N, generator=generator) * scale for _ in range(n_steps)]


@CODEC
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Adam", {}),
        ("AdamW", {"betas": (0.95, 0.999), "weight_decay": 0.0}),
        ("Adamax", {}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("RMSprop", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9}),
    ],
)
def test_an_element_whose_gradient_stops_comes_to_rest(name, arguments, codec):
    """Rounded to nearest, a first moment freezes near zero while the second goes on falling."""
    live = (torch.arange(N) % 2).float()
    gradients = [g if t < 100 else g * live for t, g in enumerate(noise(700))]
    points = trajectory(
        lambda ps: getattr(optim8, name)(ps, lr=LR, codec=codec, **arguments), gradients
    )
    assert torch.equal(points[-1][live == 0], points[-200][live == 0])
    assert not torch.equal(points[-1][live == 1], points[-200][live == 1])


@CODEC
@pytest.mark.parametrize("beta1", [0.9, 0.98])
def test_first_moments_follow_slow_changes(beta1, codec):
    """Of gradients that fall to 0.7 of what they were, but for the largest of each block."""
    sign = torch.where(torch.arange(N) % 3 == 0, -1.0, 1.0)
    first = torch.linspace(0.3, 0.9, N).sub_(0.0) * sign
    first[::256] = 1.0
    later = torch.where(torch.arange(N) % 256 == 0, first, 0.7 * first)
    gradients = [first] * 300 + [later] * 500
    points = trajectory(lambda ps: optim8.SGD(ps, lr=LR, momentum=beta1, codec=codec), gradients)
    # With a constant gradient g a step is g / (1 - momentum).
    steps = (points[-101] - points[-1]) / 100 / LR * (1 - beta1)
    small = torch.arange(N) % 256 != 0
    assert (steps / later)[small].mean().item() == pytest.approx(1.0, abs=0.02)


@CODEC
def test_adamax_beside_an_outlier(codec):
    """Its norm has no root, so it is known far more finely than the moment that it divides."""
    big = torch.where(torch.arange(N) % 256 == 0, 1e4, 1.0)
    points = trajectory(lambda ps: optim8.Adamax(ps, lr=LR, codec=codec), noise(300, big))
    steps = (points[20:] - points[19:-1]).abs()[:, big == 1.0]
    assert steps.max() < 1.2 * LR


@pytest.mark.parametrize("codec", ["minifloat", "dynamic", "root"])  # linear has no such small ones
def test_amsgrads_maximum_does_not_grow_with_its_block(codec):
    p = torch.zeros(N, requires_grad=True)
    optimizers = [
        optim8.Adam([torch.zeros(N, requires_grad=True)], amsgrad=True, codec=codec, state_bits=b)
        for b in (8, 32)
    ]
    for t, gradient in enumerate(noise(1000)):
        gradient[::256] = 2.0 * 1.003**t
        for optimizer in optimizers:
            [p] = optimizer.param_groups[0]["params"]
            p.grad = gradient
            optimizer.step()
    found, expected = (
        optim8.dequantize_state(o, o.param_groups[0]["params"][0])["max_exp_avg_sq"]
        for o in optimizers
    )
    small = torch.arange(N) % 256 != 0
    assert found[small].mean() / expected[small].mean() == pytest.approx(1.0, abs=0.1)


def test_the_copy_of_schedule_free_is_rounded_at_random_with_the_parameters():
    gradients = [g + 0.5 for g in noise(300)]

    def moved(dtype, rounding):
        optimizers = []

        def make(ps):
            optimizers.append(optim8.ScheduleFreeAdamW(ps, param_rounding=rounding))
            return optimizers[0]

        trajectory(make, gradients, dtype, start=1.0)
        optimizers[0].eval()
        [p] = optimizers[0].param_groups[0]["params"]
        return (1 - p.detach().float()).mean().item()

    full = moved(torch.float32, "nearest")
    assert moved(torch.bfloat16, "nearest") < 0.7 * full
    assert moved(torch.bfloat16, "stochastic") == pytest.approx(full, rel=0.03)


@CODEC
def test_rprop_adapts_to_gradients_far_below_the_largest(codec):
    gradient = torch.full((N,), 1e-9)
    gradient[::256] = 1.0
    found, expected = (
        trajectory(lambda ps: optim8.Rprop(ps, state_bits=bits, codec=codec), [gradient] * 20)  # noqa: B023
        for bits in (8, 32)
    )
    assert (found[-1] / expected[-1]).mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_stable_adamw_goes_on_clipping_beside_a_bad_element(bad):
    gradients = noise(20)
    for gradient in gradients:
        gradient[0] = bad
    gradients[-1] = gradients[-1] * 100
    gradients[-1][0] = bad

    def last_step(gradients):
        points = trajectory(lambda ps: optim8.StableAdamW(ps, lr=LR, eps=1e-30), gradients)
        return (points[-1] - points[-2])[256:].abs().mean().item()

    clean = [g.clone() for g in gradients]
    for gradient in clean:
        gradient[0] = 1.0
    assert last_step(gradients) == pytest.approx(last_step(clean), rel=0.05)
