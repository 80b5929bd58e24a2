//! The calls that the crate offers. Each checks everything before it writes anything.

use crate::alias::{self, Access};
use crate::block::{DequantizeBlocks, QuantizeBlocks, SumOfSquares};
use crate::effect::Effect;
use crate::element::{Dtype, Element, for_float};
use crate::error::{Error, Result};
use crate::format::Codec;
use crate::kernel::{BoundRule, Job, Pass};
use crate::layout::Layout;
use crate::plan::Plan;
use crate::pool::{self, Threads};
use crate::rules::{Part, RuleEntry};
use crate::simd::Level;
use crate::step::{Options, Outcome};
use crate::tensor::Tensor;
use core::ops::Range;
use std::sync::OnceLock;

/// Below this many elements for each thread, waking a thread costs more than it saves.
const MIN_ELEMENTS_PER_THREAD: usize = 8_192;

/// Elements that are summed in the type of their arithmetic, before the sum goes on in float64.
const SUM_BLOCK: usize = 256;

/// One parameter of a step.
#[derive(Clone, Debug)]
pub struct StepTensors {
    /// Its index in its optimizer.
    pub index: u64,
    /// The parameter; written.
    pub param: Tensor,
    /// Its gradient.
    pub grad: Tensor,
    /// Numbers of one float32 each that the call brings to its step: how many steps there have been,
    /// and then the rule's scalars.
    pub scalars: Vec<Tensor>,
    /// Its states in the rule's order: one tensor for each, or codes and scales for each; written.
    pub states: Vec<Tensor>,
    /// What the update of the parameter (not that of its states) is multiplied by: 1, but for
    /// grafting.
    pub factor: f64,
}

/// Parameters that share a rule and its options.
#[derive(Clone)]
pub struct StepGroup {
    /// The rule.
    pub rule: &'static RuleEntry,
    /// Its hyperparameters, in the rule's order.
    pub hyper: Vec<f64>,
    /// How blocks are treated.
    pub options: Options,
    /// The parameters.
    pub tensors: Vec<StepTensors>,
}

/// Steps all parameters of all groups, in one parallel pass. Returns the number of blocks that were
/// skipped because their gradient was not finite.
///
/// # Errors
///
/// Any [`Error`] that says what does not fit; then nothing has been written.
pub fn step(groups: &[StepGroup], n_threads: usize) -> Result<usize> {
    let effect = |factor| if factor == 1.0 { Effect::Write } else { Effect::Scale(factor) };
    let outcomes = step_with(groups, &effect, n_threads)?;
    Ok(outcomes.iter().map(|outcome| outcome.skipped).sum())
}

/// Measures the updates that [`step`] would make, with factors of 1. Returns the number of blocks
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

/// Steps all parameters, with the effect that follows from the factor of each. Returns what came of
/// each.
fn step_with(
    groups: &[StepGroup],
    effect: &dyn Fn(f64) -> Effect,
    n_threads: usize,
) -> Result<Vec<Outcome>> {
    let mut jobs = check(groups)?;
    let mut rules: Vec<Box<dyn BoundRule>> = Vec::with_capacity(jobs.len());
    let mut numbers = vec![];
    let all = groups.iter().flat_map(|group| group.tensors.iter().map(move |one| (group, one)));
    for ((group, tensors), job) in all.zip(&mut jobs) {
        job.effect = effect(tensors.factor);
        // SAFETY: `check_tensors` found one float32 in each, as a slice, and `alias::check` that
        // nothing else of this call shares their memory.
        let number = |scalar: &Tensor| unsafe { scalar.slice::<f32>(0..1)[0] };
        numbers.clear();
        numbers.extend(tensors.scalars.iter().map(number));
        numbers[0] += 1.0;
        job.step = numbers[0] as u64;
        rules.push((group.rule.bind)(&group.hyper, job, &mut numbers[1..]));
        if job.effect.writes_states() {
            for (scalar, number) in tensors.scalars.iter().zip(&numbers) {
                // SAFETY: as above.
                unsafe { scalar.slice_mut::<f32>(0..1)[0] = *number };
            }
        }
    }
    measure(&jobs, &mut rules, n_threads);
    let all: Vec<usize> = (0..jobs.len()).collect();
    Ok(pass_over(Pass::Update, &all, &jobs, &rules, n_threads))
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
    let chunks = gather(&plan, n_threads, |at, blocks| {
        let i = indices[at];
        // SAFETY: `check` has checked the job; chunks are disjoint ranges of its blocks, and no
        // tensor that is written shares memory with another.
        (at, unsafe { rules[i].run(pass, &jobs[i], blocks) })
    });
    let mut outcomes = vec![Outcome::default(); indices.len()];
    for (at, chunk) in chunks {
        outcomes[at] += chunk;
    }
    outcomes
}

