"""At home in torch's own tools: schedulers, averages, scalers, compilation, processes.

Each trains the same small model with our optimizer and with torch's, both with full states, and the
two must agree at every step; then ours with 8-bit states has to get through as well.
"""

import copy
import os
import socket

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils

import optim8
from small import X, loss_of, model

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = {
    "full": (optim8.AdamW, {"state_bits": 32}),
    "8-bit": (optim8.AdamW, {"min_quantized_numel": 0}),
}


def train(make, after_step, n_steps=12):
    """Train, and return the losses; `after_step(optimizer)` makes what takes each of them."""
    net = model()
    optimizer = make(net)
    after = after_step(optimizer)
    losses = []
    for _ in range(n_steps):
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        optimizer.step()
        after(loss.detach())
        losses.append(loss.item())
    return losses


def assert_same_course(after_step):
    """Full states must give torch's losses, and 8-bit ones nearly."""
    expected = train(lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2), after_step)
    for kind, (cls, options) in KINDS.items():
        found = train(lambda net: cls(net.parameters(), lr=1e-2, **options), after_step)  # noqa: B023
        tolerance = 1e-4 if kind == "full" else 5e-2
        assert found == pytest.approx(expected, rel=tolerance), kind


SCHEDULERS = {
    # It changes betas too.
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.02, total_steps=20),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=10),
    "SWALR": lambda o: swa_utils.SWALR(o, swa_lr=1e-3, anneal_epochs=5),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers(name):
    def after_step(optimizer):
        scheduler = SCHEDULERS[name](optimizer)
        return lambda _: scheduler.step()

    assert_same_course(after_step)


def test_reduce_on_plateau():
    def after_step(optimizer):
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, threshold=0.5)
        return scheduler.step

    assert_same_course(after_step)


def test_a_scheduler_of_momentum_drives_sgd():
    optimizer = optim8.SGD([torch.zeros(5000, requires_grad=True)], momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=6)
    momenta = []
    for _ in range(5):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(5000)
        optimizer.step()
        scheduler.step()
        momenta.append(optimizer.param_groups[0]["momentum"])
    assert len(set(momenta)) > 3


def test_averaged_models():
    net = model()
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2)
    average = swa_utils.AveragedModel(net)
    seen = []
    for _ in range(4):
        loss_of(net).backward()
        optimizer.step()
        average.update_parameters(net)
        seen.append(net[0].weight.detach().clone())
    torch.testing.assert_close(average.module[0].weight.detach(), torch.stack(seen).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_grad_scaler_skips_what_overflows(kind):
    cls, options = KINDS[kind]
    net = model()
    optimizer = cls(net.parameters(), lr=1e-2, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for n in range(4):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(net)
        scaler.scale(loss).backward()
        if n == 2:
            net[0].weight.grad[0, 0] = float("inf")
        before = copy.deepcopy(net.state_dict())
        scaler.step(optimizer)
        scaler.update()
        moved = any(not torch.equal(before[k], v) for k, v in net.state_dict().items())
        assert moved == (n != 2)
    assert scaler.get_scale() == 2.0**9
    assert optimizer.state[net[0].weight]["step"] == 3


def test_accumulated_and_clipped_gradients():
    def train_with(make):
        net = model()
        optimizer = make(net)
        for _ in range(5):
            optimizer.zero_grad()
            for rows in X.split(8):
                (loss_of(net, rows) / 4).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
        return loss_of(net).item()

    expected = train_with(lambda net: torch.optim.AdamW(net.parameters(), lr=1e-2))
    found = train_with(lambda net: optim8.AdamW(net.parameters(), lr=1e-2, state_bits=32))
    assert found == pytest.approx(expected, rel=1e-4)


def test_closures():
    net = model()
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(net)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(5)]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the loss, which the tracer looks at
def test_a_compiled_training_step_is_compiled_once():
    def run(compiled):
        torch._dynamo.reset()
        net = model()
        optimizer = optim8.AdamW(net.parameters(), lr=1e-2)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda n: 0.9**n)

        def training_step():
            optimizer.zero_grad()
            loss = loss_of(net)
            loss.backward()
            optimizer.step()
            return loss

        if compiled:
            training_step = torch.compile(training_step, backend="aot_eager")
        losses, n_graphs = [], []
        for _ in range(6):
            losses.append(training_step().detach().item())
            scheduler.step()
            n_graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        return losses, n_graphs

    expected, _ = run(compiled=False)
    found, n_graphs = run(compiled=True)
    assert found == pytest.approx(expected, rel=1e-5)
    # Gradients that are None at first and states that are made are the second time's news.
    assert len(set(n_graphs[2:])) == 1


def _rank(rank, port, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.set_num_threads(1)
    queue.put((rank, _trained_share(rank)))
    torch.distributed.barrier()  # the one that is left would abort
    torch.distributed.destroy_process_group()


def _trained_share(rank):
    # It ends with this function: a model that outlives its group keeps the group's threads.
    net = nn.parallel.DistributedDataParallel(model())
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2, min_quantized_numel=0)
    for _ in range(4):
        optimizer.zero_grad()
        rows = X[rank::2]
        loss_of(net, rows).backward()
        optimizer.step()
    return [p.detach().numpy() for p in net.parameters()]


def test_two_processes_stay_together():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [context.Process(target=_rank, args=(r, port, queue)) for r in range(2)]
    for process in processes:
        process.start()
    found = dict(queue.get() for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    net = model()
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2, min_quantized_numel=0)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(net).backward()
        optimizer.step()
    for left, right, alone in zip(found[0], found[1], net.parameters(), strict=True):
        assert (left == right).all()
        torch.testing.assert_close(torch.as_tensor(left), alone.detach(), rtol=0, atol=2e-2)
