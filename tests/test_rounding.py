"""Stochastic rounding: unbiased for each element, independent across the elements of a step.

Seen through the optimizer: with a fresh state, the second moment after one step is
`(1 - beta2) * g^2`, so the gradient sets each element's place between two codes.
"""

import numpy as np
import pytest
import torch

import optim8
from optim8 import _native
from specs import same_bits, stepped

BLOCK = 256
CODEC = pytest.mark.parametrize("codec", _native.CODECS)


def roundings(codec, n_blocks, steps, seed=0):
    """Return fractions (BLOCK,) and who rounded up: (steps, n_blocks, BLOCK)."""
    table = optim8.codebook(codec, signed=False).double().numpy()
    rng = np.random.default_rng(1)
    lower = rng.integers(100, 250, BLOCK)
    fraction = rng.uniform(0.02, 0.98, BLOCK)
    y = table[lower] + fraction * (table[lower + 1] - table[lower])
    y[0] = 1.0
    grad = torch.from_numpy(np.sqrt(y)).float()
    # Where the value really lies, after float32 has had its say.
    exact = grad.double().numpy() ** 2
    fraction = (exact - table[lower]) / (table[lower + 1] - table[lower])
    p = torch.zeros(n_blocks * BLOCK, requires_grad=True)
    p.grad = grad.repeat(n_blocks)
    optimizer = optim8.AdamW([p], codec=codec, block_size=BLOCK, seed=seed)
    ups = []
    for n in steps:
        optimizer.state.clear()
        optimizer.step()
        fresh = {k: v.clone() for k, v in optimizer.state[p].items()}
        # Fresh states again, but at step n.
        for name, value in fresh.items():
            value.zero_()
            if name == "exp_avg_codes":
                value.fill_(optim8.codebook(codec, signed=True).tolist().index(0.0))
        optimizer.state[p] = fresh
        fresh["step"].fill_(n)
        optimizer.step()
        codes = optimizer.state[p]["exp_avg_sq_codes"].numpy().reshape(n_blocks, BLOCK)
        assert np.all((codes[:, 1:] == lower[1:]) | (codes[:, 1:] == lower[1:] + 1))
        ups.append(codes > lower)
    return fraction[1:], np.array(ups)[:, :, 1:]


@CODEC
def test_unbiased_over_the_steps_of_each_element(codec):
    """One Weyl sequence in time: the mean closes in as 1/T, not as 1/sqrt(T)."""
    n_steps = 400
    fraction, ups = roundings(codec, 16, range(n_steps))
    error = np.abs(ups.mean(0) - fraction)
    # Over T steps a golden section sequence strays by at most (3 + log_phi(T)) / T or so.
    assert error.max() < 12 / n_steps


@CODEC
def test_unbiased_and_uncorrelated_across_the_elements_of_a_step(codec):
    n_blocks = 6000
    fraction, ups = roundings(codec, n_blocks, [0])
    z = (ups[0] - fraction) / np.sqrt(fraction * (1 - fraction))
    bias = z.mean(0) * np.sqrt(n_blocks)
    assert np.abs(bias).max() < 5
    assert 0.7 < bias.std() < 1.3
    correlation = z.T @ z / np.sqrt(n_blocks)
    pairs = correlation[np.triu_indices(len(fraction), 1)]
    assert np.abs(pairs).max() < 6
    assert 0.9 < pairs.std() < 1.1
    neighbours = (z[1:] * z[:-1]).sum(0) / np.sqrt(n_blocks)
    assert np.abs(neighbours).max() < 5


@CODEC
@pytest.mark.parametrize("step", [0, 1, 1000])
def test_a_blocks_rounding_sum_is_as_if_of_independent_elements(codec, step):
    fraction, ups = roundings(codec, 20_000, [step])
    sums = (ups[0] - fraction).sum(1)
    sums = sums / np.sqrt((fraction * (1 - fraction)).sum())
    assert 0.9 < sums.var() < 1.1
    assert 2.7 < (sums**4).mean() / sums.var() ** 2 < 3.4


def test_seed_and_parameter_give_other_roundings_and_are_reproducible():
    _, first = roundings("dynamic", 100, [0])
    _, again = roundings("dynamic", 100, [0])
    _, other = roundings("dynamic", 100, [0], seed=1)
    assert np.array_equal(first, again)
    assert 0.2 < (first != other).mean() < 0.5
    params = [torch.zeros(8192, requires_grad=True) for _ in range(2)]
    for p in params:
        p.grad = torch.linspace(0.1, 1, 8192)
    optimizer = optim8.AdamW(params)
    optimizer.step()
    codes = [optimizer.state[p]["exp_avg_sq_codes"] for p in params]
    assert (codes[0] != codes[1]).float().mean() > 0.2


