"""Checkpoints: every way there and back, and what is refused with nothing changed."""

import copy
import io
import json
import pickle

import pytest
import torch
from safetensors.torch import load, save

import optim8
from optim8 import _native
from specs import (
    SPECS,
    TORCH_CLASSES,
    assert_same,
    by_rule,
    needs_names,
    same_bits,
    snapshot,
    step,
    stepped,
    tensor,
)

SPEC = pytest.mark.parametrize("spec", SPECS, ids=by_rule)
SHAPES = [(3, 2000), (5000,), (10,), ()]


def through_torch_save(state_dict):
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_safetensors(state_dict):
    tensors = {f"{i}.{k}": v for i, s in state_dict["state"].items() for k, v in s.items()}
    groups = json.loads(json.dumps(state_dict["param_groups"]))
    state = {}
    for key, value in load(save(tensors)).items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": groups}


ROADS = {
    "state_dict": lambda d: d,
    "deepcopy": copy.deepcopy,
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "torch_save": through_torch_save,
    "safetensors": through_safetensors,
}


@SPEC
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("road", ROADS)
def test_round_trips_then_bit_identical_steps(spec, dtype, road):
    kwargs = {**spec.kwargs, "lr": 0.01}
    optimizer, params = stepped(spec.cls, SHAPES, dtype=dtype, **kwargs, seed=3)
    copies = [p.detach().clone().requires_grad_() for p in params]
    other = spec.cls(copies, **spec.kwargs, seed=7)
    other.load_state_dict(ROADS[road](optimizer.state_dict()))
    assert_loaded(optimizer, other)
    for p in params:
        for name, value in optimizer.state[p].items():
            assert all(
                value.data_ptr() != v.data_ptr() for s in other.state.values() for v in s.values()
            ), name
    step(optimizer, 2, seed=99)
    step(other, 2, seed=99)
    assert_loaded(optimizer, other)


def assert_loaded(left, right):
    left, right = snapshot(left), snapshot(right)
    for groups in (left["groups"], right["groups"]):
        for group in groups:
            for name in {"betas", "etas", "step_sizes"} & group.keys():
                group[name] = tuple(group[name])
    assert_same(left, right)


@SPEC
@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_optimizers_themselves_copy_and_pickle(spec, how):
    optimizer, _ = stepped(spec.cls, SHAPES, **spec.kwargs, nonfinite="skip")
    optimizer.param_groups[0]["params"][1].grad[0] = float("nan")
    optimizer.step()
    other = how(optimizer)
    assert other.skipped_blocks == optimizer.skipped_blocks == 1
    step(optimizer, 2, seed=5)
    step(other, 2, seed=5)
    assert_same(snapshot(optimizer), snapshot(other))


def test_saved_options_win_unless_they_were_given():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)], codec="root", block_size=64, nonfinite="skip")
    other = optim8.AdamW([torch.zeros(5000, requires_grad=True)])
    other.load_state_dict(optimizer.state_dict())
    group = other.param_groups[0]
    assert (group["codec"], group["block_size"], group["nonfinite"]) == ("root", 64, "skip")
    given = {"params": [torch.zeros(5000, requires_grad=True)], "block_size": 128}
    third = optim8.AdamW([given], codec="dynamic")
    for how in (lambda o: o, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))):
        third = how(third)
        third.load_state_dict(optimizer.state_dict())
        group = third.param_groups[0]
        assert (group["codec"], group["block_size"], group["nonfinite"]) == ("dynamic", 128, "skip")
    step(third)


FORMS = {
    "blocks of 32": {"block_size": 32},
    "another codec": {"codec": "root"},
    "full": {"state_bits": 32},
    "full where small": {"min_quantized_numel": 100_000},
}


