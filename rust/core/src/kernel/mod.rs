//! The table of instantiations: rule x dtype x storage, for the instruction set in use.
//!
//! A rule and its dtypes are types to the compiler and values to the caller. Here one becomes the
//! other, once for each chunk of blocks. Codecs are not part of the table, as decoding is the same
//! for all of them and encoding is a call for each block (`format/`): so a codec or a rule more adds
//! a line to the machine code, and not a factor.

#[cfg(test)]
mod tests;

use crate::element::{Dtype, Element};
use crate::layout::Layout;
use crate::rounding::Stream;
use crate::rule::Rule;
use crate::simd::Level;
use crate::step::{Options, StateBlocks, StepBlocks};
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
    pub(crate) states: StateTensors<'a>,
    /// The parameter's index in its optimizer.
    pub(crate) index: u64,
    /// The number of this step, counted from 1.
    pub(crate) step: u64,
}

/// The states of one parameter.
#[derive(Clone, Copy)]
pub(crate) enum StateTensors<'a> {
    /// One tensor for each state.
    Full(&'a [Tensor]),
    /// Codes and scales of each state in turn.
    Quantized(&'a [Tensor]),
}

/// A rule with its hyperparameters at a step, ready to run on tensors of any kind.
pub(crate) trait BoundRule: Send + Sync {
    /// Steps blocks of a job; returns how many were skipped.
    ///
    /// # Safety
    ///
    /// The job has passed the checks of `api.rs` for this rule, `blocks` is within its layout, and
    /// nothing else uses the elements of these blocks meanwhile.
    unsafe fn run(&self, job: &Job<'_>, blocks: Range<usize>) -> usize;
}

/// A rule behind [`BoundRule`].
struct Bound<R, const N: usize>(R);

/// Makes a rule at a step.
pub(crate) fn bind<R: Rule<N>, const N: usize>(hyper: &[f64], step: f64) -> Box<dyn BoundRule> {
    Box::new(Bound::<R, N>(R::new(hyper, step)))
}

impl<R: Rule<N>, const N: usize> BoundRule for Bound<R, N> {
    unsafe fn run(&self, job: &Job<'_>, blocks: Range<usize>) -> usize {
        // SAFETY: the dtype chooses the type; the caller promises the rest.
        unsafe {
            match job.param.dtype() {
                Dtype::Float32 => self.run_as::<f32>(job, blocks),
                Dtype::Float64 => self.run_as::<f64>(job, blocks),
                Dtype::BFloat16 => self.run_as::<bf16>(job, blocks),
                Dtype::Float16 => self.run_as::<f16>(job, blocks),
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
    unsafe fn run_as<E: Element>(&self, job: &Job<'_>, blocks: Range<usize>) -> usize {
        let elements = job.layout.elements(blocks.clone());
        let slow = self.0.slow();
        let states: [StateBlocks<'_, E::Compute>; N] = core::array::from_fn(|i| {
            // SAFETY: the checks ensured the dtypes, the lengths and that these are slices; the
            // caller promises that nothing else uses these blocks.
            unsafe {
                match job.states {
                    StateTensors::Full(full) => {
                        StateBlocks::Full(full[i].slice_mut(elements.clone()))
                    }
                    StateTensors::Quantized(tensors) => StateBlocks::Quantized {
                        codes: tensors[2 * i].slice_mut(elements.clone()),
                        scales: tensors[2 * i + 1].slice_mut(blocks.clone()),
                        stream: (job.options.stochastic && slow[i])
                            .then(|| Stream::new(job.options.seed, job.index, i, job.step)),
                    },
                }
            }
        });
        // SAFETY: the dtype of both is that of `E`; the caller promises that nothing else uses
        // these blocks.
        unsafe {
            job.param.update(elements.clone(), |param: &mut [E]| {
                job.grad.read(elements.clone(), |grad: &[E]| match job.states {
                    StateTensors::Full(_) => self.go::<E, false>(job, blocks, param, grad, states),
                    StateTensors::Quantized(_) => {
                        self.go::<E, true>(job, blocks, param, grad, states)
                    }
                })
            })
        }
    }

    fn go<E: Element, const QUANTIZED: bool>(
        &self,
        job: &Job<'_>,
        blocks: Range<usize>,
        param: &mut [E],
        grad: &[E],
        states: [StateBlocks<'_, E::Compute>; N],
    ) -> usize {
        let (level, options, layout) = (job.level, job.options, job.layout);
        level.run(StepBlocks::<R, E, N, QUANTIZED> {
            level,
            rule: self.0,
            options,
            layout,
            blocks,
            param,
            grad,
            states,
        })
    }
}