def decayed(codec, rounding, largest_then):
    """Return the mean second moment after gradients fell a hundredfold, but for one a block."""
    p = torch.zeros(4096, requires_grad=True)
    optimizer = optim8.AdamW([p], betas=(0.9, 0.999), codec=codec, state_rounding=rounding)
    generator = torch.Generator().manual_seed(0)
    for n in range(700):
        p.grad = torch.randn(4096, generator=generator) * (1.0 if n < 100 else 0.01)
        p.grad[::256] = 2.0 if n < 100 else largest_then
        optimizer.step()
    second = optim8.dequantize_state(optimizer, p)["exp_avg_sq"].view(-1, 256)
    return second[:, 1:].mean().item()


EXPECTED = (1 - 0.999**100) * 0.999**600


@CODEC
def test_an_average_decays_though_its_steps_are_smaller_than_the_grids(codec):
    """The largest of a block stays as it is, and so does the grid."""
    stays = 2 * (1 - 0.999**100) ** 0.5
    assert decayed(codec, "stochastic", stays) == pytest.approx(EXPECTED, rel=0.03)
    assert decayed(codec, "nearest", stays) > 1.3 * EXPECTED


# Where a drift slows down, thresholds spread evenly over time err by one or two steps of the grid,
# all to one side. Independent ones do not, but scatter three times as far.
@pytest.mark.parametrize(
    ("codec", "tolerance"), [("minifloat", 0.08), ("dynamic", 0.05), ("root", 0.03)]
)
def test_an_average_decays_in_a_grid_that_grows(codec, tolerance):
    assert decayed(codec, "stochastic", 2.0) == pytest.approx(EXPECTED, rel=tolerance)


def test_all_states_round_at_random_unless_told_not_to():
    states = []
    for rounding in ("stochastic", "nearest"):
        optimizer, [p] = stepped(optim8.AdamW, [(5000,)], n_steps=1, state_rounding=rounding)
        states.append(optimizer.state[p])
    for name in ("exp_avg", "exp_avg_sq"):
        codes = [state[f"{name}_codes"].int() for state in states]
        assert 0.2 < (codes[0] != codes[1]).float().mean() < 0.8
        assert (codes[0] - codes[1]).abs().max() == 1
        assert same_bits(*(state[f"{name}_scales"] for state in states))


def bfloat16_run(rounding, n_steps=1, n=8192, lr=1e-4, dtype=torch.bfloat16, **kwargs):
    """Return a parameter near 1 after steps of a hundredth of what bfloat16 resolves there."""
    p = torch.linspace(1.01, 1.9, n).to(dtype).requires_grad_()
    optimizer = optim8.SGD([p], lr=lr, param_rounding=rounding, **kwargs)
    for _ in range(n_steps):
        p.grad = torch.ones_like(p)
        p.grad[-100:] = 0
        optimizer.step()
    return p.detach()


def test_bfloat16_parameters_keep_updates_that_are_small_beside_them():
    n_steps = 300
    start = bfloat16_run("nearest", 0).double()
    assert torch.equal(bfloat16_run("nearest", n_steps).double(), start)
    moved = start - bfloat16_run("stochastic", n_steps).double()
    assert moved[:-100].mean().item() == pytest.approx(n_steps * 1e-4, rel=0.01)
    # For each element too: a Weyl sequence in time strays by little more than one rounding.
    assert (moved[:-100] - n_steps * 1e-4).abs().max() < 3 * 2**-7
    assert torch.equal(moved[-100:], torch.zeros(100, dtype=torch.float64))


def test_bfloat16_parameters_round_to_one_of_two_neighbours_independently():
    start, moved = (bfloat16_run("stochastic", n) for n in (0, 1))
    exact = start.double() - 1e-4 * (torch.arange(8192) < 8192 - 100)
    assert set((start.double() - moved.double()).unique().tolist()) == {0.0, 2**-7}
    down = (moved < start)[:-100].double()
    expected = 1e-4 * 2**7
    assert down.mean().item() == pytest.approx(expected, abs=5 * (expected / 8092) ** 0.5)
    assert (moved.double() - exact).abs().max() < 2**-7
    assert not torch.equal(moved, bfloat16_run("stochastic", 1, seed=1))


def test_bfloat16_parameters_that_become_infinite_or_nan_are_not_rounded():
    inf, nan = float("inf"), float("nan")
    for seed in range(50):
        p = torch.ones(5, dtype=torch.bfloat16, requires_grad=True)
        p.grad = torch.tensor([-inf, inf, nan, -3.3e38, 1.0], dtype=torch.bfloat16)
        optim8.SGD([p], lr=1.0, seed=seed, param_rounding="stochastic").step()
        assert str(p.tolist()) == str([inf, -inf, nan, -p.grad[3].item(), 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_parameters_are_computed_as_they_are_stored(dtype):
    found = (bfloat16_run(rounding, 3, dtype=dtype) for rounding in ("nearest", "stochastic"))
    assert torch.equal(*found)


def test_stochastic_rounding_of_parameters_that_cannot_be_is_refused():
    with pytest.raises(TypeError, match="float16 where bfloat16 or wider to be rounded"):
        bfloat16_run("stochastic", dtype=torch.float16)
    with pytest.raises(ValueError, match=r"Invalid param_rounding: 'stochastic' \(Muon's"):
        optim8.Muon([torch.zeros(3, 3)], param_rounding="stochastic")
