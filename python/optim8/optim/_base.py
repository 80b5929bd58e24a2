"""What all optimizers share: groups, options, states, checkpoints and the one native call.

An optimizer is torch's `Optimizer` in every respect that a training loop can see. It differs in how
a step is made: the tensors of all groups go to Rust in one call, which makes one pass over them. So
a subclass holds no arithmetic. It has a constructor with torch's signature, `_check`, which raises
torch's errors, and `_rule`, which names the native rule of a group: the rule's hyperparameters are
the group's entries of the same names.

As in torch, hyperparameters are free once an optimizer is made: a scheduler that overshoots, or a
group without the momentum that the others have, trains on. Only what no step could use is refused
then, by `_check_entries`.

Rust keeps nothing between steps, and counts `step` itself as it begins to write: whatever
interrupts a step, either all of its parameters and states have moved or none.

Python's share of a step is a loop over the parameters, which matters when there are thousands of
small ones: what does not depend on the parameter is worked out once a group, and what does not
change from step to step is kept until it does.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from optim8 import _native
from optim8 import state as states
from optim8.optim._check import as_number
from optim8.optim._load import fitted, load_between_hooks
from optim8.optim._options import (
    DEFAULTS,
    FORM_KEYS,
    FORMAT_VERSION,
    IMPLEMENTATION_KEYS,
    Group,
    Options,
    check_group_names,
    check_implementation,
    check_names,
    check_options,
    form_values,
    other_values,
)
from optim8.optim._watch import watched
from optim8.quant import codec_named

try:
    torch.autograd.graph.increment_version([])
    _increment_versions = torch.autograd.graph.increment_version
except RuntimeError:  # torch 2.4, which takes one tensor

    def _increment_versions(tensor: Tensor | Iterable[Tensor]) -> None:
        for one in tensor:
            torch.autograd.graph.increment_version(one)


_IN_TUPLES = {
    "beta1": ("betas", 0),
    "beta2": ("betas", 1),
    "beta3": ("betas", 2),
    "eta_minus": ("etas", 0),
    "eta_plus": ("etas", 1),
    "step_size_min": ("step_sizes", 0),
    "step_size_max": ("step_sizes", 1),
}
"""Where in a group hyperparameters of these names are, as torch has several in one entry."""


@dataclass
class _Note:
    """What an optimizer knows of one of its groups besides what is in it."""

    group: Group
    given: frozenset[str]
    """Options of its form that were asked for, and so outlive a state dict that is loaded."""
    checked: tuple[Any, ...] | None = None
    """All options and the parameters' ids, as they were when they were last found to be good."""
    options: dict[str, Any] = field(default_factory=dict)
    """The same as Rust takes them."""


