"""The text that the demo learns: Python's own standard library.

It is on every machine that runs the demo, it is real text with long-range structure, and two
people with the same version of Python have the same bytes. Whole files are held out, not pieces of
files, so that the held-out loss is of code that the model has seen nothing of.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

#: Folders that are not the library itself: other people's packages, and tests full of odd data.
SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
)

#: One file in so many is held out.
HELD_OUT_EVERY = 16


class Split(NamedTuple):
    """Two texts, each a uint8 tensor of one dimension."""

    training: Tensor
    held_out: Tensor


def source_files(root: Path) -> Iterator[Path]:
    """Yield the Python files below a folder, in an order that depends on their names only."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(folder, name)


def standard_library(root: Path | None = None) -> Split:
    """Read the standard library's source, split by file.

    Parameters
    ----------
    root : Path, optional
        Another folder of Python files to read.

    Returns
    -------
    Split
        All bytes of the files in order of their names; every `HELD_OUT_EVERY`-th file is held out.

    Raises
    ------
    FileNotFoundError
        If the folder holds too few Python files for a split.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    training, held_out = bytearray(), bytearray()
    for index, path in enumerate(source_files(root)):
        (training if index % HELD_OUT_EVERY else held_out).extend(path.read_bytes())
    if not training:
        raise FileNotFoundError(f"{root}: expected the standard library's .py files there")
    return Split(*(torch.frombuffer(text, dtype=torch.uint8) for text in (training, held_out)))


def sample(text: Tensor, n_pieces: int, length: int, generator: torch.Generator) -> Tensor:
    """Cut pieces from random places of a text.

    Parameters
    ----------
    text : Tensor
        Shape (n_bytes,), uint8.
    n_pieces, length : int
        How many pieces of how many bytes.
    generator : torch.Generator
        Chooses the places.

    Returns
    -------
    Tensor
        Shape (n_pieces, length), int64.
    """
    starts = torch.randint(len(text) - length + 1, (n_pieces, 1), generator=generator)
    return text[starts + torch.arange(length)].long()
