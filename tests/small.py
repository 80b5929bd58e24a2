"""A model that is trained in a moment, for tests of tools that people train with."""

import torch
from torch import nn

X = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))


def model():
    """Return a model that is the same every time: two matrices of 6144, two biases."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 64))


def loss_of(net, x=X):
    """Return how far a model is from the identity."""
    return (net(x) - x).square().mean()


def assert_8_bit(optimizer):
    """Adam's states of tensors with 4096 elements or more must be bytes, and all others full."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p in params:
        state = optimizer.state[p]
        if p.numel() < 4096:
            assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float32
        else:
            assert state["exp_avg_codes"].dtype == state["exp_avg_sq_codes"].dtype == torch.uint8
    # A byte and a 64th each, of two states; or 8 bytes; and the number of steps.
    expected = sum(2 * (n + n / 64) if n >= 4096 else 8 * n for n in (p.numel() for p in params))
    assert optimizer.state_nbytes() == expected + 4 * len(params)
