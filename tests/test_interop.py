"""Moving in from torch's optimizers, in the middle of training."""

import copy

import pytest
import torch

import optim8
from specs import SPECS, assert_same, by_rule, needs_names, snapshot, step, stepped, tensor

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


@needs_names
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


@pytest.mark.parametrize("spec", TORCH_SPECS, ids=by_rule)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_there_and_back_to_torch(spec, dtype):
    """With full states torch goes on as we would have, and what was quantized is so again."""
    params = [tensor(s, dtype, i).requires_grad_() for i, s in enumerate([(70, 80), (5,)])]
    ours = spec.cls(params, lr=0.1, **spec.kwargs)
    step(ours, 3)
    saved = optim8.interop.to_torch_state_dict(ours)
    copies = [p.detach().clone().requires_grad_() for p in params]
    theirs = spec.torch_cls(copies)
    theirs.load_state_dict(saved)
    assert {*theirs.param_groups[0]} == {*spec.torch_cls([torch.zeros(1)]).param_groups[0]}
    again = spec.cls([p.detach().clone().requires_grad_() for p in params])
    again.load_state_dict(saved)
    for p, q in zip(params, again.param_groups[0]["params"], strict=True):
        left, right = (optim8.dequantize_state(o, x) for o, x in ((ours, p), (again, q)))
        for name, value in left.items():
            # The least value of a block is no code of its own, so its scale may change.
            torch.testing.assert_close(
                right[name], value, rtol=0.03, atol=0.01 * value.max().item()
            )
    step(theirs)
    step(ours)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(copies[1], params[1], rtol=tolerance, atol=tolerance)
    change = (copies[0] - params[0]).detach().abs().max()
    assert change <= tolerance * (1 + params[0].detach().abs().max())


def test_what_torch_lacks_stays():
    with pytest.raises(TypeError, match=r"torch\.optim has no Lion"):
        optim8.interop.to_torch_state_dict(optim8.Lion([torch.zeros(1)]))


