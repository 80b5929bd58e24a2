"""Lightning's Trainer trains as the plain loop does, bit for bit, and resumes."""

from contextlib import nullcontext

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import optim8
from small import X, assert_8_bit, loss_of, model
from specs import assert_same, snapshot

pytestmark = [
    # All are about Lightning's own business: how it asks torch for a leaf of a tree, how many
    # processes load the data, and where checkpoints go.
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]

N_EPOCHS = 3
N_ACCUMULATED = 2
MAX_NORM = 0.05


def make_scheduler(optimizer):
    """Return one that changes the learning rate and the betas."""
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=20)


class Module(lightning.LightningModule):
    """The small model, trained by `cls`; it looks at the states after every step."""

    def __init__(self, cls=optim8.AdamW):
        super().__init__()
        self.net = model()
        self.cls = cls
        self.n_looks = 0

    def training_step(self, x):
        return loss_of(self.net, x)

    def configure_optimizers(self):
        optimizer = self.cls(self.parameters(), lr=1e-2)
        scheduler = {"scheduler": make_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_before_zero_grad(self, optimizer):
        if optimizer.state and isinstance(optimizer, optim8.AdamW):
            assert_8_bit(optimizer)
            self.n_looks += 1


def fit(folder, module, precision="32-true", resume_from=None):
    """Train to the end of `N_EPOCHS`; return the optimizer."""
    checkpoints = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=N_EPOCHS,
        precision=precision,
        accumulate_grad_batches=N_ACCUMULATED,
        gradient_clip_val=MAX_NORM,
        callbacks=[checkpoints],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(X, batch_size=8), ckpt_path=resume_from)
    return trainer.optimizers[0]


def plain_loop(dtype, autocast):
    """Return the optimizer after the training of `fit`, written out."""
    net = model().to(dtype)
    optimizer = optim8.AdamW(net.parameters(), lr=1e-2)
    scheduler = make_scheduler(optimizer)
    for n, x in enumerate(X.to(dtype).split(8) * N_EPOCHS):
        with autocast:
            loss = loss_of(net, x)
        (loss / N_ACCUMULATED).backward()
        if n % N_ACCUMULATED == N_ACCUMULATED - 1:
            norm = nn.utils.clip_grad_norm_(net.parameters(), MAX_NORM)
            assert norm > MAX_NORM  # or nothing has been clipped
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    return optimizer


BF16 = torch.bfloat16
PRECISIONS = {
    "32-true": (torch.float32, nullcontext()),
    "bf16-mixed": (torch.float32, torch.autocast("cpu", BF16)),
    "bf16-true": (BF16, nullcontext()),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_trains_as_the_plain_loop(tmp_path, precision):
    module = Module()
    optimizer = fit(tmp_path, module, precision)
    assert module.n_looks == 5  # after each step but the last
    assert_same(snapshot(optimizer), snapshot(plain_loop(*PRECISIONS[precision])))


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_resumes_as_if_not_interrupted(tmp_path, precision):
    whole = fit(tmp_path / "whole", Module(), precision)
    module = Module()
    nn.init.zeros_(module.net[0].weight)  # what is loaded replaces it
    rest = fit(tmp_path / "rest", module, precision, tmp_path / "whole" / "epoch=0.ckpt")
    assert sorted(file.name for file in (tmp_path / "rest").iterdir()) == [
        "epoch=1.ckpt",
        "epoch=2.ckpt",
    ]
    assert_same(snapshot(rest), snapshot(whole))


def test_resumes_a_run_of_torchs_adamw_in_8_bits(tmp_path):
    theirs, ours = Module(torch.optim.AdamW), Module()
    fit(tmp_path / "theirs", theirs)
    optimizer = fit(tmp_path / "ours", ours, resume_from=tmp_path / "theirs" / "epoch=1.ckpt")
    assert {state["step"].item() for state in optimizer.state.values()} == {6}
    assert loss_of(ours.net).item() == pytest.approx(loss_of(theirs.net).item(), rel=1e-2)


def test_the_wrapper_that_modules_see_shows_the_states(tmp_path):
    module = Module()
    optimizer = fit(tmp_path, module)
    wrapper = module.optimizers()
    assert wrapper is not optimizer
    weight = module.net[0].weight
    assert wrapper.state_nbytes() == optimizer.state_nbytes()
    seen = optim8.dequantize_state(wrapper, weight)["exp_avg"]
    assert torch.equal(seen, optim8.dequantize_state(optimizer, weight)["exp_avg"])
