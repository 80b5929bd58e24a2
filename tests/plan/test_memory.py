"""What a run takes: against published figures, against real optimizers, and what must hold."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu

import optim8
from benches import plan_memory
from optim8.cli import main
from optim8.demo.model import GPT, Layer
from optim8.demo.sizes import SIZES
from optim8.plan.activations import Batch, activations
from optim8.plan.memory import Setup, largest, of_count, of_model, of_module
from optim8.plan.model import DTYPE_BYTES, Transformer, from_config, from_size
from optim8.plan.quantity import show_bytes, show_count
from optim8.plan.sharding import PLACEMENTS
from optim8.plan.states import TORCH_COUNTS_STEPS, Optimizer
from plan_command import ask, shown
from specs import CLASSES, SPECS

CLASS_NAMES = {cls.__name__.lower(): cls for cls in [*CLASSES, optim8.Muon]}

#: Matrices, so that Muon takes them: cut in slices, not cut, and too small to be quantized.
SHAPES = [(20, 300), (100, 77), (63, 65), (3, 5)]

#: The numbers of published models (their config.json), and their parameters.
CONFIGS = {
    "gpt2": (
        {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257,
         "n_positions": 1024},
        124_439_808,
    ),
    "llama-2-7b": (
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000},
        6_738_415_616,
    ),
    "llama-3-8b": (
        {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "vocab_size": 128256},
        8_030_261_248,
    ),
    "qwen2-0.5b": (
        {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
         "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
         "vocab_size": 151936, "tie_word_embeddings": True},
        494_032_768,
    ),
}  # fmt: skip

OPTIMIZERS = st.sampled_from(["adamw", "lion", "ademamix", "sgd", "nadam", "torch-adamw"])
DTYPES = st.sampled_from(list(DTYPE_BYTES))
COUNTS = st.integers(1, 10**12)


def real(cls, shapes, dtype, **kwargs):
    parameters = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = cls(parameters, **kwargs)
    optimizer.step()
    return optimizer


def state_bytes(optimizer):
    states = optimizer.state.values()
    return sum(value.nbytes for state in states for value in state.values())


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("name", CLASS_NAMES)
def test_states_of_every_class_take_what_is_predicted(name, dtype):
    for options in ({}, {"state_bits": 32}, {"block_size": 64, "min_quantized_numel": 1}):
        optimizer = real(CLASS_NAMES[name], SHAPES, getattr(torch, dtype), **options)
        predicted = Optimizer(name, **options).state_bytes(SHAPES, dtype)
        assert predicted == optimizer.state_nbytes()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.rule)
def test_states_of_every_rule_take_what_is_predicted(spec):
    optimizer = real(spec.cls, SHAPES, torch.float32, **spec.kwargs)
    assert Optimizer(spec.rule).state_bytes(SHAPES, "float32") == optimizer.state_nbytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", TORCH_COUNTS_STEPS)
def test_states_of_torch_take_what_is_predicted(family, dtype):
    cls = next(getattr(torch.optim, n) for n in dir(torch.optim) if n.lower() == family)
    optimizer = real(cls, SHAPES, getattr(torch, dtype))
    assert Optimizer(f"torch-{family}").state_bytes(SHAPES, dtype) == state_bytes(optimizer)


def test_every_class_of_torch_that_we_have_is_known():
    both = {name for name in CLASS_NAMES if hasattr(torch.optim, CLASS_NAMES[name].__name__)}
    assert both == TORCH_COUNTS_STEPS.keys()


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_a_module_on_the_meta_device_takes_what_the_real_one_does(size):
    found = SIZES[size]
    with torch.device("meta"):
        module = GPT(found.n_layers, found.width, found.n_heads, found.context)
    memory = of_module(module, Setup())
    planned = of_model(from_size(found), Batch(1, found.context), Setup())
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    assert sorted(shapes) == sorted(from_size(found).shapes)
    assert memory.parameters == planned.parameters == sum(p.nbytes for p in module.parameters())
    assert memory.states == planned.states
    assert memory.states == real(optim8.AdamW, shapes, torch.float32).state_nbytes()


def test_a_frozen_parameter_has_neither_gradient_nor_states():
    module = nn.Linear(100, 100)
    module.weight.requires_grad_(False)
    found = of_module(module, Setup())
    assert (found.parameters, found.gradients, found.states) == (40_400, 400, 804)


def saved_bytes(module, forward):
    """Return the bytes of floating tensors that autograd saves, without the module's own."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.is_floating_point():
            saved[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


def shape_of(n_layers, width, n_heads, **kwargs):
    usual = {"mlp_width": 4 * width, "vocabulary": 256, "n_key_value_heads": n_heads}
    return Transformer(
        n_layers=n_layers,
        width=width,
        n_heads=n_heads,
        head_width=width // n_heads,
        **{**usual, **kwargs},
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_saved_activations_are_those_that_autograd_saves(dtype, n_layers):
    width, n_heads, context, n_sequences = 64, 2, 32, 3
    model = GPT(n_layers, width, n_heads, context).to(getattr(torch, dtype))
    pieces = torch.zeros(n_sequences, context + 1, dtype=torch.long)
    batch = Batch(n_sequences, context)
    predicted = activations(shape_of(n_layers, width, n_heads), batch, dtype).saved
    found = saved_bytes(model, lambda: model.loss(pieces))
    assert found - predicted == DTYPE_BYTES[dtype]  # the weight of the mean of the loss


class GatedLayer(nn.Module):
    """A layer as Llama's, but for the rotation of queries and keys."""

    def __init__(self, width, n_heads, mlp_width):
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.n_heads = n_heads
        shapes = [(width, width)] * 4 + [(width, mlp_width)] * 2 + [(mlp_width, width)]
        self.linears = nn.ModuleList(nn.Linear(*shape, bias=False) for shape in shapes)

    def forward(self, x):
        query, key, value, project, gate, up, down = self.linears
        normed = self.norms[0](x)
        heads = (f(normed).unflatten(2, (self.n_heads, -1)) for f in (query, key, value))
        mixed = scaled_dot_product_attention(*(h.transpose(1, 2) for h in heads), is_causal=True)
        x = x + project(mixed.transpose(1, 2).flatten(2))
        normed = self.norms[1](x)
        return x + down(silu(gate(normed)) * up(normed))


def layer_with_layer_norms():
    """Return a layer of the demo's, normalized as GPT-2's are."""
    layer = Layer(64, 2)
    layer.norm_attention, layer.norm_mlp = nn.LayerNorm(64), nn.LayerNorm(64)
    return layer


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layer_with_layer_norms(), {"norm": "layer"}),
        (GatedLayer(64, 2, 160), {"is_gated": True, "mlp_width": 160}),
    ],
    ids=["layer norm", "gated"],
)
def test_other_layers_save_what_is_predicted(layer, shape):
    x = torch.randn(3, 32, 64, requires_grad=True)
    predicted = activations(shape_of(1, 64, 2, **shape), Batch(3, 32), "float32").of_layer
    assert saved_bytes(layer, lambda: layer(x)) == predicted


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells of peaks")
def test_a_training_process_takes_what_is_predicted():
    found = plan_memory.compare(plan_memory.Case("tiny", "float32", "adamw", False))
    assert found.states == found.predicted_states
    assert found.error == pytest.approx(0, abs=0.1)