/// What a step begins with: the jobs of all parameters, after all checks. Writes nothing.
///
/// # Errors
///
/// As [`step`].
fn check(groups: &[StepGroup]) -> Result<Vec<Job<'_>>> {
    let level = Level::best()?;
    let n_tensors = groups.iter().map(|group| group.tensors.len()).sum();
    let mut jobs = Vec::with_capacity(n_tensors);
    let mut accesses = Vec::with_capacity(n_tensors * 7);
    for group in groups {
        let (expected, found) = (group.rule.hyper.len(), group.hyper.len());
        if found != expected {
            return Err(Error::Hyper { rule: group.rule.name, found, expected });
        }
        for tensors in &group.tensors {
            let (layout, quantized) = check_tensors(group, tensors)?;
            accesses.push(Access { tensor: &tensors.param, written: true });
            accesses.push(Access { tensor: &tensors.grad, written: false });
            let others = tensors.scalars.iter().chain(&tensors.states);
            accesses.extend(others.map(|tensor| Access { tensor, written: true }));
            jobs.push(Job {
                level,
                options: &group.options,
                layout,
                param: &tensors.param,
                grad: &tensors.grad,
                states: &tensors.states,
                quantized,
                effect: Effect::Write,
                index: tensors.index,
                step: 0,
            });
        }
    }
    alias::check(&accesses)?;
    Ok(jobs)
}

