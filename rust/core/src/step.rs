//! The one loop that every optimizer, dtype and instruction set shares.
//!
//! For each block: decode the states, apply the rule, write the parameters, find the new scales,
//! encode the states. It is two passes over a block, the fresh states waiting in the first-level
//! cache in between, because a scale is not known before the last element of its block. The second
//! pass over a block comes after the first over the next one, which hides how long it takes to find
//! a maximum and divide by it.
//!
//! Rules that need a sum over the whole tensor (a norm, say) go over it once more, beforehand. The
//! same loop then writes nothing and adds up: in the rule's type, each of the [`GROUP`] elements of a
//! group for itself, over a block; and from there in float64, so that the order of the additions is
//! that of the elements, and the sum the same for any vectors and threads.
//!
//! A step is bound by memory once the arithmetic is fast, and then the processor's own prefetching
//! of five to seven interleaved streams is not enough: asking for all of them a few blocks ahead was
//! the largest gain of all.

use crate::block::{Scratch, magnitude_bits};
use crate::element::{Compute, Element, Lanes};
use crate::format::{Codebook, Codec};
use crate::layout::Layout;
use crate::rounding::{Rounding, Stream, ThresholdLanes};
use crate::rule::{Kind, Rule};
use crate::simd::{GROUP, Kernel, Level, Simd};
use core::ops::Range;

/// How far ahead memory is asked for, in elements.
const PREFETCH: usize = 1024;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How the blocks of a group of tensors are treated.
#[derive(Clone, Debug)]
pub struct Options {
    /// How states are stored.
    pub codec: Codec,
    /// Elements that share one scale.
    pub block_size: usize,
    /// Whether slow averages are rounded stochastically, and not to nearest.
    pub stochastic: bool,
    /// Whether blocks with a gradient that is not finite are left as they are.
    pub skip_nonfinite: bool,
    /// Whether bfloat16 parameters are rounded stochastically, and not to nearest.
    pub stochastic_params: bool,
    /// Of the stochastic rounding.
    pub seed: u64,
}

/// One state over some blocks.
pub(crate) enum StateBlocks<'a, E: Element> {
    /// Kept in the type that formulas are computed in.
    Full(&'a mut [E::Compute]),
    /// Kept in the parameters' type.
    Copy(&'a mut [E]),
    /// Codes and scales; the stream of thresholds if it is rounded stochastically.
    Quantized { codes: &'a mut [u8], scales: &'a mut [f32], stream: Option<Stream> },
}

/// What came of a pass over some blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Blocks that were left as they were.
    pub(crate) skipped: usize,
    /// Sums of what the rule asked for, if this pass was made for them.
    pub(crate) sums: [f64; 2],
}

/// The sums of a block, for each element of a group.
type Sums<C> = [[C; GROUP]; 2];

/// A pass over consecutive blocks of one tensor: a step, or (`MEASURE`) the sums that the rule needs
/// before it.
///
/// All slices begin at the first of the blocks. `QUANTIZED` says of all states that may be quantized
/// whether they are.
pub(crate) struct StepBlocks<'a, R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool>
where
    E: Element,
{
    pub(crate) level: Level,
    pub(crate) rule: R,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) param: &'a mut [E],
    pub(crate) grad: &'a [E],
    pub(crate) states: [StateBlocks<'a, E>; N],
    /// The thresholds of the parameters, if they are rounded stochastically.
    pub(crate) param_stream: Option<Stream>,
}

impl<R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool> Kernel
    for StepBlocks<'_, R, E, N, QUANTIZED, MEASURE>
