"""Moving in from torch's optimizers, in the middle of training."""

import copy

import pytest
import torch

import optim8
from specs import SPECS, assert_same, by_rule, snapshot, step, tensor

TORCH_SPECS = [spec for spec in SPECS if spec.torch_cls]


@pytest.mark.parametrize("spec", TORCH_SPECS, ids=by_rule)
@pytest.mark.parametrize("n_steps", [0, 3])
def test_converted_optimizer_is_one_that_loaded_the_state_dict(spec, n_steps):
    params = [tensor(shape, seed=i).requires_grad_() for i, shape in enumerate([(70, 80), (5,)])]
    groups = [{"params": params[:1], "weight_decay": 0.1}, {"params": params[1:], "lr": 0.5}]
    theirs = spec.torch_cls(groups, lr=0.25, **spec.kwargs)
    step(theirs, n_steps)
    before = copy.deepcopy(theirs.state_dict())
    twin = optim8.convert(theirs, block_size=64)
    assert type(twin) is spec.cls
    assert [g["params"] for g in twin.param_groups] == [g["params"] for g in theirs.param_groups]
    assert [(g["lr"], g["block_size"]) for g in twin.param_groups] == [(0.25, 64), (0.5, 64)]
    other = spec.cls(copy.deepcopy(groups), **spec.kwargs, block_size=64)
    other.load_state_dict(before)
    step(twin, 2)
    step(other, 2)
    assert_same(snapshot(twin), snapshot(other))


def test_converted_optimizer_keeps_names_and_goes_on_with_a_scheduler():
    model = torch.nn.Linear(64, 64)
    theirs = torch.optim.AdamW(model.named_parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, lambda n: 0.5**n)
    step(theirs)
    scheduler.step()
    twin = optim8.convert(theirs)
    assert twin.param_groups[0]["param_names"] == ["weight", "bias"]
    scheduler.optimizer = twin
    step(twin)
    scheduler.step()
    assert twin.param_groups[0]["lr"] == 0.25


def test_what_cannot_be_converted_is_refused():
    class Mine(torch.optim.AdamW):
        pass

    params = [torch.zeros(3, requires_grad=True)]
    for optimizer in (torch.optim.ASGD(params), Mine(params), optim8.AdamW(params)):
        message = r"convert: found .*, expected one of torch\.optim's Adadelta, "
        with pytest.raises(TypeError, match=message):
            optim8.convert(optimizer)
