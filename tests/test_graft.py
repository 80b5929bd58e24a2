"""AdaGraft: lengths of one optimizer, directions of another."""

import copy
import math
import pickle

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode

import optim8
from optim8 import _native
from specs import step, tensor

SHAPES = [(70, 90), (30,), ()]
FULL = {"state_bits": 32}


def params():
    return [tensor(shape, torch.float64, i).requires_grad_() for i, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("use_global_norm", [False, True])
@pytest.mark.parametrize("sgd", [optim8.SGD, torch.optim.SGD])
@pytest.mark.parametrize("adamw", [optim8.AdamW, torch.optim.AdamW])
def test_steps_are_the_papers(use_global_norm, sgd, adamw):
    """Against both optimizers stepped apart, from the same place."""
    ours, apart = params(), [params(), params()]
    makers = [
        lambda p: sgd(p, lr=0.1, momentum=0.9),
        lambda p: adamw(p, lr=3.0, weight_decay=0.0, **(FULL if adamw is optim8.AdamW else {})),
    ]
    grafted = optim8.Graft(*(make(ours) for make in makers), use_global_norm=use_global_norm)
    optimizers = [make(p) for make, p in zip(makers, apart, strict=True)]
    for n in range(4):
        start = [p.detach().clone() for p in ours]
        moves = []
        for optimizer, places in zip(optimizers, apart, strict=True):
            for p, s in zip(places, start, strict=True):
                p.data.copy_(s)
            for i, p in enumerate(places):
                p.grad = tensor(p.shape, p.dtype, 1000 * (n + 1) + i)
            optimizer.step()
            moves.append([p.detach() - s for p, s in zip(places, start, strict=True)])
        for i, p in enumerate(ours):
            p.grad = tensor(p.shape, p.dtype, 1000 * (n + 1) + i)
        grafted.step()
        norms = [torch.stack([move.norm() for move in of]) for of in moves]
        if use_global_norm:
            norms = [norm.norm().expand(len(SHAPES)) for norm in norms]
        ratio = norms[0] / norms[1]
        for p, s, move, r in zip(ours, start, moves[1], ratio, strict=True):
            torch.testing.assert_close(p.detach(), s + r * move, rtol=1e-12, atol=1e-12)


class Wide(torch.nn.Module):
    """A parameter large enough for 8-bit states, and a small one."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(tensor((80, 100), dtype, 1))
        self.bias = torch.nn.Parameter(tensor((80,), dtype, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["AdamW", "Adagrad", "LAMB", "Lion", "ScheduleFreeAdamW", "SGD"])
def test_measuring_is_stepping_and_going_back(name, dtype):
    """Against a class that Graft does not know to be one call, and so steps on a copy."""
    known = getattr(optim8, name)

    class Unknown(known):
        def _run(self, groups):
            return super()._run(groups)

    results = []
    for cls in (known, Unknown):
        places = list(Wide(dtype).parameters())
        parts = [cls(places, lr=0.01), cls(places, lr=1.0)]
        step(optim8.Graft(*parts), 3)
        results.append((places, [part.state for part in parts]))
    (places, states), (expected, expected_states) = results
    # A copy is rounded to the parameters' dtype more often.
    rtol, atol = (1e-4, 1e-5) if dtype == torch.float32 else (0.02, 0.004)
    for p, q in zip(places, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol)
        for state, other in zip(states, expected_states, strict=True):
            assert state[p].keys() == other[q].keys()
            assert state[p]["step"] == 3
            if name not in ("LAMB", "ScheduleFreeAdamW"):  # whose states depend on parameters
                for key, value in state[p].items():
                    assert torch.equal(value, other[q][key]), key


class Made(TorchDispatchMode):
    """Counts tensors of a size that torch's operations make."""

    def __init__(self, numel):
        super().__init__()
        self.numel, self.count = numel, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.count += isinstance(result, torch.Tensor) and result.numel() == self.numel
        return result


def test_two_of_ours_take_no_copy():
    for direction, copies in [(optim8.AdamW, False), (torch.optim.AdamW, True)]:
        places = list(Wide().parameters())
        optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), direction(places))
        step(optimizer, 1)
        with Made(places[0].numel()) as made:
            optimizer.step()
        assert (made.count > 0) == copies