@SPEC
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_states_are_converted_to_the_form_that_was_given(spec, dtype, form):
    """And back, which loses nothing if they were in full in between."""
    default = {
        "state_bits": 8,
        "min_quantized_numel": 4096,
        "block_size": 256,
        "codec": "minifloat",
    }
    optimizer, params = stepped(spec.cls, SHAPES, dtype=dtype, **spec.kwargs)

    def loaded(source, **options):
        copies = [p.detach().clone().requires_grad_() for p in params]
        target = spec.cls(copies, **spec.kwargs, **options)
        target.load_state_dict(source.state_dict())
        return target, copies

    other, copies = loaded(optimizer, **FORMS[form])
    back, originals = loaded(other, **default)
    for p, q, r in zip(params, copies, originals, strict=True):
        full = form.startswith("full")
        states = optim8.dequantize_state(other, q)
        assert other.state[q].keys() == optimizer.state[p].keys() or full or p.numel() < 4096
        assert not full or states.keys() <= other.state[q].keys()
        for name, value in optim8.dequantize_state(optimizer, p).items():
            atol = 0 if full or p.numel() < 4096 else 0.01 * value.abs().max().item()
            torch.testing.assert_close(
                states[name], value, rtol=0.0 if not atol else 0.05, atol=atol
            )
            if full:
                again = optim8.dequantize_state(back, r)[name]
                # The negative extreme of a block is no code of its own.
                torch.testing.assert_close(again, value, rtol=0.02, atol=0.01 * value.abs().max())
            if spec.kinds[name] == "unsigned":
                assert torch.equal(states[name] == 0, value == 0)
    step(other, seed=9)
    step(optimizer, seed=9)
    if form.startswith("full"):
        # The update uses states before they are quantized again.
        for p, q in zip(params, copies, strict=True):
            torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6)


@SPEC
def test_states_follow_their_parameters_to_another_dtype(spec):
    optimizer, params = stepped(spec.cls, SHAPES, dtype=torch.float32, **spec.kwargs)
    for dtype in (torch.bfloat16, torch.float32):
        copies = [p.detach().to(dtype).requires_grad_() for p in params]
        other = spec.cls(copies, **spec.kwargs)
        other.load_state_dict(optimizer.state_dict())
        for p, q in zip(params, copies, strict=True):
            for name, value in optimizer.state[p].items():
                kind = spec.kinds.get(name)
                expected = value.to(dtype) if kind == "copy" else value
                assert torch.equal(other.state[q][name], expected)
        step(other)
        optimizer, params = other, copies


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.torch_cls], ids=by_rule)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("codec", _native.CODECS)
def test_torch_state_dicts_are_quantized_as_this_optimizer_says(spec, dtype, codec):
    params = [tensor(shape, dtype, i).requires_grad_() for i, shape in enumerate(SHAPES)]
    theirs = spec.torch_cls(params, lr=0.01, **spec.kwargs)
    step(theirs, 3)
    copies = [p.detach().clone().requires_grad_() for p in params]
    ours = spec.cls(copies, codec=codec, block_size=64, lr=0.5)
    ours.load_state_dict(theirs.state_dict())
    group = ours.param_groups[0]
    assert (group["lr"], group["codec"], group["block_size"]) == (0.01, codec, 64)
    for ours_p, p in zip(copies, params, strict=True):
        state = ours.state.get(ours_p, {})
        torchs = {k: v for k, v in theirs.state[p].items() if v is not None}
        assert state.get("step") == (torchs.get("step", 1) if torchs else None)
        is_quantized = any(name.endswith("_codes") for name in state)
        assert is_quantized == (p.numel() >= 4096 and bool(torchs))
        for name, value in optim8.dequantize_state(ours, ours_p).items():
            expected = theirs.state[p][name].to(value.dtype)
            if p.numel() < 4096:
                assert torch.equal(value, expected)
                continue
            signed = spec.kinds[name] == "signed"
            q = optim8.quantize(expected.float(), codec=codec, signed=signed, block_size=64)
            assert torch.equal(state[f"{name}_scales"], q.scales)
            raised = state[f"{name}_codes"] != q.codes
            if signed:
                assert not bool(raised.any())
            else:
                assert bool((value[expected > 0] > 0).all())
                assert bool((q.dequantize()[raised] == 0).all())
    step(ours)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.torch_cls], ids=by_rule)
def test_torch_state_dict_with_full_states_goes_on_as_torch_does(spec):
    params = [tensor((20, 30)).requires_grad_()]
    theirs = spec.torch_cls(params, lr=0.01, **spec.kwargs)
    step(theirs, 3)
    ours = spec.cls([params[0].detach().clone().requires_grad_()])
    saved = theirs.state_dict()
    if "step" in saved["state"].get(0, {}):
        saved["state"][0] = {**saved["state"][0], "step": 3.0}  # a number, as torch once had it
    ours.load_state_dict(saved)
    step(theirs)
    step(ours)
    torch.testing.assert_close(ours.param_groups[0]["params"][0], params[0], rtol=1e-6, atol=1e-6)


