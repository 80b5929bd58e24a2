//! Adagrad (Duchi, Hazan, Singer 2011), as `torch.optim.Adagrad` defines it.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, named};

/// Adagrad.
#[derive(Clone, Copy)]
pub(super) struct Adagrad {
    /// `lr / (1 + (t - 1) * lr_decay)`.
    step_size: f64,
    eps: f64,
    descent: Descent,
}

impl Rule<1> for Adagrad {
    const STATES: [State; 1] = [State::unsigned("sum")];
    const HYPER: &'static [&'static str] = &["lr", "lr_decay", "weight_decay", "eps", "maximize"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, lr_decay, weight_decay, eps, maximize] = named(hyper);
        Self {
            step_size: lr / (1.0 + (step - 1.0) * lr_decay),
            eps,
            descent: Descent::new(lr, weight_decay, false, maximize),
        }
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [sum]: [T; 1]) -> (T, [T; 1]) {
        let grad = self.descent.gradient(param, grad);
        let sum = grad.mul_add(grad, sum);
        let denominator = sum.sqrt() + sum.like(self.eps);
        ((grad / denominator).mul_add(param.like(-self.step_size), param), [sum])
    }
}