def test_a_step_of_no_length_goes_nowhere():
    places = list(Wide().parameters())
    start = [p.detach().clone() for p in places]
    sgd = optim8.SGD(places, lr=0.0)
    optimizer = optim8.Graft(optim8.SGD(places), sgd, eps=0.0)
    step(optimizer, 1)
    assert all(torch.equal(p, s) for p, s in zip(places, start, strict=True))


def test_factors_are_one_for_each_parameter():
    with pytest.raises(ValueError, match="1 factors, expected one for each of 0 parameters"):
        _native.step([], 1, [1.0])


def test_grafted_onto_itself_it_is_itself():
    ours, alone = params(), params()
    grafted = optim8.Graft(*(optim8.AdamW(ours, lr=0.1, **FULL) for _ in range(2)))
    optimizer = optim8.AdamW(alone, lr=0.1, **FULL)
    step(grafted, 5)
    step(optimizer, 5)
    for a, b in zip(ours, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_checkpoints_copies_and_schedulers():
    def make():
        places = [p.detach().float().requires_grad_() for p in params()]
        return optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.Lion(places, lr=1.0))

    optimizer = make()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.5**n)
    step(optimizer, 3)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    other = make()
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    third = copy.deepcopy(optimizer)
    for p, q in zip(*(o.param_groups[0]["params"] for o in (optimizer, other)), strict=True):
        q.data.copy_(p.data)
    for one in (optimizer, other, third):
        step(one, 2, seed=9)
    for a, b, c in zip(
        *(o.param_groups[0]["params"] for o in (optimizer, other, third)), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    with pytest.raises(ValueError, match="parameter group 0 has no direction"):
        other.load_state_dict(optim8.SGD([torch.zeros(1)]).state_dict())
    one = torch.zeros(1, requires_grad=True)
    fewer = optim8.Graft(optim8.SGD([one]), optim8.Lion([one]))
    with pytest.raises(ValueError, match="found 1 parameters, expected 3"):
        other.load_state_dict(fewer.state_dict())


def test_a_state_dict_is_shaped_as_torchs_and_hooks_see_all_of_it():
    places = list(Wide().parameters())
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.ScheduleFreeAdamW(places))
    step(optimizer, 1)
    optimizer.register_state_dict_pre_hook(lambda graft: graft.direction.eval())
    seen = []
    optimizer.register_state_dict_post_hook(lambda _, saved: seen.append(copy.deepcopy(saved)))
    optimizer.register_load_state_dict_pre_hook(
        lambda _, saved: saved["param_groups"][0]["direction"][0].update(lr=77.0)
    )
    saved = optimizer.state_dict()
    assert saved.keys() == {"state", "param_groups"}
    assert seen[0]["param_groups"] == saved["param_groups"]
    assert saved["param_groups"][0]["direction"][0]["train_mode"] is False
    of_both = {"magnitude": optimizer.magnitude.state, "direction": optimizer.direction.state}
    for i, p in enumerate(places):
        assert saved["state"][i] == {name: state[p] for name, state in of_both.items()}
    optimizer.load_state_dict(saved)
    assert optimizer.direction.param_groups[0]["lr"] == 77.0
    assert optimizer.state[places[0]]["direction"] is optimizer.direction.state[places[0]]


@pytest.mark.parametrize("part", ["magnitude", "direction"])
def test_a_group_that_only_one_of_the_two_has_is_refused(part):
    places = list(Wide().parameters())
    optimizer = optim8.Graft(optim8.SGD(places), optim8.AdamW(places))
    more = torch.zeros(3, requires_grad=True)
    getattr(optimizer, part).add_param_group({"params": [more]})
    before = [p.detach().clone() for p in places]
    with pytest.raises(ValueError, match=f"{part} has other parameters than Graft: found 3"):
        step(optimizer, 1)
    assert all(torch.equal(p, q) for p, q in zip(places, before, strict=True))


