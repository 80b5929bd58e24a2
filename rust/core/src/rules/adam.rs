//! Adam (Kingma and Ba 2015, algorithm 1) and AdamW (Loshchilov and Hutter 2019, algorithm 2), as
//! `torch.optim.Adam` and `torch.optim.AdamW` define them; AMSGrad (Reddi et al. 2018) too.

use crate::real::Real;
use crate::rule::{Rule, State, average_square_on, decayed, direction, named, share_so_far};

/// Adam; with weight decay in the gradient, or `DECOUPLED` from it as in AdamW.
#[derive(Clone, Copy)]
pub(super) struct Adam<const DECOUPLED: bool> {
    beta1: f64,
    beta2: f64,
    /// `eps * sqrt(1 - beta2^t)`.
    eps: f64,
    weight_decay: f64,
    /// `1 - lr * weight_decay`.
    shrink: f64,
    /// `lr * sqrt(1 - beta2^t) / (1 - beta1^t)`.
    step_size: f64,
    /// 1, or -1 to maximize.
    direction: f64,
}

impl<const DECOUPLED: bool> Adam<DECOUPLED> {
    /// The gradient to descend, unless that is `direction` times the given one, and then folded
    /// into the factors of the moments.
    #[inline(always)]
    fn moments<T: Real>(&self, param: T, grad: T, [m, v]: [T; 2]) -> [T; 2] {
        let (grad, direction) = if DECOUPLED {
            (grad, self.direction)
        } else {
            (decayed(grad * grad.like(self.direction), param, self.weight_decay), 1.0)
        };
        let m = grad.mul_add(grad.like((1.0 - self.beta1) * direction), m);
        [m, average_square_on(v, self.beta2, grad)]
    }

    #[inline(always)]
    fn descend<T: Real>(&self, param: T, m: T, v: T) -> T {
        let shrunk = if DECOUPLED { param * param.like(self.shrink) } else { param };
        (m / (v.sqrt() + v.like(self.eps))).mul_add(m.like(-self.step_size), shrunk)
    }
}

impl<const DECOUPLED: bool> Rule<2> for Adam<DECOUPLED> {
    const STATES: [State; 2] = [State::signed("exp_avg"), State::unsigned("exp_avg_sq")];
    const HYPER: &'static [&'static str] =
        &["lr", "beta1", "beta2", "eps", "weight_decay", "maximize"];

    fn new(hyper: &[f64], step: f64) -> Self {
        let [lr, beta1, beta2, eps, weight_decay, maximize] = named(hyper);
        // The paper's quicker order (section 2): the second moment's bias is made up for in the two factors
        // around its root, and not in a multiplication of each element.
        let bias_correction2_sqrt = share_so_far(beta2, step).sqrt();
        Self {
            beta1,
            beta2,
            eps: eps * bias_correction2_sqrt,
            weight_decay,
            shrink: 1.0 - lr * weight_decay,
            step_size: lr * bias_correction2_sqrt / share_so_far(beta1, step),
            direction: direction(maximize),
        }
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.beta1, self.beta2]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, state: [T; 2]) -> (T, [T; 2]) {
        let [m, v] = self.moments(param, grad, state);
        (self.descend(param, m, v), [m, v])
    }
}

/// AMSGrad: divides by the largest second moment so far.
#[derive(Clone, Copy)]
pub(super) struct AdamAmsgrad<const DECOUPLED: bool>(Adam<DECOUPLED>);

impl<const DECOUPLED: bool> Rule<3> for AdamAmsgrad<DECOUPLED> {
    const STATES: [State; 3] = [
        State::signed("exp_avg"),
        State::unsigned("exp_avg_sq"),
        State::unsigned("max_exp_avg_sq"),
    ];
    const HYPER: &'static [&'static str] = Adam::<DECOUPLED>::HYPER;

    fn new(hyper: &[f64], step: f64) -> Self {
        Self(Adam::new(hyper, step))
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 3] {
        [self.0.beta1, self.0.beta2, 1.0]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [m, v, largest]: [T; 3]) -> (T, [T; 3]) {
        let [m, v] = self.0.moments(param, grad, [m, v]);
        let largest = largest.max(v);
        (self.0.descend(param, m, largest), [m, v, largest])
    }
}