# Both directions against the real library. Its steps never quantize to zero, so only what is stored
# is compared.
BITSANDBYTES = [
    ("Adam", {}),
    ("AdamW", {}),
    ("Lion", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("RMSprop", {}),
    ("Adagrad", {}),
    ("LAMB", {}),
    ("LARS", {"lr": 0.1, "momentum": 0.9}),
    ("AdEMAMix", {}),
]


# Most of its state dicts come from GPUs, whose kernels are other code than those of the CPU.
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize(("name", "kwargs"), BITSANDBYTES, ids=[n for n, _ in BITSANDBYTES])
@pytest.mark.parametrize("shape", [(16, 512), (30, 300), (9000,), (10,)], ids=str)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.filterwarnings("ignore")  # it tells of the GPU that it would rather have
def test_there_and_back_to_bitsandbytes(name, kwargs, shape, device):
    bitsandbytes = pytest.importorskip("bitsandbytes")  # Python 3.10 has no pinned one
    if device == "cuda" and name in ("LAMB", "LARS"):
        pytest.skip("bitsandbytes 0.50.2 refuses to step these on a GPU")
    param = tensor(shape).to(device).requires_grad_()
    theirs = getattr(bitsandbytes.optim, f"{name}8bit")([param], **kwargs)
    step(theirs, 3)
    saved = copy.deepcopy(theirs.state_dict())
    ours = getattr(optim8, name)([param.detach().cpu().clone().requires_grad_()], lr=7.0)
    ours.load_state_dict(saved)
    group = ours.param_groups[0]
    assert group["lr"] == theirs.param_groups[0]["lr"]
    p = group["params"][0]
    held = saved["state"][0]["__bnb_optimizer_quant_state__"]
    n_blocks = -(-p.numel() // 256)
    values = {}
    for number in (1, 2):
        if f"state{number}" in held:
            value = held[f"state{number}"].double()
            if p.numel() >= 4096:
                table = held[f"qmap{number}"].double()
                scales = held[f"absmax{number}"].double().reshape(-1, n_blocks)
                scales = scales.repeat_interleave(256, 1)[:, : p.numel()]
                value = table[held[f"state{number}"].long()].reshape(len(scales), -1) * scales
            values[number] = value.reshape(-1, *shape).cpu()
    expected = torch.cat(list(values.values()))
    is_same_layout = shape != (30, 300) and name not in ("RMSprop", "Adagrad")
    for found, wanted in zip(optim8.dequantize_state(ours, p).values(), expected, strict=True):
        atol = 0 if is_same_layout else 0.02 * wanted.abs().max().item()
        rtol = 1e-6 if is_same_layout else 0.05
        torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=atol)
    step(ours, 2)

    back = optim8.interop.to_bitsandbytes_state_dict(ours)
    again = getattr(bitsandbytes.optim, f"{name}8bit")(
        [p.detach().clone().to(device).requires_grad_()], **{**kwargs, "lr": 7.0}
    )
    again.load_state_dict(copy.deepcopy(back))
    assert again.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert again.state[again.param_groups[0]["params"][0]]["step"] == 5
    step(again)
    reloaded = getattr(optim8, name)([p.detach().clone().requires_grad_()])
    reloaded.load_state_dict(back)
    q = reloaded.param_groups[0]["params"][0]
    for found, wanted in zip(
        optim8.dequantize_state(reloaded, q).values(),
        optim8.dequantize_state(ours, p).values(),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.02 * wanted.abs().max().item())


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Lion", "SGD"])
@pytest.mark.filterwarnings("ignore")
def test_weight_decay_goes_on_as_in_bitsandbytes(name):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    arguments = {"lr": 0.1, "weight_decay": 0.5, **({"momentum": 0.9} if name == "SGD" else {})}
    theirs = getattr(bitsandbytes.optim, name)([tensor((300,)).requires_grad_()], **arguments)
    step(theirs, 3)
    param = theirs.param_groups[0]["params"][0]
    ours = getattr(optim8, name)([param.detach().clone().requires_grad_()])
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for optimizer in (ours, theirs):
        step(optimizer, 3, seed=7)
    torch.testing.assert_close(ours.param_groups[0]["params"][0], param, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "later"),
    [("AdamW", {"amsgrad": True}), ("RMSprop", {"momentum": 0.9}), ("SGD", {"momentum": 0.9})],
)
def test_states_of_a_switch_go_to_torch_before_the_step_that_makes_them(name, later):
    params = [tensor((50, 3)).requires_grad_()]
    ours = getattr(optim8, name)(params)
    theirs = getattr(torch.optim, name)([p.detach().clone().requires_grad_() for p in params])
    step(ours, 2)
    ours.param_groups[0].update(later)
    theirs.load_state_dict(optim8.interop.to_torch_state_dict(ours))
    theirs.param_groups[0]["params"][0].data.copy_(params[0])
    for optimizer in (ours, theirs):
        step(optimizer, 2, seed=5)
    torch.testing.assert_close(params[0], theirs.param_groups[0]["params"][0])


def test_flat_state_dicts_of_older_bitsandbytes():
    p = tensor((16, 512)).requires_grad_()
    ours = optim8.AdamW([p])
    step(ours, 2)
    saved = optim8.interop.to_bitsandbytes_state_dict(ours)
    nested = saved["state"][0].pop("__bnb_optimizer_quant_state__")
    saved["state"][0].update(nested)
    other = optim8.AdamW([p.detach().clone().requires_grad_()], maximize=True)
    other.load_state_dict(saved)
    assert other.param_groups[0]["maximize"] is True
    del saved["state"][0]["qmap1"]
    before = snapshot(other)
    with pytest.raises(ValueError, match=r"parameter 0: found states .*; expected state1"):
        other.load_state_dict(saved)
    saved["state"][0]["qmap1"] = nested["qmap1"]
    saved["state"][0]["state1"] = nested["state1"].reshape(512, 16)
    with pytest.raises(ValueError, match="state1 of parameter 0 has shape"):
        other.load_state_dict(saved)
    assert_same(before, snapshot(other))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("optim_bits", "state_bits"),
        ("min_8bit_size", "min_quantized_numel"),
        ("percentile_clipping", "clip_grad_norm_"),
        ("block_wise", "block_size"),
        ("is_paged", "on the CPU already"),
    ],
)
def test_names_of_bitsandbytes_are_answered_with_ours(name, instead):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}': .*{instead}"):
        optim8.AdamW([torch.zeros(1)], **{name: 8})
    with pytest.raises(
        TypeError, match=rf"parameter group has an unexpected '{name}': .*{instead}"
    ):
        optim8.AdamW([{"params": [torch.zeros(1)], name: 8}])


