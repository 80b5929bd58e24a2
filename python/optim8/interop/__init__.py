"""Moving out: state dicts that other libraries load.

Moving in needs no function: `load_state_dict` of every optimizer takes the state dicts of torch and
of bitsandbytes, and `optim8.convert` a live optimizer of torch.
"""

from optim8.interop.bitsandbytes import to_bitsandbytes_state_dict
from optim8.interop.torch import to_torch_state_dict

__all__ = ["to_bitsandbytes_state_dict", "to_torch_state_dict"]
