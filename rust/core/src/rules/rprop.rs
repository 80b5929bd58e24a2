//! Rprop (Riedmiller and Braun 1993), as `torch.optim.Rprop` defines it.

use crate::real::Real;
use crate::rule::{Rule, State, direction, named};

/// Rprop.
#[derive(Clone, Copy)]
pub(super) struct Rprop {
    eta_minus: f64,
    eta_plus: f64,
    step_size_min: f64,
    step_size_max: f64,
    /// 1, or -1 to maximize.
    direction: f64,
    /// Whether only the sign of a gradient is kept.
    signs: bool,
}

impl Rule<2> for Rprop {
    const STATES: [State; 2] = [State::signed("prev"), State::unsigned("step_size")];
    const HYPER: &'static [&'static str] =
        &["eta_minus", "eta_plus", "step_size_min", "step_size_max", "maximize"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [eta_minus, eta_plus, step_size_min, step_size_max, maximize] = named(hyper);
        let direction = direction(maximize);
        Self { eta_minus, eta_plus, step_size_min, step_size_max, direction, signs: false }
    }

    // Of the last gradient only its sign is used, which a small one would lose beside a large one.
    fn coarse(&mut self) {
        self.signs = true;
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [prev, step_size]: [T; 2]) -> (T, [T; 2]) {
        let grad = grad * grad.like(self.direction);
        let (onward, one) = (grad * prev, grad.like(1.0));
        let (went_on, turned) = (one.where_positive(onward), one.where_positive(onward.negated()));
        let stayed = one - went_on - turned;
        // Only one of the three is not zero, so their sum is exact.
        let (grow, shrink) = (one.like(self.eta_plus) * went_on, one.like(self.eta_minus) * turned);
        let size = (step_size * (grow + shrink + stayed)).max(one.like(self.step_size_min));
        let size = size.min(one.like(self.step_size_max));
        // Where the sign has changed, the step went too far, and there is none this time.
        let grad = grad.where_positive(one - turned);
        let sign = grad.sign();
        let kept = if self.signs { sign } else { grad };
        (sign.mul_add(size.negated(), param), [kept, size])
    }
}
