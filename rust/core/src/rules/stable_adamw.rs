//! StableAdamW (Wortsman et al. 2023, arXiv 2304.13013, algorithm 2): AdamW whose steps in a tensor
//! are shortened while its second moments lag behind its gradients.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_on, average_square_on, named};

/// StableAdamW.
#[derive(Clone, Copy)]
pub(super) struct StableAdamW {
    /// The learning rate, until it has been divided by the tensor's root mean square.
    lr: f64,
    /// Debiased: so are the averages then.
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    maximize: f64,
    descent: Descent,
}

impl StableAdamW {
    #[inline(always)]
    fn moments<T: Real>(&self, param: T, grad: T, [m, v]: [T; 2]) -> [T; 2] {
        let grad = self.descent.gradient(param, grad);
        [average_on(m, self.beta1, grad), average_square_on(v, self.beta2, grad)]
    }
}

/// The decay that gives an average without bias at step t.
fn debiased(beta: f64, step: f64) -> f64 {
    (beta.powf(step) - beta) / (beta.powf(step) - 1.0)
}

impl Rule<2> for StableAdamW {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] =
        &["lr", "beta1", "beta2", "eps", "weight_decay", "maximize"];
    const MEASURES: bool = true;

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, maximize] = named(hyper);
        Self {
            lr,
            beta1: debiased(beta1, step),
            beta2: debiased(beta2, step),
            eps,
            weight_decay,
            maximize,
            descent: Descent::new(lr, weight_decay, true, maximize),
        }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.beta1, self.beta2]
    }

    #[inline(always)]
    fn terms<T: Real>(&self, param: T, grad: T, state: [T; 2]) -> [T; 2] {
        let [_, v] = self.moments(param, grad, state);
        let lag = grad * grad / v.like(self.eps * self.eps).max(v);
        // But for what is NaN, 0 / 0 or spoiled: that would let go of the whole tensor.
        [lag.where_positive(lag), param.like(0.0)]
    }

    fn measured(&mut self, [sum, _]: [f64; 2], n_elements: usize) {
        self.lr /= (sum / n_elements.max(1) as f64).sqrt().max(1.0);
        self.descent = Descent::new(self.lr, self.weight_decay, true, self.maximize);
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, state: [T; 2]) -> (T, [T; 2]) {
        let [m, v] = self.moments(param, grad, state);
        let step = m / (v.sqrt() + v.like(self.eps));
        (step.mul_add(m.like(-self.lr), self.descent.shrunk(param)), [m, v])
    }
}
