"""The lines of docs/training.md, as they stand there: every section runs, and trains in 8 bits."""

import functools
import re
import socket
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

import optim8

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BEGINNING, *SECTIONS = re.split(r"^(?=## )", PAGE.read_text(), flags=re.MULTILINE)
SECTIONS = {section.partition("\n")[0].removeprefix("## "): section for section in SECTIONS}


def run(section):
    """Run the blocks that all sections begin with and those of one; return the names they made."""
    names = {"__name__": "page"}
    for block in BLOCK.findall(BEGINNING) + BLOCK.findall(SECTIONS[section]):
        exec(compile(block, f"{PAGE.name}: {section}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def _stage(tmp_path, monkeypatch):
    """Be in an empty folder, as torchrun's only process, with a compiler that takes no time."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"ADDR": "127.0.0.1", "PORT": port}.items():
        monkeypatch.setenv(f"MASTER_{name}", str(value))
    compiler = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiler)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # as in test_training.py
@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.`")  # as in test_lightning.py
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_trains_in_8_bits(section, monkeypatch):
    if section == "Several processes":
        # Elsewhere these would make accelerate and Lightning think of more processes.
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "1")
    optimizer = run(section)["optimizer"]
    without_schedule = (optim8.ScheduleFreeAdamW, "exp_avg_sq_codes")
    by_section = {"Without a schedule": without_schedule}
    cls, codes = by_section.get(section, (optim8.AdamW, "exp_avg_codes"))
    assert isinstance(optimizer, cls)
    states = list(optimizer.state.values())
    assert any(codes in state for state in states)
    assert all(state["step"] > 0 for state in states)


def test_what_the_page_writes_for_bitsandbytes_is_what_the_trainer_would_do():
    pytest.importorskip("bitsandbytes", reason="Python 3.10 has no pinned one")
    instead = run("Hugging Face Trainer")["instead"]
    ours = {str(name.value) for name in OptimizerNames if "8bit" in name.value}
    others = {name for name in ours if name.startswith(("paged_", "galore_", "adamw_torch"))}
    assert instead.keys() == ours - others
    for name, (cls, kwargs) in instead.items():
        args = TrainingArguments("out", optim=name, use_cpu=True)
        their_cls, theirs = Trainer.get_optimizer_cls_and_kwargs(args)
        assert their_cls.__name__ == cls.__name__
        assert kwargs == {k: v for k, v in theirs.items() if k not in ("optim_bits", "is_paged")}
