//! Stochastic gradient descent, as `torch.optim.SGD` defines it, and SGDW (Loshchilov and Hutter
//! 2019, arXiv 1711.05101, algorithm 1) with the weight decay of AdamW.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, named};

/// SGD without momentum.
#[derive(Clone, Copy)]
pub(super) struct Sgd {
    lr: f64,
    descent: Descent,
}

impl Rule<0> for Sgd {
    const STATES: [State; 0] = [];
    const HYPER: &'static [&'static str] =
        &["lr", "weight_decay", "decoupled_weight_decay", "maximize"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [lr, weight_decay, decoupled, maximize] = named(hyper);
        Self { lr, descent: Descent::new(lr, weight_decay, decoupled != 0.0, maximize) }
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, []: [T; 0]) -> (T, [T; 0]) {
        let grad = self.descent.gradient(param, grad);
        (grad.mul_add(grad.like(-self.lr), self.descent.shrunk(param)), [])
    }
}

/// SGD with momentum.
#[derive(Clone, Copy)]
pub(super) struct SgdMomentum {
    sgd: Sgd,
    momentum: Momentum,
}

impl Rule<1> for SgdMomentum {
    const STATES: [State; 1] = [State::signed("momentum_buffer")];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "weight_decay",
        "decoupled_weight_decay",
        "maximize",
        "momentum",
        "dampening",
        "nesterov",
    ];

    fn new(hyper: &[f64], step: f64) -> Self {
        let (of_sgd, of_momentum) = hyper.split_at(Sgd::HYPER.len());
        Self { sgd: Sgd::new(of_sgd, step), momentum: Momentum::new(of_momentum, step) }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 1] {
        [self.momentum.momentum]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [buffer]: [T; 1]) -> (T, [T; 1]) {
        let Sgd { lr, descent } = self.sgd;
        let [step, buffer] = self.momentum.apply(buffer, descent.gradient(param, grad));
        (step.mul_add(step.like(-lr), descent.shrunk(param)), [buffer])
    }
}

/// torch's momentum: a sum of gradients that decays.
#[derive(Clone, Copy)]
pub(super) struct Momentum {
    pub(super) momentum: f64,
    /// The factor of a new gradient: `1 - dampening`, but 1 at the first step.
    fresh: f64,
    nesterov: bool,
}

impl Momentum {
    /// Takes momentum, dampening and nesterov.
    pub(super) fn new(hyper: &[f64], step: f64) -> Self {
        let [momentum, dampening, nesterov] = named(hyper);
        let fresh = if step == 1.0 { 1.0 } else { 1.0 - dampening };
        Self { momentum, fresh, nesterov: nesterov != 0.0 }
    }

    /// What to step by, and the new buffer, from what it was, decayed.
    #[inline(always)]
    pub(super) fn apply<T: Real>(&self, decayed: T, grad: T) -> [T; 2] {
        let buffer = grad.mul_add(grad.like(self.fresh), decayed);
        let momentum = buffer.like(self.momentum);
        [if self.nesterov { buffer.mul_add(momentum, grad) } else { buffer }, buffer]
    }
}