@pytest.mark.parametrize("sgd", [optim8.SGD, torch.optim.SGD])
def test_errors_leave_the_parameters(sgd):
    places = [p.detach().requires_grad_() for p in params()]
    grafted = optim8.Graft(sgd(places), optim8.AdamW(places))
    start = [p.detach().clone() for p in places]
    places[0].grad = torch.ones_like(places[0])
    places[1].grad = torch.ones(30, dtype=torch.float64).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        grafted.step()
    assert all(torch.equal(p, s) for p, s in zip(places, start, strict=True))


def test_what_does_not_fit_is_refused():
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="direction has other parameters than Graft"):
        optim8.Graft(optim8.SGD([a]), optim8.SGD([b]))
    with pytest.raises(TypeError, match="direction is int, expected an optimizer"):
        optim8.Graft(optim8.SGD([a]), 1)
    for name in ("lr", "eps"):
        with pytest.raises(ValueError, match="Invalid"):
            optim8.Graft(optim8.SGD([a]), optim8.SGD([a]), **{name: -1.0})


def test_groups_are_those_of_the_two():
    places = list(Wide().parameters())
    optimizer = optim8.Graft(optim8.SGD(places), optim8.AdamW(places))
    with pytest.raises(ValueError, match="takes no parameter group"):
        optimizer.add_param_group({"params": [torch.zeros(3, requires_grad=True)]})
    step(optimizer, 1)
    assert optimizer.state_nbytes() == optimizer.direction.state_nbytes() + 4 * len(places)
    for function in (
        lambda o: optim8.dequantize_state(o, places[0]),
        optim8.interop.to_bitsandbytes_state_dict,
    ):
        with pytest.raises(TypeError, match="found Graft"):
            function(optimizer)


@pytest.mark.parametrize("direction", [optim8.AdamW, torch.optim.AdamW])
@pytest.mark.parametrize("part", ["magnitude", "direction", "param_groups"])
def test_nothing_is_loaded_of_what_does_not_fit(direction, part):
    places = list(Wide().parameters())
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), direction(places))
    step(optimizer, 1)
    saved = copy.deepcopy(optimizer.state_dict())
    [group] = saved["param_groups"]
    group["magnitude"][0]["lr"] = group["direction"][0]["lr"] = 77.0
    if part == "param_groups":
        saved[part] = []
    else:
        group[part] = []
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"group|param"):
        optimizer.load_state_dict(saved)
    assert str(optimizer.state_dict()) == str(before)
    step(optimizer, 1)


