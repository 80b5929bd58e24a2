"""The 8-bit step: right to float64 references, and torch's conventions around it."""

import copy
import gc
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import optim8
from optim8 import _native
from reference import blocks_of
from specs import SPECS, accepted, assert_same, by_rule, snapshot, step, stepped, tensor

SPEC = pytest.mark.parametrize("spec", SPECS, ids=by_rule)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EPSILON = {torch.float32: 6e-7, torch.float64: 1e-9, torch.bfloat16: 2**-8, torch.float16: 2**-10}
SMALL = {"min_quantized_numel": 0}


def check_quantized(state, name, expected, signed, codec, block_size, stochastic):
    """Scales are the blocks' maxima; values are neighbours of what they stand for, zero is zero."""
    codebook = optim8.codebook(codec, signed).double().numpy()
    table = np.unique(codebook)
    codes = state[f"{name}_codes"].numpy().reshape(-1).astype(int)
    scales = state[f"{name}_scales"].double().numpy().reshape(-1)
    expected = expected.reshape(-1)
    for block, scale in zip(
        blocks_of(state[f"{name}_codes"].shape, block_size), scales, strict=True
    ):
        values = expected[block]
        np.testing.assert_allclose(scale, np.abs(values).max(), rtol=1e-6)
        if scale == 0:
            continue
        y = np.clip(values / scale, table[0], 1)
        upper = np.clip(np.searchsorted(table, y, side="left"), 1, len(table) - 1)
        low, high = table[upper - 1], table[upper]
        found = codebook[codes[block]]
        slack = 1e-6 * np.abs(y) + 1e-12
        if stochastic:
            assert np.all(
                (found >= low - slack) & (found <= high + slack) | (np.abs(found - y) < slack)
            )
        else:
            assert np.all(np.abs(found - y) <= (high - low) / 2 + slack)
        assert np.all(found[values == 0] == 0)
        if not signed and stochastic:
            assert np.all(found[values > 0] > 0)