class Optim8Optimizer(Optimizer):
    """Base class of the optimizers.

    Attributes
    ----------
    skipped_blocks
        How many blocks `nonfinite="skip"` has left as they were, since the optimizer was made.
    """

    skipped_blocks: int

    _own_keys: frozenset[str]
    """Entries of a group that this package knows; a user's class may add some."""

    def __init__(self, params: ParamsT, defaults: Group, options: Options) -> None:
        check_names(type(self).__name__, options)
        defaults = {**defaults, **DEFAULTS, **options, "format_version": FORMAT_VERSION}
        self._check(defaults)
        self._check_together(defaults)
        check_implementation(type(self).__name__, defaults)
        check_options(defaults)
        self.skipped_blocks = 0
        self._given_to_all = frozenset(options)
        self._own_keys = frozenset(defaults)
        self._notes: dict[int, _Note] = {}
        self._forms: dict[int, tuple[Any, ...]] = {}
        """The options by which the states of a parameter were made, by the parameter's id."""
        super().__init__(params, defaults)

    profile_hook_step = staticmethod(watched)
    """What torch wraps `step` in when an optimizer of a class is made."""

    def _note(self, group: Group) -> _Note:
        """Return what is known of a group; by identity, as groups may be removed, or put in."""
        note = self._notes.get(id(group))
        if note is None:
            self._forget_removed_groups()
            given = self._given_to_all.intersection(FORM_KEYS)
            note = self._notes[id(group)] = _Note(group, given)
        return note

    def _forget_removed_groups(self) -> None:
        """Let go of groups that are not the optimizer's any more, and so of their parameters."""
        known = self._notes
        self._notes = {
            id(group): known[id(group)] for group in self.param_groups if id(group) in known
        }

    def _check_forms(self) -> None:
        """Raise if options of a group no longer say how its states were made."""
        for number, group in enumerate(self.param_groups):
            self._check_form(number, group)

    def _check_form(self, number: int, group: Group) -> None:
        form = form_values(group)
        for param in group["params"]:
            if not states.holds_states(self.state.get(param)):
                continue
            made_by = self._forms.setdefault(id(param), form)
            if made_by != form:
                both = zip(FORM_KEYS, made_by, form, strict=True)
                key, made, found = next(one for one in both if one[1] != one[2])
                raise ValueError(
                    f"{key} of parameter group {number} was {made!r} when its states were made, "
                    f"found {found!r}"
                )

    @staticmethod
    def _check(group: Group) -> None:
        """Raise torch's errors for hyperparameters that are out of range."""
        raise NotImplementedError

    @staticmethod
    def _check_together(defaults: Group) -> None:
        """Raise torch's errors for arguments that do not go together; groups may have them."""

    @staticmethod
    def _rule(group: Group) -> str:
        """Return the name of the group's native rule."""
        raise NotImplementedError

    _may_be_none: tuple[str, ...] = ()
    """Hyperparameters that are numbers or None."""

    def _hyper(self, rule: str, group: Group) -> dict[str, float]:
        """Return the hyperparameters of a rule; those that this class does not have are 0."""
        return {name: self._number(group, name) for name in _native.RULES[rule]["hyper"]}

    def _number(self, group: Group, name: str) -> float:
        entry, index = _IN_TUPLES.get(name, (name, None))
        if entry not in self.defaults:
            return 0.0
        value = group[entry]
        if index is not None:
            if len(value) <= index:
                raise ValueError(f"Invalid {entry}: {value} (expected {index + 1} numbers or more)")
            value = value[index]
        if value is None and entry in self._may_be_none:
            return 0.0
        return as_number(entry, value)

    def _before_step(self) -> None:
        """Learn what the hyperparameters of this step depend on."""

    @staticmethod
    def _initial(group: Group) -> dict[str, float]:
        """Return what states begin with, where that is not zero."""
        return {}

    def _check_entries(self, group: Group) -> None:
        """Raise for what a step could not use."""
        check_implementation(type(self).__name__, group)
        check_options(group)
        self._hyper(self._rule(group), group)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group of parameters; see `torch.optim.Optimizer.add_param_group`.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            If torch would, or if an option or hyperparameter of the group is out of range.
        """
        given = self._given_to_all
        if isinstance(param_group, dict):
            given |= param_group.keys()
            check_group_names(param_group)
            group = {**self.defaults, **param_group}
            self._check_entries(group)
            self._check(group)
        super().add_param_group(param_group)
        self._note(self.param_groups[-1]).given = given.intersection(FORM_KEYS)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @_disable_dynamo  # one graph break, where tracing would compile a graph for each parameter
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
        RuntimeError
            If a tensor is sparse or not on the CPU, or parameters share memory.
        TypeError
            If a parameter or gradient is complex or no float.
        ValueError
            If a gradient or state does not fit its parameter. All of them name the parameter by
            its index in the optimizer, and nothing has changed when one is raised.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        if len(self._notes) > len(self.param_groups):
            self._forget_removed_groups()
        state_of = self.state
        made: list[tuple[states.State, states.State, float]] = []
        moved: list[Tensor] = []
        groups = []
        index = -1
        try:
            self._before_step()
            for number, group in enumerate(self.param_groups):
                options = self._options_of(number, group)
                rule = self._rule(group)
                hyper = self._hyper(rule, group)
                tensors_of = states.rule_states(rule).tensors
                tensors = []
                for param in group["params"]:
                    index += 1
                    grad = param.grad
                    if grad is None:
                        continue
                    state = state_of[param]
                    moved.append(param)
                    try:
                        tensors.append((index, param, grad, *tensors_of(state)))
                    except KeyError:
                        # It is the first step, or an option such as momentum was switched on since.
                        kept = {k: v for k, v in state.items() if k != "step" or self._step_stays}
                        new = {**self._create(rule, param, group), **kept}
                        made.append((state, {**state}, float(new["step"])))
                        state.update(new)
                        self._forms[id(param)] = form_values(group)
                        tensors.append((index, param, grad, *tensors_of(state)))
                groups.append((rule, hyper, options, tensors))
            self.skipped_blocks += self._run(groups)
        except BaseException:
            # An interrupt may also come after the native call, when the new states are in use.
            for state, before, step in made:
                if state.get("step", step) == step:
                    state.clear()
                    state.update(before)
            for param in moved:
                if not state_of[param]:
                    del state_of[param]
            raise
        # Autograd has to know that tensors which it may have saved have changed.
        _increment_versions(moved)
        return loss

    _step_stays = True
    """Whether `step` goes on where an option asks for states that a parameter does not have yet."""

    _call: Callable[[list[Any], int], int] | None = None
    """What is called in place of `_native.step`; `Graft` sets it for the time of a step."""

    def _run(self, groups: list[Any]) -> int:
        """Step all tensors of all groups; return how many blocks were skipped."""
        return (self._call or _native.step)(groups, torch.get_num_threads())

    def _create(self, rule: str, param: Tensor, group: Group) -> states.State:
        return states.create(rule, param, group, self._initial(group))

    def _options_of(self, number: int, group: Group) -> dict[str, Any]:
        """Return the options of group `number` as Rust takes them; checked again if changed."""
        note = self._note(group)
        values = (
            *form_values(group),
            *other_values(group),
            *map(group.get, IMPLEMENTATION_KEYS),
            *map(id, group["params"]),  # which may have come here from another group
        )
        if note.checked != values:
            self._check_entries(group)
            self._check_form(number, group)
            note.options = {
                "codec": codec_named(group["codec"]),
                "block_size": group["block_size"],
                "stochastic": group["state_rounding"] == "stochastic",
                "stochastic_params": group["param_rounding"] == "stochastic",
                "skip_nonfinite": group["nonfinite"] == "skip",
                "seed": group["seed"],
            }
            note.checked = values
        return note.options

    def state_nbytes(self) -> int:
        """Return the bytes of all states, scales and step counters included.

        Examples
        --------
        >>> import optim8, torch
        >>> p = torch.zeros(8192, requires_grad=True)
        >>> p.grad = torch.ones(8192)
        >>> optimizer = optim8.AdamW([p])
        >>> optimizer.step()
        >>> optimizer.state_nbytes() / p.numel()
        2.03173828125
        """
        return states.nbytes(self.state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state dict: of this class, or of torch's or bitsandbytes' optimizer of its name.

        As with torch, the options and hyperparameters of the saved groups replace those of this
        optimizer; what a state dict of torch or bitsandbytes lacks, our options among it, stays.
        Any of `state_bits`, `min_quantized_numel`, `block_size` and `codec` that this optimizer was
        given, for all groups or for one, stays too. States that are kept in another way than the
        options then say are converted; all others keep every bit (torch's own method casts them to
        the parameter's dtype). Tensors are copied, and hooks run as in torch.

        Parameters
        ----------
        state_dict
            What `state_dict()` returned.

        Raises
        ------
        ValueError, TypeError
            If anything does not fit; names the parameter, says what was found and expected. Nothing
            has changed then.
        """
        load_between_hooks(self, state_dict, self._load)

    def _load(self, state_dict: dict[str, Any]) -> None:
        given = [self._note(group).given for group in self.param_groups]
        self.__setstate__({**fitted(self, state_dict, given), "_given": given})

    _torch_counts_steps = True
    """Whether the states of torch's class of this name have a `step`."""

    _optional_keys: tuple[str, ...] = ()
    """Hyperparameters that state dicts of older versions of torch lack."""

    def state_dict(self) -> dict[str, Any]:
        """Return states and groups; see `torch.optim.Optimizer.state_dict`.

        Raises
        ------
        ValueError
            If an option that says how states are stored has been changed since they were made.
        """
        self._check_forms()
        return super().state_dict()

    def __getstate__(self) -> dict[str, Any]:
        self._check_forms()
        given = [self._note(group).given for group in self.param_groups]
        names = ("skipped_blocks", "_given_to_all", "_own_keys")
        own = {name: getattr(self, name) for name in names}
        return {**super().__getstate__(), **own, "_given": given}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({key: value for key, value in state.items() if key != "_given"})
        if "param_groups" in state:  # as in torch, this also sets some attributes and leaves others
            self._notes = {}
            for group, given in zip(self.param_groups, state.get("_given", ()), strict=False):
                self._notes[id(group)] = _Note(group, given)
        self._forms = {
            id(param): form_values(group)
            for group in self.param_groups
            for param in group["params"]
            if states.holds_states(self.state.get(param))
        }


