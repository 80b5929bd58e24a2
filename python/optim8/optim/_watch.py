"""What torch does around a step: hooks, and a range in the traces of profilers.

torch opens the range by dispatching two operators, whether or not anybody profiles. That takes 5
us, and more than 100 where a backward has just been through the caches: a fifth of a step of a
million parameters. Here it is opened by the functions behind them, in a fifth of the time.
"""

from collections.abc import Callable
from functools import wraps
from itertools import chain
from typing import Any, ParamSpec, TypeVar

from torch._C._autograd import (
    _profiler_enabled,
    _record_function_with_args_enter,
    _record_function_with_args_exit,
)
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

P = ParamSpec("P")
R = TypeVar("R")


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether hooks run before or after the steps of an optimizer."""
    post = optimizer._optimizer_step_post_hooks or _global_optimizer_post_hooks
    return bool(post) or _has_pre_hooks(optimizer)


def _has_pre_hooks(optimizer: Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or _global_optimizer_pre_hooks)


def watched(func: Callable[P, R]) -> Callable[P, R]:
    """Return a class's `step` with what torch does around it."""
    as_torch = Optimizer.profile_hook_step(func)

    @wraps(func)
    def step(*args: P.args, **kwargs: P.kwargs) -> R:
        # Hooks before a step may replace its arguments, and profilers watch for a call that torch's
        # wrapper makes.
        if not args or _profiler_enabled() or _has_pre_hooks(args[0]):  # type: ignore[arg-type]
            return as_torch(*args, **kwargs)
        optimizer: Any = args[0]
        range_ = _record_function_with_args_enter(f"Optimizer.step#{type(optimizer).__name__}.step")
        try:
            result = func(*args, **kwargs)
            # Looked for now, as the step may have added some.
            own, of_all = optimizer._optimizer_step_post_hooks, _global_optimizer_post_hooks
            for hook in chain(own.values(), of_all.values()):
                hook(optimizer, args, kwargs)
        finally:
            _record_function_with_args_exit(range_)
        return result

    return step
