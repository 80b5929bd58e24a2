"""What the libraries leave behind them in the process, put away after each test."""

import os
from unittest import mock

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState


@pytest.fixture(autouse=True)
def _nothing_remains():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small are no faster on more
    with mock.patch.dict(os.environ):
        yield
    torch.set_num_threads(n_threads)
    # accelerate keeps precision and accumulation for the process, and refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