def dequantize_state(optimizer: Optim8Optimizer, param: Tensor) -> states.State:
    """Return the states of a parameter as a 32-bit optimizer would have them.

    Parameters
    ----------
    optimizer
        One of this package's.
    param
        One of its parameters.

    Returns
    -------
    dict of str to Tensor
        Every state of the parameter's shape under torch's name, in a new tensor: float32 (float64
        for a float64 parameter), or of the parameter's dtype if it is a copy of the parameter.
        Empty if the parameter has not been stepped yet.

    Raises
    ------
    TypeError
        If the optimizer is not one of this package's, or a `Graft`, whose states are in its two.
    ValueError
        If the parameter is not one of the optimizer's, or an option that says how states are stored
        has been changed since they were made.

    Examples
    --------
    >>> import optim8, torch
    >>> p = torch.zeros(4096, requires_grad=True)
    >>> p.grad = torch.ones(4096)
    >>> optimizer = optim8.AdamW([p])
    >>> optimizer.step()
    >>> optim8.dequantize_state(optimizer, p)["exp_avg"][:2]
    tensor([0.1000, 0.1000])
    """
    if not isinstance(optimizer, Optim8Optimizer):
        raise TypeError(
            f"found {type(optimizer).__name__}, expected an optimizer with states in 8 bits"
        )
    optimizer._check_forms()
    for _, other, group, _ in states.parameters(optimizer.param_groups):
        if other is param:
            state = optimizer.state.get(param)
            rule = optimizer._rule(group)
            return states.dequantize(rule, param, group, state) if state else {}
    raise ValueError(f"the parameter of shape {tuple(param.shape)} is not in the optimizer")