def test_what_bitsandbytes_lacks_stays():
    for optimizer in (
        optim8.NAdam([torch.zeros(1)]),
        optim8.AdamW([torch.zeros(1)], amsgrad=True),
        optim8.RMSprop([torch.zeros(1)], centered=True),
    ):
        with pytest.raises(TypeError, match="to_bitsandbytes_state_dict: "):
            optim8.interop.to_bitsandbytes_state_dict(optimizer)


REFUSED = [
    (optim8.Adam, {"maximize": True}),
    (optim8.Adam, {"weight_decay": 0.1}),
    (optim8.Adam, {"amsgrad": True}),
    (optim8.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim8.SGD, {"momentum": 0.9, "dampening": 0.5}),
    (optim8.SGD, {}),
    (optim8.Adagrad, {"lr_decay": 0.1}),
    (optim8.RMSprop, {"centered": True}),
    (optim8.SGDW, {"momentum": 0.9}),
    (optim8.NAdam, {}),
]


@pytest.mark.parametrize(("cls", "kwargs"), REFUSED, ids=str)
def test_what_bitsandbytes_lacks_does_not_go_there(cls, kwargs):
    optimizer = cls([tensor((10,)).requires_grad_()], lr=0.1, **kwargs)
    with pytest.raises(TypeError, match="to_bitsandbytes_state_dict: found"):
        optim8.interop.to_bitsandbytes_state_dict(optimizer)


def test_what_schedulers_keep_in_groups_goes_along():
    params = [tensor((10,)).requires_grad_()]
    ours = optim8.AdamW(params)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(ours, 1e-2, 10)
    step(ours)
    scheduler.step()
    theirs = torch.optim.AdamW(params)
    there = torch.optim.lr_scheduler.OneCycleLR(theirs, 1e-2, 10)
    theirs.load_state_dict(optim8.interop.to_torch_state_dict(ours))
    there.load_state_dict(scheduler.state_dict())
    step(theirs)
    there.step()
    kept = {"max_lr", "min_lr", "initial_lr"}
    saved = optim8.interop.to_bitsandbytes_state_dict(ours)
    assert kept <= saved["param_groups"][0].keys()
    ours.load_state_dict(saved)
    assert kept <= ours.param_groups[0].keys()
    step(ours)
    scheduler.step()


def test_a_state_dict_of_bitsandbytes_from_before_its_first_step():
    ours = optim8.AdamW([tensor((10,)).requires_grad_()])
    saved = optim8.interop.to_bitsandbytes_state_dict(ours)
    saved["param_groups"][0]["lr"] = 7.0
    ours.load_state_dict(saved)
    assert ours.param_groups[0]["lr"] == 7.0


def test_adagrad_begins_in_torch_where_it_does_here():
    params = [tensor((10,)).requires_grad_()]
    ours = optim8.Adagrad(params, initial_accumulator_value=0.5)
    saved = optim8.interop.to_torch_state_dict(ours)
    assert bool((saved["state"][0]["sum"] == 0.5).all())
    theirs = torch.optim.Adagrad(params)
    theirs.load_state_dict(saved)
    step(theirs)


def test_groups_that_a_converted_optimizer_is_given_later_have_its_defaults():
    theirs = torch.optim.SGD([torch.ones(3, requires_grad=True)], lr=0.5, momentum=0.9)
    twin = optim8.convert(theirs, block_size=64)
    for optimizer in (theirs, twin):
        optimizer.add_param_group({"params": [torch.ones(3, requires_grad=True)]})
    group = twin.param_groups[1]
    assert (group["lr"], group["momentum"], group["block_size"]) == (0.5, 0.9, 64)


