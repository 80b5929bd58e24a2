"""Settings that all tests share."""

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("optim8", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.load_profile("optim8")
torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """Compute on one thread: small models mostly wait for others, on loaded cores for long."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)
