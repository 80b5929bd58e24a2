//! The table of instantiations: rule x dtype x storage, for the instruction set in use.
//!
//! A rule and its dtypes are types to the compiler and values to the caller. Here one becomes the
//! other, once for each chunk of blocks. Codecs are not part of the table, as decoding and encoding
//! are a call for each batch of blocks (`format/`; but see `decoding.rs`): so a codec or a rule more adds
//! a line to the machine code, and not a factor.

#[cfg(test)]
mod tests;

use crate::effect::Effect;
use crate::element::{Dtype, Element, for_float};
use crate::flat::Flat;
use crate::layout::Layout;
use crate::rounding::Stream;
use crate::rule::{Kind, Rule};
use crate::simd::Level;
use crate::step::{Next, Options, Outcome, StateBlocks, StepBlocks};
use crate::tensor::Tensor;
use crate::wide::{round, widened};
use core::ops::Range;

/// The checked tensors of one parameter, ready to be stepped.
pub(crate) struct Job<'a> {
    pub(crate) level: Level,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    /// Those of `RuleEntry::tensors`.
    pub(crate) states: &'a [Flat],
    /// Whether states that may be are quantized.
    pub(crate) quantized: bool,
    pub(crate) effect: Effect,
    /// The parameter's index in its optimizer.
    pub(crate) index: u64,
    /// The number of this step, counted from 1.
    pub(crate) step: u64,
}

impl Job<'_> {
    /// Where a block and what follows it lie. Tensors that the job does not have are nowhere.
    fn place<const N: usize>(&self, block: usize) -> Next<N> {
        let element = self.layout.block(block).start;
        let (mut states, mut scales) = ([core::ptr::null(); N], [core::ptr::null(); N]);
        let (mut states_left, mut scales_left) = (states.iter_mut(), scales.iter_mut());
        for flat in self.states {
            // Scales are fewer than elements, but where there is one.
            let (left, at) = if flat.n_elements == self.layout.n_elements() {
                (&mut states_left, element)
            } else {
                (&mut scales_left, block)
            };
            if let Some(address) = left.next() {
                *address = flat.address_of(at);
            }
        }
        let (param, grad) = (self.param.address_of(element), self.grad.address_of(element));
        Next { param, grad, states, scales }
    }
}

/// What a pass over blocks does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Sums what the rule has to know; writes nothing.
    Measure,
    /// Updates.
    Update,
}

/// A rule with its hyperparameters at a step, ready to run on tensors of any kind.
pub(crate) trait BoundRule: Send + Sync {
    /// Whether it is to be measured, all blocks of the tensor, before it updates any.
    fn measures(&self) -> bool;

    /// Told the sums over all blocks, and the number of elements.
    fn measured(&mut self, sums: [f64; 2], n_elements: usize);