@SPEC
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("codec", _native.CODECS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_steps_are_those_of_the_reference(spec, dtype, codec, rounding):
    """Each step from the stored states, whose values are known, to the next."""
    lr = 1e-2
    hyper = {**accepted(spec.cls, lr=lr, weight_decay=0.1, eps=1e-8), **spec.kwargs}
    p = tensor((5, 70), dtype, scale=0.1).requires_grad_()
    optimizer = spec.cls([p], **hyper, **SMALL, codec=codec, block_size=64, state_rounding=rounding)
    group = optimizer.param_groups[0]
    # The numbers that a rule carries from step to step are float32 whatever the parameter is.
    carried = 2**-24 if _native.RULES[spec.rule]["scalars"] else 0
    epsilon = max(EPSILON[dtype], carried)
    for n in range(1, 5):
        before = {
            name: p.detach().double().numpy().copy()
            if kind == "copy"
            else np.full(p.shape, np.float32(optimizer._initial(group).get(name, 0.0)))
            for name, kind in spec.kinds.items()
        }
        if n > 1:
            before = {
                k: v.double().numpy() for k, v in optim8.dequantize_state(optimizer, p).items()
            }
        start = p.detach().double().numpy().copy()
        p.grad = tensor(p.shape, dtype, seed=n, scale=0.1 ** (n % 3))
        p.grad[0, :5] = 0
        optimizer.step()
        names = optimizer._hyper(spec.rule, group)
        expected, states = spec.reference(start, p.grad.double().numpy(), before, n, names)
        error = np.abs(p.detach().double().numpy() - expected)
        size = np.abs(expected) + np.abs(expected - start) + lr
        assert np.all(error <= epsilon * size), (error / size).max()
        for name, value in states.items():
            stochastic = rounding == "stochastic"
            if spec.kinds[name] == "copy":
                error = np.abs(optimizer.state[p][name].double().numpy() - value)
                assert np.all(error <= epsilon * (np.abs(value) + lr))
                continue
            signed = spec.kinds[name] == "signed"
            kept = np.sign(value) if name in spec.signs else value
            check_quantized(optimizer.state[p], name, kept, signed, codec, 64, stochastic)
        assert optimizer.state[p]["step"] == n


@SPEC
@pytest.mark.parametrize("codec", _native.CODECS)
def test_an_element_without_gradient_never_moves(spec, codec):
    p = tensor((4, 2000)).requires_grad_()
    start = p.detach().clone()
    kwargs = {**spec.kwargs, **accepted(spec.cls, weight_decay=0.0)}
    optimizer = spec.cls([p], **kwargs, codec=codec)
    for n in range(30):
        p.grad = tensor(p.shape, seed=n)
        p.grad[1:3, 500:1500] = 0
        optimizer.step()
    assert torch.equal(p.detach()[1:3, 500:1500], start[1:3, 500:1500])
    # Steps of one length may lead back to the start.
    assert (p.detach()[0] != start[0]).float().mean() > 0.8


MAKERS = {
    by_rule(spec): partial(spec.cls, **{**spec.kwargs, **accepted(spec.cls, weight_decay=0.0)})
    for spec in SPECS
} | {
    "Muon": partial(optim8.Muon, weight_decay=0.0),
    "Graft": lambda params, **options: optim8.Graft(
        optim8.SGD(params, momentum=0.9, **options),
        optim8.AdamW(params, weight_decay=0.0, **options),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=10)
@given(
    seen=st.sets(st.integers(0, 39), min_size=1),
    width=st.sampled_from([24, 300]),
    block_size=st.sampled_from([32, 256]),
    state_bits=st.sampled_from([8, 32]),
)
def test_padding_and_tokens_never_seen_do_not_move(name, seen, width, block_size, state_bits):
    embedding = nn.Embedding(40, width, padding_idx=7)
    start = embedding.weight.detach().clone()
    options = {"min_quantized_numel": 0, "block_size": block_size, "state_bits": state_bits}
    optimizer = MAKERS[name]([embedding.weight], **options)
    tokens = torch.tensor([*seen, 7])
    for n in range(5):
        optimizer.zero_grad()
        (embedding(tokens) * tensor((len(tokens), width), seed=n)).sum().backward()
        optimizer.step()
    moved = (embedding.weight.detach() != start).any(1)
    assert set(moved.nonzero().flatten().tolist()) == seen - {7}


VIEWS = {
    "transposed": lambda: tensor((60, 80)).t(),
    "strided": lambda: tensor((80, 120))[:, ::2],
    "channels_last": lambda: tensor((4, 10, 12, 10)).to(memory_format=torch.channels_last),
    "offset": lambda: tensor((4801,))[1:].view(60, 80),
    "unaligned_bytes": lambda: torch.frombuffer(
        bytearray(4 * 4800 + 1), dtype=torch.float32, offset=1, count=4800
    ).view(60, 80),
    "single_row": lambda: tensor((1, 4800)),
}


@SPEC
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("grad", ["same", "contiguous", "expanded", "transposed"])
def test_strides_change_nothing(spec, view, grad):
    make = {
        "same": lambda p, g: torch.empty_like(p).copy_(g),
        "contiguous": lambda _, g: g,
        "expanded": lambda p, g: g.select(0, 0).expand(p.shape),
        "transposed": lambda _, g: g.transpose(0, -1).contiguous().transpose(0, -1),
    }[grad]
    ours = VIEWS[view]().requires_grad_()
    plain = ours.detach().contiguous().clone().requires_grad_()
    optimizers = [spec.cls([p], **spec.kwargs) for p in (ours, plain)]
    for n in range(2):
        ours.grad = make(ours.detach(), tensor(ours.shape, seed=n))
        plain.grad = ours.grad.contiguous().clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(ours, plain)
    assert_same(*map(snapshot, optimizers))


def test_mixed_dtypes_sizes_and_groups_in_one_optimizer():
    shapes = [(), (0,), (0, 7), (1,), (4096,), (5000,), (3, 1500)]
    params = [tensor(s, d, i).requires_grad_() for d in DTYPES for i, s in enumerate(shapes)]
    groups = [
        {"params": params[:9]},
        {"params": params[9:20], "block_size": 64, "lr": 0.1},
        {"params": params[20:], "state_bits": 32, "codec": "root"},
    ]
    optimizer = optim8.AdamW(groups, lr=1e-2)
    step(optimizer, 2)
    for group in optimizer.param_groups:
        for p in group["params"]:
            quantized = group["state_bits"] == 8 and p.numel() >= 4096
            assert ("exp_avg_codes" in optimizer.state[p]) == quantized
            assert ("exp_avg" in optimizer.state[p]) == (not quantized)
    # Each parameter steps as it would in an optimizer of its own: same seed, same index.
    for number in (5, 12, 27):
        alone = [tensor(p.shape, p.dtype, number % 7).requires_grad_() for p in params]
        group = {**groups[(number > 8) + (number > 19)], "params": alone}
        single = optim8.AdamW([group], lr=1e-2)
        for n in range(2):
            alone[number].grad = tensor(
                params[number].shape, params[number].dtype, 1000 * (n + 1) + number
            )
            single.step()
        assert torch.equal(alone[number], params[number])


def test_parameters_without_gradient_are_left_alone():
    p, q = tensor((5000,)).requires_grad_(), tensor((5000,)).requires_grad_()
    optimizer = optim8.AdamW([p, q])
    q.grad = torch.ones_like(q)
    optimizer.step()
    assert p not in optimizer.state
    assert torch.equal(p, tensor((5000,)))
    assert q in optimizer.state


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("codec", _native.CODECS)
def test_nonfinite_gradients_stay_in_their_block(bad, codec):
    optimizer, [p] = stepped(optim8.AdamW, [(8, 1024)], codec=codec)
    clean, [q] = stepped(optim8.AdamW, [(8, 1024)], codec=codec)
    for n in range(2):
        q.grad = tensor(q.shape, seed=n)
        p.grad = q.grad.clone()
        if n == 0:
            p.grad[2, 300] = bad
        optimizer.step()
        clean.step()
    here = torch.zeros(p.shape, dtype=torch.bool)
    here[2, 256:512] = True
    assert torch.equal(p[~here], q[~here])
    for name, value in optim8.dequantize_state(clean, q).items():
        ours = optim8.dequantize_state(optimizer, p)[name]
        assert torch.equal(ours[~here], value[~here])
        assert not bool(ours[here].isfinite().any())
    assert not bool(p[2, 300].isfinite())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("state_bits", [8, 32])
def test_skip_leaves_blocks_as_they_were_and_counts_them(dtype, state_bits):
    optimizer, [p] = stepped(
        optim8.AdamW,
        [(8, 1024)],
        dtype=dtype,
        lr=1.0,
        nonfinite="skip",
        state_bits=state_bits,
    )
    before = snapshot(optimizer)
    p.grad = tensor(p.shape, dtype, seed=9)
    p.grad[2, 300] = float("nan")
    p.grad[5, 1000] = float("inf")
    optimizer.step()
    assert optimizer.skipped_blocks == 2
    here = torch.zeros(p.shape, dtype=torch.bool)
    here[2, 256:512] = here[5, 768:] = True
    assert torch.equal(p[here], before["params"][0][here])
    assert bool((p[~here] != before["params"][0][~here]).float().mean() > 0.5)
    for name, value in before["states"][0].items():
        if not name.endswith("_scales") and name != "step":
            assert torch.equal(optimizer.state[p][name][here], value[here])
    assert bool(p.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_skip_leaves_blocks_whose_second_moments_would_overflow(dtype):
    optimizer, [p] = stepped(optim8.AdamW, [(8, 1024)], dtype=dtype, nonfinite="skip")
    before = p.detach().clone()
    p.grad = tensor(p.shape, dtype, seed=9)
    p.grad[2, 300] = -1e21
    optimizer.step()
    assert optimizer.skipped_blocks == 1
    assert torch.equal(p[2, 256:512], before[2, 256:512])
    assert bool(p.isfinite().all())


def test_closure_hooks_and_schedulers():
    p = torch.ones(3, requires_grad=True)
    optimizer = optim8.AdamW([p], lr=0.1)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)

    def closure():
        calls.append("closure")
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss == 3
    assert calls == ["pre", "closure", "post"]
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.05
    before = p.detach().clone()
    optimizer.step()
    assert (before - p).abs().max() < 0.06


def test_a_profiler_sees_steps_and_nobody_else_pays_for_it(monkeypatch):
    optimizer, _ = stepped(optim8.AdamW, [(10,)])
    with torch.autograd.profiler.profile() as profile:
        step(optimizer)
    names = [event.name for event in profile.function_events]
    assert names.count("Optimizer.step#AdamW.step") == 1
    monkeypatch.delattr(torch.autograd.profiler, "record_function")
    step(optimizer)


def test_a_trace_of_execution_has_the_step(tmp_path):
    optimizer, _ = stepped(optim8.AdamW, [(10,)])
    observer = torch.profiler.ExecutionTraceObserver()
    observer.register_callback(str(tmp_path / "trace.json"))
    observer.start()
    step(optimizer)
    observer.stop()
    observer.unregister_callback()
    assert "Optimizer.step#AdamW.step" in (tmp_path / "trace.json").read_text()


@pytest.mark.parametrize("register", ["own", "of all"])
def test_a_hook_that_the_closure_adds_runs_after_the_step(register):
    optimizer, [p] = stepped(optim8.AdamW, [(10,)])
    calls, handles = [], []

    def closure():
        add = optimizer.register_step_post_hook
        add = add if register == "own" else register_optimizer_step_post_hook
        handles.append(add(lambda *_: calls.append("post")))
        return (p**2).sum()

    optimizer.step(closure)
    handles[0].remove()
    optimizer.step()
    assert calls == ["post"]


def test_tensor_lr_is_read_at_each_step():
    lr = torch.tensor(0.0)
    optimizer, [p] = stepped(optim8.AdamW, [(10,)], lr=lr)
    assert torch.equal(p, tensor((10,)))
    lr.fill_(0.1)
    step(optimizer)
    assert not torch.equal(p, tensor((10,)))


def test_autograd_sees_the_change():
    p = torch.ones(3, requires_grad=True)
    loss = (p**2).sum()
    loss.backward(retain_graph=True)
    optim8.AdamW([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_shared_memory_is_refused_and_nothing_is_changed():
    base = torch.ones(10)
    p, q = base[:6].requires_grad_(), base[5:].requires_grad_()
    p.grad, q.grad = torch.ones(6), torch.ones(5)
    optimizer = optim8.AdamW([p, q])
    with pytest.raises(RuntimeError, match="share memory"):
        optimizer.step()
    overlapping = torch.ones(1).expand(4).requires_grad_()
    overlapping.grad = torch.ones(4)
    optimizer.add_param_group({"params": [overlapping]})
    q.grad = None
    with pytest.raises(RuntimeError, match=r"parameter 2.*single memory location"):
        optimizer.step()
    assert bool((base == 1).all())
    assert len(optimizer.state) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("codec", "root"), ("block_size", 64), ("state_bits", 32), ("min_quantized_numel", 10**6)],
)
def test_the_form_of_states_cannot_change_under_them(option, value):
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    before = snapshot(optimizer)["states"]
    optimizer.param_groups[0][option] = value
    with pytest.raises(ValueError, match=f"{option} of parameter group 0 was .* found {value!r}"):
        optimizer.step()
    assert all(
        torch.equal(optimizer.state[p][k], v)
        for p, s in zip(optimizer.state, before, strict=True)
        for k, v in s.items()
    )


def test_other_options_may_change():
    def codes_after(**options):
        optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
        optimizer.param_groups[0].update(options)
        step(optimizer)
        return optimizer.state[p]["exp_avg_codes"]

    plain, seeded = codes_after(), codes_after(seed=7)
    nearest, nearest_seeded = (
        codes_after(state_rounding="nearest", **options) for options in ({}, {"seed": 7})
    )
    assert not torch.equal(plain, seeded)
    assert not torch.equal(plain, nearest)
    assert torch.equal(nearest, nearest_seeded)

    optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
    optimizer.param_groups[0]["nonfinite"] = "skip"
    p.grad[300] = float("nan")
    optimizer.step()
    assert optimizer.skipped_blocks == 1
    assert bool(p.isfinite().all())


def test_dequantized_states():
    optimizer, [p, q, r] = stepped(optim8.Adam, [(5000,), (10,), (3, 2000)], dtype=torch.bfloat16)
    for param in (p, q, r):
        states = optim8.dequantize_state(optimizer, param)
        assert list(states) == ["exp_avg", "exp_avg_sq"]
        assert all(s.dtype == torch.float32 and s.shape == param.shape for s in states.values())
    states["exp_avg"].zero_()
    assert bool(optim8.dequantize_state(optimizer, r)["exp_avg"].any())
    with pytest.raises(ValueError, match="not in the optimizer"):
        optim8.dequantize_state(optimizer, torch.zeros(3))
    optimizer.add_param_group({"params": [torch.zeros(3)]})
    assert optim8.dequantize_state(optimizer, optimizer.param_groups[1]["params"][0]) == {}


def test_state_bytes_per_parameter():
    optimizer, [p] = stepped(optim8.AdamW, [(1024, 1024)], n_steps=1)
    assert optimizer.state_nbytes() / p.numel() < 2.04


def test_fifty_thousand_tiny_tensors():
    params = [torch.full((2,), 1.0, requires_grad=True) for _ in range(50_000)]
    for p in params:
        p.grad = torch.ones(2)
    optimizer = optim8.AdamW(params, lr=0.1, weight_decay=0.0)
    optimizer.step()
    optimizer.step()
    torch.testing.assert_close(
        torch.stack([p.detach() for p in params]), torch.full((50_000, 2), 0.8)
    )


@pytest.fixture(params=["dtype", "device"])
def other_default(request):
    """Make float64 the default dtype of torch, or another device than the CPU its default."""
    if request.param == "dtype":
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)
    else:
        with torch.device("meta"):
            yield


@pytest.mark.usefixtures("other_default")
def test_defaults_of_torch_do_not_matter():
    p, q = (torch.ones(n, dtype=torch.float32, device="cpu").requires_grad_() for n in (5000, 10))
    p.grad, q.grad = p.detach().clone(), q.detach().clone()
    optimizer = optim8.AdamW([p, q])
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    tensors = [*optimizer.state[p].values(), *optim8.dequantize_state(optimizer, p).values()]
    quantized = optim8.quantize(p)
    tensors += [quantized.scales, quantized.dequantize(), optim8.codebook("root", signed=True)]
    assert all(t.device.type == "cpu" for t in tensors)
    assert {t.dtype for t in tensors} == {torch.float32, torch.uint8}


@pytest.mark.parametrize(
    "grad",
    [
        torch.complex(torch.zeros(50), torch.ones(50)).conj().imag,
        torch.complex(torch.tensor(0.0), torch.tensor(1.0)).conj().imag,
    ],
    ids=["vector", "scalar"],
)
def test_gradients_of_the_other_sign_are_refused(grad):
    p = torch.zeros(grad.shape, requires_grad=True)
    p.grad = grad
    assert p.grad.is_neg()
    with pytest.raises(RuntimeError, match=r"gradient of parameter 0: is_neg.*resolve_neg"):
        optim8.AdamW([p]).step()


def test_states_that_are_no_tensors_are_refused():
    optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
    optimizer.state[p]["step"] = 5
    with pytest.raises(TypeError, match=r"step of parameter 0: found int where a torch.Tensor"):
        optimizer.step()


@pytest.mark.parametrize("kept", [0, 1, 2, 6, 8])
def test_more_or_fewer_tensors_than_the_rule_takes_are_refused(kept):
    optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
    state = optimizer.state[p]
    tensors = [p, p.grad, *(state[key] for key in ("step", *sorted(state.keys() - {"step"})))]
    rule = dict.fromkeys(_native.RULES["adamw"]["hyper"], 0.5)
    options = optimizer._options_of(0, optimizer.param_groups[0])
    rows = [(7, *tensors), (8, *[*tensors, state["step"].clone()][:kept])]
    expected = rf"parameter 8: {max(kept - 2, 0)} scalars and states where 3 .* or 5 .* expected"
    with pytest.raises(ValueError, match=expected):
        _native.check_step([("adamw", rule, options, rows)])
    _native.check_step([("adamw", rule, options, rows[:1])])


def test_parameters_that_share_memory_are_found_behind_one_that_shares_none():
    """A column reaches over all rows, and meets none of those that begin after it."""
    memory = torch.zeros(100, 64)
    params = [memory[:, 0], memory[1, 1:], memory[1, 1:]]
    params = [p.requires_grad_() for p in params]
    for p in params:
        p.grad = torch.ones(p.shape)
    with pytest.raises(RuntimeError, match=r"parameter 1.*parameter 2|parameter 2.*parameter 1"):
        optim8.SGD(params).step()
    assert not bool(memory.any())
    optim8.SGD(params[:2]).step()


def test_a_refused_step_leaves_no_states_of_a_switch_behind():
    optimizer, params = stepped(optim8.SGD, [(5000,), (6000,)])
    optimizer.param_groups[0]["momentum"] = 0.9
    params[1].grad = params[1].grad.to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()
    assert [[*state] for state in optimizer.state.values()] == [["step"], ["step"]]


OTHER_OPTIONS = [
    {"seed": 7},
    {"state_rounding": "nearest"},
    {"param_rounding": "stochastic"},
    {"nonfinite": "skip"},
]


def step_with_nan(optimizer):
    """Step with a gradient of which one block has a NaN."""
    for p in optimizer.param_groups[-1]["params"]:
        p.grad = tensor(p.shape, p.dtype, seed=9)
        p.grad[300] = float("nan")
    optimizer.step()


@pytest.mark.parametrize("option", OTHER_OPTIONS, ids=str)
def test_an_option_of_a_group_is_as_if_given_to_all(option):
    def run(in_group, to_all):
        params = [tensor((5000,), torch.bfloat16).requires_grad_()]
        optimizer = optim8.AdamW([{"params": params, **in_group}], **to_all)
        step_with_nan(optimizer)
        return snapshot(optimizer)

    assert_same(run(option, {}), run({}, option))
    with pytest.raises(AssertionError):
        assert_same({**run({}, {}), "groups": []}, {**run(option, {}), "groups": []})


@pytest.mark.parametrize("option", OTHER_OPTIONS, ids=str)
def test_an_option_that_is_changed_counts_from_the_next_step_on(option):
    optimizer, _ = stepped(optim8.AdamW, [(5000,)], dtype=torch.bfloat16)
    unchanged, fresh = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
    for one in (optimizer, fresh):
        one.param_groups[0].update(option)
    for one in (optimizer, fresh, unchanged):
        step_with_nan(one)
    assert_same(snapshot(optimizer), snapshot(fresh))
    with pytest.raises(AssertionError):
        assert_same({**snapshot(optimizer), "groups": []}, {**snapshot(unchanged), "groups": []})


def test_skipped_blocks_are_counted_over_all_steps():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)], nonfinite="skip")
    for n in range(3):
        assert optimizer.skipped_blocks == n
        step_with_nan(optimizer)
    step(optimizer)
    assert optimizer.skipped_blocks == 3


