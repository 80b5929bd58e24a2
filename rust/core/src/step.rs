//! The one loop that every optimizer, dtype and instruction set shares.
//!
//! For each block: decode the states, apply the rule, write the parameters, find the new scales,
//! encode the states. It is two passes over a block, the fresh states waiting in the first-level
//! cache in between, because a scale is not known before the last element of its block.
//!
//! A step is bound by memory once the arithmetic is fast, and then the processor's own prefetching
//! of five to seven interleaved streams is not enough: asking for all of them a few blocks ahead was
//! the largest gain of all.

use crate::block::{Scratch, magnitude_bits, padded};
use crate::element::{Compute, Element, Lanes};
use crate::format::{Codebook, Codec};
use crate::layout::Layout;
use crate::rounding::{Rounding, Stream};
use crate::rule::Rule;
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
    /// Of the stochastic rounding.
    pub seed: u64,
}

/// One state over some blocks.
pub(crate) enum StateBlocks<'a, C> {
    /// Kept in the type that formulas are computed in.
    Full(&'a mut [C]),
    /// Codes and scales; the stream of thresholds if it is rounded stochastically.
    Quantized { codes: &'a mut [u8], scales: &'a mut [f32], stream: Option<Stream> },
}

/// A step of consecutive blocks of one tensor; returns how many were skipped.
///
/// All slices begin at the first of the blocks. `QUANTIZED` says which kind all states are of.
pub(crate) struct StepBlocks<'a, R, E: Element, const N: usize, const QUANTIZED: bool> {
    pub(crate) level: Level,
    pub(crate) rule: R,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) param: &'a mut [E],
    pub(crate) grad: &'a [E],
    pub(crate) states: [StateBlocks<'a, E::Compute>; N],
}

impl<R, E, const N: usize, const QUANTIZED: bool> Kernel for StepBlocks<'_, R, E, N, QUANTIZED>
where
    R: Rule<N>,
    E: Element,
{
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> usize {
        // A copy, which no store can change: else its numbers are converted again for every vector.
        let rule = self.rule;
        let mut fresh: [Scratch; N] =
            core::array::from_fn(|_| Scratch::new(self.layout.block_size()));
        let origin = self.layout.elements(self.blocks.clone()).start;
        let mut skipped = 0;
        for (index, block) in self.blocks.clone().enumerate() {
            let elements = self.layout.block(block);
            let elements = elements.start - origin..elements.end - origin;
            let grad = &self.grad[elements.clone()];
            if self.options.skip_nonfinite && !grad.iter().all(|&value| value.is_finite()) {
                skipped += 1;
                continue;
            }
            let param = &mut self.param[elements.clone()];
            let codec = &self.options.codec;
            let peaks = {
                let mut pairs = self.states.iter_mut().zip(&mut fresh).zip(R::SIGNED);
                let states: [BlockState<'_, S, E::Compute>; N] = core::array::from_fn(|_| {
                    let ((state, fresh), signed) = pairs.next().expect("one for each state");
                    state.block(simd, index, elements.clone(), codec.codebook(signed), fresh)
                });
                update_block::<S, R, E, N, QUANTIZED>(simd, &rule, param, grad, states)
            };
            for (i, state) in self.states.iter_mut().enumerate() {
                if let StateBlocks::Quantized { codes, scales, stream } = state {
                    let rounding = match stream {
                        Some(stream) => Rounding::Stochastic(stream.block(block)),
                        None => Rounding::Nearest,
                    };
                    let codes = &mut codes[elements.clone()];
                    let signed = R::SIGNED[i];
                    scales[index] =
                        fresh[i].encode(self.level, codec, signed, rounding, peaks[i], codes);
                }
            }
        }
        skipped
    }
}

/// One state of one block in the first pass. Of `codes` and `full`, the one that is not used is
/// empty.
struct BlockState<'a, S: Simd, C> {
    codebook: &'a Codebook,
    scale: S::F32,
    codes: &'a [u8],
    full: &'a mut [C],
    fresh: &'a mut Scratch,
}

impl<C> StateBlocks<'_, C> {
    /// The part of one block.
    #[inline(always)]
    fn block<'a, S: Simd>(
        &'a mut self,
        simd: S,
        index: usize,
        elements: Range<usize>,
        codebook: &'a Codebook,
        fresh: &'a mut Scratch,
    ) -> BlockState<'a, S, C> {
        let (codes, scale, full): (&[u8], f32, &mut [C]) = match self {
            Self::Quantized { codes, scales, .. } => (&codes[elements], scales[index], &mut []),
            Self::Full(full) => (&[], 0.0, &mut full[elements]),
        };
        BlockState { codebook, scale: simd.splat(scale), codes, full, fresh }
    }
}

