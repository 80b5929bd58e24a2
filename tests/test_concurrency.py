"""Forks, threads and interrupts."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import optim8
from optim8 import _native
from specs import assert_same, snapshot, step, stepped


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_step_after_its_parent_did():
    """Pools do not survive a fork: in the child a step must not wait for threads that are gone."""
    expected, _ = stepped(optim8.AdamW, [(300_000,)], n_steps=2)
    optimizer, [p] = stepped(optim8.AdamW, [(300_000,)], n_steps=1)
    p.grad = stepped(optim8.AdamW, [(300_000,)], n_steps=2)[1][0].grad
    wanted = expected.param_groups[0]["params"][0].detach().numpy().tobytes()
    child = os.fork()
    if child == 0:
        try:
            optimizer.step()
            # In the child torch's own operations may hang, and so are not used.
            os._exit(0 if p.detach().numpy().tobytes() == wanted else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    optimizer.step()
    assert torch.equal(p, expected.param_groups[0]["params"][0])


def test_two_threads_step_two_optimizers():
    expected, _ = stepped(optim8.AdamW, [(200_000,), (70, 90)], n_steps=8)
    results = []

    def work():
        results.append(stepped(optim8.AdamW, [(200_000,), (70, 90)], n_steps=8)[0])

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for optimizer in results:
        assert_same(snapshot(expected), snapshot(optimizer))


def test_the_interpreter_is_free_during_a_step():
    p = torch.zeros(20_000_000, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = optim8.AdamW([p])
    optimizer.step()
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    start = time.monotonic()
    optimizer.step()
    end = time.monotonic()
    stop.set()
    thread.join()
    middle = [t for t in ticks if start + 0.3 * (end - start) < t < end - 0.3 * (end - start)]
    assert middle, "no other thread ran while a step did"


@pytest.mark.parametrize("n_before", [0, 2])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupted_step_has_happened_or_not(monkeypatch, n_before, when):
    """Whether the interrupt comes just before or just after the native pass."""
    shapes = [(5000,), (10,)]
    optimizer, params = stepped(optim8.AdamW, shapes, n_steps=n_before)
    expected, _ = stepped(optim8.AdamW, shapes, n_steps=n_before + (when == "after"))
    for i, p in enumerate(params):
        q = expected.param_groups[0]["params"][i]
        grad = stepped(optim8.AdamW, shapes, n_steps=n_before + 1)[1][i].grad
        p.grad, q.grad = grad, grad.clone()
    native = _native.step

    def interrupted(*arguments):
        if when == "after":
            native(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(_native, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    monkeypatch.undo()
    assert_same(snapshot(optimizer), snapshot(expected))
    optimizer.step()
    expected.step()
    assert_same(snapshot(optimizer), snapshot(expected))


def test_a_real_signal_leaves_a_whole_step():
    """Steps are interrupted at any moment; then the steps counted are the steps made."""

    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    n = 2_000_000

    def step_until_interrupted(timer):
        timer.start()
        while True:
            optimizer.step()

    p, q = (torch.zeros(n, requires_grad=True) for _ in range(2))
    p.grad = q.grad = torch.ones(n)
    optimizer, repeat = optim8.AdamW([p]), optim8.AdamW([q])
    former = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for delay in (0.001, 0.004, 0.009, 0.02):
            timer = threading.Timer(delay, signal.raise_signal, [signal.SIGUSR1])
            with pytest.raises(Interrupt):
                step_until_interrupted(timer)
            timer.join()
            while p in optimizer.state and step_of(repeat, q) < step_of(optimizer, p):
                repeat.step()
            assert_same(snapshot(optimizer), snapshot(repeat))
    finally:
        signal.signal(signal.SIGUSR1, former)


def step_of(optimizer, p):
    """Return how many steps a parameter has made."""
    return int(optimizer.state[p]["step"]) if p in optimizer.state else 0


def test_a_step_after_backward_in_torchs_own_threads():
    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Tanh(), torch.nn.Linear(256, 1))
    optimizer = optim8.AdamW(model.parameters(), lr=1e-2)
    losses = []
    x = torch.randn(512, 256, generator=torch.Generator().manual_seed(0))
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((model(x) - x[:, :1]) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_step_is_reentrant_from_a_closure():
    inner, _ = stepped(optim8.AdamW, [(5000,)])
    outer, _ = stepped(optim8.AdamW, [(5000,)])

    def closure():
        step(inner)
        return 1.0

    assert outer.step(closure) == 1.0


def test_a_forked_child_can_step_though_only_the_package_was_imported():
    """The native module comes with the first optimizer: in the child, without torch's threads."""
    program = """
import os, signal
import torch, optim8

parameter, gradient = torch.nn.Parameter(torch.zeros(300_000)), torch.ones(300_000)
torch.relu(torch.zeros(1_000_000))
if os.fork() == 0:
    signal.alarm(60)
    p, p.grad = parameter, gradient
    optim8.SGD([p]).step()
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
