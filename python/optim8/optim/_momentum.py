"""What `SGD`, `SGDW` and `LARS` share."""

from optim8.optim._base import Optim8Optimizer
from optim8.optim._check import check_lr, check_not_negative
from optim8.optim._options import Group


class MomentumOptimizer(Optim8Optimizer):
    """Base class of those with the hyperparameters and the buffer of `torch.optim.SGD`."""

    _step_stays = False  # the first gradient of a momentum buffer is not dampened

    @staticmethod
    def _check(group: Group) -> None:
        check_lr(group)
        check_not_negative(group, "momentum", "weight_decay")

    @staticmethod
    def _check_together(defaults: Group) -> None:
        if defaults["nesterov"] and (defaults["momentum"] <= 0 or defaults["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