/// The first pass over a block: decode, update, write the parameters. Leaves quantized states in
/// `fresh`, and returns the bits of their largest magnitudes.
#[inline(always)]
fn update_block<S, R, E, const N: usize, const QUANTIZED: bool>(
    simd: S,
    rule: &R,
    param: &mut [E],
    grad: &[E],
    mut states: [BlockState<'_, S, E::Compute>; N],
) -> [i32; N]
where
    S: Simd,
    R: Rule<N>,
    E: Element,
{
    let mut peaks = [simd.splat_i32(0); N];
    let (whole_param, rest_param) = param.as_chunks_mut::<GROUP>();
    let (whole_grad, rest_grad) = grad.as_chunks::<GROUP>();
    for (group, (param, grad)) in whole_param.iter_mut().zip(whole_grad).enumerate() {
        prefetch(simd, param);
        prefetch(simd, grad);
        let states = states.each_mut().map(|state| {
            let values = if QUANTIZED {
                let codes = &state.codes.as_chunks::<GROUP>().0[group];
                prefetch(simd, codes);
                GroupValues::Quantized(codes)
            } else {
                GroupValues::Full(&mut state.full.as_chunks_mut::<GROUP>().0[group])
            };
            let fresh = state.fresh.group_mut(group);
            StateGroup { codebook: state.codebook, scale: state.scale, values, fresh }
        });
        update_group(simd, rule, param, grad, states, &mut peaks);
    }
    let mut peaks = peaks.map(|peak| simd.reduce_max(peak));
    if !rest_param.is_empty() {
        update_rest(simd, rule, rest_param, rest_grad, whole_grad.len(), &mut states, &mut peaks);
    }
    peaks
}

/// The elements of a block after its last whole group, by way of padded copies.
#[inline(always)]
fn update_rest<S, R, E, const N: usize>(
    simd: S,
    rule: &R,
    param: &mut [E],
    grad: &[E],
    group: usize,
    states: &mut [BlockState<'_, S, E::Compute>; N],
    peaks: &mut [i32; N],
) where
    S: Simd,
    R: Rule<N>,
    E: Element,
{
    let n = param.len();
    let mut padded_param = padded(param, E::default());
    let padded_grad = padded(grad, E::default());
    let padded_codes = states.each_ref().map(|state| {
        let codes = state.codes.as_chunks::<GROUP>().1;
        padded(codes, state.codebook.zero())
    });
    let mut padded_full = states.each_ref().map(|state| {
        let full = state.full.as_chunks::<GROUP>().1;
        padded(full, E::Compute::default())
    });
    {
        let mut padding = padded_codes.iter().zip(&mut padded_full);
        let states = states.each_mut().map(|state| {
            let (codes, full) = padding.next().expect("one for each state");
            let values = if state.codes.is_empty() {
                GroupValues::Full(full)
            } else {
                GroupValues::Quantized(codes)
            };
            let fresh = state.fresh.group_mut(group);
            StateGroup { codebook: state.codebook, scale: state.scale, values, fresh }
        });
        let mut ignored = [simd.splat_i32(0); N];
        update_group(simd, rule, &mut padded_param, &padded_grad, states, &mut ignored);
    }
    param.copy_from_slice(&padded_param[..n]);
    for (i, state) in states.iter_mut().enumerate() {
        let full = state.full.as_chunks_mut::<GROUP>().1;
        full.copy_from_slice(&padded_full[i][..full.len()]);
        // What a rule makes of padding is no value of this block.
        let (fresh, padding) = state.fresh.group_mut(group).split_at_mut(n);
        padding.fill(0.0);
        let magnitudes = fresh.iter().map(|value| value.abs().to_bits() as i32);
        peaks[i] = peaks[i].max(magnitudes.max().unwrap_or(0));
    }
}

/// One state of one group in the first pass.
struct StateGroup<'a, S: Simd, C> {
    codebook: &'a Codebook,
    scale: S::F32,
    values: GroupValues<'a, C>,
    fresh: &'a mut [f32; GROUP],
}

/// The values of a state before the update.
enum GroupValues<'a, C> {
    /// Codes, to be decoded.
    Quantized(&'a [u8; GROUP]),
    /// Full values, updated in place.
    Full(&'a mut [C; GROUP]),
}

/// The update of one group.
#[inline(always)]
fn update_group<S, R, E, const N: usize>(
    simd: S,
    rule: &R,
    param: &mut [E; GROUP],
    grad: &[E; GROUP],
    mut states: [StateGroup<'_, S, E::Compute>; N],
    peaks: &mut [S::I32; N],
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
            };
        }
        let (new_param, new) = rule.update(old_param, E::load(simd, grad, at), old);
        E::store(simd, new_param, param, at);
        for i in 0..N {
            match &mut states[i].values {
                GroupValues::Quantized(_) => {
                    let value = E::Compute::to_f32(simd, new[i]);
                    peaks[i] = simd.max_i32(peaks[i], magnitude_bits(simd, value));
                    simd.store(value, states[i].fresh, at);
                }
                GroupValues::Full(full) => E::Compute::store(simd, new[i], full, at),
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
