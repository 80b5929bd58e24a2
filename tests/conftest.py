"""Settings that all tests share."""

import hypothesis
import torch

hypothesis.settings.register_profile("optim8", deadline=None, max_examples=50, print_blob=True)
hypothesis.settings.load_profile("optim8")
torch.manual_seed(0)
