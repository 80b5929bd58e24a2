"""AdaGraft: the step length of one optimizer in the direction of another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from inspect import unwrap
from typing import Any, TypeGuard, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from optim8 import _native
from optim8 import state as states
from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import as_number
from optim8.optim._load import check_entries, check_others, load_between_hooks
from optim8.optim._watch import has_step_hooks, watched

_Call = Callable[[list[Any], int], int]


class Graft(Optimizer):
    r"""AdaGraft: takes steps as long as one optimizer's, in the direction of another's.

    Both see the same parameters p and gradients, and keep their own states. For each tensor, or
    with `use_global_norm` for all together::

        p = p + lr * ||m - p|| / (||d - p|| + eps) * (d - p)

    where m and d are what the optimizers `magnitude` and `direction` make of p. Only `magnitude`'s
    learning rate matters, and any schedule belongs to it or to `lr`; that of `direction` cancels.
    Norms are the same for any number of threads.

    With two of this package's optimizers neither m nor d ever exists: their steps are measured, and
    the one that comes of them is written. An optimizer of torch's, `Muon`, and one with hooks or a
    `step` of its own write what they make of p, so a step takes a copy of the parameters then.

    Source: Agarwal, Anil, Hazan, Koren and Zhang, "Disentangling Adaptive Gradient Methods from
    Learning Rates" (2020), section 2; the defaults are those of its code.

    Parameters
    ----------
    magnitude, direction
        Optimizers of the same parameters in the same order, of this package or of torch. Graft
        steps them; nobody else should.
    lr
        Factor of the step; a number. Default 1.0.
    eps
        Added to the norm of `direction`'s step. Default 1e-16.
    use_global_norm
        Whether one norm is taken over all tensors. Default False.

    Attributes
    ----------
    state
        Of each parameter the states of the two, under "magnitude" and "direction".

    Raises
    ------
    TypeError
        If either is no optimizer.
    ValueError
        If they have other parameters, or for a negative `lr` or `eps`.

    Examples
    --------
    >>> import optim8, torch
    >>> model = torch.nn.Linear(64, 64)
    >>> optimizer = optim8.Graft(
    ...     optim8.SGD(model.parameters(), lr=0.1), optim8.AdamW(model.parameters(), lr=1.0)
    ... )
    >>> model(torch.ones(64)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        magnitude: Optimizer,
        direction: Optimizer,
        *,
        lr: float = 1.0,
        eps: float = 1e-16,
        use_global_norm: bool = False,
    ) -> None:
        for name, optimizer in (("magnitude", magnitude), ("direction", direction)):
            if not isinstance(optimizer, Optimizer):
                raise TypeError(f"{name} is {type(optimizer).__name__}, expected an optimizer")
        params = _params(magnitude)
        _check_same("direction", _params(direction), params)
        if not lr >= 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not eps >= 0.0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        self.magnitude, self.direction = magnitude, direction
        super().__init__(params, {"lr": lr, "eps": eps, "use_global_norm": use_global_norm})
        self._show()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: groups are those of the two optimizers.

        Raises
        ------
        ValueError
            Always, once the optimizer is made.
        """
        if self.param_groups:
            raise ValueError("Graft takes no parameter group: make it anew of two that have it")
        super().add_param_group(param_group)

    profile_hook_step = staticmethod(watched)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient.

        Parameters
        ----------
        closure
            Evaluates the model again, with gradients enabled, and returns the loss.

        Returns
        -------
        float or None
            What `closure` returned.

        Raises
        ------
        RuntimeError, TypeError, ValueError
            Those of the two optimizers; or if these have been given other parameters. The
            parameters have not changed then; states of `magnitude` have if `direction` raised it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        [group] = self.param_groups
        for name, part in self._parts().items():
            _check_same(name, _params(part), group["params"])
        for name in ("lr", "eps"):
            as_number(name, group[name])
        params = {i: p for i, p in enumerate(group["params"]) if p.grad is not None}
        self._follow(params, self._lengths(params))
        self._show_states()
        return loss

    def _parts(self) -> dict[str, Optimizer]:
        return {"magnitude": self.magnitude, "direction": self.direction}

    def _show(self) -> None:
        """Let torch's tools see the two."""
        self._show_states()
        if _add_groups not in self._optimizer_state_dict_post_hooks.values():
            self.register_state_dict_post_hook(_add_groups, prepend=True)

    def _show_states(self) -> None:
        """Put the states of the two where torch's tools look for them."""
        parts = self._parts()
        for p in self.param_groups[0]["params"]:
            shown = {name: part.state[p] for name, part in parts.items() if p in part.state}
            kept = {k: v for k, v in self.state.pop(p, {}).items() if k not in parts}
            if shown or kept:
                self.state[p] = {**shown, **kept}

    def _lengths(self, params: dict[int, Tensor]) -> dict[int, float]:
        """Step `magnitude`, but leave the parameters; return how long its steps would have been."""
        lengths: dict[int, float] = {}

        def measure(groups: list[Any], n_threads: int) -> int:
            skipped, found = _native.step_lengths(groups, n_threads, True)
            lengths.update(zip(_indices(groups), found, strict=True))
            return skipped

        if _is_one_call(self.magnitude):
            with _calling(self.magnitude, measure):
                self.magnitude.step()
            return lengths
        with _restored(params) as start:
            self.magnitude.step()
            return _take_steps(params, start)

    def _follow(self, params: dict[int, Tensor], lengths: dict[int, float]) -> None:
        """Step `direction`, but this far."""

        def follow(groups: list[Any], n_threads: int) -> int:
            indices = _indices(groups)
            _, own = _native.step_lengths(groups, n_threads, False)
            factors = self._factors(lengths, dict(zip(indices, own, strict=True)))
            return _native.step(groups, n_threads, [factors[i] for i in indices])

        if _is_one_call(self.direction):
            with _calling(self.direction, follow):
                self.direction.step()
            return
        with _restored(params) as start:
            self.direction.step()
            factors = self._factors(lengths, _take_steps(params, start))
            for i, p in params.items():
                start[i].add_(p.mul_(factors[i]))

    def _factors(self, lengths: dict[int, float], own: dict[int, float]) -> dict[int, float]:
        """Return what makes steps that are `own` long as long as they should be."""
        [group] = self.param_groups
        if group["use_global_norm"]:
            lengths, own = (dict.fromkeys(of, math.hypot(*of.values())) for of in (lengths, own))
        # A step of no length has no direction, and any factor will do.
        return {i: group["lr"] * lengths[i] / (own[i] + group["eps"] or 1.0) for i in own}

    def state_nbytes(self) -> int:
        """Return the bytes of the states of both optimizers."""
        return states.nbytes(self.magnitude.state) + states.nbytes(self.direction.state)

    def state_dict(self) -> dict[str, Any]:
        """Return the states and groups of the two; see `torch.optim.Optimizer.state_dict`."""
        self._show_states()  # one may have loaded others since
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises
        ------
        ValueError, TypeError
            If it is of another optimizer, or anything in it does not fit. Nothing has changed then.
        """
        load_between_hooks(self, state_dict, self._load)

    def _load(self, state_dict: dict[str, Any]) -> None:
        [group], parts = self.param_groups, self._parts()
        saved, kept, of_parts = _split(state_dict, len(group["params"]), parts.keys())
        undo = [_memory(part) for part in parts.values()]
        try:
            for name, part in parts.items():
                part.load_state_dict(of_parts[name])
        except BaseException:
            for bring_back in undo:
                bring_back()
            raise
        # New ones, as in torch: who holds the old ones, to bring them back, has them as they were.
        self.param_groups = [{**group, **saved}]
        of_params = {p: kept.pop(i) for i, p in enumerate(group["params"]) if i in kept}
        self.state = defaultdict(dict, {**kept, **of_params})
        self._show_states()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **self._parts()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._show()


def _params(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _check_same(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    """Raise if an optimizer has other parameters than it should."""
    if [*map(id, found)] != [*map(id, expected)]:
        raise ValueError(
            f"{name} has other parameters than Graft: found {len(found)}, expected the same "
            f"{len(expected)} in the same order"
        )


def _add_groups(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Add the groups of the two optimizers to the one group of a state dict of `Graft`."""
    assert isinstance(optimizer, Graft)
    [group] = state_dict["param_groups"]
    for name, part in optimizer._parts().items():
        group[name] = part.state_dict()["param_groups"]


