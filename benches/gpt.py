"""A small byte-level GPT and real text to train it on.

Optimizers are judged on gradients as they occur, because what makes 8-bit states hard (second
moments that differ by many orders of magnitude within a block, rows that rarely get a gradient) is
absent from random numbers. The text is the Python standard library's own source: always at hand,
and the same for everybody who has the same version of Python.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

N_BYTES = 256


def standard_library_text(n_bytes: int = 2_000_000) -> Tensor:
    """Return the first bytes of the standard library's modules, in the order of their names.

    Parameters
    ----------
    n_bytes : int, default 2_000_000
        How many to read at most.

    Returns
    -------
    Tensor
        Shape (n_bytes,), uint8.
    """
    text = bytearray()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text += path.read_bytes()
        if len(text) >= n_bytes:
            break
    return torch.frombuffer(text, dtype=torch.uint8)[:n_bytes]


def sample_batch(text: Tensor, batch: int, context: int, generator: torch.Generator) -> Tensor:
    """Cut `batch` pieces of `context` + 1 bytes from random places; shape (batch, context + 1)."""
    starts = torch.randint(len(text) - context, (batch, 1), generator=generator)
    return text[starts + torch.arange(context + 1)].long()


class Layer(nn.Module):
    """One transformer layer, normalized before attention and before the MLP."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, context, width) in and out."""
        heads = self.query_key_value(self.norm_attention(x)).unflatten(2, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).flatten(2))
        return x + self.contract(functional.gelu(self.expand(self.norm_mlp(x))))


class GPT(nn.Module):
    """A byte-level GPT, initialized as GPT-2 is: normal weights of standard deviation 0.02."""

    def __init__(self, n_layers: int, width: int, context: int, n_heads: int = 4) -> None:
        super().__init__()
        self.token = nn.Embedding(N_BYTES, width)
        self.position = nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, n_heads) for _ in range(n_layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, N_BYTES, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of shape (batch, context) to logits of shape (batch, context, 256)."""
        positions = torch.arange(tokens.shape[1])
        x = self.token(tokens) + self.position(positions)
        return self.head(self.norm(self.layers(x)))

    def loss(self, pieces: Tensor) -> Tensor:
        """Mean cross entropy of each byte of (batch, context + 1) given those before it."""
        logits = self(pieces[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())
