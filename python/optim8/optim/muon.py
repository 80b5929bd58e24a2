"""Muon, as `torch.optim` defines it, with an 8-bit state."""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from optim8 import _native
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import as_number
from optim8.optim._options import Group, Options

_ADJUSTMENTS: dict[str, Callable[[int, int], float]] = {
    "original": lambda rows, columns: sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: sqrt(rows / columns),
}
"""What the learning rate is multiplied by, of the shape of the parameter."""


class Muon(Optim8Optimizer):
    r"""Muon; the same update as `torch.optim.Muon`, with 8-bit momentum: 1.02 bytes a parameter.

    For each matrix, with g its gradient::

        b = momentum * b + (1 - momentum) * g
        u = momentum * b + (1 - momentum) * g     (u = b without nesterov)
        p = p - lr * weight_decay * p
        p = p - lr * f(shape) * orthogonal(u)

    where `orthogonal` is `ns_steps` Newton-Schulz iterations in bfloat16, by torch's matrix
    products. Matrices of one shape and dtype are taken together, up to a million elements, as many
    small products take longer than one of a stack of them. Where the CPU has no instructions for
    products of bfloat16 (with torch before 2.6: no AVX-512), they are made in float32, and their
    results rounded: the same but for the order of additions, and up to 80 times faster. Temporaries
    take up to 16 bytes for each element of a stack, or of a matrix that is larger.

    An interrupt may come when the momenta of a stack have moved and its parameters have not.

    Orthogonalization makes the small singular values of the momentum as large as the large ones,
    and the rounding errors in them too. Final losses stay within the spread of seeds
    (`python -m benches minimize`); where that matters, `codec="root"` or blocks of 64 halve what
    rounding adds.

    Sources: Jordan, "Muon: An optimizer for hidden layers in neural networks" (2024);
    `torch.optim.Muon` (torch 2.9 and later; this class needs no such torch).

    Parameters
    ----------
    params
        Matrices, named or in groups: CPU tensors of two dimensions, of float32, float64, bfloat16
        or float16. Embeddings, heads and vectors are better left to AdamW.
    lr
        Learning rate; a number or a 1-element tensor. Default 1e-3.
    weight_decay
        What is taken off a parameter at each step, as a fraction, is `lr * weight_decay`. Default
        0.1.
    momentum
        Decay of the buffer. Default 0.95.
    nesterov
        Whether to look ahead. Default True.
    ns_coefficients
        Of the quintic iteration. Default (3.4445, -4.7750, 2.0315).
    eps
        The least norm that a matrix is divided by. Default 1e-7.
    ns_steps
        Iterations, fewer than 100. Default 5.
    adjust_lr_fn
        f(shape): "original" (None, default): sqrt(max(1, rows / columns)); "match_rms_adamw":
        0.2 * sqrt(max(rows, columns)); "spectral_unclamped": sqrt(rows / columns).
    **options
        Of the states: see `optim8.optim.Options`.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        For the arguments for which torch raises them, with the same messages, and for options
        that are not as described.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.Muon([model.weight], lr=0.02)
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    >>> sorted(optimizer.state[model.weight])
    ['momentum_buffer_codes', 'momentum_buffer_scales', 'step']
    """

    _torch_counts_steps = False

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults, options)

    @staticmethod
    def _check(group: Group) -> None:
        lr = group["lr"]
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        for name, label in (
            ("lr", "Learning rate"),
            ("momentum", "momentum"),
            ("weight_decay", "weight decay"),
        ):
            if not group[name] >= 0.0:
                raise ValueError(f"{label} should be >= 0 but is: {group[name]}")
        _check_orthogonal(group)
        if group["param_rounding"] != "nearest":
            raise ValueError(
                f"Invalid param_rounding: {group['param_rounding']!r} (Muon's update is torch's, "
                "which rounds to nearest)"
            )

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of matrices; see `torch.optim.Optimizer.add_param_group`.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            If torch would, or if an option or hyperparameter of the group is out of range.
        """
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2:
                del self.param_groups[-1]
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{param.size()}"
                )

    def _check_entries(self, group: Group) -> None:
        super()._check_entries(group)
        _check_orthogonal(group)

    @staticmethod
    def _rule(group: Group) -> str:
        return "muon"

    def _run(self, groups: list[Any]) -> int:
        _native.check_step(groups)
        for group in self.param_groups:
            _check_orthogonal(group)
        skipped = 0
        for group, (rule, hyper, options, rows) in zip(self.param_groups, groups, strict=True):
            for stack in _stacks(rows):
                momenta, n = _move_momenta(rule, hyper, options, stack)
                skipped += n
                if momenta.numel() > 0:
                    _descend([param for _, param, *_ in stack], momenta, group)
        return skipped


_STACK_ELEMENTS = 1 << 20
"""At most so many are taken together, but for a matrix that is larger."""


def _stacks(rows: list[Any]) -> Iterator[list[Any]]:
    """Yield rows of matrices of one shape and dtype, which are to be taken together."""
    alike = defaultdict(list)
    for row in rows:
        _, param, grad, *_ = row
        alike[param.shape, grad.dtype].append(row)
    for (shape, _), of_shape in alike.items():
        n_most = max(_STACK_ELEMENTS // max(shape.numel(), 1), 1)
        for start in range(0, len(of_shape), n_most):
            yield of_shape[start : start + n_most]


def _move_momenta(
    rule: str, hyper: dict[str, float], options: dict[str, Any], stack: list[Any]
) -> tuple[Tensor, int]:
    """Return what is to be made orthogonal, in bfloat16, and how many blocks were skipped."""
    _, _, grad, *_ = stack[0]
    # The rule writes them in place of parameters; what it skips stays zero.
    momenta = grad.new_zeros((len(stack), *grad.shape))
    rows = [
        (index, momentum, *tensors)
        for (index, _, *tensors), momentum in zip(stack, momenta, strict=True)
    ]
    n_skipped = _native.step([(rule, hyper, options, rows)], torch.get_num_threads())
    return momenta.to(torch.bfloat16), n_skipped


def _check_orthogonal(group: Group) -> None:
    """Raise for what the native step does not see, with torch's messages where it has one."""
    _numbers(group)
    if group["adjust_lr_fn"] not in (None, *_ADJUSTMENTS):
        raise ValueError(f"Adjust learning rate function {group['adjust_lr_fn']} is not supported")
    if not isinstance(group["ns_steps"], int):
        raise TypeError(f"ns_steps is {group['ns_steps']!r}, expected an int")
    if group["ns_steps"] >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(group["ns_coefficients"]) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")


