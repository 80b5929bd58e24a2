//! The optimizers' rules, and the list of them.
//!
//! To add one, write its file and add its line to [`RULES`].

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
mod rprop;
mod schedule_free;
mod sgd;
mod stable_adamw;

use crate::error::{Error, Result};
use crate::kernel::{Bind, bind};
use crate::rule::{Kind, Rule, State};

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

    /// What the tensors of a parameter are called that follow its gradient, scalars and then states: what they
    /// are of, and what comes after that.
    pub fn names(&self, quantized: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
        let scalars = core::iter::once(&"step").chain(self.scalars).map(|&scalar| (scalar, ""));
        scalars.chain(self.tensors(quantized).map(|(state, part)| (state, part.suffix())))
    }

    /// How many numbers it carries from step to step for each tensor, `step` being the first.
    pub(crate) fn n_scalars(&self) -> usize {
        1 + self.scalars.len()
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
    RuleEntry::new::<rprop::Rprop, 2>("rprop"),
    RuleEntry::new::<schedule_free::ScheduleFree, 2>("schedule_free_adamw"),
    RuleEntry::new::<sgd::Sgd, 0>("sgd"),
    RuleEntry::new::<sgd::SgdMomentum, 1>("sgd_momentum"),
    RuleEntry::new::<stable_adamw::StableAdamW, 2>("stable_adamw"),
];
