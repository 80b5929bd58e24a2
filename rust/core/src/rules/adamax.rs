//! Adamax (Kingma and Ba 2015, algorithm 2), as `torch.optim.Adamax` defines it.

use crate::real::Real;
use crate::rule::{Descent, Rule, SLOW_DECAY, State, average, named, share_so_far};

/// Adamax.
#[derive(Clone, Copy)]
pub(super) struct Adamax {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// `lr / (1 - beta1^t)`.
    step_size: f64,
    descent: Descent,
}

impl Rule<2> for Adamax {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_inf")];
    const HYPER: &'static [&'static str] =
        &["lr", "beta1", "beta2", "eps", "weight_decay", "maximize"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, maximize] = named(hyper);
        Self {
            beta1,
            beta2,
            eps,
            step_size: lr / share_so_far(beta1, step),
            descent: Descent::new(lr, weight_decay, false, maximize),
        }
    }

    fn slow(&self) -> [bool; 2] {
        [self.beta1 >= SLOW_DECAY, true]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [m, u]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.descent.gradient(param, grad);
        let m = average(m, self.beta1, grad);
        let u = (u * u.like(self.beta2)).max(grad.abs() + u.like(self.eps));
        ((m / u).mul_add(m.like(-self.step_size), param), [m, u])
    }
}
