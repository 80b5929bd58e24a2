"""How far an 8-bit AdamW's updates are from those of 32-bit AdamW.

At every step each candidate is given the very same gradients, and its whole update u8 is compared
with the update u32 of a float32 AdamW on the same stream::

    error = || u8 - u32 || / || u32 ||

over the last 20 steps and all tensors of 4096 elements or more.

There are two streams. "GPT": the demo's GPT is trained, on the demo's text, with torch's float32
AdamW. "columns": random gradients of a matrix whose columns are of different sizes, by a factor of
e^2 between most of them, as in the layers of large models, whose inputs are: this is what the small
GPT lacks, and what takes a codec values of many sizes within a block.

Candidates never influence the model, so their errors are comparable, and what accumulates is only
what accumulates in their states. Parameters are set to zero before each step and weight decay is
off: then what the parameters are afterwards is the update itself, not the difference of two rounded
numbers.

The largest single error, in units of the learning rate, is over all steps: a second moment rounded
to zero whose first moment is not lets one element jump by thousands of learning rates, which a mean
would hide.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benches import optimizers
from benches.memory import state_nbytes
from benches.optimizers import MakeOptimizer
from benches.simulated import MIN_QUANTIZED_NUMEL, SimulatedAdamW, flashoptim, paper
from optim8.demo.model import GPT
from optim8.demo.text import sample, standard_library

BLOCK_SIZES = (64, 128, 256)


@dataclass(frozen=True)
class Protocol:
    """The run that makes the gradients."""

    n_layers: int = 3
    width: int = 128
    n_heads: int = 4
    context: int = 64
    batch: int = 16
    n_steps: int = 400
    n_last: int = 20
    lr: float = 1e-3
    seed: int = 0


@dataclass
class Fidelity:
    """What the study found of one candidate."""

    candidate: str
    error: float
    largest_error_in_lr: float
    state_bytes_per_parameter: float
    stream: str = "GPT"


class _Shadow:
    """A candidate that follows the gradient stream on parameters of its own."""

    def __init__(self, make: MakeOptimizer, like: list[nn.Parameter], lr: float) -> None:
        self.parameters = [nn.Parameter(torch.zeros_like(p)) for p in like]
        self.optimizer = make(self.parameters, lr=lr, weight_decay=0.0)
        self.squared_error = 0.0
        self.largest_error = 0.0

    @torch.no_grad()
    def updates(self, gradients: list[Tensor]) -> list[Tensor]:
        """Step from zero; what the parameters then are is minus the update."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.zero_()
            parameter.grad = gradient
        self.optimizer.step()
        return [parameter.detach() for parameter in self.judged()]

    def judged(self) -> list[nn.Parameter]:
        """Return those large enough to have 8-bit states."""
        return [p for p in self.parameters if p.numel() >= MIN_QUANTIZED_NUMEL]

    def state_bytes_per_parameter(self) -> float:
        """Return what the states of the judged parameters take, or would take if they were real."""
        if isinstance(self.optimizer, SimulatedAdamW):
            return self.optimizer.state_format.bytes_per_parameter
        n_elements = sum(p.numel() for p in self.judged())
        return state_nbytes(self.optimizer, self.judged()) / n_elements


def our_candidates() -> dict[str, MakeOptimizer]:
    """Return optim8's formats by name."""
    import optim8

    return {
        f"optim8 {codec}, {rounding}, block {block_size}": partial(
            optim8.AdamW, codec=codec, state_rounding=rounding, block_size=block_size
        )
        for codec in optimizers.CODECS
        for rounding in ("stochastic", "nearest")
        for block_size in BLOCK_SIZES
        if (codec != "linear" and rounding == "stochastic") or block_size == max(BLOCK_SIZES)
    }


def simulated_candidates() -> dict[str, MakeOptimizer]:
    """Return formats whose own code does not run on CPUs, or may not be installed, by name."""
    formats = {"the paper's, simulated": paper(), "FlashOptim's, simulated": flashoptim()}
    return {name: partial(SimulatedAdamW, state_format=it) for name, it in formats.items()}


def study(
    candidates: Mapping[str, MakeOptimizer],
    protocol: Protocol = Protocol(),
    *,
    stream: str = "GPT",
    quiet: bool = False,
) -> list[Fidelity]:
    """Feed one gradient stream to every candidate and compare their updates with float32 AdamW's.

    Parameters
    ----------
    candidates : mapping of str to callable
        Each makes an optimizer from parameters and the keywords lr and weight_decay.
    protocol : Protocol
        The run that makes the gradients.
    stream : str, default "GPT"
        One of `STREAMS`.
    quiet : bool, default False
        Print no progress to stderr.

    Returns
    -------
    list of Fidelity
        In the order of the candidates.
    """
    torch.manual_seed(protocol.seed)
    parameters, gradient_lists = STREAMS[stream](protocol)
    exact = _Shadow(partial(torch.optim.AdamW, fused=True), parameters, protocol.lr)
    shadows = {name: _Shadow(make, parameters, protocol.lr) for name, make in candidates.items()}
    squared_norm = 0.0
    for step, gradients in enumerate(gradient_lists, start=1):
        is_last = step > protocol.n_steps - protocol.n_last
        expected = exact.updates(gradients)
        if is_last:
            squared_norm += sum(float(u.norm()) ** 2 for u in expected)
        for shadow in shadows.values():
            for u8, u32 in zip(shadow.updates(gradients), expected, strict=True):
                difference = u8 - u32
                shadow.largest_error = max(shadow.largest_error, float(difference.abs().max()))
                if is_last:
                    shadow.squared_error += float(difference.norm()) ** 2
        if not quiet:
            end = "\n" if step == protocol.n_steps else ""
            print(f"\r{stream}: step {step}/{protocol.n_steps}", end=end, file=sys.stderr)
    return [
        Fidelity(
            candidate=name,
            error=(shadow.squared_error / squared_norm) ** 0.5,
            largest_error_in_lr=shadow.largest_error / protocol.lr,
            state_bytes_per_parameter=shadow.state_bytes_per_parameter(),
            stream=stream,
        )
        for name, shadow in shadows.items()
    ]


Stream = tuple[list[nn.Parameter], Iterator[list[Tensor]]]
"""Parameters, and their gradients at each step."""


def _gpt(protocol: Protocol) -> Stream:
    model = GPT(protocol.n_layers, protocol.width, protocol.n_heads, protocol.context)
    parameters = list(model.parameters())

    def gradients() -> Iterator[list[Tensor]]:
        trainer = torch.optim.AdamW(parameters, lr=protocol.lr, fused=True)
        text = standard_library().training
        generator = torch.Generator().manual_seed(protocol.seed)
        for _ in range(protocol.n_steps):
            trainer.zero_grad()
            model.loss(sample(text, protocol.batch, protocol.context + 1, generator)).backward()
            yield [p.grad for p in parameters if p.grad is not None]
            trainer.step()

    return parameters, gradients()


def _columns(protocol: Protocol) -> Stream:
    shape = 64, 8 * protocol.width
    sizes = torch.randn(shape[1]).exp()
    mean = 0.3 * torch.randn(shape)

    def gradients() -> Iterator[list[Tensor]]:
        for step in range(protocol.n_steps):
            shrinks = 1.0 if step < protocol.n_steps / 2 else 0.5
            yield [(torch.randn(shape) + mean) * sizes * shrinks]

    return [nn.Parameter(torch.zeros(shape))], gradients()


STREAMS: dict[str, Callable[[Protocol], Stream]] = {"GPT": _gpt, "columns": _columns}