def _numbers(group: Group) -> tuple[float, float, float, tuple[float, ...]]:
    """Return learning rate, weight decay, eps and the coefficients; raise for what is no number."""
    lr, weight_decay, eps = (as_number(key, group[key]) for key in ("lr", "weight_decay", "eps"))
    coefficients = (as_number("ns_coefficients", value) for value in group["ns_coefficients"])
    return lr, weight_decay, eps, tuple(coefficients)


def _descend(params: list[Tensor], momenta: Tensor, group: Group) -> None:
    """Take a step against each of a stack of momenta, made orthogonal."""
    lr, weight_decay, eps, coefficients = _numbers(group)
    adjust = _ADJUSTMENTS[group["adjust_lr_fn"] or "original"]
    alpha = -lr * adjust(*momenta.shape[1:])
    # Autocasting would take products of float32 back to bfloat16.
    with torch.autocast("cpu", enabled=False):
        steps = orthogonal(momenta, coefficients, group["ns_steps"], eps, _PRODUCTS)
    for param, step in zip(params, steps, strict=True):
        param.detach().mul_(1 - lr * weight_decay).add_(step, alpha=alpha)


def _multiplies_bfloat16() -> bool:
    """Return whether products of bfloat16 are faster than those of float32 on this CPU."""
    # Torch says so of every CPU with AVX-512; but without instructions of their own, they are up to
    # 4 times slower. What tells the difference came with torch 2.6.
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    tests = [getattr(torch.cpu, name) for name in names if hasattr(torch.cpu, name)]
    if tests and platform.machine().lower() in ("x86_64", "amd64"):
        return any(test() for test in tests)
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without that library
        return False


_PRODUCTS = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
"""The dtype that products are made in."""


def orthogonal(
    matrices: Tensor,
    coefficients: tuple[float, ...],
    n_steps: int,
    eps: float,
    products: torch.dtype,
) -> Tensor:
    """Return about the nearest matrices with orthonormal rows or columns, of a stack in bfloat16.

    Each result of a product is rounded to bfloat16, whichever dtype it was made in.

    Source: Jordan 2024; a quintic Newton-Schulz iteration `a X + (b A + c A^2) X`, A = X X^T.
    """
    a, b, c = coefficients
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    norms = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    x = (x / norms.clamp(min=eps)).to(products)
    for _ in range(n_steps):
        gram = _rounded(torch.bmm(x, x.mT))
        gram = _rounded(torch.baddbmm(gram, gram, gram, beta=b, alpha=c))
        x = _rounded(torch.baddbmm(x, gram, x, beta=a))
    return (x.mT if is_tall else x).to(torch.bfloat16)


def _rounded(matrices: Tensor) -> Tensor:
    """Round elements to bfloat16, in the dtype that they have."""
    if matrices.dtype == torch.bfloat16:
        return matrices
    return matrices.copy_(matrices.bfloat16())
