"""Independent references in float64 NumPy: simple, slow, and written from the papers and torch."""

import numpy as np


def nearest_codes(y, codebook):
    """Return the index of the nearest codebook value, and how near the runner-up's midpoint is."""
    y, codebook = np.asarray(y, np.float64), np.asarray(codebook, np.float64)
    midpoints = (codebook[1:] + codebook[:-1]) / 2
    codes = np.searchsorted(midpoints, y)
    with np.errstate(invalid="ignore"):
        distance = np.abs(midpoints[None, :] - y.reshape(-1, 1)) / np.abs(midpoints[None, :])
    return codes, distance.min(1).reshape(y.shape)


def blocks_of(shape, block_size):
    """Yield the flat range of every block, in order."""
    n = int(np.prod(shape))
    slices = shape[0] if len(shape) >= 2 and n >= shape[0] * block_size and n else 1
    length = n // slices
    for start in range(0, n, length or 1):
        for begin in range(start, start + length, block_size):
            yield slice(begin, min(begin + block_size, start + length))


def adam(param, grad, states, step, hyper, *, decoupled, amsgrad):
    """Adam and AdamW, as torch documents them; returns the new parameter and states."""
    if hyper["maximize"]:
        grad = -grad
    if decoupled:
        param = param - hyper["lr"] * hyper["weight_decay"] * param
    else:
        grad = grad + hyper["weight_decay"] * param
    beta1, beta2 = hyper["beta1"], hyper["beta2"]
    m = beta1 * states["exp_avg"] + (1 - beta1) * grad
    v = beta2 * states["exp_avg_sq"] + (1 - beta2) * grad**2
    new = {"exp_avg": m, "exp_avg_sq": v}
    largest = v
    if amsgrad:
        largest = new["max_exp_avg_sq"] = np.maximum(states["max_exp_avg_sq"], v)
    denominator = np.sqrt(largest / (1 - beta2**step)) + hyper["eps"]
    return param - hyper["lr"] * m / (1 - beta1**step) / denominator, new
