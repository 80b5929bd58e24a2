//! RMSprop (Tieleman and Hinton 2012, lecture 6.5), plain, centered (Graves 2013, arXiv 1308.0850,
//! equations 38 to 45) and with momentum, as `torch.optim.RMSprop` defines them.

use crate::real::Real;
use crate::rule::{Descent, Rule, State, average, average_square_on, named};

/// Variances below this share of the square are not trusted where averages are quantized: they are
/// a difference of two numbers that are known to a hundredth.
const COARSE_VARIANCE: f64 = 1.0 / 64.0;

/// RMSprop.
#[derive(Clone, Copy)]
pub(super) struct RmsProp {
    lr: f64,
    alpha: f64,
    eps: f64,
    momentum: f64,
    /// The least variance, as a share of the square.
    least_variance: f64,
    descent: Descent,
}

impl RmsProp {
    /// The gradient, divided by the root of its average square.
    #[inline(always)]
    fn normalized<T: Real>(&self, grad: T, square: T) -> T {
        grad / (square.sqrt() + grad.like(self.eps))
    }

    /// The variance of the gradient.
    #[inline(always)]
    fn variance<T: Real>(&self, square: T, mean: T) -> T {
        (square - mean * mean).max(square * mean.like(self.least_variance))
    }

    #[inline(always)]
    fn descend<T: Real>(&self, param: T, step: T) -> T {
        step.mul_add(param.like(-self.lr), param)
    }

    #[inline(always)]
    fn accelerated<T: Real>(&self, buffer: T, step: T) -> T {
        buffer.mul_add(buffer.like(self.momentum), step)
    }
}

impl Rule<1> for RmsProp {
    const STATES: [State; 1] = [State::unsigned("square_avg")];
    const HYPER: &'static [&'static str] =
        &["lr", "alpha", "eps", "weight_decay", "momentum", "maximize"];

    fn new(hyper: &[f64], _step: f64) -> Self {
        let [lr, alpha, eps, weight_decay, momentum, maximize] = named(hyper);
        let descent = Descent::new(lr, weight_decay, false, maximize);
        Self { lr, alpha, eps, momentum, least_variance: 0.0, descent }
    }

    fn coarse(&mut self) {
        self.least_variance = COARSE_VARIANCE;
    }

    // Squares only, here and below: where means and buffers of either sign cancel, one rounding less is seen.
    #[inline(always)]
    fn decays(&self) -> [f64; 1] {
        [self.alpha]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [square]: [T; 1]) -> (T, [T; 1]) {
        let grad = self.descent.gradient(param, grad);
        let square = average_square_on(square, self.alpha, grad);
        (self.descend(param, self.normalized(grad, square)), [square])
    }
}

/// RMSprop with momentum.
#[derive(Clone, Copy)]
pub(super) struct RmsPropMomentum(RmsProp);

impl Rule<2> for RmsPropMomentum {
    const STATES: [State; 2] = [State::unsigned("square_avg"), State::signed("momentum_buffer")];
    const HYPER: &'static [&'static str] = RmsProp::HYPER;

    fn new(hyper: &[f64], step: f64) -> Self {
        Self(RmsProp::new(hyper, step))
    }

    fn coarse(&mut self) {
        self.0.coarse();
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.0.alpha, 1.0]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [square, buffer]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.0.descent.gradient(param, grad);
        let square = average_square_on(square, self.0.alpha, grad);
        let buffer = self.0.accelerated(buffer, self.0.normalized(grad, square));
        (self.0.descend(param, buffer), [square, buffer])
    }
}

/// RMSprop by the variance in place of the square.
#[derive(Clone, Copy)]
pub(super) struct RmsPropCentered(RmsProp);

impl Rule<2> for RmsPropCentered {
    const STATES: [State; 2] = [State::unsigned("square_avg"), State::signed("grad_avg")];
    const HYPER: &'static [&'static str] = RmsProp::HYPER;

    fn new(hyper: &[f64], step: f64) -> Self {
        Self(RmsProp::new(hyper, step))
    }

    fn coarse(&mut self) {
        self.0.coarse();
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 2] {
        [self.0.alpha, 1.0]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [square, mean]: [T; 2]) -> (T, [T; 2]) {
        let grad = self.0.descent.gradient(param, grad);
        let square = average_square_on(square, self.0.alpha, grad);
        let mean = average(mean, self.0.alpha, grad);
        let step = self.0.normalized(grad, self.0.variance(square, mean));
        (self.0.descend(param, step), [square, mean])
    }
}

/// RMSprop by the variance, with momentum.
#[derive(Clone, Copy)]
pub(super) struct RmsPropCenteredMomentum(RmsProp);

impl Rule<3> for RmsPropCenteredMomentum {
    const STATES: [State; 3] = [
        State::unsigned("square_avg"),
        State::signed("momentum_buffer"),
        State::signed("grad_avg"),
    ];
    const HYPER: &'static [&'static str] = RmsProp::HYPER;

    fn new(hyper: &[f64], step: f64) -> Self {
        Self(RmsProp::new(hyper, step))
    }

    fn coarse(&mut self) {
        self.0.coarse();
    }

    #[inline(always)]
    fn decays(&self) -> [f64; 3] {
        [self.0.alpha, 1.0, 1.0]
    }

    #[inline(always)]
    fn update<T: Real>(&self, param: T, grad: T, [square, buffer, mean]: [T; 3]) -> (T, [T; 3]) {
        let grad = self.0.descent.gradient(param, grad);
        let square = average_square_on(square, self.0.alpha, grad);
        let mean = average(mean, self.0.alpha, grad);
        let step = self.0.normalized(grad, self.0.variance(square, mean));
        let buffer = self.0.accelerated(buffer, step);
        (self.0.descend(param, buffer), [square, buffer, mean])
    }
}
