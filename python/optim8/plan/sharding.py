"""Which part of a training run each device holds.

``single``
    All of it.
``ddp``
    Each of n devices holds all of it, works on its own part of the batch, and has buckets for the
    exchange of gradients, of the same size as these (`torch.nn.parallel.DistributedDataParallel`
    with its default ``gradient_as_bucket_view=False``, as its documentation says).
``fsdp2``
    Parameters, gradients, master weights and states are cut along their first dimension
    (`torch.distributed.fsdp.fully_shard`; ZeRO's third stage: Rajbhandari et al. 2020,
    arXiv:1910.02054). A layer is gathered when its turn comes, and the next one ahead of it, and a
    layer's gradients exist in full before they are exchanged. What is in no layer, embeddings and
    the output layer, stays gathered from the first layer to the last, and so do its gradients. The
    first device has the largest part, and is the one counted.
``offload``
    One device computes; gradients, master weights and states are in the host's memory, where the
    optimizer runs, and a layer's gradients are on the device before they leave it (ZeRO-Offload:
    Ren et al. 2021, arXiv:2101.06840: 2 of 16 bytes a parameter stay).
``fsdp2-offload``
    As ``fsdp2``, with all that is cut in the host's memory, where the optimizer runs
    (``CPUOffloadPolicy``): the device has gathered layers and activations only.
"""

from __future__ import annotations

from optim8.plan.model import Shape

PLACEMENTS = ("single", "ddp", "fsdp2", "offload", "fsdp2-offload")

#: What is cut, and what has its gradients and states in the host's memory.
SHARDED = ("fsdp2", "fsdp2-offload")
OFFLOADED = ("offload", "fsdp2-offload")


def check(placement: str, n_devices: int) -> None:
    """Check that a placement can be had on some devices.

    Raises
    ------
    ValueError
        If it is unknown, or the number of devices does not fit it.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"unknown placement {placement!r} (known: {', '.join(PLACEMENTS)})")
    if n_devices < 1 or (placement in ("single", "offload") and n_devices > 1):
        raise ValueError(f"Invalid devices: {n_devices} (placement {placement!r} is for one)")


def shard(shape: Shape, n_devices: int) -> Shape:
    """Return the shape of the first device's part, which is the largest.

    Examples
    --------
    >>> shard((10, 3), 4), shard((10, 3), 1)
    ((3, 3), (10, 3))
    """
    return (-(-shape[0] // n_devices), *shape[1:]) if shape else shape
