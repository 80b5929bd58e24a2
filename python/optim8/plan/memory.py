"""How much memory a training run takes, and the largest model that fits.

What is there all the time is counted tensor by tensor and exactly: parameters, states, and with
mixed precision a float32 master copy of the weights. Rajbhandari et al., *ZeRO* (2020),
arXiv:1910.02054, section 3.1, count 16 bytes a parameter for mixed-precision Adam that way: 2 for
the weight, 2 for its gradient, 4 + 4 + 4 for master weight and both states.

Gradients and activations come and go: the backward pass makes the one as it frees the other, so
that their sum is never there at once. The peak is the largest of four moments:

- ``loss``: the forward pass is done, all activations are there, and no gradient;
- ``last layer``: the backward pass is at its beginning;
- ``first layer``: it is near its end, all gradients but the last are there;
- ``step``: all gradients are there, no activations.

Between the second and the third, memory changes by the same amount from layer to layer, so one of
the two is the larger. An optimizer is assumed to have no temporaries (ours have none, nor have
torch's with ``fused=True``), and gradients to be freed after the step (``zero_grad()`` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from optim8.plan import sharding
from optim8.plan.activations import UNKNOWN, Batch, activations
from optim8.plan.model import DTYPE_BYTES, Shape, Transformer, n_elements
from optim8.plan.states import Optimizer

if TYPE_CHECKING:
    from torch import nn


#: More parameters than any memory has bytes.
_ABSURD = 2**60


@dataclass(frozen=True)
class Setup:
    """How a model is trained, as far as memory goes.

    Attributes
    ----------
    optimizer : Optimizer
        Whose states are kept.
    dtype : str
        Of parameters, gradients and activations.
    has_master_weights : bool
        Whether the optimizer works on a float32 copy of the parameters (mixed precision).
    keeps_gradients : bool
        Whether they stay from one backward pass to the next, as when they are accumulated.
    placement : str
        One of `optim8.plan.sharding.PLACEMENTS`.
    n_devices : int
        That the run is spread over.

    Raises
    ------
    ValueError
        If an attribute is out of its range.
    """

    optimizer: Optimizer = field(default_factory=Optimizer)
    dtype: str = "float32"
    has_master_weights: bool = False
    keeps_gradients: bool = False
    placement: str = "single"
    n_devices: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BYTES:
            raise ValueError(f"unknown dtype {self.dtype!r} (known: {', '.join(DTYPE_BYTES)})")
        sharding.check(self.placement, self.n_devices)

    @property
    def n_parts(self) -> int:
        """In how many parts each tensor is cut."""
        return self.n_devices if self.placement in sharding.SHARDED else 1

    @property
    def is_elsewhere(self) -> bool:
        """Whether parameters are in the host's memory, with all that grows with their number."""
        return self.placement in sharding.OFFLOADED and self.placement in sharding.SHARDED


@dataclass(frozen=True)
class Memory:
    """What a run takes, in bytes; on each device unless said otherwise.

    Attributes
    ----------
    parameters, gradients, master, states : int
        Of the part of the model that a device answers for, wherever they are.
    activations : int
        What waits for the backward pass as the forward pass ends.
    communication : int
        Buckets, gathered layers, and gradients on their way.
    moments : dict of str to int
        What the device holds at each moment that may be the peak.
    host : int
        What is in the host's memory instead of the device's.
    """

    parameters: int
    gradients: int
    master: int
    states: int
    activations: int
    communication: int
    moments: dict[str, int]
    host: int

    @property
    def peak(self) -> int:
        """What the device has to hold."""
        return max(self.moments.values())

    @property
    def peak_moment(self) -> str:
        """When that is."""
        return max(self.moments, key=lambda moment: self.moments[moment])


def of_model(model: Transformer, batch: Batch, setup: Setup) -> Memory:
    """Return the memory of training a transformer.

    Parameters
    ----------
    model : Transformer
        Its shapes.
    batch : Batch
        Of one device.
    setup : Setup
        How it is trained.

    Returns
    -------
    Memory

    Examples
    --------
    >>> from optim8.demo.sizes import SIZES
    >>> from optim8.plan.model import from_size
    >>> found = of_model(from_size(SIZES["small"]), Batch(4, 128), Setup())
    >>> found.parameters, found.states, found.peak_moment
    (13247488, 6741104, 'last layer')
    """
    n_parts = setup.n_parts
    kept = activations(model, batch, setup.dtype)
    first = [*model.embedding_shapes, *model.layer_shapes]
    n_bytes = DTYPE_BYTES[setup.dtype]
    root = [*model.embedding_shapes, *model.output_shapes]
    memory = _fixed(model.shapes, setup, model.layer_shapes, root)
    base = memory.moments["step"]
    gradients = _passing_gradients(memory, setup)

    def bytes_of(shapes: list[Shape]) -> int:
        return n_bytes * n_elements([sharding.shard(shape, n_parts) for shape in shapes])

    first_gradients = bytes_of(first)
    if model.is_tied:  # the output layer has made the token embedding's gradient
        first_gradients -= bytes_of(model.embedding_shapes[:1])
    output_gradients = bytes_of(model.output_shapes)
    moments = {
        "loss": base - gradients + kept.saved + kept.at_loss,
        "last layer": base
        - max(0, gradients - output_gradients)
        + kept.of_layers
        + kept.recomputed
        + kept.in_layer,
        "first layer": base - min(gradients, first_gradients) + kept.of_layer + kept.in_layer,
        "step": base,
    }
    if setup.placement in sharding.SHARDED:  # the root's gradients exist in full until the end
        tied = model.embedding_shapes[:1] if model.is_tied else []
        moments["last layer"] += n_bytes * n_elements([*model.output_shapes, *tied])
        moments["first layer"] += n_bytes * n_elements(root)
    return replace(memory, activations=kept.saved, moments=moments)


