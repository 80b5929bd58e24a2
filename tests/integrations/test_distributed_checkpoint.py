"""`torch.distributed.checkpoint` keeps every byte, and resumes (of one process, with gloo)."""

import pytest
import torch.distributed.checkpoint as dcp
from torch import distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

import optim8
from small import assert_8_bit, loss_of, model
from specs import assert_same, snapshot


@pytest.fixture(autouse=True)
def _one_process():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def train(net, optimizer, n_steps):
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()


def new_run(n_steps, **options):
    """Return a model and its optimizer after some steps."""
    net = model()
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2, **options)
    train(net, optimizer, n_steps)
    return net, optimizer


def parts(net, optimizer, how):
    """Return what is saved of a run, and what is loaded into one."""
    weights, states = get_state_dict(net, optimizer, options=how)
    return {"weights": weights, "states": states}


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("n_steps_before", [0, 1])
def test_resumes_as_if_not_interrupted(tmp_path, flatten, n_steps_before):
    # Flat dicts hold the options too, each under the names of all parameters that have it.
    how = StateDictOptions(flatten_optimizer_state_dict=flatten)
    net, optimizer = new_run(3, block_size=128)
    dcp.save(parts(net, optimizer, how), checkpoint_id=tmp_path)
    saved = snapshot(optimizer)
    train(net, optimizer, 2)

    other_net, other = new_run(n_steps_before, block_size=128, seed=7)
    found = parts(other_net, other, how)
    dcp.load(found, checkpoint_id=tmp_path)
    set_state_dict(
        other_net,
        other,
        model_state_dict=found["weights"],
        optim_state_dict=found["states"],
        options=how,
    )
    assert_same(snapshot(other), saved)
    train(other_net, other, 2)
    assert_same(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize("n_steps_before", [0, 1])
def test_both_optimizers_of_a_graft_resume(tmp_path, n_steps_before):
    def run(n_steps):
        net = model()
        parts = (cls(net.parameters(), lr=1e-2) for cls in (optim8.SGD, optim8.AdamW))
        grafted = optim8.Graft(*parts)
        train(net, grafted, n_steps)
        return net, grafted

    net, optimizer = run(3)
    optimizer.zero_grad()
    dcp.save(parts(net, optimizer, None), checkpoint_id=tmp_path)
    assert optimizer.direction.state[net[0].weight]["step"] == 3
    train(net, optimizer, 2)

    other_net, other = run(n_steps_before)
    found = parts(other_net, other, None)
    dcp.load(found, checkpoint_id=tmp_path)
    set_state_dict(
        other_net, other, model_state_dict=found["weights"], optim_state_dict=found["states"]
    )
    train(other_net, other, 2)
    for part in ("magnitude", "direction"):
        assert_same(snapshot(getattr(other, part)), snapshot(getattr(optimizer, part)))


def test_a_fresh_optimizers_states_are_made_without_moving_anything():
    net, optimizer = new_run(0)
    before = [p.detach().clone() for p in net.parameters()]
    get_state_dict(net, optimizer)  # it takes a step to see what states there are
    assert_8_bit(optimizer)
    for p, old in zip(net.parameters(), before, strict=True):
        assert (p == old).all()
