"""Independent references in float64 NumPy: simple, slow, and written from the papers and torch."""

import numpy as np


def nearest_codes(y, codebook):
    """Return the place of the nearest value of a sorted codebook, and how near a midpoint is."""
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


# Optimizers: each takes parameter, gradient, states, the number of the step and hyperparameters,
# and returns the new parameter and states.


def descent(param, grad, h, decoupled=False):
    """Return the parameter after decoupled weight decay, and the gradient with coupled one."""
    grad = -grad if h["maximize"] else grad
    if decoupled:
        return param - h["lr"] * h["weight_decay"] * param, grad
    return param, grad + h["weight_decay"] * param


def average(old, beta, new):
    """Return a moving average."""
    return beta * old + (1 - beta) * new


def adam(param, grad, states, step, h, *, decoupled, amsgrad):
    """Adam and AdamW, as torch documents them."""
    param, grad = descent(param, grad, h, decoupled)
    m = average(states["exp_avg"], h["beta1"], grad)
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    new = {"exp_avg": m, "exp_avg_sq": v}
    largest = v
    if amsgrad:
        largest = new["max_exp_avg_sq"] = np.maximum(states["max_exp_avg_sq"], v)
    denominator = np.sqrt(largest / (1 - h["beta2"] ** step)) + h["eps"]
    return param - h["lr"] * m / (1 - h["beta1"] ** step) / denominator, new


def adadelta(param, grad, states, step, h):
    """Adadelta, as torch documents it."""
    param, grad = descent(param, grad, h)
    v = average(states["square_avg"], h["rho"], grad**2)
    delta = np.sqrt(states["acc_delta"] + h["eps"]) / np.sqrt(v + h["eps"]) * grad
    u = average(states["acc_delta"], h["rho"], delta**2)
    return param - h["lr"] * delta, {"square_avg": v, "acc_delta": u}


def adagrad(param, grad, states, step, h):
    """Adagrad, as torch documents it."""
    param, grad = descent(param, grad, h)
    total = states["sum"] + grad**2
    rate = h["lr"] / (1 + (step - 1) * h["lr_decay"])
    return param - rate * grad / (np.sqrt(total) + h["eps"]), {"sum": total}


def adamax(param, grad, states, step, h):
    """Adamax, as torch documents it."""
    param, grad = descent(param, grad, h)
    m = average(states["exp_avg"], h["beta1"], grad)
    u = np.maximum(h["beta2"] * states["exp_inf"], np.abs(grad) + h["eps"])
    return param - h["lr"] * m / (1 - h["beta1"] ** step) / u, {"exp_avg": m, "exp_inf": u}


def ademamix(param, grad, states, step, h):
    """AdEMAMix: Pagliardini et al. 2024, section 3, with the schedules of its appendix."""
    param, grad = descent(param, grad, h, decoupled=True)
    alpha, beta3 = h["alpha"], h["beta3"]
    if h["t_alpha"]:
        alpha = min(step * alpha / h["t_alpha"], alpha)
    if h["t_beta3"]:
        f, start, end = step / h["t_beta3"], np.log(h["beta1"]), np.log(beta3)
        beta3 = min(np.exp(start * end / ((1 - f) * end + f * start)), beta3)
    fast = average(states["exp_avg_fast"], h["beta1"], grad)
    slow = average(states["exp_avg_slow"], beta3, grad)
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    numerator = fast / (1 - h["beta1"] ** step) + alpha * slow
    step_by = numerator / (np.sqrt(v / (1 - h["beta2"] ** step)) + h["eps"])
    new = {"exp_avg_fast": fast, "exp_avg_slow": slow, "exp_avg_sq": v}
    return param - h["lr"] * step_by, new


def lamb(param, grad, states, step, h):
    """LAMB: You et al. 2020, algorithm 2; the gradient is clipped by `grad_scale`."""
    grad = (-grad if h["maximize"] else grad) * h["grad_scale"]
    fresh = 1 - h["beta1"] if h["grad_averaging"] else 1.0
    m = h["beta1"] * states["exp_avg"] + fresh * grad
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    ratio = m / (1 - h["beta1"] ** step) / (np.sqrt(v / (1 - h["beta2"] ** step)) + h["eps"])
    ratio = ratio + h["weight_decay"] * param
    norms = np.linalg.norm(param), np.linalg.norm(ratio)
    trust = norms[0] / norms[1] if all(norms) else 1.0
    if h["trust_clip"]:
        trust = min(trust, 1.0)
    if not (h["weight_decay"] or h["always_adapt"]):
        trust = 1.0
    return param - h["lr"] * trust * ratio, {"exp_avg": m, "exp_avg_sq": v}


def lars(param, grad, states, step, h):
    """LARS: You et al. 2017, algorithm 1 and equation 6."""
    grad = -grad if h["maximize"] else grad
    norms = np.linalg.norm(param), np.linalg.norm(grad)
    trust = 1.0
    if all(norms) and (h["weight_decay"] or h["always_adapt"]):
        divisor = norms[1] + h["weight_decay"] * norms[0] + h["eps"]
        trust = h["trust_coeff"] * norms[0] / divisor
        if h["trust_clip"]:
            trust = min(trust / h["lr"], 1.0)
    return momentum(param, trust * (grad + h["weight_decay"] * param), states, step, h)


def lion(param, grad, states, step, h):
    """Lion: Chen et al. 2023, algorithm 2."""
    param, grad = descent(param, grad, h, decoupled=True)
    m = states["exp_avg"]
    param = param - h["lr"] * np.sign(average(m, h["beta1"], grad))
    return param, {"exp_avg": average(m, h["beta2"], grad)}


