"""What the libraries leave behind them in the process, put away after each test."""

import os
import sys
from unittest import mock

import pytest
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def _nothing_remains(one_thread):
    with mock.patch.dict(os.environ):
        yield
    # accelerate keeps precision and accumulation for the process, and refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    # bitsandbytes keeps which parameters have 32-bit states, by their place in any optimizer.
    if "bitsandbytes" in sys.modules:
        sys.modules["bitsandbytes"].optim.GlobalOptimManager.get_instance().initialize()