def _memory(optimizer: Optimizer) -> Callable[[], None]:
    """Return what makes an optimizer what it is now: what is loaded is new dictionaries."""
    before = optimizer.__getstate__()
    parts = optimizer._parts().values() if isinstance(optimizer, Graft) else ()
    of_parts = [_memory(part) for part in parts]

    def bring_back() -> None:
        for bring_part_back in of_parts:
            bring_part_back()
        optimizer.__setstate__(before)

    return bring_back


def _split(
    state_dict: dict[str, Any], n_params: int, parts: Collection[str]
) -> tuple[dict[str, Any], dict[Any, Any], dict[str, dict[str, Any]]]:
    """Return what is in a state dict of `Graft`.

    The options, what programs keep there (of a parameter under its index), and the state dicts of
    the two optimizers.
    """
    check_entries(state_dict)
    groups = state_dict["param_groups"]
    if len(groups) != 1:
        raise ValueError(f"loaded state dict has {len(groups)} parameter groups, expected 1")
    group = deepcopy(groups[0])
    if missing := {"lr", "eps", "use_global_norm", "params", *parts} - group.keys():
        raise ValueError(f"parameter group 0 has no {min(missing)}: it is of another optimizer")
    ids = group.pop("params")
    if len(ids) != n_params:
        raise ValueError(f"parameter group 0: found {len(ids)} parameters, expected {n_params}")
    saved = state_dict["state"]
    states_of = {i: saved.get(id, {}) for i, id in enumerate(ids)}
    of_parts = {
        name: {
            "state": {i: held[name] for i, held in states_of.items() if name in held},
            "param_groups": group.pop(name),
        }
        for name in parts
    }
    kept = check_others(saved, ids)
    for i, held in states_of.items():
        if held.keys() - {*parts}:
            kept[i] = states.others(held, {*parts})
    return group, kept, of_parts


