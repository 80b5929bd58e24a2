"""The optimizers: torch's by name, signature and update, with 8-bit states.

To add one whose rule is in Rust (`optim8._native.RULES`), write a class on `Optim8Optimizer` with
torch's signature, `_check` and `_rule`, and name it here.
"""

from optim8.optim._base import Optim8Optimizer, dequantize_state
from optim8.optim._convert import convert
from optim8.optim._options import Options
from optim8.optim.adadelta import Adadelta
from optim8.optim.adagrad import Adagrad
from optim8.optim.adam import Adam, AdamW
from optim8.optim.adamax import Adamax
from optim8.optim.ademamix import AdEMAMix
from optim8.optim.graft import Graft
from optim8.optim.lamb import LAMB
from optim8.optim.lars import LARS
from optim8.optim.lion import Lion
from optim8.optim.muon import Muon
from optim8.optim.nadam import NAdam
from optim8.optim.radam import RAdam
from optim8.optim.rmsprop import RMSprop
from optim8.optim.rprop import Rprop
from optim8.optim.schedule_free import ScheduleFreeAdamW
from optim8.optim.sgd import SGD, SGDW
from optim8.optim.stable_adamw import StableAdamW

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "SGDW",
    "AdEMAMix",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Graft",
    "Lion",
    "Muon",
    "NAdam",
    "Optim8Optimizer",
    "Options",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "StableAdamW",
    "convert",
    "dequantize_state",
]