def test_mixed_precision_adam_takes_16_bytes_a_parameter():
    """Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1."""
    mixed = Setup(Optimizer("torch-adamw"), "float16", has_master_weights=True)
    assert of_count(10**9, mixed).peak == 16 * 10**9 + 4
    offloaded = of_count(10**9, Setup(mixed.optimizer, "float16", True, placement="offload"))
    assert (offloaded.peak, offloaded.host) == (2 * 10**9, 14 * 10**9 + 4)


def test_a_layer_keeps_the_published_count_without_dropout():
    """Korthikanti et al. 2022, arXiv:2205.05198: s b h (34 + 5 a s / h) bytes in 16 bits.

    Of the 34, dropout's two masks are 2; of the 5, its mask and its output are 3. Theirs leaves out
    the means and deviations of the two norms.
    """
    context, n_sequences, width, n_heads = 2048, 4, 4096, 32
    batch = Batch(n_sequences, context, is_fused=False)
    found = activations(shape_of(1, width, n_heads, norm="layer"), batch, "bfloat16").of_layer
    tokens, matrices = context * n_sequences, n_heads * context / width
    assert found == tokens * width * (34 - 2 + (5 - 3) * matrices) + tokens * 2 * 8


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_has_as_many_parameters_as_its_model(name, tmp_path):
    config, n_parameters = CONFIGS[name]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert from_config(path).n_parameters == n_parameters