def test_autograd_sees_the_change_of_every_parameter():
    params = [torch.ones(3, requires_grad=True) for _ in range(3)]
    versions = [p._version for p in params]
    for p in params[::2]:
        p.grad = torch.ones(3)
    optim8.AdamW(params).step()
    changed = [p._version > version for p, version in zip(params, versions, strict=True)]
    assert changed == [True, False, True]


def test_what_an_optimizer_knows_of_groups_that_are_taken_out_goes():
    optimizer, [p] = stepped(optim8.AdamW, [(5000,)])
    for _ in range(3):
        gone = torch.zeros(10, requires_grad=True)
        optimizer.add_param_group({"params": [gone]})
        del optimizer.param_groups[-1]
    alive = weakref.ref(gone)
    del gone
    optimizer.add_param_group({"params": [torch.zeros(10, requires_grad=True)]})
    gc.collect()
    assert alive() is None
    assert optimizer.state[p]["step"] == 3


def test_options_may_change_where_states_were_only_looked_for():
    """`optimizer.state[p]` makes an empty dict, as in torch."""
    p = torch.zeros(5000, requires_grad=True)
    optimizer = optim8.AdamW([p])
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state[p] == {}
    optimizer.param_groups[0]["block_size"] = 64
    step(optimizer)
    assert optimizer.state[p]["exp_avg_scales"].numel() == 79


