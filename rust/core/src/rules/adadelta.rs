//! Adadelta (Zeiler 2012, algorithm 1), as `torch.optim.Adadelta` defines it.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_square_on, named};

/// Adadelta.
#[derive(Clone, Copy)]
pub(super) struct Adadelta {
    lr: f64,
    rho: f64,
    eps: f64,
    descent: Descent,
}

impl Rule<2> for Adadelta {
    const STATES: [State; 2] = [State::unsigned("square_avg"), State::unsigned("acc_delta")];
    const HYPER: &'static [&'static str] = &["lr", "rho", "eps", "weight_decay", "maximize"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [lr, rho, eps, weight_decay, maximize] = named(hyper);
        Self { lr, rho, eps, descent: Descent::new(lr, weight_decay, false, maximize) }
    }

    // The step is made of the deltas as they are.
    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.rho, 1.0]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [square, deltas]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.descent.gradient(param, grad);
        let square = average_square_on(square, self.rho, grad);
        let eps = param.like(self.eps);
        let delta = (deltas + eps).sqrt() / (square + eps).sqrt() * grad;
        let deltas = average_square_on(deltas * deltas.like(self.rho), self.rho, delta);
        (delta.mul_add(param.like(-self.lr), param), [square, deltas])
    }
}
