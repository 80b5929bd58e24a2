//! LARS (You, Gitman, Ginsburg 2017, arXiv 1708.03888, algorithm 1): SGD whose rate in each tensor
//! follows from the norms of the tensor and of its gradient.

use super::sgd::Momentum;
use crate::real::Real;
use crate::rule::{Descent, Rule, State, named};

/// LARS without momentum.
#[derive(Clone, Copy)]
pub(super) struct Lars {
    lr: f64,
    weight_decay: f64,
    trust_coeff: f64,
    eps: f64,
    trust_clip: bool,
    /// Whether this tensor's rate is adapted.
    adapts: bool,
    /// What the gradient is multiplied by.
    trust: f64,
    descent: Descent,
}

impl Lars {
    /// Equation 6 of the paper.
    fn trust(&self, [param, grad]: [f64; 2]) -> f64 {
        let (param, grad) = (param.sqrt(), grad.sqrt());
        if !self.adapts || param == 0.0 || grad == 0.0 {
            return 1.0;
        }
        let trust = self.trust_coeff * param / (grad + self.weight_decay * param + self.eps);
        if self.trust_clip { (trust / self.lr).min(1.0) } else { trust }
    }

    #[inline(always)]
    fn gradient<T: Real>(&self, param: T, grad: T) -> T {
        self.descent.gradient(param, grad) * grad.like(self.trust)
    }
}

impl Rule<0> for Lars {
    const STATES: [State; 0] = [];
    const HYPER: &'static [&'static str] =
        &["lr", "weight_decay", "trust_coeff", "eps", "trust_clip", "always_adapt", "maximize"];
    const MEASURES: bool = true;

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [lr, weight_decay, trust_coeff, eps, trust_clip, always_adapt, maximize] = named(hyper);
        Self {
            lr,
            weight_decay,
            trust_coeff,
            eps,
            trust_clip: trust_clip != 0.0,
            adapts: weight_decay != 0.0 || always_adapt != 0.0,
            trust: 1.0,
            descent: Descent::new(lr, weight_decay, false, maximize),
        }
    }

    #[inline(always)]
    fn terms<T: Real>(&self, param: T, grad: T, []: [T; 0]) -> [T; 2] {
        [param * param, grad * grad]
    }

    fn measured(&mut self, sums: [f64; 2], _n_elements: usize) {
        self.trust = self.trust(sums);
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, []: [T; 0]) -> (T, [T; 0]) {
        (self.gradient(param, grad).mul_add(param.like(-self.lr), param), [])
    }
}

/// LARS with momentum.
#[derive(Clone, Copy)]
pub(super) struct LarsMomentum {
    lars: Lars,
    momentum: Momentum,
}

impl Rule<1> for LarsMomentum {
    const STATES: [State; 1] = [State::signed("momentum_buffer")];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "weight_decay",
        "trust_coeff",
        "eps",
        "trust_clip",
        "always_adapt",
        "maximize",
        "momentum",
        "dampening",
        "nesterov",
    ];
    const MEASURES: bool = true;

    fn new(hyper: &[f64], step: f64) -> Self {
        let (of_lars, of_momentum) = hyper.split_at(Lars::HYPER.len());
        Self { lars: Lars::new(of_lars, step), momentum: Momentum::new(of_momentum, step) }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 1] {
        [self.momentum.momentum]
    }

    #[inline(always)]
    fn terms<T: Real>(&self, param: T, grad: T, _: [T; 1]) -> [T; 2] {
        self.lars.terms(param, grad, [])
    }

    fn measured(&mut self, sums: [f64; 2], n_elements: usize) {
        self.lars.measured(sums, n_elements);
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [buffer]: [T; 1]) -> (T, [T; 1]) {
        let [step, buffer] = self.momentum.apply(buffer, self.lars.gradient(param, grad));
        (step.mul_add(step.like(-self.lars.lr), param), [buffer])
    }
}
