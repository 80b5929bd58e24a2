"""The Trainer of Hugging Face trains as the plain loop does, bit for bit, and resumes.

The model is a GPT-2 of two layers; its head is tied to its embedding. The embedding (128 x 64) and
the matrices have 8-bit states, and biases and norms have full ones.
"""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

import optim8
from small import assert_8_bit
from specs import assert_same, snapshot

N_STEPS = 6
LR = 2e-3
WEIGHT_DECAY = 0.1
MAX_NORM = 0.5
OURS = {"optimizer_cls_and_kwargs": (optim8.AdamW, {"lr": LR})}


def gpt2(seed=0, dropout=0.0):
    """Return a small GPT-2 with weights drawn from a seed."""
    torch.manual_seed(seed)
    rates = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    sizes = {"vocab_size": 128, "n_positions": 16, "n_embd": 64, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0))


def texts():
    """Return texts in which every token follows from the two before it."""
    starts = torch.randint(0, 128, (64, 1), generator=torch.Generator().manual_seed(0))
    steps = torch.randint(1, 4, (64, 1), generator=torch.Generator().manual_seed(1))
    ids = (starts + steps * torch.arange(16)) % 128
    labels = ids.clone()
    labels[:, 0] = -100  # never a target, and so that nobody counts it as one
    return [{"input_ids": i, "labels": j} for i, j in zip(ids, labels, strict=True)]


class Watch(TrainerCallback):
    """Looks at the optimizer after every step."""

    def __init__(self):
        self.n_steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        assert_8_bit(kwargs["optimizer"].optimizer)
        self.n_steps += 1


def trainer(folder, model, optimizer=OURS, **changes):
    """Return a Trainer that takes `N_STEPS` of two batches each, and clips."""
    arguments = {
        "max_steps": N_STEPS,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "max_grad_norm": MAX_NORM,
        "weight_decay": WEIGHT_DECAY,
        "warmup_steps": 2,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        **changes,
    }
    args = TrainingArguments(str(folder), **arguments)
    return Trainer(model, args, train_dataset=texts(), **optimizer)


def plain_loop(model, autocast):
    """Return the optimizer after the training of `trainer`, written out."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = optim8.AdamW(groups, lr=LR)
    scheduler = lr_scheduler.LambdaLR(
        optimizer, lambda n: min(n / 2, (N_STEPS - n) / (N_STEPS - 2))
    )
    ids = torch.stack([text["input_ids"] for text in texts()])
    batches = ids.split(4)
    for n in range(N_STEPS):
        for rows in batches[2 * n : 2 * n + 2]:
            with autocast:
                # Of all targets of the step, in both batches.
                loss = model(rows, labels=rows, num_items_in_batch=torch.tensor(2 * 4 * 15)).loss
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return optimizer


BF16 = torch.bfloat16
PRECISIONS = {
    "float32": (torch.float32, {"bf16": False}, nullcontext()),
    "bfloat16 autocast": (torch.float32, {"bf16": True}, torch.autocast("cpu", BF16)),
    "bfloat16 weights": (torch.bfloat16, {"bf16": False}, nullcontext()),
}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_trains_as_the_plain_loop(tmp_path, precision):
    dtype, changes, autocast = PRECISIONS[precision]
    ours = trainer(tmp_path, gpt2().to(dtype), train_sampling_strategy="sequential", **changes)
    watch = Watch()
    ours.add_callback(watch)
    ours.train()
    assert watch.n_steps == N_STEPS
    logs = [log for log in ours.state.log_history if "loss" in log]
    assert min(log["grad_norm"] for log in logs) > MAX_NORM  # or nothing has been clipped
    assert_same(snapshot(ours.optimizer), snapshot(plain_loop(gpt2().to(dtype), autocast)))


def with_stable_embedding(model):
    """Return a model with our embedding in place of its own."""
    old = model.transformer.wte
    model.transformer.wte = optim8.nn.StableEmbedding.from_embedding(old)
    return model


@pytest.mark.parametrize("change", [lambda m: m, with_stable_embedding], ids=["", "stable"])
def test_resumes_as_if_not_interrupted(tmp_path, change):
    options = {"optimizer_cls_and_kwargs": (optim8.AdamW, {"lr": LR, "block_size": 128})}
    # Dropout and the order of texts are random: the Trainer restores the generators.
    whole = trainer(tmp_path, change(gpt2(0, 0.1)), options, save_strategy="steps", save_steps=3)
    whole.train()
    rest = trainer(tmp_path, change(gpt2(1, 0.1)), options)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(snapshot(rest.optimizer), snapshot(whole.optimizer))
    embedding = rest.model.transformer.wte.weight
    is_full = change is with_stable_embedding
    assert ("exp_avg" in rest.optimizer.state[embedding]) == is_full
    assert rest.model.lm_head.weight is embedding


@pytest.mark.parametrize("theirs", ["adamw_torch", "adamw_bnb_8bit"])
def test_resumes_a_run_of_another_optimizer(tmp_path, theirs):
    if theirs == "adamw_bnb_8bit":
        pytest.importorskip("bitsandbytes", reason="there is none for Python 3.10")
    changes = {"optim": theirs, "learning_rate": LR, "save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path, gpt2(0, 0.1), {}, **changes)
    whole.train()
    rest = trainer(tmp_path, gpt2(1, 0.1))
    watch = Watch()
    rest.add_callback(watch)
    rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert watch.n_steps == N_STEPS - 3
    assert rest.state.log_history[-2]["loss"] == pytest.approx(
        whole.state.log_history[-2]["loss"], rel=1e-2
    )


def test_an_optimizer_with_groups_of_ours(tmp_path):
    model = gpt2()
    overrides = {"*.bias": {"weight_decay": 0.0}, "*.ln_*": {"weight_decay": 0.0}}
    groups = optim8.param_groups(model, overrides, full_embeddings=True)
    optimizer = optim8.AdamW(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    ours = trainer(tmp_path, model, {"optimizers": (optimizer, None)}, max_steps=60)
    ours.train()
    losses = [log["loss"] for log in ours.state.log_history if "loss" in log]
    assert losses[-1] < 0.8 * losses[0]
    for name, p in model.named_parameters():
        full = p.numel() < 4096 or name in ("transformer.wte.weight", "transformer.wpe.weight")
        assert ("exp_avg" in optimizer.state[p]) == full, name
