"""What programs do to the groups and states of a live optimizer, as torch's lets them."""

import collections
import copy
import weakref

import pytest
import torch

import optim8
from optim8.optim import Optim8Optimizer
from specs import needs_names, step, stepped, tensor


@pytest.mark.parametrize("bits", [8, 32])
def test_what_programs_keep_beside_the_states_comes_along(bits):
    optimizer, (p,) = stepped(optim8.AdamW, [(5000,)])
    slow = torch.ones(5000)
    optimizer.state[p].update(slow_buffer=slow, tags=["a"])
    optimizer.state["global_step"] = 7
    other = optim8.AdamW([tensor((5000,)).requires_grad_()], state_bits=bits)
    other.load_state_dict(optimizer.state_dict())
    [q] = other.param_groups[0]["params"]
    loaded = other.state[q]["slow_buffer"]
    assert torch.equal(loaded, slow)
    assert loaded.data_ptr() != slow.data_ptr()
    assert other.state[q]["tags"] == ["a"]
    assert other.state["global_step"] == 7
    step(other)
    twin = torch.optim.AdamW([q])
    twin.load_state_dict(optim8.interop.to_torch_state_dict(other))
    assert torch.equal(twin.state[q]["slow_buffer"], slow)
    assert twin.state["global_step"] == 7
    assert torch.equal(optim8.convert(twin).state[q]["slow_buffer"], slow)


def moved(optimizer, param):
    """Into a group of its own, of another codec."""
    optimizer.param_groups[0]["params"].remove(param)
    optimizer.add_param_group({"params": [param], "codec": "dynamic"})


def appended(optimizer, param):
    """Into a group that there is, of another codec."""
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(8))], "codec": "dynamic"})
    optimizer.step()
    optimizer.param_groups[0]["params"].remove(param)
    optimizer.param_groups[1]["params"].append(param)


def replaced(optimizer, _):
    """By a copy of its group with another codec."""
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "codec": "dynamic"}


@pytest.mark.parametrize("change", [moved, appended, replaced])
def test_bytes_are_not_taken_for_those_of_another_codec(change):
    p = torch.nn.Parameter(tensor((5000,)))
    p.grad = torch.ones(5000)
    optimizer = optim8.AdamW([p])
    optimizer.step()
    change(optimizer, p)
    match = "codec of parameter group . was 'minifloat' when its states were made, found 'dynamic'"
    for use in (
        optimizer.step,
        optimizer.state_dict,
        lambda: optim8.dequantize_state(optimizer, p),
    ):
        with pytest.raises(ValueError, match=match):
            use()
    del optimizer.state[p]
    optimizer.step()


def test_parameters_of_groups_that_are_gone_are_let_go():
    optimizer = optim8.SGD([torch.nn.Parameter(torch.ones(8))], momentum=0.9)
    gone = []
    for _ in range(5):
        p = torch.nn.Parameter(torch.ones(5000))
        p.grad = torch.ones(5000)
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": [p]})
        optimizer.step()
        del optimizer.param_groups[1], optimizer.state[p]
        gone.append(weakref.ref(p))
        del p
    optimizer.step()
    assert not any(param() for param in gone)


def test_what_was_asked_for_outlives_copies_of_groups():
    saved = stepped(optim8.AdamW, [(5000,)], state_bits=32)[0].state_dict()
    optimizer = optim8.AdamW([tensor((5000,)).requires_grad_()], state_bits=8)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["state_bits"] == 8


def test_states_are_set_as_in_torch():
    optimizer, (p,) = stepped(optim8.AdamW, [(5000,)])
    optimizer.__setstate__({"state": collections.defaultdict(dict)})
    step(optimizer)
    assert optimizer.state[p]["step"] == 1