def test_torch_states_of_any_strides():
    p = tensor((4, 10, 12, 10)).to(memory_format=torch.channels_last).requires_grad_()
    theirs = torch.optim.AdamW([p])
    step(theirs, 2)
    for options in ({}, {"state_bits": 32}):
        ours = optim8.AdamW([p.detach().clone().requires_grad_()], **options)
        ours.load_state_dict(theirs.state_dict())
        q = ours.param_groups[0]["params"][0]
        value = optim8.dequantize_state(ours, q)["exp_avg"]
        torch.testing.assert_close(value, theirs.state[p]["exp_avg"], rtol=0.1, atol=0.01)
        step(ours)


def test_hooks_run_in_order_and_may_replace_the_dict():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    calls = []
    optimizer.register_state_dict_pre_hook(lambda _: calls.append("save pre"))
    optimizer.register_state_dict_post_hook(lambda _, d: {**d, "extra": 1})
    saved = optimizer.state_dict()
    assert saved["extra"] == 1

    def replace(_, state_dict):
        calls.append("load pre")
        groups = [{**group, "lr": 0.25} for group in state_dict["param_groups"]]
        return {**state_dict, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(replace)
    optimizer.register_load_state_dict_post_hook(lambda o: calls.append(o.param_groups[0]["lr"]))
    optimizer.load_state_dict(saved)
    assert calls == ["save pre", "load pre", 0.25]
    assert saved["param_groups"][0]["lr"] == 1e-3


@needs_names
def test_names_survive():
    p = torch.zeros(3, requires_grad=True)
    optimizer = optim8.AdamW([("weight", p)])
    step(optimizer)
    saved = optimizer.state_dict()
    del saved["param_groups"][0]["param_names"]
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["param_names"] == ["weight"]


def test_states_keep_every_byte_whatever_the_parameters_dtype():
    optimizer, _ = stepped(optim8.AdamW, [(5000,), (10,)])
    params = [torch.zeros(5000, dtype=torch.float16), torch.zeros(10, dtype=torch.bfloat16)]
    other = optim8.AdamW([p.requires_grad_() for p in params])
    other.load_state_dict(optimizer.state_dict())
    for left, right in zip(optimizer.state.values(), other.state.values(), strict=True):
        assert all(same_bits(left[name], right[name]) for name in left)
    step(other)


def test_parameters_without_state_stay_without():
    optimizer = optim8.AdamW([torch.zeros(3, requires_grad=True), torch.ones(5000)])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    other = optim8.AdamW([torch.zeros(3, requires_grad=True), torch.ones(5000)])
    other.load_state_dict(optimizer.state_dict())
    assert len(other.state) == 1


def state(index, **changes):
    """Return a change of the states of one parameter; None deletes."""

    def apply(saved):
        for name, change in changes.items():
            if change is None:
                del saved["state"][index][name]
            else:
                old = saved["state"][index].get(name)
                saved["state"][index][name] = change(old) if callable(change) else change

    return apply


def group(**changes):
    """Return a change of the first group; None deletes."""

    def apply(saved):
        for name, change in changes.items():
            if change is None:
                del saved["param_groups"][0][name]
            else:
                saved["param_groups"][0][name] = change

    return apply


HOSTILE = {
    "missing state": (
        state(1, exp_avg_sq_codes=None),
        "parameter 1 .b.: found states step, exp_avg_codes",
    ),
    "missing step": (state(1, step=None), "parameter 1 .b.: found states exp_avg_codes"),
    "codes without scales": (
        state(0, exp_avg_scales=None),
        "parameter 0 .a.: .*expected step, exp_avg_codes, exp_avg_scales",
    ),
    "state of another rule": (
        state(0, momentum_buffer=torch.zeros(3, 2000)),
        "parameter 0 .a.: found .*momentum_buffer; expected",
    ),
    "one state full": (
        state(0, exp_avg_codes=None, exp_avg_scales=None, exp_avg=torch.zeros(3, 2000)),
        "parameter 0 .a.: found",
    ),
    "full state missing": (
        state(2, exp_avg=None),
        "parameter 2 .c.: found states step, exp_avg_sq",
    ),
    "codes of another dtype": (
        state(0, exp_avg_codes=lambda t: t.float()),
        "exp_avg_codes of parameter 0 .a. has dtype torch.float32, expected torch.uint8",
    ),
    "scales of another dtype": (
        state(0, exp_avg_scales=lambda t: t.bfloat16()),
        "expected torch.float32",
    ),
    "codes of another shape": (
        state(0, exp_avg_codes=lambda t: t.reshape(2, 3000)),
        r"exp_avg_codes of parameter 0 .a. has shape \(2, 3000\), expected \(3, 2000\)",
    ),
    "truncated codes": (
        state(1, exp_avg_sq_codes=lambda t: t[:-1]),
        r"shape \(4999,\), expected \(5000,\)",
    ),
    "truncated scales": (
        state(1, exp_avg_sq_scales=lambda t: t[:-1]),
        r"shape \(19,\), expected \(20,\)",
    ),
    "full state of integers": (
        state(2, exp_avg=lambda t: t.int()),
        "exp_avg of parameter 2 .c. has dtype torch.int32",
    ),
    "full state of another shape": (
        state(2, exp_avg=lambda t: t[:5]),
        r"shape \(5,\), expected \(10,\)",
    ),
    "no tensor": (
        state(2, exp_avg=[0.0] * 10),
        "exp_avg of parameter 2 .c. is list, expected Tensor",
    ),
    "sparse": (state(2, exp_avg=lambda t: t.to_sparse()), "expected a dense tensor"),
    "meta": (state(2, exp_avg=lambda t: t.to("meta")), "on meta, expected a dense tensor"),
    "step of many": (state(0, step=torch.zeros(2)), "step of parameter 0 .a. is tensor"),
    "step a word": (state(0, step="one"), "step of parameter 0 .a. is 'one'"),
    "step negative": (state(0, step=-1.0), "step of parameter 0 .a. is -1.0"),
    "step nan": (state(0, step=torch.tensor(float("nan"))), "step of parameter 0 .a. is nan"),
    "state no dict": (lambda d: d["state"].update({0: [1]}), "parameter 0 .a.: state is list"),
    "unknown parameter": (lambda d: d["state"].update({9: d["state"][0]}), "states of parameter 9"),
    "unknown name": (lambda d: d["state"].update(w=d["state"][0]), "states of parameter 'w'"),
    "another block size": (
        group(block_size=64),
        r"exp_avg_scales of parameter 0 .a. has shape \(3, 8\), expected \(3, 32\)",
    ),
    "unknown codec": (group(codec="nope"), "parameter group 0: Invalid codec: 'nope'"),
    "unknown format": (
        group(format_version=2),
        "parameter group 0: Invalid format_version: 2 .expected 1",
    ),
    "missing option": (group(block_size=None), "parameter group 0 has no block_size"),
    "missing hyperparameter": (group(betas=None), "parameter group 0 has no betas"),
    "hyperparameter a word": (group(lr="0.1"), "group 0: lr is '0.1', expected a number"),
    "one beta": (group(betas=(0.9,)), r"group 0: Invalid betas: \(0.9,\) \(expected 2 numbers"),
    "capturable": (
        group(capturable=True),
        "parameter group 0: AdamW does not support capturable=True",
    ),
    "fewer parameters": (group(params=[0, 1]), "group 0: found 2 parameters, expected 3"),
    "more groups": (
        lambda d: d["param_groups"].append(d["param_groups"][0]),
        "found 2, expected 1",
    ),
    "no groups": (lambda d: d.pop("param_groups"), "has no 'param_groups'"),
    "no state": (lambda d: d.pop("state"), "has no 'state'"),
    "state a list": (lambda d: d.update(state=[]), "state is list, expected Mapping"),
    "groups a dict": (lambda d: d.update(param_groups={}), "param_groups is dict, expected list"),
    "group a list": (lambda d: d.update(param_groups=[[]]), "parameter group 0 is no dict"),
}


@needs_names
@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(name):
    apply, message = HOSTILE[name]
    shapes = {"a": (3, 2000), "b": (5000,), "c": (10,)}
    params = [(n, tensor(s, seed=i).requires_grad_()) for i, (n, s) in enumerate(shapes.items())]
    optimizer = optim8.AdamW(params)
    step(optimizer, 2)
    saved = copy.deepcopy(optimizer.state_dict())
    step(optimizer, 1)
    apply(saved)
    before = snapshot(optimizer)
    with pytest.raises((ValueError, TypeError), match=message):
        optimizer.load_state_dict(saved)
    assert_same(before, snapshot(optimizer))
    step(optimizer)


@pytest.mark.parametrize(
    "foreign",
    [
        torch.optim.SGD([torch.zeros(5000)], momentum=0.9),
        torch.optim.RMSprop([torch.zeros(5000)]),
        torch.optim.Adagrad([torch.zeros(5000)]),
    ],
    ids=lambda o: type(o).__name__,
)
def test_foreign_state_dicts_are_refused(foreign):
    step(foreign)
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    before = snapshot(optimizer)
    saved = foreign.state_dict()
    with pytest.raises(ValueError, match=r"is of another optimizer than AdamW|found states"):
        optimizer.load_state_dict(saved)
    assert_same(before, snapshot(optimizer))


def loaded_again(optimizer):
    optimizer.load_state_dict(optimizer.state_dict())
    return optimizer


@pytest.mark.parametrize(
    "how",
    [lambda o: o, loaded_again, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))],
    ids=["stepped", "loaded", "copied", "pickled"],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda o, p: o.step(),
        lambda o, p: o.state_dict(),
        lambda o, p: copy.deepcopy(o),
        optim8.dequantize_state,
        lambda o, p: optim8.interop.to_torch_state_dict(o),
        lambda o, p: optim8.interop.to_bitsandbytes_state_dict(o),
    ],
    ids=["step", "state_dict", "deepcopy", "dequantize_state", "to_torch", "to_bitsandbytes"],
)
def test_options_say_how_states_were_made_or_nothing_reads_them(how, use):
    optimizer = how(stepped(optim8.AdamW, [(5000,)])[0])
    [group] = optimizer.param_groups
    group["codec"] = "dynamic"
    with pytest.raises(ValueError, match=r"codec of parameter group 0 was 'minifloat'.*'dynamic'"):
        use(optimizer, group["params"][0])
    group["codec"] = "minifloat"
    use(optimizer, group["params"][0])