@given(OPTIMIZERS, DTYPES, st.integers(16, 2**45), st.integers(1, 2**40))
def test_more_memory_never_fits_a_smaller_model(optimizer, dtype, memory, more):
    setup = Setup(Optimizer(optimizer), dtype)
    fits = [largest(m, lambda n: of_count(n, setup).peak) for m in (memory, memory + more)]
    assert fits[0] <= fits[1]
    assert of_count(fits[1], setup).peak <= memory + more < of_count(fits[1] + 1, setup).peak


@given(COUNTS, OPTIMIZERS, DTYPES)
def test_fewer_bits_never_need_more_memory(n_parameters, optimizer, dtype):
    full, bytes_ = (Setup(Optimizer(optimizer, state_bits=bits), dtype) for bits in (32, 8))
    assert of_count(n_parameters, bytes_).peak <= of_count(n_parameters, full).peak


@given(st.integers(1, 64), st.integers(1, 64), st.booleans(), DTYPES)
def test_more_devices_never_need_more_each(n_devices, more, has_master, dtype):
    def on(n):
        return of_count(10**9, Setup(Optimizer(), dtype, has_master, False, "fsdp2", n)).peak

    assert on(n_devices + more) <= on(n_devices)


@given(st.integers(1, 8), st.integers(1, 512), st.booleans(), DTYPES)
def test_checkpointing_and_fused_attention_never_need_more(n_sequences, context, fused, dtype):
    model = from_size(SIZES["small"])
    plain = of_model(model, Batch(n_sequences, context, False, fused), Setup(dtype=dtype))
    saving = of_model(model, Batch(n_sequences, context, True, True), Setup(dtype=dtype))
    assert saving.peak <= plain.peak
    assert saving.activations <= plain.activations


def test_placements_take_their_share():
    model, batch = from_size(SIZES["medium"]), Batch(1, 256)
    single, ddp, fsdp2, offload = (
        of_model(model, batch, Setup(placement=placement, n_devices=n))
        for placement, n in (("single", 1), ("ddp", 8), ("fsdp2", 8), ("offload", 1))
    )
    assert ddp.peak == single.peak + single.gradients
    assert fsdp2.states < single.states / 7.9
    assert fsdp2.peak < single.peak
    assert offload.host == single.gradients + single.states
    assert offload.peak < single.peak
    both = of_model(model, batch, Setup(placement="fsdp2-offload", n_devices=8))
    assert both.host == fsdp2.parameters + fsdp2.gradients + fsdp2.states
    assert both.peak < fsdp2.peak


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --params, --config or --demo, or --memory to be filled"),
        (["--params", "1e30"], "Invalid params: 1e+30 (expected up to 1.15e+18)"),
        (["--params", "-5"], "--params: expected a number above 0, found '-5'"),
        (["--params", "1e9", "--optimizer", "adamx"], "unknown optimizer 'adamx' (known: "),
        (["--params", "1e9", "--optimizer", "torch-lion"], "torch.optim has no lion (known: "),
        (["--params", "1e9", "--dtype", "int8"], "unknown dtype 'int8' (known: float64"),
        (["--params", "1e9", "--state-bits", "4"], "Invalid state_bits: 4 (expected 8 or 32)"),
        (["--params", "1e9", "--block-size", "100"], "Invalid block_size: 100"),
        (["--params", "1e9", "--placement", "moon"], "unknown placement 'moon' (known: single"),
        (["--params", "1e9", "--devices", "8"], "Invalid devices: 8 (placement 'single' is for"),
        (["--params", "1e9", "--attention", "x"], "unknown attention 'x' (known: fused, matrix)"),
        (["--params", "1e9", "--memory", "24 zB"], "--memory: expected bytes, such as 24GiB"),
        (["--config", "absent.json"], "No such file"),
        (["--memory", "1GiB", "--placement", "fsdp2-offload"], "a model of any size fits"),
    ],
)
def test_nonsense_is_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "memory", *arguments])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


