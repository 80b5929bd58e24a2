//! LAMB (You et al. 2020, arXiv 1904.00962, algorithm 2): Adam whose step in each tensor is as long
//! as the tensor is large.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_square_on, decayed, named, share_so_far};

/// LAMB.
#[derive(Clone, Copy)]
pub(super) struct Lamb {
    lr: f64,
    beta1: f64,
    /// The factor of a new gradient in the first moment.
    fresh: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    trust_clip: bool,
    /// Whether this tensor's step is scaled.
    adapts: bool,
    /// What gradients are multiplied by, to clip them.
    grad_scale: f64,
    /// `1 / (1 - beta1^t)`.
    debias1: f64,
    /// `1 / sqrt(1 - beta2^t)`.
    debias2: f64,
    /// `lr` times the trust ratio.
    step_size: f64,
    descent: Descent,
}

impl Lamb {
    #[inline(always)]
    fn moments<T: Real>(&self, param: T, grad: T, [m, v]: [T; 2]) -> [T; 2] {
        let grad = self.descent.gradient(param, grad) * grad.like(self.grad_scale);
        let m = grad.mul_add(grad.like(self.fresh), m);
        [m, average_square_on(v, self.beta2, grad)]
    }

    /// Adam's step, with weight decay.
    #[inline(always)]
    fn ratio<T: Real>(&self, param: T, [m, v]: [T; 2]) -> T {
        let denominator = v.sqrt().mul_add(v.like(self.debias2), v.like(self.eps));
        let adam = m * m.like(self.debias1) / denominator;
        decayed(adam, param, self.weight_decay)
    }
}

impl Rule<2> for Lamb {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
        "grad_averaging",
        "trust_clip",
        "always_adapt",
        "grad_scale",
        "maximize",
    ];
    const MEASURES: bool = true;

    fn new(hyper: &[f64], step: f64) -> Self {
        let [
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
            grad_averaging,
            trust_clip,
            always_adapt,
            grad_scale,
            maximize,
        ] = named(hyper);
        Self {
            lr,
            beta1,
            fresh: if grad_averaging == 0.0 { 1.0 } else { 1.0 - beta1 },
            beta2,
            eps,
            weight_decay,
            trust_clip: trust_clip != 0.0,
            adapts: weight_decay != 0.0 || always_adapt != 0.0,
            grad_scale,
            debias1: 1.0 / share_so_far(beta1, step),
            debias2: 1.0 / share_so_far(beta2, step).sqrt(),
            step_size: lr,
            descent: Descent::new(lr, 0.0, false, maximize),
        }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.beta1, self.beta2]
    }

    #[inline(always)]
    fn terms<T: Real>(&self, param: T, grad: T, state: [T; 2]) -> [T; 2] {
        let ratio = self.ratio(param, self.moments(param, grad, state));
        [param * param, ratio * ratio]
    }

    fn measured(&mut self, [param, ratio]: [f64; 2], _n_elements: usize) {
        if self.adapts && param != 0.0 && ratio != 0.0 {
            let trust = (param / ratio).sqrt();
            self.step_size = self.lr * if self.trust_clip { trust.min(1.0) } else { trust };
        }
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, state: [T; 2]) -> (T, [T; 2]) {
        let state = self.moments(param, grad, state);
        let ratio = self.ratio(param, state);
        (ratio.mul_add(param.like(-self.step_size), param), state)
    }
}