def of_count(n_parameters: int, setup: Setup, activations: int = 0) -> Memory:
    """Return the memory of a model of which only the size is known, as if of one tensor.

    Parameters
    ----------
    n_parameters : int
        Of the model.
    setup : Setup
        How it is trained.
    activations : int, optional
        In bytes, known from elsewhere. Default 0.

    Raises
    ------
    ValueError
        If the number is beyond reason.

    Examples
    --------
    ZeRO's 16 bytes a parameter, and a few for a step counter:

    >>> mixed = Setup(Optimizer("torch-adamw"), "float16", has_master_weights=True)
    >>> of_count(10**9, mixed).peak
    16000000004
    """
    if n_parameters > _ABSURD:
        raise ValueError(f"Invalid params: {n_parameters:.3g} (expected up to {_ABSURD:.3g})")
    memory = _fixed([(n_parameters,)], setup)
    at_loss = memory.moments["step"] - _passing_gradients(memory, setup) + activations
    return replace(memory, activations=activations, moments={**memory.moments, "loss": at_loss})


def of_module(module: nn.Module, setup: Setup) -> Memory:
    """Return the memory of training a module of torch, exactly by tensor, without activations.

    Parameters
    ----------
    module : torch.nn.Module
        On any device; on ``torch.device("meta")`` it takes no memory itself. What needs no
        gradient has neither gradient nor states.
    setup : Setup
        How it is trained; its `dtype` does not count, as each parameter has its own.

    Returns
    -------
    Memory
        Frozen parameters count as parameters only.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):
    ...     module = torch.nn.Linear(4096, 4096)
    >>> found = of_module(module, Setup())
    >>> found.parameters, found.states
    (67125248, 34087048)
    """
    parts: list[Memory] = []
    for parameter in module.parameters():
        own = replace(setup, dtype=str(parameter.dtype).removeprefix("torch."))
        shape = tuple(parameter.shape)
        one = _fixed([shape], own)
        if not parameter.requires_grad:
            one = _frozen(one, own)
        parts.append(one)
    return Memory(
        parameters=sum(one.parameters for one in parts),
        gradients=sum(one.gradients for one in parts),
        master=sum(one.master for one in parts),
        states=sum(one.states for one in parts),
        activations=UNKNOWN.saved,
        communication=sum(one.communication for one in parts),
        moments={"step": sum(one.moments["step"] for one in parts)},
        host=sum(one.host for one in parts),
    )


def _frozen(trained: Memory, setup: Setup) -> Memory:
    """Return what is left of a parameter's memory if it is not trained."""
    parameters = trained.parameters
    on_device, host = (0, parameters) if setup.is_elsewhere else (parameters, 0)
    return Memory(parameters, 0, 0, 0, 0, 0, {"step": on_device}, host)


def largest(memory: int, needs: Callable[[int], int]) -> int:
    """Return the largest number of parameters whose peak is within a device's memory.

    Parameters
    ----------
    memory : int
        Bytes that a device has.
    needs : callable
        Returns the bytes that a number of parameters needs; does not decrease.

    Returns
    -------
    int
        0 if not even one parameter fits.

    Raises
    ------
    ValueError
        If every number fits.

    Examples
    --------
    >>> largest(24 * 2**30, lambda n: of_count(n, Setup()).peak)
    2568952400
    """
    low, high = 0, 1
    while needs(high) <= memory:
        low, high = high, 2 * high
        if high > _ABSURD:  # sharded and offloaded: nothing of it stays
            raise ValueError("a model of any size fits: this memory does not bound it")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= memory else (low, middle)
    return low


def _passing_gradients(memory: Memory, setup: Setup) -> int:
    """Return those that come and go on the device; of an offloaded run, a layer's at a time do."""
    stay = setup.keeps_gradients or setup.placement in sharding.OFFLOADED
    return 0 if stay else memory.gradients


def _fixed(
    shapes: Iterable[Shape], setup: Setup, layer: Sequence[Shape] = (), root: Sequence[Shape] = ()
) -> Memory:
    """Return what does not come and go, and the moment of the step.

    Of the shapes, those of a layer, and of what is in no layer.
    """
    parts = [sharding.shard(shape, setup.n_parts) for shape in shapes]
    n_bytes, n_parameters = DTYPE_BYTES[setup.dtype], n_elements(parts)
    parameters = gradients = n_parameters * n_bytes
    has_master = setup.has_master_weights
    master = n_parameters * DTYPE_BYTES["float32"] if has_master else 0
    states = setup.optimizer.state_bytes(parts, "float32" if has_master else setup.dtype)
    layer_bytes, root_bytes = (n_elements(part) * n_bytes for part in (layer, root))
    communication = {
        "single": 0,
        "ddp": gradients if setup.n_devices > 1 else 0,
        "offload": layer_bytes,
    }.get(setup.placement, 3 * layer_bytes + root_bytes)
    host = 0
    if setup.placement in sharding.OFFLOADED:
        host = gradients + master + states + (parameters if setup.is_elsewhere else 0)
    on_device = parameters + gradients + master + states - host + communication
    return Memory(
        parameters, gradients, master, states, 0, communication, {"step": on_device}, host
    )