def test_an_option_for_all_is_checked_though_every_group_has_its_own():
    for option in ({"state_bits": 4}, {"block_size": 100}, {"nonfinite": "x"}):
        good = {"state_bits": 8, "block_size": 64, "nonfinite": "skip"}
        with pytest.raises(ValueError, match=r"state_bits|power of two|nonfinite"):
            optim8.AdamW([{"params": [torch.ones(2)], **good}], **option)


@pytest.mark.parametrize("start", [0, 5000])
@pytest.mark.parametrize("what", ["param", "grad", "state"])
def test_views_of_an_emptied_storage_are_refused(start, what):
    """What torch gives for an address is the offset within nothing."""
    flat = torch.ones(10000)
    view = flat[start : start + 5000]
    p = torch.nn.Parameter(view if what == "param" else torch.ones(5000))
    p.grad = view if what == "grad" else torch.ones(5000)
    optimizer = optim8.SGD([p], momentum=0.9, state_bits=32)
    optimizer.step()
    if what == "state":
        optimizer.state[p]["momentum_buffer"] = view
    flat.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match="parameter 0: null data pointer for 5000 elements"):
        optimizer.step()


def test_rows_that_change_while_they_are_read_keep_their_tensors():
    optimizer, [p] = stepped(optim8.SGD, [(3_000_000,)], momentum=0.9)
    calls = []
    optimizer._call = lambda groups, n_threads: calls.append(groups) or 0
    optimizer.step()
    [(rule, hyper, options, rows)] = calls[0]
    state = rows[0][3:]

    class Index:
        def __index__(self):
            rows.clear()
            return 1

    rows.append((Index(), torch.zeros(5), torch.ones(5), *state))
    rows[0] = (0, torch.zeros_like(p), torch.ones_like(p), *(t.clone() for t in state))
    with pytest.raises(ValueError, match="momentum_buffer_codes of parameter 1: shape"):
        _native.step([(rule, hyper, options, rows)], 1)
    assert rows == []


