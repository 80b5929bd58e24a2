"""What torch does around a step: hooks, and a range in the traces of profilers.

torch opens the range in every step, whether or not anybody profiles. That takes 5 us, and more
than 100 where a backward has just been through the caches: a fifth of a step of a million
parameters. Here it is opened while a profiler is on.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from torch._C._autograd import _profiler_enabled
from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

P = ParamSpec("P")
R = TypeVar("R")


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Return whether hooks run before or after the steps of an optimizer."""
    return bool(
        optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )


def watched(func: Callable[P, R]) -> Callable[P, R]:
    """Return a class's `step` with what torch does around it, if there is anything to do."""
    as_torch = Optimizer.profile_hook_step(func)

    @wraps(func)
    def step(*args: P.args, **kwargs: P.kwargs) -> R:
        optimizer: Any = args[0]
        if _profiler_enabled() or has_step_hooks(optimizer):
            return as_torch(*args, **kwargs)
        return func(*args, **kwargs)

    return step
