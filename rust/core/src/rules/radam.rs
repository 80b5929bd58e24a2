//! RAdam (Liu et al. 2020, arXiv 1908.03265, algorithm 2), as `torch.optim.RAdam` defines it.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_on, average_square_on, named, share_so_far};

/// RAdam.
#[derive(Clone, Copy)]
pub(super) struct RAdam {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// Whether enough steps were taken for the second moment to be of use.
    adaptive: bool,
    /// `lr / (1 - beta1^t)`, and if it is adaptive, times the rectification and the bias correction
    /// of the second moment.
    step_size: f64,
    descent: Descent,
}

impl Rule<2> for RAdam {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] =
        &["lr", "beta1", "beta2", "eps", "weight_decay", "decoupled_weight_decay", "maximize"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, decoupled, maximize] = named(hyper);
        let correction2 = share_so_far(beta2, step);
        let rho_inf = 2.0 / (1.0 - beta2) - 1.0;
        let rho = rho_inf - 2.0 * step * beta2.powf(step) / correction2;
        let adaptive = rho > 5.0;
        let rectified = (rho - 4.0) * (rho - 2.0) * rho_inf * correction2
            / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho);
        let step_size = lr / share_so_far(beta1, step);
        Self {
            beta1,
            beta2,
            eps,
            adaptive,
            step_size: if adaptive { step_size * rectified.sqrt() } else { step_size },
            descent: Descent::new(lr, weight_decay, decoupled != 0.0, maximize),
        }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.beta1, self.beta2]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [m, v]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.descent.gradient(param, grad);
        let m = average_on(m, self.beta1, grad);
        let v = average_square_on(v, self.beta2, grad);
        let step = if self.adaptive { m / (v.sqrt() + v.like(self.eps)) } else { m };
        (step.mul_add(v.like(-self.step_size), self.descent.shrunk(param)), [m, v])
    }
}
