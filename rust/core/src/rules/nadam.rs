//! NAdam (Dozat 2016, "Incorporating Nesterov Momentum into Adam"), as `torch.optim.NAdam` defines
//! it.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_on, average_square_on, named, share_so_far};

/// NAdam.
#[derive(Clone, Copy)]
pub(super) struct NAdam {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// The momentum of this step and of the next.
    mu: [f64; 2],
    /// The factors of the gradient and of its average in the update.
    factors: [f64; 2],
    /// `1 / sqrt(1 - beta2^t)`.
    debias2: f64,
    descent: Descent,
}

impl Rule<2> for NAdam {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
        "momentum_decay",
        "decoupled_weight_decay",
        "maximize",
    ];
    const SCALARS: &'static [&'static str] = &["mu_product"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled, maximize] =
            named(hyper);
        let mu = |t: f64| beta1 * (1.0 - 0.5 * 0.96_f64.powf(t * momentum_decay));
        Self {
            lr,
            beta1,
            beta2,
            eps,
            mu: [mu(step), mu(step + 1.0)],
            factors: [0.0; 2],
            debias2: 1.0 / share_so_far(beta2, step).sqrt(),
            descent: Descent::new(lr, weight_decay, decoupled != 0.0, maximize),
        }
    }

    /// `mu_product` is the product of all momenta so far.
    fn carry(&mut self, scalars: &mut [f32]) {
        let [mu, next] = self.mu;
        scalars[0] *= mu as f32;
        let product = f64::from(scalars[0]);
        self.factors = [(1.0 - mu) / (1.0 - product), next / (1.0 - product * next)];
        self.factors = self.factors.map(|factor| factor * self.lr);
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
        let denominator = v.sqrt().mul_add(v.like(self.debias2), v.like(self.eps));
        let [of_grad, of_m] = self.factors.map(|factor| v.like(factor));
        let step = grad.mul_add(of_grad, m * of_m) / denominator;
        (self.descent.shrunk(param) - step, [m, v])
    }
}