def momentum(param, grad, states, step, h):
    """Momentum as in torch's SGD, if there is any."""
    if "momentum" not in h:
        return param - h["lr"] * grad, {}
    fresh = 1.0 if step == 1 else 1 - h["dampening"]
    buffer = h["momentum"] * states["momentum_buffer"] + fresh * grad
    by = grad + h["momentum"] * buffer if h["nesterov"] else buffer
    return param - h["lr"] * by, {"momentum_buffer": buffer}


def nadam(param, grad, states, step, h):
    """NAdam, as torch documents it."""
    param, grad = descent(param, grad, h, h["decoupled_weight_decay"])
    mu = [h["beta1"] * (1 - 0.96 ** (t * h["momentum_decay"]) / 2) for t in range(1, step + 2)]
    m = average(states["exp_avg"], h["beta1"], grad)
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    product = float(np.prod(np.float32(mu[:-1])))  # torch keeps it in float32
    by = (1 - mu[-2]) / (1 - product) * grad + mu[-1] / (1 - product * mu[-1]) * m
    by = by / (np.sqrt(v / (1 - h["beta2"] ** step)) + h["eps"])
    return param - h["lr"] * by, {"exp_avg": m, "exp_avg_sq": v}


def radam(param, grad, states, step, h):
    """RAdam, as torch documents it."""
    param, grad = descent(param, grad, h, h["decoupled_weight_decay"])
    m = average(states["exp_avg"], h["beta1"], grad)
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    by = m / (1 - h["beta1"] ** step)
    rho_inf = 2 / (1 - h["beta2"]) - 1
    rho = rho_inf - 2 * step * h["beta2"] ** step / (1 - h["beta2"] ** step)
    if rho > 5:
        r = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        by = by * np.sqrt(r * (1 - h["beta2"] ** step)) / (np.sqrt(v) + h["eps"])
    return param - h["lr"] * by, {"exp_avg": m, "exp_avg_sq": v}


def rmsprop(param, grad, states, step, h, *, least_variance=1 / 64):
    """RMSprop, as torch documents it; a variance is at least this share of the square."""
    param, grad = descent(param, grad, h)
    new = {"square_avg": average(states["square_avg"], h["alpha"], grad**2)}
    variance = new["square_avg"]
    if "grad_avg" in states:
        new["grad_avg"] = average(states["grad_avg"], h["alpha"], grad)
        variance = np.maximum(variance - new["grad_avg"] ** 2, variance * least_variance)
    by = grad / (np.sqrt(variance) + h["eps"])
    if "momentum_buffer" in states:
        by = new["momentum_buffer"] = h["momentum"] * states["momentum_buffer"] + by
    return param - h["lr"] * by, new


def sgd(param, grad, states, step, h):
    """SGD, as torch documents it, and SGDW: Loshchilov and Hutter 2019, algorithm 1."""
    param, grad = descent(param, grad, h, h["decoupled_weight_decay"])
    return momentum(param, grad, states, step, h)


def stable_adamw(param, grad, states, step, h):
    """StableAdamW: Wortsman et al. 2023, algorithm 2."""
    grad = -grad if h["maximize"] else grad
    beta1, beta2 = (b * (1 - b ** (step - 1)) / (1 - b**step) for b in (h["beta1"], h["beta2"]))
    m = average(states["exp_avg"], beta1, grad)
    v = average(states["exp_avg_sq"], beta2, grad**2)
    rms = np.sqrt(np.mean(grad**2 / np.maximum(v, h["eps"] ** 2)))
    rate = h["lr"] / max(1.0, rms)
    param = param - rate * h["weight_decay"] * param
    return param - rate * m / (np.sqrt(v) + h["eps"]), {"exp_avg": m, "exp_avg_sq": v}


def rprop(param, grad, states, step, h):
    """Rprop, as torch documents it."""
    param, grad = descent(param, grad, {**h, "weight_decay": 0.0})
    onward = np.sign(grad * states["prev"])
    factor = np.select([onward > 0, onward < 0], [h["eta_plus"], h["eta_minus"]], 1.0)
    size = np.clip(states["step_size"] * factor, h["step_size_min"], h["step_size_max"])
    grad = np.where(onward < 0, 0.0, grad)
    return param - np.sign(grad) * size, {"prev": grad, "step_size": size}


def schedule_free_adamw(param, grad, states, step, h):
    """Schedule-Free AdamW: Defazio et al. 2024, algorithm 1, with the weights of its code."""
    grad = -grad if h["maximize"] else grad
    largest = weights = 0.0
    for t in range(1, step + 1):
        warmup = min(1.0, t / h["warmup_steps"]) if h["warmup_steps"] else 1.0
        rate = h["lr"] * warmup * np.sqrt(1 - h["beta2"] ** t)
        largest = max(largest, rate)
        weight = t ** h["r"] * largest ** h["weight_lr_power"]
        weights += weight
    share = weight / weights
    z = states["z"]
    x = (param - (1 - h["beta1"]) * z) / h["beta1"]
    v = average(states["exp_avg_sq"], h["beta2"], grad**2)
    z = z - rate * (grad / (np.sqrt(v) + h["eps"]) + h["weight_decay"] * param)
    x = (1 - share) * x + share * z
    return (1 - h["beta1"]) * z + h["beta1"] * x, {"z": z, "exp_avg_sq": v}