where
    R: Rule<N>,
    E: Element,
{
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Outcome {
        // A copy, which no store can change: else its numbers are converted again for every vector.
        let rule = self.rule;
        let scratch = |_| Scratch::new(self.layout.block_size());
        // Of this block, and of the one before.
        let mut fresh: [[Scratch; N]; 2] = [(); 2].map(|()| core::array::from_fn(scratch));
        let mut waiting = None;
        let origin = self.layout.elements(self.blocks.clone()).start;
        let mut tail = Tail::new();
        let mut outcome = Outcome::default();
        for (index, block) in self.blocks.clone().enumerate() {
            let elements = self.layout.block(block);
            let elements = elements.start - origin..elements.end - origin;
            let grad = &self.grad[elements.clone()];
            if self.options.skip_nonfinite && !grad.iter().all(|&value| value.is_finite()) {
                outcome.skipped += 1;
                continue;
            }
            let param = &mut self.param[elements.clone()];
            let codec = &self.options.codec;
            let mut sums: Sums<E::Compute> = [[E::Compute::default(); GROUP]; 2];
            let peaks = {
                let mut pairs = self.states.iter_mut().zip(&mut fresh[0]);
                let states: [BlockState<'_, S, E>; N] = core::array::from_fn(|i| {
                    let (state, fresh) = pairs.next().expect("one for each state");
                    let codebook = codec.codebook(is_signed::<R, N>(i));
                    state.block(simd, index, elements.clone(), codebook, fresh)
                });
                // With `None` as a constant there is no trace of thresholds in what it compiles to.
                match self.param_stream {
                    Some(stream) if E::STOCHASTIC => {
                        let mut thresholds = stream.block(block).lanes(simd);
                        let thresholds = Some(&mut thresholds);
                        update_block::<S, R, E, N, QUANTIZED, MEASURE>(
                            simd, &rule, param, grad, states, thresholds, &mut sums, &mut tail,
                        )
                    }
                    _ => update_block::<S, R, E, N, QUANTIZED, MEASURE>(
                        simd, &rule, param, grad, states, None, &mut sums, &mut tail,
                    ),
                }
            };
            if MEASURE {
                for (total, sums) in outcome.sums.iter_mut().zip(sums) {
                    *total += sums.into_iter().map(E::Compute::to_f64).sum::<f64>();
                }
                continue;
            }
            // The scale of this block is not known before its last maximum; that of the one before
            // has been for long.
            if let Some(before) = waiting.replace(Waiting { index, block, elements, peaks }) {
                self.encode(&mut fresh[1], before);
            }
            fresh.swap(0, 1);
        }
        if let Some(last) = waiting {
            self.encode(&mut fresh[1], last);
        }
        outcome
    }
}

/// A block whose fresh states wait to be encoded.
struct Waiting<const N: usize> {
    /// Among the blocks of the pass.
    index: usize,
    /// In the whole tensor.
    block: usize,
    /// Of the slices of the pass.
    elements: Range<usize>,
    /// Bits of the largest magnitudes of its states.
    peaks: [i32; N],
}

impl<R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool>
    StepBlocks<'_, R, E, N, QUANTIZED, MEASURE>
where
    R: Rule<N>,
    E: Element,
{
    /// The second pass over a block.
    #[inline(always)]
    fn encode(&mut self, fresh: &mut [Scratch; N], waiting: Waiting<N>) {
        let Waiting { index, block, elements, peaks } = waiting;
        for (i, state) in self.states.iter_mut().enumerate() {
            if let StateBlocks::Quantized { codes, scales, stream } = state {
                let rounding = match stream {
                    Some(stream) => Rounding::Stochastic(stream.block(block)),
                    None => Rounding::Nearest,
                };
                let codes = &mut codes[elements.clone()];
                let (codec, signed) = (&self.options.codec, is_signed::<R, N>(i));
                scales[index] =
                    fresh[i].encode(self.level, codec, signed, rounding, peaks[i], codes);
            }
        }
    }
}

/// Whether a state of a rule may be negative.
#[inline(always)]
fn is_signed<R: Rule<N>, const N: usize>(state: usize) -> bool {
    R::STATES[state].kind == Kind::Signed
}

/// One state of one block in the first pass. Of `codes`, `full` and `copy`, those that are not used
/// are empty.
struct BlockState<'a, S: Simd, E: Element> {
    codebook: &'a Codebook,
    scale: S::F32,
    codes: &'a [u8],
    full: &'a mut [E::Compute],
    copy: &'a mut [E],
    fresh: &'a mut Scratch,
}

impl<E: Element> StateBlocks<'_, E> {
    /// The part of one block.
    #[inline(always)]
    fn block<'a, S: Simd>(
        &'a mut self,
        simd: S,
        index: usize,
        elements: Range<usize>,
        codebook: &'a Codebook,
        fresh: &'a mut Scratch,
    ) -> BlockState<'a, S, E> {
        let none = simd.splat(0.0);
        let mut block =
            BlockState { codebook, scale: none, codes: &[], full: &mut [], copy: &mut [], fresh };
        match self {
            Self::Quantized { codes, scales, .. } => {
                block.codes = &codes[elements];
                block.scale = simd.splat(scales[index]);
            }
            Self::Full(full) => block.full = &mut full[elements],
            Self::Copy(copy) => block.copy = &mut copy[elements],
        }
        block
    }
}

