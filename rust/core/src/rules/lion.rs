//! Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average, named};

/// Lion.
#[derive(Clone, Copy)]
pub(super) struct Lion {
    lr: f64,
    beta1: f64,
    beta2: f64,
    descent: Descent,
}

impl Rule<1> for Lion {
    const STATES: [State; 1] = [State::signed("exp_avg")];
    const HYPER: &'static [&'static str] = &["lr", "beta1", "beta2", "weight_decay", "maximize"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [lr, beta1, beta2, weight_decay, maximize] = named(hyper);
        Self { lr, beta1, beta2, descent: Descent::new(lr, weight_decay, true, maximize) }
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [m]: [T; 1]) -> (T, [T; 1]) {
        let grad = self.descent.gradient(param, grad);
        let blend = average(m, self.beta1, grad);
        // A NaN has no sign, but must show: the whole block of states is NaN from here on.
        let sign = blend.mul_add(m.like(0.0), blend.sign());
        let param = sign.mul_add(m.like(-self.lr), self.descent.shrunk(param));
        (param, [average(m, self.beta2, grad)])
    }
}