def test_options_may_change_before_there_are_states():
    optimizer = optim8.AdamW([tensor((5000,)).requires_grad_()])
    optimizer.param_groups[0]["block_size"] = 64
    optimizer.state_dict()
    step(optimizer)
    [state] = optimizer.state.values()
    assert state["exp_avg_scales"].shape == (79,)


SWITCHES = {
    "momentum": (optim8.SGD, {"momentum": 0.9}, {"momentum": 0.0}),
    "amsgrad": (optim8.AdamW, {"amsgrad": True}, {"amsgrad": False}),
    "centered": (optim8.RMSprop, {"centered": True}, {"centered": False}),
    "centered momentum": (
        optim8.RMSprop,
        {"centered": True, "momentum": 0.9},
        {"centered": False, "momentum": 0.0},
    ),
}


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("on", [True, False])
def test_states_outlive_a_switch(switch, on):
    """In a checkpoint, and where only some parameters have been stepped since."""
    cls, with_it, without = SWITCHES[switch]
    before, after = (without, with_it) if on else (with_it, without)
    optimizer, params = stepped(cls, [(5000,), (6000,)], **before)
    optimizer.param_groups[0].update(after)
    params[1].grad = None
    optimizer.step()
    other = cls([p.detach().clone().requires_grad_() for p in params], **after)
    other.load_state_dict(optimizer.state_dict())
    assert_same(snapshot(optimizer), snapshot(other))
    for p in params:
        optim8.dequantize_state(optimizer, p)
    twin = getattr(torch.optim, cls.__name__)(params, lr=0.1, **after)
    twin.load_state_dict(optim8.interop.to_torch_state_dict(optimizer))
    step(optimizer, 2)
    step(other, 2)
    assert_same(snapshot(optimizer), snapshot(other))


