"""How large the demo's model is, and how long it is trained.

Kept apart from the model, so that the command line can list the sizes without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass

#: The vocabulary of the model.
N_BYTES = 256


@dataclass(frozen=True)
class Size:
    """A model and how it is trained.

    Attributes
    ----------
    n_layers, width, n_heads : int
        Of the GPT. A layer has about 12 * width**2 parameters.
    context : int
        How many bytes the model sees.
    batch : int
        Pieces of text in a step.
    n_steps : int
        Of a training run, unless told otherwise.
    lr : float
        Peak learning rate.
    about : str
        Parameters, in words.
    """

    n_layers: int
    width: int
    n_heads: int
    context: int
    batch: int
    n_steps: int
    lr: float
    about: str


SIZES = {
    "tiny": Size(2, 64, 2, 32, 4, 40, 3e-3, "0.13 million"),
    "small": Size(4, 256, 4, 128, 4, 400, 1e-3, "3.3 million"),
    "medium": Size(8, 384, 6, 256, 8, 1000, 6e-4, "14 million"),
    "large": Size(12, 768, 12, 256, 8, 2000, 3e-4, "86 million"),
}
DEFAULT_SIZE = "small"
