//! The calls that the crate offers. Each checks everything before it writes anything.

use crate::alias::{self, Access};
use crate::block::{DequantizeBlocks, QuantizeBlocks, SumOfSquares};
use crate::effect::Effect;
use crate::element::{Dtype, Element, for_float};
use crate::error::{Error, Result};
use crate::flat::Flat;
use crate::format::Codec;
use crate::group::{StepGroup, StepParam, check_apart};
use crate::kernel::{BoundRule, Job, Pass};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::pool::{self, Threads};
use crate::simd::Level;
use crate::step::Outcome;
use crate::tensor::Tensor;
use std::borrow::Cow;
use std::sync::OnceLock;

/// Below this many elements for each thread, waking a thread costs more than it saves.
const MIN_ELEMENTS_PER_THREAD: usize = 8_192;

/// Elements that are summed in the type of their arithmetic, before the sum goes on in float64.
const SUM_BLOCK: usize = 256;

/// Steps all parameters of all groups, in one parallel pass. Returns the number of blocks that were
/// skipped because their gradient was not finite.
///
/// There may be `factors`, one for each parameter, by which its update (not that of its states) is multiplied.
///
/// # Errors
///
/// Any [`Error`] that says what does not fit; then nothing has been written.
pub fn step(groups: &[StepGroup], factors: Option<&[f64]>, n_threads: usize) -> Result<usize> {
    let outcomes = match factors {
        None => step_with(groups, &|_| Effect::Write, n_threads)?,
        Some(factors) => {
            let (found, expected) = (factors.len(), n_params(groups));
            if found != expected {
                return Err(Error::FactorCount { found, expected });
            }
            let effect = |factor| if factor == 1.0 { Effect::Write } else { Effect::Scale(factor) };
            step_with(groups, &|param| effect(factors[param]), n_threads)?
        }
    };
    Ok(outcomes.iter().map(|outcome| outcome.skipped).sum())
}

/// Measures the updates that [`step`] would make without factors. Returns the number of blocks
/// skipped, and the length (Euclidean norm) of each parameter's update, which is the same for any vectors
/// and threads.
///
/// No parameter is written. States are if `write_states`: then this is the step of an optimizer that
/// only lends its lengths.
///
/// # Errors
///
/// As [`step`].
pub fn step_lengths(
    groups: &[StepGroup],
    write_states: bool,
    n_threads: usize,
) -> Result<(usize, Vec<f64>)> {
    let outcomes = step_with(groups, &|_| Effect::Length { states: write_states }, n_threads)?;
    let skipped = outcomes.iter().map(|outcome| outcome.skipped).sum();
    Ok((skipped, outcomes.into_iter().map(|outcome| outcome.squared_length.sqrt()).collect()))
}

/// Steps all parameters, with the effect that each, by its number, shall have. Returns what came of each.
fn step_with(
    groups: &[StepGroup],
    effect: &dyn Fn(usize) -> Effect,
    n_threads: usize,
) -> Result<Vec<Outcome>> {
    let level = Level::best()?;
    check_apart(groups)?;
    let n_params = n_params(groups);
    let mut jobs = Vec::with_capacity(n_params);
    let mut rules: Vec<Box<dyn BoundRule>> = Vec::with_capacity(n_params);
    let mut numbers = vec![];
    for (group, given) in groups.iter().flat_map(|group| group.params().map(move |p| (group, p))) {
        let StepParam { index, layout, quantized, param, grad, scalars, states } = given;
        // SAFETY: the group has found one float32 in each, and `check_apart` that nothing else of this call
        // shares their memory.
        let number = |scalar: &Flat| unsafe { scalar.slice::<f32>(0..1)[0] };
        numbers.clear();
        numbers.extend(scalars.iter().map(number));
        numbers[0] += 1.0;
        let job = Job {
            level,
            options: &group.options,
            layout,
            param,
            grad,
            states,
            quantized,
            effect: effect(jobs.len()),
            index,
            step: numbers[0] as u64,
        };
        rules.push((group.rule.bind)(&group.hyper, &job, &mut numbers[1..]));
        if job.effect.writes_states() {
            for (scalar, number) in scalars.iter().zip(&numbers) {
                // SAFETY: as above.
                unsafe { scalar.slice_mut::<f32>(0..1)[0] = *number };
            }
        }
        jobs.push(job);
    }
    measure(&jobs, &mut rules, n_threads);
    let all: Vec<usize> = (0..jobs.len()).collect();
    Ok(pass_over(Pass::Update, &all, &jobs, &rules, n_threads))
}

