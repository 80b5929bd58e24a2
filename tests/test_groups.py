"""Options by name and kind of module, and embeddings."""

import copy
import pickle

import pytest
import torch
from torch import nn

import optim8
from specs import needs_names, step


class Model(nn.Module):
    """An embedding that is tied to the head, a norm, and a parameter that is frozen."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(100, 64, padding_idx=0)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 100)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)


@needs_names
def test_groups_by_name_and_module():
    model = Model()
    overrides = {"*.bias": {"weight_decay": 0.0}, nn.LayerNorm: {"lr": 0.5, "weight_decay": 0.5}}
    groups = optim8.param_groups(model, overrides, full_embeddings=True)
    found = [(dict(group), [name for name, _ in group.pop("params")]) for group in groups]
    for options, _ in found:
        options.pop("params")
    assert found == [
        ({"state_bits": 32}, ["embedding.weight"]),
        ({"lr": 0.5, "weight_decay": 0.5}, ["norm.weight", "norm.bias"]),
        ({"weight_decay": 0.0}, ["head.bias"]),
    ]


@needs_names
def test_embeddings_with_full_states_may_have_overrides_too():
    model = Model()
    overrides = {nn.Embedding: {"lr": 0.5}, "head.*": {"lr": 0.25}}
    groups = optim8.param_groups(model, overrides, full_embeddings=True)
    assert [(group["lr"], group.get("state_bits")) for group in groups if "lr" in group] == [
        (0.5, 32),
        (0.25, None),
    ]
    overrides[nn.Embedding]["state_bits"] = 8
    groups = optim8.param_groups(model, overrides, full_embeddings=True)
    assert all(group.get("state_bits", 8) == 8 for group in groups)


def test_groups_survive_a_checkpoint():
    model = Model()
    groups = optim8.param_groups(model, {"norm.*": {"codec": "root"}}, full_embeddings=True)
    plain = [{"params": group["params"]} for group in groups]
    optimizers = [optim8.AdamW(groups), optim8.AdamW(plain)]
    step(optimizers[0])
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    assert "exp_avg" in optimizers[1].state[model.embedding.weight]
    assert [g["codec"] for g in optimizers[1].param_groups] == ["minifloat", "root", "minifloat"]


@pytest.mark.parametrize("selector", ["*.biass", nn.Conv2d, "frozen"])
def test_a_selector_that_finds_nothing_is_an_error(selector):
    name = selector if isinstance(selector, str) else selector.__name__
    with pytest.raises(ValueError, match=f"overrides: .*{name[1:]}.* finds no parameter"):
        optim8.param_groups(Model(), {selector: {}})


def test_stable_embedding_is_the_papers():
    torch.manual_seed(0)
    embedding = optim8.nn.StableEmbedding(1000, 64, padding_idx=3)
    bound = (6 / 1064) ** 0.5
    weight = embedding.weight.detach()
    assert weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not weight[3].any()
    index = torch.tensor([[1, 3], [999, 0]])
    expected = nn.functional.layer_norm(nn.functional.embedding(index, weight), (64,))
    torch.testing.assert_close(embedding(index), expected)
    assert embedding.double()(index).dtype == torch.float64


def pickled(module):
    """Return what comes back."""
    return pickle.loads(pickle.dumps(module))


def from_meta(module):
    """Return one that was made without memory, and loaded by assignment."""
    with torch.device("meta"):
        empty = optim8.nn.StableEmbedding(1000, 64)
    empty.load_state_dict(module.state_dict(), assign=True)
    return empty


def to_empty(_):
    """Return one that was made without memory, and got some."""
    with torch.device("meta"):
        empty = optim8.nn.StableEmbedding(1000, 64)
    empty.to_empty(device="cpu")
    for p in empty.parameters():
        nn.init.ones_(p)
    return empty


def pretrained(module):
    return optim8.nn.StableEmbedding.from_pretrained(module.weight.detach(), freeze=False)


WAYS = [lambda m: m, copy.deepcopy, pickled, from_meta, to_empty, pretrained]


@pytest.mark.parametrize("how", WAYS)
def test_stable_embeddings_states_are_full_whatever_the_group_says(how):
    embedding = how(optim8.nn.StableEmbedding(1000, 64))
    optimizer = optim8.AdamW(embedding.parameters(), min_quantized_numel=0)
    step(optimizer)
    assert "exp_avg" in optimizer.state[embedding.weight]
    assert "exp_avg_codes" in optimizer.state[embedding.norm.weight]
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    step(optimizer)


def test_stable_embedding_in_place_of_another():
    model = Model().eval()
    tied = model.head.weight
    model.embedding = optim8.nn.StableEmbedding.from_embedding(model.embedding)
    assert model.embedding.weight is tied
    assert model.embedding.padding_idx == 0
    assert not model.embedding.training


@pytest.mark.parametrize("cls", [nn.Embedding, optim8.nn.StableEmbedding])
def test_rows_that_are_never_seen_do_not_move(cls):
    embedding = cls(1000, 64, padding_idx=0)
    optimizer = optim8.AdamW(embedding.parameters(), lr=0.1, weight_decay=0.0)
    start = embedding.weight.detach().clone()
    for n in range(20):
        optimizer.zero_grad()
        index = torch.tensor([0, 1 + n, 500, 999])
        embedding(index).square().mul(torch.arange(64)).sum().backward()
        optimizer.step()
    seen = [*range(1, 21), 500, 999]
    moved = (embedding.weight.detach() != start).any(1).nonzero().flatten().tolist()
    assert moved == seen


def test_tensor_learning_rates_are_not_merged():
    rates = [torch.tensor(0.1), torch.tensor(0.1)]
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = optim8.param_groups(model, {"0.*": {"lr": rates[0]}, "1.*": {"lr": rates[1]}})
    assert [group["lr"] is rate for group, rate in zip(groups, rates, strict=True)] == [True, True]


def test_full_embeddings_may_be_asked_for_where_there_are_none():
    model = nn.Linear(2, 2)
    [group] = optim8.param_groups(model, full_embeddings=True)
    assert len(group["params"]) == 2


class Tied(nn.Module):
    """An embedding of a subclass, tied to the head."""

    def __init__(self):
        super().__init__()
        self.embedding = optim8.nn.StableEmbedding(100, 64)
        self.head = nn.Linear(64, 100, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize("selector", [nn.Embedding, nn.Linear, optim8.nn.StableEmbedding])
def test_a_type_finds_its_subclasses_and_what_is_tied(selector):
    [group] = [
        group
        for group in optim8.param_groups(Tied(), {selector: {"lr": 0.5}})
        if group.get("lr") == 0.5
    ]
    assert len(group["params"]) == 1


def test_the_selector_that_finds_nothing_is_named_and_cases_differ():
    overrides = {"head.*": {"lr": 0.1}, "HEAD.*": {"lr": 0.2}}
    with pytest.raises(ValueError, match=r"overrides: 'HEAD\.\*' finds no parameter"):
        optim8.param_groups(nn.ModuleDict({"head": nn.Linear(2, 2)}), overrides)


SETTINGS = {
    "padding_idx": 3,
    "max_norm": 0.5,
    "norm_type": 1.0,
    "scale_grad_by_freq": True,
    "sparse": True,
}


def test_stable_embedding_has_the_settings_that_it_is_given():
    of_torch = nn.Embedding(10, 4, **SETTINGS)
    for embedding in (
        optim8.nn.StableEmbedding(10, 4, **SETTINGS),
        optim8.nn.StableEmbedding.from_embedding(of_torch),
    ):
        assert {name: getattr(embedding, name) for name in SETTINGS} == SETTINGS
    frozen = optim8.nn.StableEmbedding.from_pretrained(torch.ones(10, 4))
    assert not frozen.weight.requires_grad


@pytest.mark.parametrize(("name", "value"), [("dtype", torch.bfloat16), ("device", "meta")])
def test_stable_embeddings_norm_is_where_its_weight_is(name, value):
    embedding = optim8.nn.StableEmbedding(10, 4, **{name: value})
    found = [getattr(p, name) for p in (embedding.weight, embedding.norm.weight)]
    assert list(map(str, found)) == [str(value)] * 2


def test_selectors_and_options_that_are_none_are_refused():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3))
    for overrides, error, match in (
        ({3: {}}, TypeError, "overrides: found 3, expected a pattern or a type"),
        ({model[0]: {}}, TypeError, r"overrides: found Linear.*expected a pattern or a type"),
        ({"*": {"params": []}}, ValueError, r"overrides: '\*' has 'params', expected options only"),
    ):
        with pytest.raises(error, match=match):
            optim8.param_groups(model, overrides)