/// The first pass over a block: decode, update, write the parameters. Leaves quantized states in
/// `fresh`, and returns the bits of their largest magnitudes.
///
/// A last group that is not whole is updated in `tail`, by the same code: to compile the update twice
/// would double the size of the library.
#[inline(always)]
fn update_block<S, R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool>(
    simd: S,
    rule: &R,
    param: &mut [E],
    grad: &[E],
    mut states: [BlockState<'_, S, E>; N],
    mut thresholds: Option<&mut ThresholdLanes<S>>,
    sums: &mut Sums<E::Compute>,
    tail: &mut Tail<E, N>,
) -> [i32; N]
where
    S: Simd,
    R: Rule<N>,
    E: Element,
{
    let mut peaks = [simd.splat_i32(0); N];
    for group in 0..param.len().div_ceil(GROUP) {
        let elements = group * GROUP..param.len().min((group + 1) * GROUP);
        let n = elements.len();
        let sums_before = (MEASURE && n < GROUP).then_some(*sums);
        if n < GROUP {
            tail.fill(&param[elements.clone()], &grad[elements.clone()], &states, &elements);
        }
        let group_param = whole_or(&mut param[elements.clone()], &mut tail.param);
        let group_grad = grad[elements.clone()].try_into().unwrap_or(&tail.grad);
        prefetch(simd, group_param);
        prefetch(simd, group_grad);
        let mut pairs = states.iter_mut().zip(&mut tail.states);
        let group_states = core::array::from_fn(|i| {
            let (state, tail) = pairs.next().expect("one for each state");
            let values = match (R::STATES[i].kind, QUANTIZED) {
                (Kind::Copy, _) => {
                    let copy = whole_or(&mut state.copy[elements.clone()], &mut tail.copy);
                    prefetch(simd, copy);
                    GroupValues::Copy(copy)
                }
                (_, false) => {
                    let full = whole_or(&mut state.full[elements.clone()], &mut tail.full);
                    GroupValues::Full(full)
                }
                (_, true) => {
                    let codes = state.codes[elements.clone()].try_into().unwrap_or(&tail.codes);
                    prefetch(simd, codes);
                    GroupValues::Quantized(codes)
                }
            };
            let fresh = state.fresh.group_mut(group);
            StateGroup { codebook: state.codebook, scale: state.scale, values, fresh }
        });
        update_group::<S, R, E, N, MEASURE>(
            simd,
            rule,
            group_param,
            group_grad,
            group_states,
            group,
            thresholds.as_deref_mut(),
            &mut peaks,
            sums,
        );
        if n < GROUP {
            param[elements.clone()].copy_from_slice(&tail.param[..n]);
            for (state, tail) in states.iter_mut().zip(&tail.states) {
                if !state.full.is_empty() {
                    state.full[elements.clone()].copy_from_slice(&tail.full[..n]);
                }
                if !state.copy.is_empty() {
                    state.copy[elements.clone()].copy_from_slice(&tail.copy[..n]);
                }
            }
            if let Some(before) = sums_before {
                for (sums, before) in sums.iter_mut().zip(before) {
                    sums[n..].copy_from_slice(&before[n..]);
                }
            }
        }
    }
    peaks.map(|peak| simd.reduce_max(peak))
}

/// The group, if it is whole.
#[inline(always)]
fn whole_or<'a, T>(group: &'a mut [T], tail: &'a mut [T; GROUP]) -> &'a mut [T; GROUP] {
    group.try_into().unwrap_or(tail)
}

/// Room for a group that is not whole. It goes on with copies of its last element, so that the rest
/// changes no maximum.
struct Tail<E: Element, const N: usize> {
    param: [E; GROUP],
    grad: [E; GROUP],
    states: [TailState<E>; N],
}

/// Room for one state of such a group.
#[derive(Clone, Copy)]
struct TailState<E: Element> {
    codes: [u8; GROUP],
    full: [E::Compute; GROUP],
    copy: [E; GROUP],
}

impl<E: Element, const N: usize> Tail<E, N> {
    fn new() -> Self {
        let state = TailState {
            codes: [0; GROUP],
            full: [E::Compute::default(); GROUP],
            copy: [E::default(); GROUP],
        };
        Self { param: [E::default(); GROUP], grad: [E::default(); GROUP], states: [state; N] }
    }

    /// Takes the last elements of a block.
    #[cold]
    fn fill<S: Simd>(
        &mut self,
        param: &[E],
        grad: &[E],
        states: &[BlockState<'_, S, E>; N],
        elements: &Range<usize>,
    ) {
        /// Nothing, of what is not used.
        fn repeat_last<T: Copy>(from: Option<&[T]>, to: &mut [T; GROUP]) {
            if let Some(from) = from {
                to[..from.len()].copy_from_slice(from);
                to[from.len()..].fill(from[from.len() - 1]);
            }
        }
        repeat_last(Some(param), &mut self.param);
        repeat_last(Some(grad), &mut self.grad);
        for (from, to) in states.iter().zip(&mut self.states) {
            repeat_last(from.codes.get(elements.clone()), &mut to.codes);
            repeat_last(from.full.get(elements.clone()), &mut to.full);
            repeat_last(from.copy.get(elements.clone()), &mut to.copy);
        }
    }
}

/// One state of one group in the first pass.
struct StateGroup<'a, S: Simd, E: Element> {
    codebook: &'a Codebook,
    scale: S::F32,
    values: GroupValues<'a, E>,
    fresh: &'a mut [f32; GROUP],
}

/// The values of a state before the update.
enum GroupValues<'a, E: Element> {
    /// Codes, to be decoded.
    Quantized(&'a [u8; GROUP]),
    /// Full values, updated in place.
    Full(&'a mut [E::Compute; GROUP]),
    /// Values of the parameters' type, updated in place.
    Copy(&'a mut [E; GROUP]),
}

/// The update of one group, or its terms.
#[inline(always)]
fn update_group<S, R, E, const N: usize, const MEASURE: bool>(
    simd: S,
    rule: &R,
    param: &mut [E; GROUP],
    grad: &[E; GROUP],
    mut states: [StateGroup<'_, S, E>; N],
    group: usize,
    mut thresholds: Option<&mut ThresholdLanes<S>>,
    peaks: &mut [S::I32; N],
    sums: &mut Sums<E::Compute>,
) where
    S: Simd,
    R: Rule<N>,
    E: Element,
{
    for at in 0..GROUP / S::LANES {
        let old_param = E::load(simd, param, at);
        let mut old: [Lanes<E, S>; N] = [old_param; N];
        for i in 0..N {
            old[i] = match &states[i].values {
                GroupValues::Quantized(codes) => {
                    let codebook = states[i].codebook.values();
                    let value = simd.decode(codebook, codes, at) * states[i].scale;
                    E::Compute::from_f32(simd, value)
                }
                GroupValues::Full(full) => E::Compute::load(simd, full, at),
                GroupValues::Copy(copy) => E::load(simd, copy, at),
            };
        }
        let grad = E::load(simd, grad, at);
        if MEASURE {
            for (sum, term) in sums.iter_mut().zip(rule.terms(old_param, grad, old)) {
                let sum_so_far = E::Compute::load(simd, sum, at);
                E::Compute::store(simd, sum_so_far + term, sum, at);
            }
            continue;
        }
        let (new_param, new) = rule.update(old_param, grad, old);
        match &mut thresholds {
            Some(lanes) => {
                E::store_stochastically(simd, new_param, lanes.next(group, at), param, at);
            }
            None => E::store(simd, new_param, param, at),
        }
        for i in 0..N {
            match &mut states[i].values {
                GroupValues::Quantized(_) => {
                    let value = E::Compute::to_f32(simd, new[i]);
                    peaks[i] = simd.max_i32(peaks[i], magnitude_bits(simd, value));
                    simd.store(value, states[i].fresh, at);
                }
                GroupValues::Full(full) => E::Compute::store(simd, new[i], full, at),
                GroupValues::Copy(copy) => E::store(simd, new[i], copy, at),
            }
        }
    }
}

/// Asks for the cache lines of a group some way ahead.
#[inline(always)]
fn prefetch<S: Simd, T>(simd: S, group: &[T; GROUP]) {
    let ahead = group.as_ptr().wrapping_add(PREFETCH).cast::<u8>();
    for line in 0..size_of::<[T; GROUP]>().div_ceil(LINE) {
        simd.prefetch(ahead.wrapping_add(line * LINE));
    }
}