def test_state_is_what_it_is_in_torch_after_loading():
    p = torch.zeros(10, requires_grad=True)
    optimizer = loaded_again(optim8.AdamW([p]))
    assert optimizer.state[p] == {}
    step(optimizer)
    assert optimizer.state[p]["step"] == 1


def test_groups_may_be_taken_out_and_put_in():
    params = [tensor((5000,), seed=i).requires_grad_() for i in range(3)]
    groups = [{"params": params[:1]}, {"params": params[1:2], "block_size": 64}]
    optimizer = optim8.AdamW(groups)
    step(optimizer)
    optimizer.param_groups.append({**optimizer.param_groups[1], "params": params[2:]})
    del optimizer.param_groups[0], optimizer.state[params[0]]
    step(optimizer)
    loaded_again(optimizer)
    step(optimizer)
    assert [optimizer.state[p]["step"] for p in params[1:]] == [3, 2]
    assert all(optimizer.state[p]["exp_avg_scales"].numel() == 79 for p in params[1:])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_takes_groups_and_keeps_what_was_given_to_all(how):
    optimizer = how(optim8.AdamW([torch.zeros(5000, requires_grad=True)], codec="root"))
    optimizer.add_param_group({"params": [torch.zeros(5000, requires_grad=True)]})
    plain = optim8.AdamW([{"params": [torch.zeros(5000)]} for _ in range(2)])
    optimizer.load_state_dict(plain.state_dict())
    assert [group["codec"] for group in optimizer.param_groups] == ["root", "root"]