/// Whether [`step`] would take all of this.
///
/// # Errors
///
/// As [`step`].
pub fn check_step(groups: &[StepGroup]) -> Result<()> {
    check(groups).map(|_| ())
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

/// Checks one parameter of a step; returns its blocks, and whether its states are quantized.
fn check_tensors(group: &StepGroup, tensors: &StepTensors) -> Result<(Layout, bool)> {
    let StepTensors { param, grad, scalars, states, .. } = tensors;
    param.expect_float()?;
    if group.options.stochastic_params && param.dtype() == Dtype::Float16 {
        return Err(Error::Dtype {
            tensor: param.name().to_string(),
            found: Dtype::Float16.name().to_owned(),
            expected: "bfloat16 or wider to be rounded stochastically".to_owned(),
        });
    }
    param.expect_no_self_overlap()?;
    grad.expect_dtype(param.dtype())?;
    grad.expect_shape(param.shape())?;
    for scalar in scalars {
        scalar.expect_dtype(Dtype::Float32)?;
        scalar.expect_slice()?;
        if scalar.n_elements() != 1 {
            scalar.expect_shape(&[])?;
        }
    }
    let (found, expected) = (scalars.len(), 1 + group.rule.scalars.len());
    if found != expected {
        return Err(Error::StateCount {
            tensor: param.name().to_string(),
            found,
            expected: format!("{expected} scalars were expected"),
        });
    }
    let layout = Layout::new(param.shape(), group.options.block_size)?;
    let [full, quantized] = [false, true].map(|quantized| group.rule.tensors(quantized).count());
    if states.len() != full && states.len() != quantized {
        return Err(Error::StateCount {
            tensor: param.name().to_string(),
            found: states.len(),
            expected: format!("{full} (full) or {quantized} (codes and scales) were expected"),
        });
    }
    let quantized = states.len() != full;
    for (state, (_, part)) in states.iter().zip(group.rule.tensors(quantized)) {
        let (dtype, shape) = match part {
            Part::Full => (param.dtype().state(), param.shape()),
            Part::Copy => (param.dtype(), param.shape()),
            Part::Codes => (Dtype::UInt8, param.shape()),
            Part::Scales => (Dtype::Float32, &*layout.scales_shape()),
        };
        state.expect_slice_of(dtype, shape)?;
    }
    Ok((layout, quantized))
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
    let parts = gather(&plan, n_threads, |index, blocks| {
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
    let layout = check_call(call, false)?;
    for_float!(call.values.dtype(), E => quantize_as::<E>(call, layout, n_threads))
}

fn quantize_as<E: Element>(call: &QuantizeCall, layout: Layout, n_threads: usize) -> Result<()> {
    let level = Level::best()?;
    run(&Plan::new(vec![layout]), n_threads, |_, blocks| {
        let elements = layout.elements(blocks.clone());
        // SAFETY: dtypes, lengths and contiguity have been checked; chunks are disjoint ranges of
        // blocks, and codes and scales share memory with nothing.
        unsafe {
            let codes = call.codes.slice_mut(elements.clone());
            let scales = call.scales.slice_mut(blocks.clone());
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
    let layout = check_call(call, true)?;
    for_float!(call.values.dtype(), E => dequantize_as::<E>(call, layout, n_threads))
}

fn dequantize_as<E: Element>(call: &QuantizeCall, layout: Layout, n_threads: usize) -> Result<()> {
    let level = Level::best()?;
    run(&Plan::new(vec![layout]), n_threads, |_, blocks| {
        let elements = layout.elements(blocks.clone());
        // SAFETY: dtypes, lengths and contiguity have been checked; chunks are disjoint ranges of
        // blocks, and the values share memory with nothing.
        unsafe {
            let codes = call.codes.slice(elements.clone());
            let scales = call.scales.slice(blocks.clone());
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

fn check_call(call: &QuantizeCall, values_written: bool) -> Result<Layout> {
    let QuantizeCall { values, codes, scales, block_size, .. } = call;
    values.expect_float()?;
    if values_written {
        values.expect_no_self_overlap()?;
    }
    let layout = Layout::new(values.shape(), *block_size)?;
    codes.expect_slice_of(Dtype::UInt8, values.shape())?;
    scales.expect_slice_of(Dtype::Float32, &layout.scales_shape())?;
    alias::check(&[
        Access { tensor: values, written: values_written },
        Access { tensor: codes, written: !values_written },
        Access { tensor: scales, written: !values_written },
    ])?;
    Ok(layout)
}

/// Calls `f` with the tensor and the blocks of every chunk, in parallel if it is worth it.
fn run(plan: &Plan, n_threads: usize, f: impl Fn(usize, Range<usize>) + Sync) {
    run_chunks(plan, n_threads, &|chunk| {
        let (tensor, blocks) = plan.chunk(chunk);
        f(tensor, blocks);
    });
}

/// As [`run`]; returns what `f` did, in the order of the chunks, whoever computed them.
fn gather<T: Send + Sync>(
    plan: &Plan,
    n_threads: usize,
    f: impl Fn(usize, Range<usize>) -> T + Sync,
) -> Vec<T> {
    let parts: Vec<OnceLock<T>> = (0..plan.n_chunks()).map(|_| OnceLock::new()).collect();
    run_chunks(plan, n_threads, &|chunk| {
        let (tensor, blocks) = plan.chunk(chunk);
        let first = parts[chunk].set(f(tensor, blocks));
        assert!(first.is_ok(), "a chunk is done once");
    });
    parts.into_iter().filter_map(OnceLock::into_inner).collect()
}

fn run_chunks(plan: &Plan, n_threads: usize, task: &(dyn Fn(usize) + Sync)) {
    let worth = plan.n_elements() / MIN_ELEMENTS_PER_THREAD;
    pool::run(plan.n_chunks(), Threads { allowed: n_threads, worth }, task);
}