@pytest.mark.parametrize("cls", [optim8.AdamW, optim8.SGD, optim8.Muon])
@pytest.mark.parametrize(
    "lr", [torch.tensor([0.1, 0.2]), np.array([0.1, 0.2]), torch.ones(1, device="meta")], ids=str
)
def test_a_number_of_several_elements_is_named(cls, lr):
    p = torch.nn.Parameter(torch.ones(80, 80))
    with pytest.raises(ValueError, match=r"lr is (tensor|array)\(.*expected a number"):
        cls([{"params": [p], "lr": lr}])


def load(optimizer, **entries):
    saved = optimizer.state_dict()
    saved["param_groups"][0].update(entries)
    optimizer.load_state_dict(saved)


def change(optimizer, **entries):
    optimizer.param_groups[0].update(entries)
    optimizer.step()


@pytest.mark.parametrize(
    "use",
    [
        lambda optimizer, **bad: optim8.LAMB([torch.nn.Parameter(torch.ones(3))], **bad),
        lambda optimizer, **bad: optimizer.add_param_group({"params": [], **bad}),
        load,
        change,
    ],
    ids=["made", "added", "loaded", "changed"],
)
def test_lamb_clips_to_what_is_above_zero(use):
    optimizer, _ = stepped(optim8.LAMB, [(5000,)])
    with pytest.raises(ValueError, match="Invalid max_grad_norm value: 0"):
        use(optimizer, max_grad_norm=0)
