"""Training with Hugging Face accelerate is training with the plain loop, bit for bit."""

from contextlib import nullcontext

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import optim8
from small import X, assert_8_bit, loss_of, model
from specs import assert_same, snapshot

N_ACCUMULATED = 2
MAX_NORM = 0.05


def make_scheduler(optimizer):
    """Return one that changes the learning rate and the betas."""
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=20)


class Run:
    """A model, an optimizer and a scheduler in accelerate's hands."""

    def __init__(self, precision="no", cls=optim8.AdamW):
        self.accelerator = Accelerator(
            cpu=True, mixed_precision=precision, gradient_accumulation_steps=N_ACCUMULATED
        )
        net = model()
        self.optimizer = cls(net.parameters(), lr=1e-2)
        self.norms = []
        self.net, self.prepared, self.loader, self.scheduler = self.accelerator.prepare(
            net, self.optimizer, DataLoader(X, batch_size=8), make_scheduler(self.optimizer)
        )

    def epoch(self):
        """Take two steps of two batches each."""
        for x in self.loader:
            with self.accelerator.accumulate(self.net):
                self.accelerator.backward(loss_of(self.net, x))
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.net.parameters(), MAX_NORM)
                    self.norms.append(norm.item())
                self.prepared.step()
                self.scheduler.step()
                self.prepared.zero_grad()


def plain_epochs(n_epochs, precision):
    """Return the optimizer of the same training, written out."""
    net = model()
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2)
    scheduler = make_scheduler(optimizer)
    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    for n, x in enumerate(X.split(8) * n_epochs):
        with autocast:
            y = net(x)
        # accelerate gives outputs back in float32.
        ((y.float() - x).square().mean() / N_ACCUMULATED).backward()
        if n % N_ACCUMULATED == N_ACCUMULATED - 1:
            nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accumulates_clips_and_schedules_as_the_plain_loop(precision):
    run = Run(precision)
    for _ in range(3):
        run.epoch()
        assert_8_bit(run.optimizer)
    assert min(run.norms) > MAX_NORM  # or nothing has been clipped
    assert len(run.norms) == 6
    assert_same(snapshot(run.optimizer), snapshot(plain_epochs(3, precision)))


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "torch"])
def test_resumes_from_a_saved_state_as_if_not_interrupted(tmp_path, safe):
    run = Run()
    run.epoch()
    run.accelerator.save_state(tmp_path, safe_serialization=safe)
    assert (tmp_path / "model.safetensors").exists() == safe
    run.epoch()
    other = Run()
    other.epoch()  # elsewhere, and further on
    other.epoch()
    other.accelerator.load_state(tmp_path)
    assert_8_bit(other.optimizer)
    other.epoch()
    assert_same(snapshot(run.optimizer), snapshot(other.optimizer))


def test_a_state_saved_with_torchs_adamw_goes_on_in_8_bits(tmp_path):
    theirs, ours = Run(cls=torch.optim.AdamW), Run()
    theirs.epoch()
    theirs.accelerator.save_state(tmp_path)
    ours.accelerator.load_state(tmp_path)
    ours.epoch()
    theirs.epoch()
    assert_8_bit(ours.optimizer)
    assert {state["step"].item() for state in ours.optimizer.state.values()} == {4}
    assert loss_of(ours.net).item() == pytest.approx(loss_of(theirs.net).item(), rel=1e-2)
    assert ours.scheduler.get_last_lr() == theirs.scheduler.get_last_lr()
