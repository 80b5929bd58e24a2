//! Update rules: each optimizer's formula, and nothing else.
//!
//! A rule reads like its paper. It knows nothing of bytes, blocks, threads, dtypes or vectors: it is
//! written once over [`Real`] and compiled for all of them. To add one, write its file and add its
//! line to [`RULES`].

mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod ademamix;
mod lamb;
mod lars;
mod lion;
mod muon;
mod nadam;
mod radam;
mod rmsprop;
mod schedule_free;
mod sgd;
mod stable_adamw;

use crate::error::{Error, Result};
use crate::kernel::{Bind, bind};
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
    /// Numbers that cannot be negative, which may be quantized.
    Unsigned,
    /// A copy of the parameters, in their dtype, which is never quantized.
    Copy,
}

impl State {
    const fn signed(name: &'static str) -> Self {
        Self { name, kind: Kind::Signed }
    }

    const fn unsigned(name: &'static str) -> Self {
        Self { name, kind: Kind::Unsigned }
    }

    const fn copy(name: &'static str) -> Self {
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

    /// Which states move so slowly that rounding to nearest would stop them.
    fn slow(&self) -> [bool; N];

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

/// First moments with a decay of at least this move too slowly to be rounded to nearest.
const SLOW_DECAY: f64 = 0.99;

/// What most rules begin with: the gradient to descend, and weight decay.
#[derive(Clone, Copy)]
struct Descent {
    /// 1, or -1 to maximize.
    direction: f64,
    /// Weight decay that goes into the gradient.
    coupled: f64,
    /// `1 - lr * weight_decay` where it goes into the parameter.
    shrink: f64,
}

impl Descent {
    fn new(lr: f64, weight_decay: f64, decoupled: bool, maximize: f64) -> Self {
        Self {
            direction: if maximize == 0.0 { 1.0 } else { -1.0 },
            coupled: if decoupled { 0.0 } else { weight_decay },
            shrink: if decoupled { 1.0 - lr * weight_decay } else { 1.0 },
        }
    }

    /// The gradient, negated to maximize, and with coupled weight decay in it.
    #[inline(always)]
    fn gradient<T: Real>(&self, param: T, grad: T) -> T {
        param.mul_add(param.like(self.coupled), grad * grad.like(self.direction))
    }

    /// The parameter after decoupled weight decay.
    #[inline(always)]
    fn shrunk<T: Real>(&self, param: T) -> T {
        param * param.like(self.shrink)
    }
}

/// The moving average `decay * average + (1 - decay) * value`.
#[inline(always)]
fn average<T: Real>(average: T, decay: f64, value: T) -> T {
    average.mul_add(average.like(decay), value * value.like(1.0 - decay))
}

/// `from + weight * (to - from)`, from the end that is nearer: as torch's `lerp` computes it.
#[inline(always)]
fn lerp<T: Real>(from: T, to: T, weight: f64) -> T {
    let way = to - from;
    if weight < 0.5 {
        way.mul_add(from.like(weight), from)
    } else {
        way.mul_add(from.like(weight - 1.0), to)
    }
}

/// The moving average of a square.
#[inline(always)]
fn average_square<T: Real>(average: T, decay: f64, value: T) -> T {
    average.mul_add(average.like(decay), value * value.like(1.0 - decay) * value)
}

/// A tensor that belongs to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The values.
    Full,
    /// The codes of the values.
    Codes,
    /// The scales of the blocks.
    Scales,
    /// Values of the parameters' dtype.
    Copy,
}

impl Part {
    /// What follows the state's name in the tensor's.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Full | Self::Copy => "",
            Self::Codes => "_codes",
            Self::Scales => "_scales",
        }
    }
}

/// A rule that can be called by its name.
#[derive(Clone, Copy)]
pub struct RuleEntry {
    /// The name.
    pub name: &'static str,
    /// Its states.
    pub states: &'static [State],
    /// The names of its hyperparameters, in order.
    pub hyper: &'static [&'static str],
    /// The names of the numbers, besides `step`, that it carries from step to step for each tensor.
    pub scalars: &'static [&'static str],
    /// The rule at a step, ready to run on any dtype, format and instruction set.
    pub(crate) bind: Bind,
}

impl RuleEntry {
    const fn new<R: Rule<N>, const N: usize>(name: &'static str) -> Self {
        Self { name, states: &R::STATES, hyper: R::HYPER, scalars: R::SCALARS, bind: bind::<R, N> }
    }

    /// The tensors of its states in order, each with the state's name: in full, or quantized.
    pub fn tensors(&self, quantized: bool) -> impl Iterator<Item = (&'static str, Part)> {
        self.states.iter().flat_map(move |state| {
            let (first, second) = match (state.kind, quantized) {
                (Kind::Copy, _) => (Part::Copy, None),
                (_, false) => (Part::Full, None),
                (_, true) => (Part::Codes, Some(Part::Scales)),
            };
            core::iter::once(first).chain(second).map(|part| (state.name, part))
        })
    }

    /// A rule by its name.
    ///
    /// # Errors
    ///
    /// [`Error::RuleName`] for a name that is not in [`RULES`].
    pub fn named(name: &str) -> Result<&'static Self> {
        RULES.iter().find(|rule| rule.name == name).ok_or_else(|| Error::RuleName {
            found: name.to_owned(),
            expected: RULES.iter().map(|rule| rule.name).collect::<Vec<_>>().join(", "),
        })
    }
}

/// Every rule.
pub static RULES: &[RuleEntry] = &[
    RuleEntry::new::<adadelta::Adadelta, 2>("adadelta"),
    RuleEntry::new::<adagrad::Adagrad, 1>("adagrad"),
    RuleEntry::new::<adam::Adam<false>, 2>("adam"),
    RuleEntry::new::<adam::AdamAmsgrad<false>, 3>("adam_amsgrad"),
    RuleEntry::new::<adam::Adam<true>, 2>("adamw"),
    RuleEntry::new::<adam::AdamAmsgrad<true>, 3>("adamw_amsgrad"),
    RuleEntry::new::<adamax::Adamax, 2>("adamax"),
    RuleEntry::new::<ademamix::AdEmaMix, 3>("ademamix"),
    RuleEntry::new::<lamb::Lamb, 2>("lamb"),
    RuleEntry::new::<lars::Lars, 0>("lars"),
    RuleEntry::new::<lars::LarsMomentum, 1>("lars_momentum"),
    RuleEntry::new::<lion::Lion, 1>("lion"),
    RuleEntry::new::<muon::Muon, 1>("muon"),
    RuleEntry::new::<nadam::NAdam, 2>("nadam"),
    RuleEntry::new::<radam::RAdam, 2>("radam"),
    RuleEntry::new::<rmsprop::RmsProp, 1>("rmsprop"),
    RuleEntry::new::<rmsprop::RmsPropMomentum, 2>("rmsprop_momentum"),
    RuleEntry::new::<rmsprop::RmsPropCentered, 2>("rmsprop_centered"),
    RuleEntry::new::<rmsprop::RmsPropCenteredMomentum, 3>("rmsprop_centered_momentum"),
    RuleEntry::new::<schedule_free::ScheduleFree, 2>("schedule_free_adamw"),
    RuleEntry::new::<sgd::Sgd, 0>("sgd"),
    RuleEntry::new::<sgd::SgdMomentum, 1>("sgd_momentum"),
    RuleEntry::new::<stable_adamw::StableAdamW, 2>("stable_adamw"),
];