fn n_params(groups: &[StepGroup]) -> usize {
    groups.iter().map(StepGroup::n_params).sum()
}

/// Passes over some of the jobs, by their indices. Returns what came of each: sums are made of those
/// of the chunks, in their order, whoever computed them.
fn pass_over(
    pass: Pass,
    indices: &[usize],
    jobs: &[Job<'_>],
    rules: &[Box<dyn BoundRule>],
    n_threads: usize,
) -> Vec<Outcome> {
    let plan = Plan::new(indices.iter().map(|&i| jobs[i].layout).collect());
    let chunks = gather(&plan, n_threads, |chunk| {
        let (at, blocks) = plan.chunk(chunk);
        // A thread takes neighbours, in their order. After the last one it does not matter.
        let (at_next, after) = plan.chunk((chunk + 1).min(plan.n_chunks() - 1));
        let (i, next) = (indices[at], (&jobs[indices[at_next]], after.start));
        // SAFETY: the job has been checked; chunks are disjoint ranges of its blocks, and no
        // tensor that is written shares memory with another.
        (at, unsafe { rules[i].run(pass, &jobs[i], blocks, next) })
    });
    let mut outcomes = vec![Outcome::default(); indices.len()];
    for (at, chunk) in chunks {
        outcomes[at] += chunk;
    }
    outcomes
}

/// Whether [`step`] would take all of this.
///
/// # Errors
///
/// As [`step`].
pub fn check_step(groups: &[StepGroup]) -> Result<()> {
    Level::best()?;
    check_apart(groups)
}

/// Tells rules the sums over their tensors that they need before they update them.
fn measure(jobs: &[Job<'_>], rules: &mut [Box<dyn BoundRule>], n_threads: usize) {
    let measured: Vec<usize> = (0..jobs.len()).filter(|&i| rules[i].measures()).collect();
    if measured.is_empty() {
        return;
    }
    let outcomes = pass_over(Pass::Measure, &measured, jobs, rules, n_threads);
    for (i, outcome) in measured.into_iter().zip(outcomes) {
        rules[i].measured(outcome.sums, jobs[i].layout.n_elements());
    }
}

/// The sum of the squares of all elements that are finite; the same for any vectors and threads.
///
/// # Errors
///
/// Any [`Error`] that says what does not fit.
pub fn sum_of_squares(tensors: &[Tensor], n_threads: usize) -> Result<f64> {
    let level = Level::best()?;
    let layouts = tensors.iter().map(|tensor| {
        tensor.expect_float()?;
        Layout::new(&[tensor.n_elements()], SUM_BLOCK)
    });
    let layouts: Vec<_> = layouts.collect::<Result<_>>()?;
    let plan = Plan::new(layouts.clone());
    let parts = gather(&plan, n_threads, |chunk| {
        let (index, blocks) = plan.chunk(chunk);
        let (tensor, elements) = (&tensors[index], layouts[index].elements(blocks));
        // SAFETY: the dtype chooses the type; nothing is written.
        unsafe {
            for_float!(tensor.dtype(), E => {
                tensor.read(elements, |values: &[E]| squares(level, values))
            })
        }
    });
    Ok(parts.into_iter().sum())
}

fn squares<E: Element>(level: Level, values: &[E]) -> f64 {
    let blocks = values.chunks(SUM_BLOCK);
    blocks
        .map(|values| {
            let sum = level.run(SumOfSquares { values });
            if sum.is_finite() { sum } else { squares_of_finite(values) }
        })
        .sum()
}

/// As [`squares`], where some elements are not finite, or their squares are not in the type of their
/// arithmetic.
#[cold]
fn squares_of_finite<E: Element>(values: &[E]) -> f64 {
    let finite = values.iter().filter(|value| value.is_finite());
    finite.map(|value| value.to_f64().powi(2)).sum()
}

/// A tensor with its codes and scales.
#[derive(Clone)]
pub struct QuantizeCall {
    /// The values.
    pub values: Tensor,
    /// A byte for each value.
    pub codes: Tensor,
    /// A float32 for each block.
    pub scales: Tensor,
    /// How values are stored.
    pub codec: Codec,
    /// Which of the codec's codebooks.
    pub signed: bool,
    /// Elements that share one scale.
    pub block_size: usize,
}

/// Writes the codes and scales of values, rounded to nearest.
///
/// # Errors
///
/// Any [`Error`] that says what does not fit; then nothing has been written.
pub fn quantize(call: &QuantizeCall, n_threads: usize) -> Result<()> {
    let checked = check_call(call, false)?;
    for_float!(call.values.dtype(), E => quantize_as::<E>(call, &checked, n_threads))
}

fn quantize_as<E: Element>(call: &QuantizeCall, checked: &Checked, n_threads: usize) -> Result<()> {
    let level = Level::best()?;
    let &Checked { layout, codes, scales } = checked;
    let plan = Plan::new(vec![layout]);
    run(&plan, n_threads, &|chunk| {
        let (_, blocks) = plan.chunk(chunk);
        let elements = layout.elements(blocks.clone());
        // SAFETY: dtypes, lengths and contiguity have been checked; chunks are disjoint ranges of
        // blocks, and codes and scales share memory with nothing.
        unsafe {
            let codes = codes.slice_mut(elements.clone());
            let scales = scales.slice_mut(blocks.clone());
            call.values.read(elements, |values: &[E]| {
                let (codec, signed) = (&call.codec, call.signed);
                level.run(QuantizeBlocks {
                    level,
                    codec,
                    signed,
                    layout,
                    blocks,
                    values,
                    codes,
                    scales,
                });
            });
        }
    });
    Ok(())
}

/// Writes the values that codes and scales stand for.
///
/// # Errors
///
/// Any [`Error`] that says what does not fit; then nothing has been written.
pub fn dequantize(call: &QuantizeCall, n_threads: usize) -> Result<()> {
    let checked = check_call(call, true)?;
    for_float!(call.values.dtype(), E => dequantize_as::<E>(call, &checked, n_threads))
}

fn dequantize_as<E: Element>(
    call: &QuantizeCall,
    checked: &Checked,
    n_threads: usize,
) -> Result<()> {
    let level = Level::best()?;
    let &Checked { layout, codes, scales } = checked;
    let plan = Plan::new(vec![layout]);
    run(&plan, n_threads, &|chunk| {
        let (_, blocks) = plan.chunk(chunk);
        let elements = layout.elements(blocks.clone());
        // SAFETY: dtypes, lengths and contiguity have been checked; chunks are disjoint ranges of
        // blocks, and the values share memory with nothing.
        unsafe {
            let codes = codes.slice(elements.clone());
            let scales = scales.slice(blocks.clone());
            call.values.update(elements, true, |values: &mut [E]| {
                let (codec, signed) = (&call.codec, call.signed);
                level.run(DequantizeBlocks {
                    level,
                    codec,
                    signed,
                    layout,
                    blocks,
                    codes,
                    scales,
                    values,
                });
            });
        }
    });
    Ok(())
}

/// What a call turned out to have.
struct Checked {
    layout: Layout,
    codes: Flat,
    scales: Flat,
}

fn check_call(call: &QuantizeCall, values_written: bool) -> Result<Checked> {
    let QuantizeCall { values, codes, scales, block_size, .. } = call;
    values.expect_float()?;
    if values_written {
        values.expect_no_self_overlap()?;
    }
    let layout = Layout::new(values.shape(), *block_size)?;
    let checked = Checked {
        layout,
        codes: codes.expect_flat_of(Dtype::UInt8, values.shape())?,
        scales: scales.expect_flat_of(Dtype::Float32, &layout.scales_shape())?,
    };
    let tensors = [(values, values_written), (codes, !values_written), (scales, !values_written)];
    let accesses = tensors.into_iter().map(|(tensor, written)| Access {
        addresses: tensor.addresses(),
        written,
        key: tensor,
    });
    alias::check(accesses.collect(), Cow::Borrowed)?;
    Ok(checked)
}

/// Calls `task` with the number of every chunk, in parallel if it is worth it.
fn run(plan: &Plan, n_threads: usize, task: &(dyn Fn(usize) + Sync)) {
    let worth = plan.n_elements() / MIN_ELEMENTS_PER_THREAD;
    pool::run(plan.n_chunks(), Threads { allowed: n_threads, worth }, task);
}

/// As [`run`]; returns what `task` did, in the order of the chunks, whoever computed them.
fn gather<T: Send + Sync>(
    plan: &Plan,
    n_threads: usize,
    task: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let parts: Vec<OnceLock<T>> = (0..plan.n_chunks()).map(|_| OnceLock::new()).collect();
    run(plan, n_threads, &|chunk| {
        let first = parts[chunk].set(task(chunk));
        assert!(first.is_ok(), "a chunk is done once");
    });
    parts.into_iter().filter_map(OnceLock::into_inner).collect()
}
