//! Schedule-Free AdamW (Defazio et al. 2024, arXiv 2405.15682, algorithm 1): the iterates `z` and
//! their average `x` instead of a schedule of learning rates.
//!
//! The parameter holds `y = (1 - beta1) z + beta1 x`, where gradients are taken, and `x` is not kept.
//! As `x' = (1 - c) x + c z'`, with `z' = z - rate u`,
//!
//! ```text
//! y' = (1 - c) y + c z - rate (1 - beta1 (1 - c)) u
//! ```

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average_square_on, decayed, lerp, named, share_so_far};

/// Schedule-Free AdamW.
#[derive(Clone, Copy)]
pub(super) struct ScheduleFree {
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    /// The learning rate of this step: after warmup, and with Adam's correction of the second moment.
    rate: f64,
    /// The weight of this iterate in the average, up to the power of the largest rate so far.
    weight: f64,
    weight_lr_power: f64,
    /// `c`: how much of the average this iterate is.
    share: f64,
    descent: Descent,
}

impl Rule<2> for ScheduleFree {
    const STATES: [State; 2] = [State::copy("z"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] = &[
        "lr",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
        "warmup_steps",
        "r",
        "weight_lr_power",
        "maximize",
    ];
    const SCALARS: &'static [&'static str] = &["weight_sum", "lr_max"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, warmup_steps, r, weight_lr_power, maximize] =
            named(hyper);
        let warmup = if step < warmup_steps { step / warmup_steps } else { 1.0 };
        Self {
            beta1,
            beta2,
            eps,
            weight_decay,
            rate: lr * warmup * share_so_far(beta2, step).sqrt(),
            weight: step.powf(r),
            weight_lr_power,
            share: 0.0,
            descent: Descent::new(0.0, 0.0, true, maximize),
        }
    }

    fn carry(&mut self, scalars: &mut [f32]) {
        let largest = self.rate.max(f64::from(scalars[1]));
        let weight = self.weight * largest.powf(self.weight_lr_power);
        let sum = f64::from(scalars[0]) + weight;
        self.share = if sum > 0.0 { weight / sum } else { 0.0 };
        scalars.copy_from_slice(&[sum as f32, largest as f32]);
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [1.0, self.beta2]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [z, v]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.descent.gradient(param, grad);
        let v = average_square_on(v, self.beta2, grad);
        let step = grad / (v.sqrt() + v.like(self.eps));
        let step = decayed(step, param, self.weight_decay);
        let back = -self.rate * (1.0 - self.beta1 * (1.0 - self.share));
        let y = step.mul_add(step.like(back), lerp(param, z, self.share));
        (y, [step.mul_add(step.like(-self.rate), z), v])
    }
}