def test_what_groups_share_is_shared_after_loading():
    params = [tensor((10,), seed=i).requires_grad_() for i in range(2)]
    lr = torch.tensor(0.1)
    optimizer = optim8.AdamW([{"params": [p], "lr": lr} for p in params])
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] is rates[1] is not lr


def test_a_hook_that_changes_the_dict_does_not_change_the_callers():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    saved = {**optimizer.state_dict(), "extra": 1}
    optimizer.register_load_state_dict_pre_hook(
        lambda _, state_dict: state_dict.pop("extra") and None
    )
    optimizer.load_state_dict(saved)
    assert saved["extra"] == 1


@pytest.mark.parametrize("cls", [optim8.AdamW, optim8.SGD])
def test_a_state_that_is_no_dict_is_refused(cls):
    optimizer, _ = stepped(cls, [(10,)])
    saved = optimizer.state_dict()
    saved["state"][0] = [1]
    with pytest.raises(TypeError, match="parameter 0: state is list, expected dict"):
        optimizer.load_state_dict(saved)


def test_zeros_of_second_moments_stay_zeros_where_states_are_converted():
    p = tensor((5000,)).requires_grad_()
    theirs = torch.optim.AdamW([p])
    p.grad = tensor((5000,), seed=1)
    p.grad[::7] = 0.0
    theirs.step()
    ours = optim8.AdamW([p.detach().clone().requires_grad_()])
    ours.load_state_dict(theirs.state_dict())
    [q] = ours.param_groups[0]["params"]
    found = optim8.dequantize_state(ours, q)["exp_avg_sq"]
    assert torch.equal(found == 0, theirs.state[p]["exp_avg_sq"] == 0)


def test_a_step_that_is_infinite_is_refused():
    optimizer, _ = stepped(optim8.AdamW, [(10,)])
    saved = optimizer.state_dict()
    saved["state"][0]["step"] = torch.tensor(float("inf"))
    with pytest.raises(ValueError, match="step of parameter 0 is inf"):
        optimizer.load_state_dict(saved)


def test_adamw_stays_adamw_whatever_it_loads():
    for package in (torch.optim, optim8):
        adam, _ = stepped(package.Adam, [(10,)], weight_decay=0.1)
        for name in ("AdamW", "Adam"):
            other = getattr(optim8, name)([torch.zeros(10, requires_grad=True)])
            other.load_state_dict(adam.state_dict())
            is_decoupled = name == "AdamW"
            assert other.param_groups[0]["decoupled_weight_decay"] is is_decoupled


@pytest.mark.parametrize("cls", TORCH_CLASSES, ids=lambda cls: cls.__name__)
def test_state_dicts_of_older_torch_lack_what_came_later(cls):
    """`__setstate__` of each of torch's classes sets the same names."""
    later = {"maximize", "foreach", "fused", "capturable", "differentiable"}
    later |= {"decoupled_weight_decay"} | ({"nesterov"} if cls is optim8.SGD else set())
    saved = TORCH_CLASSES[cls]([torch.zeros(3)], lr=0.5).state_dict()
    saved["param_groups"] = [
        {name: value for name, value in group.items() if name not in later}
        for group in saved["param_groups"]
    ]
    ours = cls([torch.zeros(3)], maximize=True)
    ours.load_state_dict(saved)
    assert (ours.param_groups[0]["lr"], ours.param_groups[0]["maximize"]) == (0.5, True)


def test_full_states_of_float16_are_loaded():
    optimizer, _ = stepped(optim8.AdamW, [(10,)])
    saved = copy.deepcopy(optimizer.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        saved["state"][0][name] = (saved["state"][0][name] * 0).half()
    optimizer.load_state_dict(saved)
    [p] = optimizer.param_groups[0]["params"]
    assert optimizer.state[p]["exp_avg"].dtype == torch.float32
    assert not optimizer.state[p]["exp_avg"].any()