def test_states_of_a_switch_that_was_thrown_are_seen_until_they_are_gone():
    optimizer, [p] = stepped(optim8.AdamW, [(5000,)], amsgrad=True)
    names = list(optim8.dequantize_state(optimizer, p))
    assert names == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    optimizer.param_groups[0]["amsgrad"] = False
    assert list(optim8.dequantize_state(optimizer, p)) == names


def test_states_of_a_switch_go_to_torch_in_full():
    optimizer, _ = stepped(optim8.AdamW, [(5000,)])
    optimizer.param_groups[0]["amsgrad"] = True
    saved = optim8.interop.to_torch_state_dict(optimizer)
    twin = torch.optim.AdamW([torch.zeros(5000, requires_grad=True)], amsgrad=True)
    step(twin)
    assert saved["state"][0].keys() == twin.state_dict()["state"][0].keys()


@pytest.mark.parametrize("name", ["SGD", "RMSprop"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_torch_gets_no_state_that_it_does_not_have(name, momentum):
    params = [tensor((50,)).requires_grad_()]
    ours, theirs = (
        getattr(package, name)(params, momentum=momentum) for package in (optim8, torch.optim)
    )
    for optimizer in (ours, theirs):
        step(optimizer)
    found, expected = (
        {i: state.keys() for i, state in saved["state"].items()}
        for saved in (optim8.interop.to_torch_state_dict(ours), theirs.state_dict())
    )
    assert found == expected


FOR_BITSANDBYTES = [
    (optim8.AdamW, {"betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.3}),
    (optim8.SGD, {"momentum": 0.7, "weight_decay": 0.3}),
    (optim8.LARS, {"momentum": 0.7, "weight_decay": 0.3}),
    (optim8.RMSprop, {"alpha": 0.8, "eps": 1e-5}),
    (
        optim8.AdEMAMix,
        {"betas": (0.8, 0.95, 0.99), "alpha": 3.0, "t_alpha": 50.0, "t_beta3": 60.0, "eps": 1e-5},
    ),
]


@pytest.mark.parametrize(("cls", "kwargs"), FOR_BITSANDBYTES, ids=str)
@pytest.mark.parametrize("n_steps", [0, 2])
def test_hyperparameters_come_back_from_bitsandbytes(cls, kwargs, n_steps):
    ours, params = stepped(cls, [(16, 512)], n_steps, lr=0.25, **kwargs)
    saved = optim8.interop.to_bitsandbytes_state_dict(ours)
    first = {"SGD": "momentum", "LARS": "momentum", "RMSprop": "alpha"}.get(cls.__name__)
    if first:
        assert saved["param_groups"][0]["betas"][0] == kwargs[first]
    momentum = {"momentum": 0.5} if first == "momentum" else {}
    other = cls([p.detach().clone().requires_grad_() for p in params], lr=7.0, **momentum)
    other.load_state_dict(saved)
    found = other.param_groups[0]
    assert {name: found[name] for name in ("lr", *kwargs)} == {"lr": 0.25, **kwargs}


def test_a_fresh_state_dict_of_ours_is_not_taken_for_bitsandbytes():
    saved = optim8.AdEMAMix([torch.zeros(5000)]).state_dict()
    other = optim8.AdEMAMix([torch.zeros(5000)])
    other.load_state_dict(saved)
    assert other.param_groups[0]["codec"] == "minifloat"


def of_bitsandbytes(shape, block_size, seed=0):
    """Return a state dict of bitsandbytes' Lion, flat as older versions had it, and its values."""
    numel = torch.Size(shape).numel()
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 256, (numel,), generator=generator, dtype=torch.uint8)
    n_blocks = -(-numel // block_size)
    scales = torch.rand(n_blocks, generator=generator) + 0.5
    table = optim8.codebook("dynamic", signed=True)
    values = table[codes.long()] * scales.repeat_interleave(block_size)[:numel]
    state = {
        "step": 3,
        "state1": codes.reshape(shape),
        "absmax1": scales,
        "qmap1": table,
    }
    group = optim8.interop.to_bitsandbytes_state_dict(optim8.Lion([torch.zeros(1)]))
    group = {**group["param_groups"][0], "params": [0]}
    return {"state": {0: state}, "param_groups": [group]}, values.reshape(shape)


@pytest.mark.parametrize("shape", [(16, 512), (10, 511), (9000,)], ids=str)
@pytest.mark.parametrize("theirs", [256, 2048])
@pytest.mark.parametrize(
    "options", [{}, {"block_size": 64}, {"state_bits": 32}, {"codec": "root"}], ids=str
)
def test_bytes_of_bitsandbytes_mean_the_same_in_any_blocks(shape, theirs, options):
    saved, expected = of_bitsandbytes(shape, theirs)
    ours = optim8.Lion([torch.zeros(shape, requires_grad=True)], **options)
    ours.load_state_dict(saved)
    [p] = ours.param_groups[0]["params"]
    found = optim8.dequantize_state(ours, p)["exp_avg"]
    is_exact = "state_bits" in options or (not options and theirs == 256 and shape != (10, 511))
    torch.testing.assert_close(
        found, expected, rtol=1e-6 if is_exact else 0.1, atol=0.0 if is_exact else 0.02
    )


def test_bitsandbytes_gets_float32_and_its_own_codebooks():
    optimizer, _ = stepped(optim8.AdamW, [(16, 512), (10,)], dtype=torch.float64)
    saved = optim8.interop.to_bitsandbytes_state_dict(optimizer)
    large, small = (saved["state"][i][optim8.interop.bitsandbytes.NESTED] for i in range(2))
    assert small["state1"].dtype == small["state2"].dtype == torch.float32
    for name, signed in (("qmap1", True), ("qmap2", False)):
        assert torch.equal(large[name], optim8.codebook("dynamic", signed))


def test_bitsandbytes_gets_numbers_where_ours_are_tensors():
    betas = torch.tensor(0.5), torch.tensor(0.75)
    optimizer = optim8.AdamW([torch.zeros(3)], lr=torch.tensor(0.25), betas=betas)
    [group] = optim8.interop.to_bitsandbytes_state_dict(optimizer)["param_groups"]
    assert str((group["lr"], group["betas"])) == "(0.25, (0.5, 0.75))"


def test_a_class_of_the_users_own_is_no_twins_whatever_its_name():
    mine = type("AdamW", (torch.optim.AdamW,), {})
    with pytest.raises(TypeError, match="convert: found"):
        optim8.convert(mine([torch.zeros(3, requires_grad=True)]))


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step")
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # of torch's own call, in 2.4
@pytest.mark.parametrize("kind", ["SequentialLR", "ChainedScheduler"])
def test_schedulers_that_are_made_of_others_go_on(kind):
    """As docs/training.md says."""
    schedulers = torch.optim.lr_scheduler

    def scheduled(optimizer):
        parts = [
            schedulers.LinearLR(optimizer, 0.1, 1.0, 4),
            schedulers.ExponentialLR(optimizer, 0.5),
        ]
        if kind == "SequentialLR":
            return schedulers.SequentialLR(optimizer, parts, [4])
        return schedulers.ChainedScheduler(parts)

    rates = []
    for converted in (False, True):
        optimizer, _ = stepped(torch.optim.AdamW, [(5000,)], lr=1.0)
        scheduler = scheduled(optimizer)
        for n in range(8):
            if converted and n == 3:
                optimizer = optim8.convert(optimizer)
                for part in (scheduler, *getattr(scheduler, "_schedulers", ())):
                    part.optimizer = optimizer
            step(optimizer, 1)
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:8] == rates[8:]


@pytest.mark.parametrize("name", ["AdamW", "LAMB"])
def test_bitsandbytes_state_dicts_are_of_the_cpu_whatever_the_default_device(name):
    optimizer, params = stepped(getattr(optim8, name), [(5120,)])
    loaded = []
    for device in (None, "meta"):
        torch.set_default_device(device)
        try:
            saved = optim8.interop.to_bitsandbytes_state_dict(optimizer)
            other = getattr(optim8, name)(params)
            other.load_state_dict(saved)
        finally:
            torch.set_default_device(None)
        loaded.append(other)
        held = saved["state"][0][optim8.interop.bitsandbytes.NESTED]
        assert {value.device.type for value in held.values()} == {"cpu"}
    assert_same(*map(snapshot, loaded))