def _is_one_call(optimizer: Optimizer) -> TypeGuard[Optim8Optimizer]:
    """Return whether a step is one native call and no more, which can do without the parameters."""
    return (
        isinstance(optimizer, Optim8Optimizer)
        and type(optimizer)._run is Optim8Optimizer._run
        and unwrap(type(optimizer).step) is unwrap(Optim8Optimizer.step)
        and not has_step_hooks(optimizer)
    )


@contextmanager
def _calling(optimizer: Optim8Optimizer, call: _Call) -> Iterator[None]:
    """Make the optimizer step by another native call."""
    optimizer._call = call
    try:
        yield
    finally:
        del optimizer._call


@contextmanager
def _restored(params: dict[int, Tensor]) -> Iterator[dict[int, Tensor]]:
    """Yield copies of the parameters, and write them back at the end, however it comes."""
    start = {i: p.clone() for i, p in params.items()}
    try:
        yield start
    finally:
        for i, p in params.items():
            p.copy_(start[i])


def _take_steps(params: dict[int, Tensor], start: dict[int, Tensor]) -> dict[int, float]:
    """Put the steps from `start` in place of the parameters, and return their lengths."""
    for i, p in params.items():
        p.sub_(start[i])
    n_threads = torch.get_num_threads()
    return {i: _native.sum_of_squares({i: p}, n_threads) ** 0.5 for i, p in params.items()}


def _indices(groups: list[Any]) -> list[int]:
    """Return the indices of the parameters of a native call, in its order."""
    return [index for *_, rows in groups for index, *_ in rows]
