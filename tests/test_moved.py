"""Parameters and states that are moved, reshaped or replaced between two steps.

The native side remembers what it was told of tensors, so every way to change one behind its back
is tried here: the step must be that of an optimizer which has never seen the tensor before.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import optim8


def _stepped(shape: tuple[int, ...] = (64, 64)) -> tuple[torch.nn.Parameter, optim8.AdamW]:
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(shape))
    optimizer = optim8.AdamW([param], lr=0.1, min_quantized_numel=1)
    for _ in range(2):
        param.grad = torch.randn(shape)
        optimizer.step()
    return param, optimizer


def _transpose(param: torch.nn.Parameter, state: dict[str, Tensor]) -> None:
    param.data = param.data.t()  # the same memory, in another order


def _move(param: torch.nn.Parameter, state: dict[str, Tensor]) -> None:
    param.data = param.data.clone()


def _share(param: torch.nn.Parameter, state: dict[str, Tensor]) -> None:
    for tensor in (param.data, *state.values()):
        tensor.share_memory_()  # moves it


def _replace(param: torch.nn.Parameter, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        state[name] = tensor.clone()


@pytest.mark.parametrize("change", [_transpose, _move, _share, _replace])
def test_steps_see_what_was_done_to_a_tensor(
    change: Callable[[torch.nn.Parameter, dict[str, Tensor]], None],
) -> None:
    param, optimizer = _stepped()
    change(param, optimizer.state[param])
    fresh_param, fresh = copy.deepcopy((param, optimizer))
    fresh_param = fresh.param_groups[0]["params"][0]
    grad = torch.randn(64, 64)
    param.grad, fresh_param.grad = grad, grad.clone()
    optimizer.step()
    fresh.step()
    assert torch.equal(param, fresh_param)
    for name, tensor in optimizer.state[param].items():
        assert torch.equal(tensor, fresh.state[fresh_param][name]), name


def test_a_parameter_that_lost_rows_in_place_is_refused() -> None:
    param, optimizer = _stepped()
    with torch.no_grad():
        param.data = param.data[:32]
    param.grad = torch.ones(32, 64)
    before = param.detach().clone()
    with pytest.raises(ValueError, match=r"exp_avg_codes of parameter 0: shape \[64, 64\]"):
        optimizer.step()
    assert torch.equal(param, before)


def test_an_optimizer_that_its_parameter_refers_to_is_collected() -> None:
    param, optimizer = _stepped()
    param.optimizer = optimizer  # type: ignore[attr-defined]
    gone = weakref.ref(optimizer)
    del param, optimizer
    gc.collect()
    assert gone() is None


def test_tensors_that_are_no_longer_stepped_are_let_go() -> None:
    param, optimizer = _stepped()
    codes = weakref.ref(optimizer.state[param]["exp_avg_codes"])
    for _ in range(4):
        optimizer.state.clear()
        param.grad = torch.ones_like(param)
        optimizer.step()
    assert codes() is None