@needs_names
def test_names_that_do_not_fit_a_group_any_more():
    named = [(name, tensor((5000,)).requires_grad_()) for name in "ab"]
    optimizer = optim8.AdamW(named)
    step(optimizer)
    del optimizer.state[optimizer.param_groups[0]["params"].pop()]
    optimizer.load_state_dict(optimizer.state_dict())
    twin = torch.optim.AdamW([named[0][1]])
    twin.load_state_dict(optim8.interop.to_torch_state_dict(optimizer))
    twin.param_groups[0]["param_names"] = ["a", "b"]
    assert optim8.convert(twin).state_dict()["state"].keys() == {0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_dtype_goes_on_after_loading_its_own_states(dtype):
    model = torch.nn.Linear(128, 64)
    optimizer = optim8.AdamW(model.parameters())
    model(torch.ones(128)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    model.to(dtype)
    optimizer.load_state_dict(optimizer.state_dict())
    model(torch.ones(128, dtype=dtype)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.bias]["step"] == 2


@pytest.mark.parametrize("n_steps", [0, 1])
@pytest.mark.parametrize("name", ["AdamW", "Adagrad", "SGD"])
@pytest.mark.parametrize("begins", ["here", "in torch"])
def test_what_programs_keep_comes_along_before_the_first_step_too(name, n_steps, begins):
    ours, torchs = (getattr(module, name) for module in (optim8, torch.optim))
    optimizer, (p,) = stepped(ours if begins == "here" else torchs, [(5000,)], n_steps)
    optimizer.state[p].update(tag=[5], own=torch.ones(3))
    optimizer.state["ema"] = {"step": 5, "decay": 0.99}
    if begins == "here":
        optimizer.load_state_dict(optimizer.state_dict())
    else:
        optimizer = optim8.convert(optimizer)
    [p] = optimizer.param_groups[0]["params"]
    early = optim8.interop.to_torch_state_dict(optimizer)["state"][0]
    assert early["tag"] == [5]
    assert early["own"] is not optimizer.state[p]["own"]
    if n_steps == 0 and (name != "Adagrad" or begins == "here"):
        optimizer.state_dict()
        optimizer.param_groups[0]["block_size"] = 64  # there are no states yet
    step(optimizer, 1)
    there = optim8.interop.to_torch_state_dict(optimizer)["state"]
    for state, key in ((optimizer.state, p), (there, 0)):
        assert state["ema"] == {"step": 5, "decay": 0.99}
        assert state[key]["tag"] == [5]
        assert torch.equal(state[key]["own"], torch.ones(3))


def test_states_under_the_key_of_no_parameter_are_refused():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    saved = optimizer.state_dict()
    for key in (7, "weight"):
        states = {**saved["state"], key: saved["state"][0]}
        with pytest.raises(ValueError, match=rf"states of parameter {key!r}, which is in none"):
            optimizer.load_state_dict({**saved, "state": states})


def test_adagrad_shares_its_states_and_nothing_else():
    p = torch.nn.Parameter(torch.ones(5000))
    optimizer = optim8.Adagrad([p])
    optimizer.state[p].update(tag="x", own=torch.zeros(1))
    optimizer.share_memory()
    state = optimizer.state[p]
    assert all(state[key].is_shared() for key in ("step", "sum_codes", "sum_scales"))
    assert not state["own"].is_shared()


class Mine(optim8.SGD):
    """A user's class, with a hyperparameter of its own."""

    def __init__(self, params, lr=1e-3, foo=1, **kwargs):
        super().__init__(params, lr, **kwargs)
        self.defaults["foo"] = foo
        for group in self.param_groups:
            group.setdefault("foo", foo)


def test_a_users_class_takes_what_its_base_takes():
    """Checkpoints that lack what it adds, and all that interop has."""
    optimizer, (p,) = stepped(optim8.SGD, [(5000,)], lr=0.1, momentum=0.9)
    mine = Mine([p], foo=3)
    mine.load_state_dict(optimizer.state_dict())
    assert (mine.param_groups[0]["foo"], mine.param_groups[0]["momentum"]) == (3, 0.9)
    theirs = torch.optim.SGD([p], lr=1.0)
    theirs.load_state_dict(optim8.interop.to_torch_state_dict(mine))
    assert theirs.param_groups[0]["momentum"] == 0.9
    saved = optim8.interop.to_bitsandbytes_state_dict(mine)
    other = Mine([p], momentum=0.5)
    other.load_state_dict(saved)
    assert other.param_groups[0]["momentum"] == 0.9


def test_what_may_be_a_state_is_no_thing_of_a_programs():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    saved = optimizer.state_dict()
    saved["state"][0] = {"m": torch.ones(5000), "v": torch.ones(5000)}
    with pytest.raises(ValueError, match="parameter 0: found states m, v; expected step"):
        optimizer.load_state_dict(saved)


def test_no_entry_of_our_own_may_lack():
    optimizer, _ = stepped(optim8.ScheduleFreeAdamW, [(5000,)])
    for one in (optimizer, copy.deepcopy(optimizer)):
        saved = one.state_dict()
        del saved["param_groups"][0]["train_mode"]
        with pytest.raises(ValueError, match="parameter group 0 has no train_mode"):
            one.load_state_dict(saved)


class AdamW(Optim8Optimizer):
    """A user's class that extends the base class, and has torch's name."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {**optim8.AdamW([torch.ones(1)]).defaults, "lr": lr}, {})

    _check = staticmethod(optim8.AdamW._check)
    _rule = staticmethod(optim8.AdamW._rule)


def test_a_users_class_of_the_base_class_is_its_own():
    optimizer, [p] = stepped(AdamW, [(5000,)])
    torch.optim.AdamW([p]).load_state_dict(optim8.interop.to_torch_state_dict(optimizer))
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["betas"]
    with pytest.raises(ValueError, match="parameter group 0 has no betas"):
        optimizer.load_state_dict(saved)
