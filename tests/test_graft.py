"""AdaGraft: lengths of one optimizer, directions of another."""

import copy

import pytest
import torch

import optim8
from specs import step, tensor

SHAPES = [(70, 90), (30,), ()]
FULL = {"state_bits": 32}


def params():
    return [tensor(shape, torch.float64, i).requires_grad_() for i, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("use_global_norm", [False, True])
@pytest.mark.parametrize("theirs", [False, True])
def test_steps_are_the_papers(use_global_norm, theirs):
    """Against both optimizers stepped apart, from the same place."""
    sgd = torch.optim.SGD if theirs else optim8.SGD
    ours, apart = params(), [params(), params()]
    makers = [
        lambda p: sgd(p, lr=0.1, momentum=0.9),
        lambda p: optim8.AdamW(p, lr=3.0, weight_decay=0.0, **FULL),
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
    with pytest.raises(ValueError, match="has no 'direction'"):
        other.load_state_dict(optim8.SGD([torch.zeros(1)]).state_dict())


def test_errors_leave_the_parameters():
    places = [p.detach().requires_grad_() for p in params()]
    grafted = optim8.Graft(torch.optim.SGD(places), optim8.AdamW(places))
    start = [p.detach().clone() for p in places]
    places[0].grad = torch.ones_like(places[0])
    places[1].grad = torch.ones(30, dtype=torch.float64).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        grafted.step()
    assert all(torch.equal(p, s) for p, s in zip(places, start, strict=True))


def test_what_does_not_fit_is_refused():
    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="direction has other parameters than magnitude"):
        optim8.Graft(optim8.SGD([a]), optim8.SGD([b]))
    with pytest.raises(TypeError, match="direction is int, expected an optimizer"):
        optim8.Graft(optim8.SGD([a]), 1)
    for name in ("lr", "eps"):
        with pytest.raises(ValueError, match="Invalid"):
            optim8.Graft(optim8.SGD([a]), optim8.SGD([a]), **{name: -1.0})
