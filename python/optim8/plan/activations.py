"""What a training step of a transformer keeps for its backward pass, and needs besides.

Korthikanti et al., *Reducing Activation Recomputation in Large Transformer Models* (2022),
arXiv:2205.05198, section 4.1, count ``s b h (34 + 5 a s / h)`` bytes for a layer of GPT in 16 bits,
with dropout and with attention that keeps its matrices (s tokens, b sequences, width h, a heads).
The same accounting is done here for models without dropout (of which theirs is 32 + 2 a s / h):
what autograd saves in PyTorch 2, each tensor once. For each token, in elements of the compute type
unless said otherwise:

- a norm: RMSNorm is made of simple operations, in float32: its input, its normalized input (both in
  float32) and its output; LayerNorm is one operation: its input and its output;
- attention: queries, keys, values and the output, and one float32 a head, the logarithm of the
  softmax's sum; with attention that is not fused, s weights a head in its place;
- a multilayer perceptron: its inner projection and that after GELU; gated, both projections, the
  one after SiLU, and the product;
- after the layers: a norm, and the logarithms of the vocabulary's probabilities.

With checkpointing only the input of each layer is kept, and one layer at a time is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass

from optim8.plan.model import DTYPE_BYTES, Transformer

_FLOAT_BYTES = DTYPE_BYTES["float32"]


@dataclass(frozen=True)
class Batch:
    """What one device works on in one pass.

    Attributes
    ----------
    n_sequences : int
        In the batch (of a device).
    context : int
        Tokens in each sequence.
    is_checkpointed : bool
        Whether each layer is computed again in the backward pass.
    is_fused : bool
        Whether attention keeps no matrix of weights (flash attention, and what torch's
        `scaled_dot_product_attention` takes on a CPU).
    """

    n_sequences: int
    context: int
    is_checkpointed: bool = False
    is_fused: bool = True

    @property
    def n_tokens(self) -> int:
        """In the batch."""
        return self.n_sequences * self.context


@dataclass(frozen=True)
class Activations:
    """Bytes beside parameters, gradients and states.

    Attributes
    ----------
    saved : int
        What waits for the backward pass as the forward pass ends.
    at_loss : int
        Besides, as the loss's gradient is made: those of the logits and of their logarithms.
    of_layers : int
        What waits as the backward pass reaches the last layer.
    of_layer : int
        What waits of a single layer.
    recomputed : int
        Of `of_layer`, what is there only while that layer is at work; 0 without checkpointing.
    in_layer : int
        Besides, at the peak of a layer's backward pass.
    """

    saved: int
    at_loss: int
    of_layers: int
    of_layer: int
    recomputed: int
    in_layer: int


#: Of a model whose shapes are not known.
UNKNOWN = Activations(0, 0, 0, 0, 0, 0)


def activations(model: Transformer, batch: Batch, dtype: str) -> Activations:
    """Return what a training step keeps and needs.

    Parameters
    ----------
    model : Transformer
        Whose step it is.
    batch : Batch
        What a device works on at once.
    dtype : str
        That the model computes in.

    Returns
    -------
    Activations
        In bytes.
    """
    n_bytes, tokens = DTYPE_BYTES[dtype], batch.n_tokens
    residual = tokens * model.width * n_bytes
    layer = tokens * _layer_bytes(model, batch, n_bytes)
    kept = residual if batch.is_checkpointed else layer
    logits = tokens * model.vocabulary * n_bytes
    mlp = tokens * model.mlp_width * n_bytes
    return Activations(
        saved=model.n_layers * kept + tokens * _norm_bytes(model, n_bytes) + logits,
        at_loss=2 * logits,
        of_layers=model.n_layers * kept,
        of_layer=layer,
        recomputed=layer - kept,
        # Gradients of the layer's output, of the last projection's input (gated: then of both
        # factors) and of its weight, which is the first to be there.
        in_layer=residual
        + (2 if model.is_gated else 1) * mlp
        + model.width * model.mlp_width * n_bytes,
    )


def _layer_bytes(model: Transformer, batch: Batch, n_bytes: int) -> int:
    """Of one token."""
    mixed = model.n_heads * model.head_width
    attention = (model.qkv_width + mixed) * n_bytes
    attention += model.n_heads * (_FLOAT_BYTES if batch.is_fused else batch.context * n_bytes)
    mlp = (4 if model.is_gated else 2) * model.mlp_width * n_bytes
    return 2 * _norm_bytes(model, n_bytes) + attention + mlp


def _norm_bytes(model: Transformer, n_bytes: int) -> int:
    """Of one token; a norm's input is the sum that runs through the layers."""
    if model.norm == "layer":
        return 2 * model.width * n_bytes + 2 * _FLOAT_BYTES
    computed = max(n_bytes, _FLOAT_BYTES)
    return (2 * computed + n_bytes) * model.width + computed
