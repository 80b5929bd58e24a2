//! AdEMAMix (Pagliardini, Ablin, Grangier 2024, arXiv 2409.03137, section 3): AdamW with a second
//! first moment that remembers for much longer.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_on, average_square_on, named, share_so_far};

/// AdEMAMix.
#[derive(Clone, Copy)]
pub(super) struct AdEmaMix {
    beta1: f64,
    beta2: f64,
    /// Of this step.
    beta3: f64,
    /// Of this step.
    alpha: f64,
    eps: f64,
    lr: f64,
    /// `1 / (1 - beta1^t)`.
    debias1: f64,
    /// `1 / sqrt(1 - beta2^t)`.
    debias2: f64,
    descent: Descent,
}

/// The decay that at the fraction `f` of its warmup has come from `from` to `to`, so that the half
/// life grows evenly.
fn decay_at(f: f64, from: f64, to: f64) -> f64 {
    (1.0 / ((1.0 - f) / from.ln() + f / to.ln())).exp().min(to)
}

impl Rule<3> for AdEmaMix {
    const STATES: [State; 3] = [
        State::signed("exp_avg_fast"),
        State::signed("exp_avg_slow"),
        State::unsigned("exp_avg_sq"),
    ];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "beta1",
        "beta2",
        "beta3",
        "alpha",
        "t_alpha",
        "t_beta3",
        "eps",
        "weight_decay",
        "maximize",
    ];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, beta3, alpha, t_alpha, t_beta3, eps, weight_decay, maximize] =
            named(hyper);
        Self {
            beta1,
            beta2,
            beta3: if step >= t_beta3 { beta3 } else { decay_at(step / t_beta3, beta1, beta3) },
            alpha: if t_alpha == 0.0 { alpha } else { alpha * (step / t_alpha).min(1.0) },
            eps,
            lr,
            debias1: 1.0 / share_so_far(beta1, step),
            debias2: 1.0 / share_so_far(beta2, step).sqrt(),
            descent: Descent::new(lr, weight_decay, true, maximize),
        }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 3] {
        [self.beta1, self.beta3, self.beta2]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [fast, slow, v]: [T; 3]) -> (T, [T; 3]) {
        let grad = self.descent.gradient(param, grad);
        let fast = average_on(fast, self.beta1, grad);
        let slow = average_on(slow, self.beta3, grad);
        let v = average_square_on(v, self.beta2, grad);
        let mixed = fast.mul_add(v.like(self.debias1), slow * v.like(self.alpha));
        let denominator = v.sqrt().mul_add(v.like(self.debias2), v.like(self.eps));
        let param = self.descent.shrunk(param);
        ((mixed / denominator).mul_add(v.like(-self.lr), param), [fast, slow, v])
    }
}
