//! The table of instantiations: rule x dtype x storage, for the instruction set in use.
//!
//! A rule and its dtypes are types to the compiler and values to the caller. Here one becomes the
//! other, once for each chunk of blocks. Codecs are not part of the table, as decoding and encoding
//! are a call for each batch of blocks (`format/`): so a codec or a rule more adds a line to the machine
//! code, and not a factor.

#[cfg(test)]
mod tests;

use crate::effect::{Effect, Round, Widen};
use crate::element::{Dtype, Element};
use crate::layout::Layout;
use crate::rounding::Stream;
use crate::rule::{Kind, Rule};
use crate::simd::Level;
use crate::step::{Options, Outcome, StateBlocks, StepBlocks};
use crate::tensor::Tensor;
use core::ops::Range;
use half::{bf16, f16};

/// The checked tensors of one parameter, ready to be stepped.
pub(crate) struct Job<'a> {
    pub(crate) level: Level,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) param: &'a Tensor,
    pub(crate) grad: &'a Tensor,
    /// Those of `RuleEntry::tensors`.
    pub(crate) states: &'a [Tensor],
    /// Whether states that may be are quantized.
    pub(crate) quantized: bool,
    pub(crate) effect: Effect,
    /// The parameter's index in its optimizer.
    pub(crate) index: u64,
    /// The number of this step, counted from 1.
    pub(crate) step: u64,
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

    /// Passes over blocks of a job.
    ///
    /// # Safety
    ///
    /// The job has passed the checks of `api.rs` for this rule, `blocks` is within its layout, and
    /// nothing else uses the elements of these blocks meanwhile.
    unsafe fn run(&self, pass: Pass, job: &Job<'_>, blocks: Range<usize>) -> Outcome;
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

    unsafe fn run(&self, pass: Pass, job: &Job<'_>, blocks: Range<usize>) -> Outcome {
        // SAFETY: the dtype chooses the type; the caller promises the rest.
        unsafe {
            match job.param.dtype() {
                Dtype::Float32 => self.run_as::<f32>(pass, job, blocks),
                Dtype::Float64 => self.run_as::<f64>(pass, job, blocks),
                Dtype::BFloat16 => self.run_as::<bf16>(pass, job, blocks),
                Dtype::Float16 => self.run_as::<f16>(pass, job, blocks),
                Dtype::UInt8 => unreachable!("the dtype of parameters has been checked"),
            }
        }
    }
}

impl<R: Rule<N>, const N: usize> Bound<R, N> {
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
    ) -> Outcome {
        let elements = job.layout.elements(blocks.clone());
        let slow = self.0.slow();
        let mut tensors = job.states.iter();
        let states: [StateBlocks<'_, E>; N] = core::array::from_fn(|i| {
            let mut next = || tensors.next().expect("as many as the checks found");
            // SAFETY: the checks ensured the dtypes, the lengths and that these are slices; the
            // caller promises that nothing else uses these blocks.
            unsafe {
                match (R::STATES[i].kind, job.quantized) {
                    (Kind::Copy, _) => StateBlocks::Copy(next().slice_mut(elements.clone())),
                    (_, false) => StateBlocks::Full(next().slice_mut(elements.clone())),
                    (_, true) => StateBlocks::Quantized {
                        codes: next().slice_mut(elements.clone()),
                        scales: next().slice_mut(blocks.clone()),
                        stream: (job.options.stochastic && slow[i])
                            .then(|| Stream::new(job.options.seed, job.index, i, job.step)),
                    },
                }
            }
        });
        let writes = pass == Pass::Update && job.effect.writes_params();
        // SAFETY: the dtype of both is that of `E`; the caller promises that nothing else uses
        // these blocks.
        unsafe {
            job.param.update(elements.clone(), writes, |param: &mut [E]| {
                job.grad.read(elements.clone(), |grad: &[E]| match (pass, job.quantized) {
                    (Pass::Update, _) if E::ROUNDED && job.effect != Effect::Write => {
                        self.go_wide::<E>(job, blocks, param, grad, states)
                    }
                    // A rule that measures nothing is not compiled for it.
                    (Pass::Measure, _) if !R::MEASURES => Outcome::default(),
                    (Pass::Measure, false) => {
                        self.go::<E, false, true>(job, blocks, param, grad, states)
                    }
                    (Pass::Measure, true) => {
                        self.go::<E, true, true>(job, blocks, param, grad, states)
                    }
                    (Pass::Update, false) => {
                        self.go::<E, false, false>(job, blocks, param, grad, states)
                    }
                    (Pass::Update, true) => {
                        self.go::<E, true, false>(job, blocks, param, grad, states)
                    }
                })
            })
        }
    }

    /// An update of narrow elements with another effect than to be written: in the type of their
    /// arithmetic.
    #[cold]
    fn go_wide<E: Element>(
        &self,
        job: &Job<'_>,
        blocks: Range<usize>,
        param: &mut [E],
        grad: &[E],
        mut states: [StateBlocks<'_, E>; N],
    ) -> Outcome {
        let mut copies: [Vec<E::Compute>; N] = core::array::from_fn(|i| match &states[i] {
            StateBlocks::Copy(copy) => job.level.run(Widen { from: copy }),
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
        let mut wide = job.level.run(Widen { from: param });
        let grad = job.level.run(Widen { from: grad });
        let go = if job.quantized {
            Self::go::<E::Compute, true, false>
        } else {
            Self::go::<E::Compute, false, false>
        };
        let outcome = go(self, job, blocks.clone(), &mut wide, &grad, wide_states);
        let round = |from: &[E::Compute], to: &mut [E], stream| {
            let (layout, blocks) = (job.layout, blocks.clone());
            job.level.run(Round { from, to, layout, blocks, stream });
        };
        if job.effect.writes_params() {
            round(&wide, param, param_stream::<E>(job));
        }
        if job.effect.writes_states() {
            for (state, copy) in states.iter_mut().zip(&copies) {
                if let StateBlocks::Copy(to) = state {
                    round(copy, to, None);
                }
            }
        }
        outcome
    }

    fn go<E: Element, const QUANTIZED: bool, const MEASURE: bool>(
        &self,
        job: &Job<'_>,
        blocks: Range<usize>,
        param: &mut [E],
        grad: &[E],
        states: [StateBlocks<'_, E>; N],
    ) -> Outcome {
        let (level, options, layout) = (job.level, job.options, job.layout);
        level.run(StepBlocks::<R, E, N, QUANTIZED, MEASURE> {
            level,
            rule: self.0,
            options,
            layout,
            blocks,
            param,
            grad,
            states,
            effect: job.effect,
            param_stream: param_stream::<E>(job),
        })
    }
}

/// The thresholds of parameters of type `E`, if they are rounded stochastically.
fn param_stream<E: Element>(job: &Job<'_>) -> Option<Stream> {
    let Options { stochastic_params, seed, .. } = *job.options;
    (E::STOCHASTIC && stochastic_params).then(|| Stream::of_param(seed, job.index, job.step))
}
