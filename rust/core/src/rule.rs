//! What an update rule is.
//!
//! A rule reads like its paper. It knows nothing of bytes, blocks, threads, dtypes or vectors: it is
//! written once over [`Real`] and compiled for all of them. Each optimizer's is a file in `rules/`; what
//! many of them share is here.

use crate::real::Real;

/// A state of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Its name, as in torch.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

/// What a state holds, and so how it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers of either sign, which may be quantized.
    Signed,
    /// Numbers that cannot be negative, nor -0, which may be quantized.
    Unsigned,
    /// A copy of the parameters, in their dtype, which is never quantized.
    Copy,
}

impl State {
    pub(crate) const fn signed(name: &'static str) -> Self {
        Self { name, kind: Kind::Signed }
    }

    pub(crate) const fn unsigned(name: &'static str) -> Self {
        Self { name, kind: Kind::Unsigned }
    }

    pub(crate) const fn copy(name: &'static str) -> Self {
        Self { name, kind: Kind::Copy }
    }
}

impl Kind {
    /// What it is called in Python.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Copy => "copy",
        }
    }
}

/// One optimizer's formula at one step, with N states for each parameter.
pub(crate) trait Rule<const N: usize>: Copy + Send + Sync + 'static {
    /// Its states.
    const STATES: [State; N];
    /// The names of its hyperparameters, in the order in which [`Rule::new`] takes them.
    const HYPER: &'static [&'static str];
    /// The names of the numbers, besides `step`, that it carries from step to step for each tensor.
    const SCALARS: &'static [&'static str] = &[];
    /// Whether it has to know sums over a whole tensor before it can update an element.
    const MEASURES: bool = false;

    /// The rule with these hyperparameters at step `step`, counted from 1.
    fn new(hyper: &[f64], step: f64) -> Self;

    /// Brings its [`Rule::SCALARS`] to this step.
    fn carry(&mut self, _scalars: &mut [f32]) {}

    /// Told that its states are quantized: known to about a hundredth.
    fn coarse(&mut self) {}

    /// What each state is multiplied by before the methods below are given it. (Copies are not.) One that is
    /// quantized has a factor anyway, its scale: a decay that is part of it costs nothing.
    #[inline(always)]
    fn decays(&self) -> [f64; N] {
        [1.0; N]
    }

    /// What to sum over the tensor, before anything of it is written.
    #[inline(always)]
    fn terms<T: Real>(&self, param: T, _grad: T, _state: [T; N]) -> [T; 2] {
        [param.like(0.0); 2]
    }

    /// Told the sums of [`Rule::terms`], and the number of elements.
    fn measured(&mut self, _sums: [f64; 2], _n_elements: usize) {}

    /// The new parameter and states.
    fn update<T: Real>(&self, param: T, grad: T, state: [T; N]) -> (T, [T; N]);
}

/// The values of a rule's hyperparameters, as many as it names.
pub(crate) fn named<const K: usize>(hyper: &[f64]) -> [f64; K] {
    hyper.try_into().expect("the number of hyperparameters has been checked")
}

/// What the weights of `n` values are together in their moving average, which began with 0.
pub(crate) fn share_so_far(decay: f64, n: f64) -> f64 {
    1.0 - decay.powf(n)
}

/// What to multiply a gradient by: 1, or -1 to maximize.
pub(crate) fn direction(maximize: f64) -> f64 {
    if maximize == 0.0 { 1.0 } else { -1.0 }
}

/// What most rules begin with: the gradient to descend, and weight decay.
#[derive(Clone, Copy)]
pub(crate) struct Descent {
    /// 1, or -1 to maximize.
    direction: f64,
    /// Weight decay that goes into the gradient.
    coupled: f64,
    /// `1 - lr * weight_decay` where it goes into the parameter.
    shrink: f64,
}

impl Descent {
    pub(crate) fn new(lr: f64, weight_decay: f64, decoupled: bool, maximize: f64) -> Self {
        Self {
            direction: direction(maximize),
            coupled: if decoupled { 0.0 } else { weight_decay },
            shrink: if decoupled { 1.0 - lr * weight_decay } else { 1.0 },
        }
    }

    /// The gradient, negated to maximize, and with coupled weight decay in it.
    #[inline(always)]
    pub(crate) fn gradient<T: Real>(&self, param: T, grad: T) -> T {
        decayed(grad * grad.like(self.direction), param, self.coupled)
    }

    /// The parameter after decoupled weight decay.
    #[inline(always)]
    pub(crate) fn shrunk<T: Real>(&self, param: T) -> T {
        param * param.like(self.shrink)
    }
}

/// `value` with weight decay in it. Without decay the parameter does not enter, as it may be infinite.
#[inline(always)]
pub(crate) fn decayed<T: Real>(value: T, param: T, weight_decay: f64) -> T {
    if weight_decay == 0.0 { value } else { param.mul_add(param.like(weight_decay), value) }
}

/// The moving average `decay * average + (1 - decay) * value`.
#[inline(always)]
pub(crate) fn average<T: Real>(average: T, decay: f64, value: T) -> T {
    average.mul_add(average.like(decay), value * value.like(1.0 - decay))
}

/// The same, of an average that has been multiplied by `decay`.
#[inline(always)]
pub(crate) fn average_on<T: Real>(decayed: T, decay: f64, value: T) -> T {
    value.mul_add(value.like(1.0 - decay), decayed)
}

/// `from + weight * (to - from)`, from the end that is nearer: as torch's `lerp` computes it.
#[inline(always)]
pub(crate) fn lerp<T: Real>(from: T, to: T, weight: f64) -> T {
    let way = to - from;
    if weight < 0.5 {
        way.mul_add(from.like(weight), from)
    } else {
        way.mul_add(from.like(weight - 1.0), to)
    }
}

/// The moving average of a square, on one that has been multiplied by `decay`.
#[inline(always)]
pub(crate) fn average_square_on<T: Real>(decayed: T, decay: f64, value: T) -> T {
    (value * value.like(1.0 - decay)).mul_add(value, decayed)
}
