"""A byte-level GPT.

The usual small transformer of today: normalized before each sublayer by root mean square, no
biases, causal attention by torch's fused kernel, learned positions, and an output layer of its
own. Its vocabulary is the 256 bytes, so it needs no tokenizer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from optim8.demo.sizes import N_BYTES

#: Standard deviation of initial weights, as in GPT-2.
INITIAL_DEVIATION = 0.02


class Attention(nn.Module):
    """Causal self-attention with several heads; shape (batch, context, width) in and out."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each position with those before it."""
        heads = self.query_key_value(x).unflatten(2, (3, self.n_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out: Tensor = self.project(mixed.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention and a multilayer perceptron, each added to its input."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.RMSNorm(width)
        self.attention = Attention(width, n_heads)
        self.norm_mlp = nn.RMSNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, context, width) in and out."""
        x = x + self.attention(self.norm_attention(x))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class GPT(nn.Module):
    """A language model of bytes.

    Parameters
    ----------
    n_layers, width, n_heads : int
        `width` is a multiple of `n_heads`.
    context : int
        The longest text it can see.

    Examples
    --------
    >>> import torch
    >>> model = GPT(n_layers=2, width=32, n_heads=2, context=16)
    >>> model(torch.zeros(3, 16, dtype=torch.long)).shape
    torch.Size([3, 16, 256])
    """

    def __init__(self, n_layers: int, width: int, n_heads: int, context: int) -> None:
        super().__init__()
        self.token = nn.Embedding(N_BYTES, width)
        self.position = nn.Embedding(context, width)
        self.layers = nn.Sequential(*(Layer(width, n_heads) for _ in range(n_layers)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, N_BYTES, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of shape (batch, context) to logits of shape (batch, context, 256)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position(positions)
        logits: Tensor = self.head(self.norm(self.layers(x)))
        return logits

    def loss(self, pieces: Tensor) -> Tensor:
        """Mean cross entropy, in nats, of each byte given those before it in its piece.

        Parameters
        ----------
        pieces : Tensor
            Shape (batch, context + 1), int64.

        Returns
        -------
        Tensor
            0-dimensional.
        """
        logits = self(pieces[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), pieces[:, 1:].flatten())