@pytest.mark.parametrize("lr", [1e-3, 1.0])
def test_bfloat16_parameters_move_as_far_as_they_should_on_average(lr):
    """Whatever the learning rate of the direction: its steps are measured, and then rounded."""
    options = {"param_rounding": "stochastic"}
    p = torch.full((5000,), 1.5, dtype=torch.bfloat16, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = optim8.Graft(optim8.SGD([p], lr=4e-4, **options), optim8.SGD([p], lr=lr, **options))
    for _ in range(400):
        optimizer.step()
    assert abs(p.double().mean().item() - (1.5 - 400 * 4e-4)) < 2e-3


PAIRS = [
    (magnitude, direction)
    for magnitude in (optim8.SGD, torch.optim.SGD)
    for direction in (optim8.AdamW, torch.optim.AdamW)
]
PAIR = pytest.mark.parametrize(
    "pair", PAIRS, ids=lambda pair: "-".join(cls.__module__.split(".")[0] for cls in pair)
)


def grafted(pair, shapes=((70, 90), (30,)), **kwargs):
    """Return a Graft of two classes, and its parameters."""
    params = [tensor(shape, torch.float64, i).requires_grad_() for i, shape in enumerate(shapes)]
    magnitude, direction = (cls(params, lr=0.1) for cls in pair)
    return optim8.Graft(magnitude, direction, **kwargs), params


@PAIR
def test_a_factor_makes_steps_shorter_and_a_large_eps_too(pair):
    moves = {}
    for kwargs in ({}, {"lr": 0.25}, {"eps": 1e3}):
        optimizer, params = grafted(pair, **kwargs)
        start = params[0].detach().clone()
        step(optimizer)
        moves[tuple(kwargs)] = (params[0].detach() - start).norm()
    torch.testing.assert_close(moves[("lr",)], moves[()] * 0.25)
    assert moves[("eps",)] < moves[()] / 50


@PAIR
def test_a_parameter_without_gradient_stays(pair):
    optimizer, [p, q] = grafted(pair)
    start = p.detach().clone(), q.detach().clone()
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert not torch.equal(p, start[0])
    assert torch.equal(q, start[1])
    assert q not in optimizer.state


@PAIR
def test_a_closure_has_gradients_and_its_loss_comes_back(pair):
    optimizer, [p, _] = grafted(pair)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert first.item() == pytest.approx(tensor((70, 90), torch.float64).square().sum().item())
    assert optimizer.step(closure) < first


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_saves_what_loads(how):
    optimizer, _ = grafted((optim8.SGD, optim8.AdamW))
    step(optimizer)
    saved = how(optimizer).state_dict()
    assert saved["param_groups"] == optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(saved)


def test_states_that_are_not_in_what_is_loaded_are_gone():
    optimizer, _ = grafted((optim8.SGD, optim8.AdamW))
    fresh = optimizer.state_dict()
    step(optimizer)
    optimizer.load_state_dict(fresh)
    assert len(optimizer.state) == 0


def test_parameters_are_known_by_their_place_and_not_by_their_number():
    optimizer, params = grafted((optim8.SGD, optim8.AdamW))
    step(optimizer)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["params"] = [10, 11]
    saved["state"] = {10 + i: state for i, state in saved["state"].items()}
    other, _ = grafted((optim8.SGD, optim8.AdamW))
    other.load_state_dict(saved)
    assert len(other.direction.state) == len(params)


def test_both_count_the_blocks_that_they_skip():
    p = tensor((5000,)).requires_grad_()
    parts = [cls([p], lr=0.1, nonfinite="skip") for cls in (optim8.SGD, optim8.AdamW)]
    optimizer = optim8.Graft(*parts)
    p.grad = torch.ones(5000)
    p.grad[300] = math.nan
    optimizer.step()
    assert [part.skipped_blocks for part in parts] == [1, 1]


def test_a_step_that_fails_leaves_the_two_as_optimizers_of_their_own():
    optimizer, [p, q] = grafted((optim8.SGD, optim8.AdamW))
    p.grad, q.grad = torch.ones_like(p), torch.ones_like(q).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    q.grad = None
    before = p.detach().clone()
    optimizer.magnitude.step()
    assert not torch.equal(p, before)


def test_what_programs_keep_comes_along():
    places = params()
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.AdamW(places))
    step(optimizer, 1)
    optimizer.state["global_step"] = 7
    optimizer.state[places[0]]["tag"] = "a"
    step(optimizer, 1)
    others = params()
    other = optim8.Graft(optim8.SGD(others, momentum=0.9), optim8.AdamW(others))
    other.state["gone"] = 1
    other.param_groups[0]["initial_lr"] = 0.5
    optimizer.state[places[1]]["kept"] = torch.ones(3)
    saved = optimizer.state_dict()
    other.load_state_dict(saved)
    optimizer.state[places[1]].pop("kept").zero_()
    assert torch.equal(other.state[others[1]].pop("kept"), torch.ones(3))
    assert other.param_groups[0]["initial_lr"] == 0.5
    assert other.state[torch.nn.Parameter(torch.ones(3))] == {}
    for one, of in ((optimizer, places), (other, others)):
        assert one.state["global_step"] == 7
        assert {*one.state[of[0]]} == {"magnitude", "direction", "tag"}
    assert "gone" not in other.state