GPT2 = CONFIGS["gpt2"][0]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"model_type": "rwkv"}',
        '{"model_type": "gpt2"}',
        json.dumps({**GPT2, "n_head": 0}),
        json.dumps({**GPT2, "n_layer": -1}),
        json.dumps({**GPT2, "n_embd": "wide"}),
    ],
)
def test_a_config_that_cannot_be_read_is_refused(content, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        from_config(path)


def test_the_command_has_the_keys_that_others_rely_on(capsys, tmp_path):
    question = "plan memory --params 1e9 --optimizer adamw --dtype float32 --memory 24GiB --json"
    main([*question.split(), "--plot", str(tmp_path / "memory.png")])
    found = json.loads(capsys.readouterr().out)
    assert found["parameters_bytes"] == found["gradients_bytes"] == 4 * 10**9
    assert found["states_bytes"] == 2 * (10**9 + 4 * 10**9 // 256) + 4
    assert found["activations_bytes"] == 0
    assert found["total_bytes"] == 8 * 10**9 + found["states_bytes"]
    others = found["by_optimizer"]
    assert found["largest_params"] == others["adamw, 8-bit"]["largest_params"]
    assert found["largest_params"] > others["torch-adamw"]["largest_params"]
    assert found["total_bytes"] < others["torch-adamw"]["total_bytes"] == 16 * 10**9 + 4
    assert (tmp_path / "memory.png").stat().st_size > 0


def test_the_largest_model_fills_the_memory(capsys):
    main(["plan", "memory", "--memory", "24GiB", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert 24 * 2**30 - 16 < found["total_bytes"] <= 24 * 2**30
    assert found["parameters_bytes"] == 4 * found["largest_params"]


@pytest.mark.parametrize("question", ["memory --params 1e9", "memory --demo medium"])
def test_it_answers_without_torch(question):
    program = (
        "import sys; from optim8.cli import main; "
        f"main(['plan', *'{question} --json'.split()]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)


def gated(**kwargs):
    """Return a small model, as Llama's are, with numbers that differ."""
    numbers = {"n_layers": 3, "width": 8, "n_heads": 2, "n_key_value_heads": 1, "head_width": 6}
    others = {"mlp_width": 20, "vocabulary": 50, "is_gated": True, "is_qkv_joint": False}
    return Transformer(**{**numbers, **others, **kwargs})


LAYER = 8 * (12 + 2 * 6) + 12 * 8 + 3 * 8 * 20 + 2 * 8
EMBEDDING = 50 * 8
ROOT = 2 * EMBEDDING + 8


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("keeps_gradients", [False, True])
@pytest.mark.parametrize(("dtype", "n_bytes"), [("float64", 8), ("float32", 4), ("bfloat16", 2)])
def test_moments_are_what_is_there_then(is_tied, is_checkpointed, keeps_gradients, dtype, n_bytes):
    model, batch = gated(is_tied=is_tied), Batch(5, 7, is_checkpointed)
    found = of_model(model, batch, Setup(dtype=dtype, keeps_gradients=keeps_gradients))
    n_parameters = 3 * LAYER + EMBEDDING + 8 + (0 if is_tied else EMBEDDING)
    weights = n_bytes * n_parameters
    states = 2 * max(4, n_bytes) * n_parameters + 4 * (3 * 9 + 2 + (not is_tied))
    assert (found.parameters, found.gradients, found.states) == (weights, weights, states)

    tokens = 5 * 7
    computed = max(4, n_bytes)
    norm = (2 * computed + n_bytes) * 8 + computed
    attention = (12 + 2 * 6 + 12) * n_bytes + 2 * 4
    layer = tokens * (2 * norm + attention + 4 * 20 * n_bytes)
    kept = tokens * 8 * n_bytes if is_checkpointed else layer
    logits = tokens * 50 * n_bytes
    in_layer = (tokens * (8 + 2 * 20) + 8 * 20) * n_bytes
    saved = 3 * kept + tokens * norm + logits
    gradients = {
        "loss": 0,
        "last layer": n_bytes * (8 + EMBEDDING * (not is_tied)),
        # All but those of the first layer, and of the embedding unless the head has made it.
        "first layer": weights - n_bytes * (LAYER + EMBEDDING * (not is_tied)),
        "step": weights,
    }
    activations = {
        "loss": saved + 2 * logits,
        "last layer": 3 * kept + (layer - kept) + in_layer,
        "first layer": layer + in_layer,
        "step": 0,
    }
    assert found.activations == saved
    assert found.moments == {
        moment: weights + states + (weights if keeps_gradients else of) + activations[moment]
        for moment, of in gradients.items()
    }
    assert found.peak == max(found.moments.values()) == found.moments[found.peak_moment]


@pytest.mark.parametrize(
    ("placement", "n_devices", "communication"),
    [
        ("single", 1, 0),
        ("ddp", 1, 0),
        ("ddp", 4, 1),
        ("offload", 1, LAYER),
        ("fsdp2", 4, 3 * LAYER + ROOT),
    ],
)
@pytest.mark.parametrize("has_master", [False, True])
def test_what_is_on_the_device_and_what_is_on_the_host(
    placement, n_devices, communication, has_master
):
    setup = Setup(Optimizer("sgd"), "bfloat16", has_master, False, placement, n_devices)
    found = of_model(gated(), Batch(1, 4), setup)
    expected = found.gradients if communication == 1 else 2 * communication
    assert found.communication == expected
    assert found.master == (2 * found.parameters if has_master else 0)
    on_host = found.gradients + found.master + found.states if placement == "offload" else 0
    assert found.host == on_host
    held = found.parameters + found.gradients + found.master + found.states
    assert found.moments["step"] == held + found.communication - on_host


def test_master_weights_are_what_states_are_made_for():
    for optimizer in (Optimizer("torch-sgd_momentum"), Optimizer("schedulefreeadamw")):
        found = of_count(10**4, Setup(optimizer, "bfloat16", has_master_weights=True))
        assert found.master == 4 * 10**4
        assert found.states == of_count(10**4, Setup(optimizer, "float32")).states


def test_a_module_of_mixed_dtypes_is_counted_by_its_parameters():
    module = nn.ModuleList([nn.Linear(10, 10), nn.Linear(10, 10, dtype=torch.bfloat16)])
    setup = Setup(Optimizer("sgd"), "float64", True, placement="ddp", n_devices=2)
    found = of_module(module, setup)
    assert (found.parameters, found.gradients, found.master) == (660, 660, 880)
    assert found.communication == 660
    assert found.moments == {"step": 660 + 660 + 880 + 4 * 4 + 660}
    assert of_module(module, Setup(Optimizer("sgd"), placement="offload")).host == 660 + 4 * 4


def test_activations_that_are_known_count_at_the_loss():
    found = of_count(10**6, Setup(Optimizer("sgd")), activations=5 * 10**6)
    assert found.moments == {"step": 8 * 10**6 + 4, "loss": 4 * 10**6 + 4 + 5 * 10**6}
    assert (found.activations, found.peak_moment) == (5 * 10**6, "loss")


OPTIONS = [
    "--checkpoint",
    "--master-weights",
    "--accumulate",
    "--attention matrix",
    "--dtype bfloat16",
    "--optimizer lion",
    "--state-bits 32",
    "--block-size 64",
    "--min-quantized-numel 100000",
    "--batch 3",
    "--context 100",
    "--placement ddp --devices 4",
    "--placement offload",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_command_passes_on_what_it_is_given(options, capsys):
    words = options.replace("--", "").replace("-", "_").split()
    given = dict(zip(words[::2], words[1::2], strict=False))
    number = {name: int(value) for name, value in given.items() if value.isdigit()}
    size = SIZES["small"]
    batch = Batch(
        number.get("batch", size.batch),
        number.get("context", size.context),
        options == "--checkpoint",
        options != "--attention matrix",
    )
    numbers = ("state_bits", "block_size", "min_quantized_numel")
    setup = Setup(
        Optimizer(
            given.get("optimizer", "adamw"), **{k: number[k] for k in numbers if k in number}
        ),
        given.get("dtype", "float32"),
        options == "--master-weights",
        options == "--accumulate",
        given.get("placement", "single"),
        number.get("devices", 1),
    )
    expected = of_model(from_size(size), batch, setup)
    found = ask(capsys, f"memory --demo small --memory 1GiB {options}")
    for name in ("parameters", "gradients", "master", "states", "activations", "communication"):
        assert found[f"{name}_bytes"] == getattr(expected, name), name
    assert found["host_bytes"] == expected.host
    assert (found["total_bytes"], found["peak_moment"]) == (expected.peak, expected.peak_moment)
    n_parameters = from_size(size).n_parameters
    beside = max(0, expected.peak - of_count(n_parameters, setup).peak)
    fits = largest(2**30, lambda n: of_count(n, setup).peak + beside)
    assert found["largest_params"] == fits
    plain = ask(capsys, "memory --demo small --memory 1GiB")
    assert {**found, "assumptions": 0} != {**plain, "assumptions": 0}
    for bits in (32, 8):
        own = replace(setup, optimizer=replace(setup.optimizer, state_bits=bits))
        name = f"{setup.optimizer.name}, {bits}-bit"
        assert (
            found["by_optimizer"][name]["total_bytes"] == of_model(from_size(size), batch, own).peak
        )


def test_it_says_whether_it_fits(capsys):
    assert "does not fit: 1" in shown(capsys, "memory --params 1e9 --memory 8GiB")
    assert ") fits:" not in shown(capsys, "memory --params 1e9 --memory 8GiB")
    assert " fits: 38.9%" in shown(capsys, "memory --params 1e9 --memory 24GiB")


CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
}
GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 50}
GPT2["n_positions"] = 30


@pytest.mark.parametrize(
    ("config", "change", "more"),
    [
        (CONFIG, {"tie_word_embeddings": True}, -50 * 64),
        (CONFIG, {"head_dim": 20}, 2 * 4 * 64 * 4 * (20 - 16)),
        (CONFIG, {"num_key_value_heads": 2}, -2 * 2 * 64 * 2 * 16),
        (CONFIG, {"model_type": "qwen2"}, 2 * 3 * 64),
        (GPT2, {"n_inner": 100}, 2 * (2 * 64 + 1) * (100 - 256)),
        (GPT2, {"tie_word_embeddings": False}, 50 * 64),
    ],
    ids=str,
)
def test_every_entry_of_a_config_counts(config, change, more, tmp_path):
    counts = []
    for number, entries in enumerate((config, {**config, **change})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(entries))
        counts.append(from_config(path).n_parameters)
    assert counts[1] - counts[0] == more


@pytest.mark.parametrize(
    "change",
    [{"n_layer": 0}, {"vocab_size": 0}, {"n_embd": 64.0}, {"n_positions": -1}, {"n_head": 0}],
    ids=str,
)
def test_numbers_of_a_config_are_whole_and_above_0(change, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**GPT2, **change}))
    with pytest.raises(ValueError, match=r"config\.json: "):
        from_config(path)


def test_a_config_gives_the_context(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GPT2))
    found = ask(capsys, f"memory --config {path}")["assumptions"]
    assert (found["batch"]["value"], found["context"]["value"]) == (1, 30)


@pytest.mark.parametrize("n_devices", [0, -1])
def test_fewer_devices_than_one_are_refused(n_devices):
    for placement in PLACEMENTS:
        with pytest.raises(ValueError, match=f"Invalid devices: {n_devices}"):
            Setup(placement=placement, n_devices=n_devices)
    with pytest.raises(ValueError, match="Invalid devices: 2"):
        Setup(placement="offload", n_devices=2)


@pytest.mark.parametrize("block_size", [16, 32, 4096, 8192])
def test_block_sizes_are_those_of_the_optimizers(block_size):
    if 32 <= block_size <= 4096:
        assert Optimizer(block_size=block_size).state_bytes([(8192,)], "float32") == (
            4 + 2 * (8192 + 4 * 8192 // block_size)
        )
        optim8.AdamW([torch.zeros(3)], block_size=block_size)
    else:
        with pytest.raises(ValueError, match=f"Invalid block_size: {block_size}"):
            Optimizer(block_size=block_size)
        with pytest.raises(ValueError, match=r"block_size|power of two"):
            optim8.AdamW([torch.zeros(3)], block_size=block_size)


@pytest.mark.parametrize("placement", ["single", "ddp", "fsdp2", "offload", "fsdp2-offload"])
def test_gradients_come_and_go_on_the_device_by_the_part_that_it_has(placement):
    n_devices = 1 if placement in ("single", "offload") else 3
    model, batch = gated(), Batch(2, 4)
    found = of_model(model, batch, Setup(placement=placement, n_devices=n_devices))
    kept = activations(model, batch, "float32")
    n_parts = n_devices if "fsdp2" in placement else 1

    def part(shapes):
        return 4 * sum(-(-rows // n_parts) * math.prod(rest) for rows, *rest in shapes)

    first, last = model.embedding_shapes + model.layer_shapes, model.output_shapes
    gone = {
        "loss": found.gradients,
        "last layer": found.gradients - part(last),
        "first layer": part(first),
        "step": 0,
    }
    if "offload" in placement:  # there are none on the device at the step either
        gone = {"loss": 0, "last layer": 0, "first layer": 0, "step": 0}
    there = {
        "loss": kept.saved + kept.at_loss,
        "last layer": kept.of_layers + kept.in_layer,
        "first layer": kept.of_layer + kept.in_layer,
        "step": 0,
    }
    if "fsdp2" in placement:  # gradients of what is in no layer exist in full
        there["last layer"] += 4 * sum(map(math.prod, last))
        there["first layer"] += 4 * sum(map(math.prod, model.embedding_shapes + last))
    base = found.moments["step"]
    assert found.moments == {moment: base - gone[moment] + there[moment] for moment in gone}


@pytest.mark.parametrize("options", ["", "--checkpoint", "--attention matrix", "--batch 64"])
def test_a_model_that_fits_is_no_larger_than_the_largest_that_does(options, capsys):
    peak = ask(capsys, f"memory --demo small {options}")["total_bytes"]
    n_parameters = from_size(SIZES["small"]).n_parameters
    for memory, fits in ((1.02 * peak, True), (0.98 * peak, False)):
        found = ask(capsys, f"memory --demo small {options} --memory {int(memory)}")
        assert (found["largest_params"] >= n_parameters) == fits


def test_frozen_parameters_are_where_trained_ones_are():
    module = nn.Linear(100, 100, bias=False).requires_grad_(False)
    for placement, n_devices, on_device, on_host in (
        ("single", 1, 40000, 0),
        ("offload", 1, 40000, 0),
        ("fsdp2", 2, 20000, 0),
        ("fsdp2-offload", 2, 0, 20000),
    ):
        found = of_module(module, Setup(placement=placement, n_devices=n_devices))
        assert (found.peak, found.host) == (on_device, on_host)


@pytest.mark.parametrize("memory", [1, 2, 63, 64, 65, 1000])
def test_the_largest_may_fill_the_memory_to_the_last_byte(memory):
    assert largest(memory, lambda n: n) == memory
    assert largest(memory - 1, lambda n: n) == memory - 1


def test_dashes_stand_for_underscores_and_a_number_is_not_cut():
    assert Optimizer("torch-sgd-momentum") != Optimizer("torch-sgd_momentum")
    for names in (("torch-sgd-momentum", "torch-sgd_momentum"), ("adamw-amsgrad", "adamw_amsgrad")):
        first, second = (Optimizer(name).state_bytes([(8192,)], "float32") for name in names)
        assert first == second
    module = nn.ParameterList([torch.ones(())])
    assert of_module(module, Setup(placement="fsdp2", n_devices=4)).parameters == 4


def test_no_memory_of_a_device_bounds_what_is_all_on_the_host(capsys):
    found = ask(capsys, "memory --params 1e9 --memory 1GiB --placement fsdp2-offload --devices 2")
    assert found["largest_params"] is None
    assert found["host_bytes"] > 0 == found["total_bytes"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells")
def test_the_memory_of_this_machine_is_what_the_kernel_says(capsys):
    found = ask(capsys, "memory --params 1e9")["assumptions"]["memory"]
    with open("/proc/meminfo", encoding="ascii") as lines:
        [total] = [line.split()[1] for line in lines if line.startswith("MemTotal:")]
    assert found["value"] == pytest.approx(1024 * int(total), rel=0.01)


def test_whole_units_are_shown_in_themselves():
    assert [show_bytes(n) for n in (1023, 1024, 2**20)] == ["1023 B", "1.00 KiB", "1.00 MiB"]
    assert [show_count(n) for n in (999, 1000, 10**6, 10**15)] == ["999", "1 k", "1 M", "1e+15"]
