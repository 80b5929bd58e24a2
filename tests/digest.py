"""Print a digest of what many kinds of steps compute; a program that other tests run.

Usage: python digest.py N_THREADS [flush]
"""

import hashlib
import sys

import torch

import optim8
from optim8 import _native
from specs import SPECS, step, tensor

SHAPES = [(3, 12_000), (30_001,), (70, 90), (33,), (), (0,), (4, 10, 12, 10)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def digest(*tensors):
    """Return a hash of the tensors' bytes."""
    hashed = hashlib.sha256()
    for value in tensors:
        hashed.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def digests(specs):
    """Yield a line for each kind of step."""
    for spec in specs:
        for codec in _native.CODECS:
            for dtype in DTYPES:
                params = [tensor(s, dtype, i).requires_grad_() for i, s in enumerate(SHAPES)]
                params[1] = tensor((30_001, 2), dtype)[:, 0].requires_grad_()
                optimizer = spec.cls(params, codec=codec, **spec.kwargs)
                step(optimizer, 3)
                kept = [value for p in params for value in optimizer.state[p].values()]
                yield f"{spec.rule} {codec} {dtype} {digest(*params, *kept)}"
    for dtype in DTYPES:
        params = [tensor(s, dtype, i).requires_grad_() for i, s in enumerate(SHAPES)]
        step(optim8.Graft(optim8.LAMB(params), optim8.AdamW(params, lr=1.0)), 3)
        yield f"graft {dtype} {digest(*params)}"
    for codec in _native.CODECS:
        for scale in (1.0, 1e-40, 1e37):
            q = optim8.quantize(tensor((100, 300), scale=scale), codec=codec)
            yield f"quantize {codec} {scale} {digest(q.codes, q.scales, q.dequantize())}"


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    flush = sys.argv[2:] == ["flush"]
    if flush:
        torch.set_flush_denormal(True)
    print(_native.info()["level"])
    print("\n".join(digests(SPECS[:1] if flush else SPECS)))