def test_states_of_no_parameter_are_refused():
    places = params()
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.AdamW(places))
    step(optimizer, 1)
    saved = optimizer.state_dict()
    saved["state"][99] = saved["state"][0]
    with pytest.raises(ValueError, match="states of parameter 99"):
        optimizer.load_state_dict(saved)


def test_one_within_another_is_as_it_was_if_the_other_is_refused():
    def nested(direction):
        places = params()
        inner = optim8.Graft(optim8.SGD(places, lr=0.1, momentum=0.9), optim8.Lion(places))
        return optim8.Graft(inner, direction(places))

    saved = nested(optim8.AdamW)
    saved.magnitude.magnitude.param_groups[0]["lr"] = 0.7
    saved.magnitude.param_groups[0]["lr"] = 0.25
    step(saved, 1)
    optimizer = nested(optim8.Lion)
    step(optimizer, 2)
    optimizer.magnitude.state["global_step"] = 7
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=r"found states step, exp_avg_codes.*expected step"):
        optimizer.load_state_dict(saved.state_dict())
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    assert optimizer.magnitude.state["global_step"] == 7
    assert len(optimizer.magnitude._optimizer_state_dict_post_hooks) == 1
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)
    step(optimizer, 1)


class Clamped(optim8.SGD):
    """Keeps parameters small in a step of its own."""

    def step(self, closure=None):
        loss = super().step(closure)
        clamp(self)
        return loss


@torch.no_grad()
def clamp(optimizer, *_):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.clamp_(-0.01, 0.01)


@pytest.mark.parametrize("how", ["torch's", "hook", "hook before", "hook of all", "subclass"])
@pytest.mark.parametrize("place", ["magnitude", "direction"])
def test_what_an_optimizer_does_besides_its_native_call_counts(how, place):
    p = torch.nn.Parameter(torch.zeros(5000))
    p.grad = torch.ones(5000)
    cls = {"torch's": torch.optim.SGD, "subclass": Clamped}.get(how, optim8.SGD)
    part = cls([p], lr=1.0)
    handles = []
    if how in ("torch's", "hook"):
        handles.append(part.register_step_post_hook(clamp))
    elif how == "hook before":
        handles.append(part.register_step_pre_hook(lambda *_: [p.data.fill_(0.99)].clear()))
    elif how == "hook of all":
        handles.append(
            register_optimizer_step_post_hook(lambda o, *_: clamp(o) if o is part else None)
        )
    parts = {"magnitude": part, "direction": part}
    parts |= {({"magnitude", "direction"} - {place}).pop(): optim8.SGD([p], lr=3.0)}
    optim8.Graft(**parts, lr=1.0).step()
    for handle in handles:
        handle.remove()
    expected = -0.01 if place == "magnitude" else -3.0
    torch.testing.assert_close(p.detach(), torch.full((5000,), expected), rtol=1e-4, atol=0)


@pytest.mark.parametrize("entries", [{"lr": "x"}, {"eps": None}])
def test_nothing_has_changed_if_its_own_numbers_are_none(entries):
    places = params()
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.AdamW(places))
    step(optimizer, 1)
    before = copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.param_groups[0].update(entries)
    with pytest.raises(TypeError, match=f"{next(iter(entries))} is .*, expected a number"):
        optimizer.step()
    torch.testing.assert_close(optimizer.state_dict()["state"], before, rtol=0, atol=0)


def test_state_dicts_are_of_now_where_a_part_has_loaded_another():
    places = params()
    optimizer = optim8.Graft(optim8.SGD(places, momentum=0.9), optim8.AdamW(places))
    step(optimizer, 1)
    early = copy.deepcopy(optimizer.magnitude.state_dict())
    step(optimizer, 1)
    optimizer.magnitude.load_state_dict(early)
    assert optimizer.state_dict()["state"][0]["magnitude"]["step"] == 1
