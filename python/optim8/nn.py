"""Layers that 8-bit optimizers want.

An embedding's gradients are as uneven as the frequencies of words: rare rows get few and large
ones. So its states are best kept in 32 bits, and its output is best normalized.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from optim8.state import keep_full


class StableEmbedding(nn.Embedding):
    r"""An embedding that trains stably with 8-bit optimizers.

    It differs from `torch.nn.Embedding` in three respects: its weight is drawn by Xavier's uniform
    initialization, its output goes through layer normalization (before position embeddings are
    added to it), and every optimizer of this package keeps its weight's states in 32 bits, whatever
    the group's `state_bits`.

    Source: Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (2021), section 2.3.

    Parameters
    ----------
    num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        As in `torch.nn.Embedding`. (The optimizers take no sparse gradients.)
    _weight
        The weight to begin with, of shape `(num_embeddings, embedding_dim)`, if not a random one.
    device, dtype
        Of the weight and the normalization.

    Attributes
    ----------
    norm : torch.nn.LayerNorm
        The normalization, over the last dimension of the output.

    Examples
    --------
    >>> import optim8, torch
    >>> embedding = optim8.nn.StableEmbedding(1000, 64)
    >>> embedding(torch.tensor([1, 2])).sum().backward()
    >>> optimizer = optim8.AdamW(embedding.parameters())
    >>> optimizer.step()
    >>> sorted(optimizer.state[embedding.weight])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device=device,
            dtype=dtype,
        )
        like = self.weight
        self.norm = nn.LayerNorm(embedding_dim, device=like.device, dtype=like.dtype)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding) -> "StableEmbedding":
        """Return one with the weight (the same parameter) and the settings of an embedding.

        Parameters
        ----------
        embedding
            Of a model that exists: its weight keeps its values.

        Returns
        -------
        StableEmbedding
            To be put in its place. Its output is normalized, unlike that of `embedding`.

        Examples
        --------
        >>> import optim8, torch
        >>> model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 2))
        >>> weight = model[0].weight
        >>> model[0] = optim8.nn.StableEmbedding.from_embedding(model[0])
        >>> model[0].weight is weight
        True
        """
        stable = cls(
            embedding.num_embeddings,
            embedding.embedding_dim,
            embedding.padding_idx,
            embedding.max_norm,
            embedding.norm_type,
            embedding.scale_grad_by_freq,
            embedding.sparse,
            _weight=embedding.weight.detach(),
        )
        stable.weight = embedding.weight
        stable.train(embedding.training)
        return stable

    def reset_parameters(self) -> None:
        """Draw the weight anew; the row of `padding_idx` is zero."""
        nn.init.xavier_uniform_(self.weight)
        self._fill_padding_idx_with_zero()

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalized rows of the indices: shape `(*input.shape, embedding_dim)`."""
        rows: Tensor = super().forward(input)
        normalized: Tensor = self.norm(rows)
        return normalized

    # The mark is on the weight. Another weight may be assigned, or put in when a module is moved or
    # copied.
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight":
            keep_full(value)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        keep_full(self.weight)
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        keep_full(self.weight)