    /// Passes over blocks of a job, and asks for what comes `next`: a block of this or another job, and those
    /// that follow.
    ///
    /// # Safety
    ///
    /// The job is made of tensors that a `StepGroup` of this rule has checked, `blocks` is within its layout, and
    /// nothing else uses the elements of these blocks meanwhile.
    unsafe fn run(
        &self,
        pass: Pass,
        job: &Job<'_>,
        blocks: Range<usize>,
        next: (&Job<'_>, usize),
    ) -> Outcome;
}

/// A rule behind [`BoundRule`].
struct Bound<R, const N: usize>(R);

/// How a rule is made, ready to run on a job: from its hyperparameters, the number of the step and
/// its scalars, which it brings to this step.
pub(crate) type Bind = fn(&[f64], &Job<'_>, &mut [f32]) -> Box<dyn BoundRule>;

/// Makes a rule at the step of a job.
pub(crate) fn bind<R: Rule<N>, const N: usize>(
    hyper: &[f64],
    job: &Job<'_>,
    scalars: &mut [f32],
) -> Box<dyn BoundRule> {
    let mut rule = R::new(hyper, job.step as f64);
    rule.carry(scalars);
    if job.quantized {
        rule.coarse();
    }
    Box::new(Bound::<R, N>(rule))
}

impl<R: Rule<N>, const N: usize> BoundRule for Bound<R, N> {
    fn measures(&self) -> bool {
        R::MEASURES
    }

    fn measured(&mut self, sums: [f64; 2], n_elements: usize) {
        self.0.measured(sums, n_elements);
    }

    unsafe fn run(
        &self,
        pass: Pass,
        job: &Job<'_>,
        blocks: Range<usize>,
        (next, block): (&Job<'_>, usize),
    ) -> Outcome {
        let next = next.place(block);
        // SAFETY: the dtype chooses the type; the caller promises the rest.
        unsafe { for_float!(job.param.dtype(), E => self.0.run_as::<E>(pass, job, blocks, next)) }
    }
}

impl<R: Rule<N>, const N: usize> Run<N> for R {}

/// How a rule runs. The methods belong to the rule's own type because the compiler divides the machine
/// code among its threads by the module of the type that a method belongs to: so every rule's share
/// can be compiled beside the others'.
trait Run<const N: usize>: Rule<N> {
    /// As [`BoundRule::run`], for parameters and gradients of type `E`.
    ///
    /// # Safety
    ///
    /// As [`BoundRule::run`], and `E` is the type of their dtype.
    unsafe fn run_as<E: Element>(
        &self,
        pass: Pass,
        job: &Job<'_>,
        blocks: Range<usize>,
        next: Next<N>,
    ) -> Outcome {
        let elements = job.layout.elements(blocks.clone());
        let mut tensors = job.states.iter();
        let states: [StateBlocks<'_, E>; N] = core::array::from_fn(|i| {
            let mut next = || tensors.next().expect("as many as the checks found");
            // SAFETY: the checks ensured the dtypes, the lengths and that these are slices; the
            // caller promises that nothing else uses these blocks.
            unsafe {
                match (Self::STATES[i].kind, job.quantized) {
                    (Kind::Copy, _) => StateBlocks::Copy(next().slice_mut(elements.clone())),
                    (_, false) => StateBlocks::Full(next().slice_mut(elements.clone())),
                    (_, true) => StateBlocks::Quantized {
                        codes: next().slice_mut(elements.clone()),
                        scales: next().slice_mut(blocks.clone()),
                        stream: job.options.stochastic.then(|| state_stream(job, i)),
                    },
                }
            }
        });
        let writes = pass == Pass::Update && job.effect.writes_params();
        // SAFETY: the dtype of both is that of `E`; the caller promises that nothing else uses
        // these blocks.
        unsafe {
            job.param.update(elements.clone(), writes, |param: &mut [E]| {
                job.grad.read(elements.clone(), |grad: &[E]| {
                    let (level, options, layout) = (job.level, job.options, job.layout);
                    let (rule, effect) = (*self, job.effect);
                    let step = StepBlocks {
                        level,
                        rule,
                        options,
                        layout,
                        blocks,
                        param,
                        grad,
                        states,
                        effect,
                        next,
                    };
                    if !E::COMMON || E::ROUNDED && !is_plain::<E>(pass, job) {
                        Self::go_wide(pass, job, step)
                    } else {
                        Self::go(pass, job.quantized, step)
                    }
                })
            })
        }
    }

    /// A pass over narrow elements in the type of their arithmetic, from which they are rounded after: what
    /// is seldom is not compiled for every type.
    fn go_wide<E: Element>(pass: Pass, job: &Job<'_>, step: StepBlocks<'_, Self, E, N>) -> Outcome {
        let StepBlocks { level, rule, options, layout, blocks, param, grad, .. } = step;
        let StepBlocks { mut states, effect, .. } = step;
        let mut copies: [Vec<E::Compute>; N] = core::array::from_fn(|i| match &states[i] {
            StateBlocks::Copy(copy) => widened(level, copy),
            _ => vec![],
        });
        let mut pairs = states.iter_mut().zip(&mut copies);
        let wide_states =
            core::array::from_fn(|_| match pairs.next().expect("one for each state") {
                (StateBlocks::Full(full), _) => StateBlocks::Full(full),
                (StateBlocks::Copy(_), copy) => StateBlocks::Copy(copy),
                (&mut StateBlocks::Quantized { ref mut codes, ref mut scales, stream }, _) => {
                    StateBlocks::Quantized { codes, scales, stream }
                }
            });
        let (mut wide, wide_grad) = (widened(level, param), widened(level, grad));
        let wide_step = StepBlocks {
            level,
            rule,
            options,
            layout,
            blocks: blocks.clone(),
            param: &mut wide,
            grad: &wide_grad,
            states: wide_states,
            effect,
            // These are copies, of another size.
            next: Next::NOWHERE,
        };
        let outcome = Self::go(pass, job.quantized, wide_step);
        if pass == Pass::Measure {
            return outcome;
        }
        let write = |from: &[E::Compute], to: &mut [E], stream| {
            round(level, from, to, layout, blocks.clone(), stream);
        };
        if effect.writes_params() {
            write(&wide, param, param_stream::<E>(job));
        }
        if effect.writes_states() {
            for (i, (state, copy)) in states.iter_mut().zip(&copies).enumerate() {
                if let StateBlocks::Copy(to) = state {
                    // As it is a copy of the parameters, what is small beside it would be lost, too.
                    write(copy, to, param_stream::<E>(job).map(|_| state_stream(job, i)));
                }
            }
        }
        outcome
    }

    /// A pass in the form that there is for it.
    fn go<E: Element>(pass: Pass, quantized: bool, step: StepBlocks<'_, Self, E, N>) -> Outcome {
        match (pass, quantized) {
            // A rule that measures nothing is not compiled for it.
            (Pass::Measure, _) if !Self::MEASURES => Outcome::default(),
            (Pass::Measure, false) => step.run::<false, true>(),
            (Pass::Measure, true) => step.run::<true, true>(),
            (Pass::Update, false) => step.run::<false, false>(),
            (Pass::Update, true) => step.run::<true, false>(),
        }
    }
}

/// Whether a pass does nothing to parameters of type `E` but to write each, rounded to nearest.
fn is_plain<E: Element>(pass: Pass, job: &Job<'_>) -> bool {
    pass == Pass::Measure || job.effect == Effect::Write && param_stream::<E>(job).is_none()
}

/// The thresholds of a state.
fn state_stream(job: &Job<'_>, state: usize) -> Stream {
    Stream::new(job.options.seed, job.index, state, job.step)
}

/// The thresholds of parameters of type `E`, if they are rounded stochastically.
fn param_stream<E: Element>(job: &Job<'_>) -> Option<Stream> {
    let Options { stochastic_params, seed, .. } = *job.options;
    (E::STOCHASTIC && stochastic_params).then(|| Stream::of_param(seed, job.index, job.step))
}
