//! Adamax (Kingma and Ba 2015, algorithm 2), as `torch.optim.Adamax` defines it.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_on, named, share_so_far};

/// Adamax.
#[derive(Clone, Copy)]
pub(super) struct Adamax {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// `lr / (1 - beta1^t)`.
    step_size: f64,
    /// The most that the moment may be of the norm.
    most: Option<f64>,
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
            most: None,
            descent: Descent::new(lr, weight_decay, false, maximize),
        }
    }

    // As each gradient is at most beta2^-k times the norm k steps later, the moment is at most
    // (1 - beta1) (1 + beta1 / beta2 + ...) times the norm. Between states that are known to a step of
    // their grids a quotient could be anything, as that of the norm, which has no root, is far finer.
    fn coarse(&mut self) {
        self.most =
            (self.beta1 < self.beta2).then(|| (1.0 - self.beta1) / (1.0 - self.beta1 / self.beta2));
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.beta1, self.beta2]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [m, u]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.descent.gradient(param, grad);
        let m = average_on(m, self.beta1, grad);
        let u = u.max(grad.abs() + u.like(self.eps));
        let m = self.most.map_or(m, |most| {
            let most = u * u.like(most);
            most.negated().max(most.min(m)) // a NaN stays
        });
        ((m / u).mul_add(m.like(-self.step_size), param), [m, u])
    }
}
