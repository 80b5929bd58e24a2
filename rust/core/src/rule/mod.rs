//! Update rules: each optimizer's formula, and nothing else.
//!
//! A rule reads like its paper. It knows nothing of bytes, blocks, threads, dtypes or vectors: it is
//! written once over [`Real`] and compiled for all of them. To add one, write its file and add its
//! line to [`RULES`].

mod adam;

use crate::error::{Error, Result};
use crate::kernel::{BoundRule, bind};
use crate::real::Real;

/// One optimizer's formula at one step, with N states for each parameter.
pub(crate) trait Rule<const N: usize>: Copy + Send + Sync + 'static {
    /// The names of its states, as in torch.
    const STATES: [&'static str; N];
    /// Which states may be negative.
    const SIGNED: [bool; N];
    /// The names of its hyperparameters, in the order in which [`Rule::new`] takes them.
    const HYPER: &'static [&'static str];

    /// The rule with these hyperparameters at step `step`, counted from 1.
    fn new(hyper: &[f64], step: f64) -> Self;

    /// Which states move so slowly that rounding to nearest would stop them.
    fn slow(&self) -> [bool; N];

    /// The new parameter and states.
    fn update<T: Real>(&self, param: T, grad: T, state: [T; N]) -> (T, [T; N]);
}

/// First moments with a decay of at least this move too slowly to be rounded to nearest.
pub(crate) const SLOW_DECAY: f64 = 0.99;

/// A rule that can be called by its name.
#[derive(Clone, Copy)]
pub struct RuleEntry {
    /// The name.
    pub name: &'static str,
    /// The names of its states.
    pub states: &'static [&'static str],
    /// Which states may be negative.
    pub signed: &'static [bool],
    /// The names of its hyperparameters, in order.
    pub hyper: &'static [&'static str],
    /// The rule at a step, ready to run on any dtype, format and instruction set.
    pub(crate) bind: fn(&[f64], f64) -> Box<dyn BoundRule>,
}

impl RuleEntry {
    const fn new<R: Rule<N>, const N: usize>(name: &'static str) -> Self {
        Self { name, states: &R::STATES, signed: &R::SIGNED, hyper: R::HYPER, bind: bind::<R, N> }
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
    RuleEntry::new::<adam::Adam<false>, 2>("adam"),
    RuleEntry::new::<adam::AdamAmsgrad<false>, 3>("adam_amsgrad"),
    RuleEntry::new::<adam::Adam<true>, 2>("adamw"),
    RuleEntry::new::<adam::AdamAmsgrad<true>, 3>("adamw_amsgrad"),
];
