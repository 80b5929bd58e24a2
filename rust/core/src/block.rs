//! Blocks: a scale and its codes from values, and values from them.

use crate::element::{Compute, Element};
use crate::format::{Codec, EncodeBlock};
use crate::real::Real;
use crate::rounding::Rounding;
use crate::simd::{Aligned, GROUP, Kernel, Level, PAIR, Pair, Simd, Table, pairs};

/// The fresh values of one block in float32, on their way to becoming codes. It stays in the cache:
/// this is the only place where a state exists in full precision.
pub(crate) struct Scratch<'a> {
    pairs: &'a mut [Pair<f32>],
}

impl<'a> Scratch<'a> {
    /// Memory for this many of them, for blocks of this size. It is in one piece: to get some for each of
    /// a rule's states would take longer than to step a small tensor.
    pub(crate) fn memory(count: usize, block_size: usize) -> Vec<Pair<f32>> {
        vec![[Aligned([0.0; GROUP]); 2]; count * block_size.div_ceil(PAIR)]
    }

    /// The one for which this is the memory.
    pub(crate) fn new(pairs: &'a mut [Pair<f32>]) -> Self {
        Self { pairs }
    }

    /// All for which this is the memory.
    pub(crate) fn each(
        memory: &'a mut [Pair<f32>],
        block_size: usize,
    ) -> impl Iterator<Item = Self> {
        memory.chunks_exact_mut(block_size.div_ceil(PAIR).max(1)).map(Self::new)
    }

    /// A group of values.
    #[inline(always)]
    pub(crate) fn group_mut(&mut self, group: usize) -> &mut [f32; GROUP] {
        &mut self.pairs.as_flattened_mut()[group].0
    }

    /// All values.
    #[inline(always)]
    pub(crate) fn pairs_mut(&mut self) -> &mut [Pair<f32>] {
        self.pairs
    }

    /// Encodes the values of the block, as many as there are codes, and returns its scale.
    ///
    /// `peak` holds the bits of the largest magnitude. A block with a NaN or an infinity gets the
    /// scale NaN, so that every value of it is NaN from now on, and no other block's.
    #[inline]
    pub(crate) fn encode(
        &mut self,
        level: Level,
        codec: &Codec,
        signed: bool,
        rounding: Rounding,
        peak: i32,
        codes: &mut [u8],
    ) -> f32 {
        let scale = f32::from_bits(peak as u32);
        if scale == 0.0 || !scale.is_finite() {
            codes.fill(codec.codebook(signed).zero());
            return if scale == 0.0 { 0.0 } else { f32::NAN };
        }
        let mut inverse_scale = 1.0 / scale;
        // The reciprocal of a denormal overflows, and that of a huge number is denormal: such
        // blocks are brought to the middle of the range first.
        if !(f32::MIN_POSITIVE..=1.0 / f32::MIN_POSITIVE).contains(&scale) {
            let shift = if scale < 1.0 { 2.0_f32.powi(64) } else { 2.0_f32.powi(-64) };
            inverse_scale = 1.0 / (scale * shift);
            for value in self.pairs.as_flattened_mut().iter_mut().flat_map(|group| &mut group.0) {
                let shifted = *value * shift;
                // What is not zero must not become it.
                let lost = shifted == 0.0 && *value != 0.0;
                *value = if lost { f32::MIN_POSITIVE.copysign(*value) } else { shifted };
            }
        }
        let values = &*self.pairs;
        codec.encode(level, EncodeBlock { values, inverse_scale, codes, signed, rounding });
        scale
    }
}

/// The magnitude's bits, which are ordered as magnitudes are, with NaN above all: so their maximum
/// is exact, the same in any order, and finds a NaN.
#[inline(always)]
pub(crate) fn magnitude_bits<S: Simd>(simd: S, value: S::F32) -> S::I32 {
    simd.bits(value.abs())
}

/// Quantizes one block to nearest; returns its scale.
pub(crate) struct QuantizeBlock<'a, E> {
    pub(crate) level: Level,
    pub(crate) codec: &'a Codec,
    pub(crate) signed: bool,
    pub(crate) values: &'a [E],
    pub(crate) codes: &'a mut [u8],
    pub(crate) scratch: Scratch<'a>,
}

impl<E: Element> Kernel for QuantizeBlock<'_, E> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> f32 {
        let mut peak = simd.splat_i32(0);
        let (whole, rest) = self.values.as_chunks::<GROUP>();
        for (group, values) in whole.iter().enumerate() {
            let to = self.scratch.group_mut(group);
            peak = simd.max_i32(peak, load_group(simd, values, to));
        }
        if !rest.is_empty() {
            let to = self.scratch.group_mut(whole.len());
            peak = simd.max_i32(peak, load_group(simd, &padded(rest, E::default()), to));
        }
        let peak = simd.reduce_max(peak);
        let rounding = Rounding::Nearest;
        self.scratch.encode(self.level, self.codec, self.signed, rounding, peak, self.codes)
    }
}

/// Dequantizes one block.
pub(crate) struct DequantizeBlock<'a, E> {
    pub(crate) table: &'a Table,
    pub(crate) codes: &'a [u8],
    pub(crate) scale: f32,
    pub(crate) values: &'a mut [E],
}

impl<E: Element> Kernel for DequantizeBlock<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let scale = simd.splat(self.scale);
        let (whole_codes, rest_codes) = self.codes.as_chunks::<PAIR>();
        let (whole, rest) = self.values.as_chunks_mut::<PAIR>();
        for (codes, values) in whole_codes.iter().zip(whole) {
            decode_pair(simd, self.table, scale, codes, values);
        }
        if !rest.is_empty() {
            let mut values = padded(rest, E::default());
            decode_pair(simd, self.table, scale, &padded(rest_codes, 0), &mut values);
            rest.copy_from_slice(&values[..rest.len()]);
        }
    }
}

/// Sums the squares of some values.
pub(crate) struct SumOfSquares<'a, E> {
    pub(crate) values: &'a [E],
}

impl<E: Element> Kernel for SumOfSquares<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [E::Compute::default(); GROUP];
        let (whole, rest) = self.values.as_chunks::<GROUP>();
        for values in whole {
            add_squares(simd, values, &mut sums);
        }
        if !rest.is_empty() {
            add_squares(simd, &padded(rest, E::default()), &mut sums);
        }
        sums.into_iter().map(E::Compute::to_f64).sum()
    }
}

/// Adds the squares of a group of values, each to the sum at its place.
#[inline(always)]
fn add_squares<S: Simd, E: Element>(simd: S, values: &[E; GROUP], sums: &mut [E::Compute; GROUP]) {
    for at in 0..GROUP / S::LANES {
        let value = E::load(simd, values, at);
        let sum = value.mul_add(value, E::Compute::load(simd, sums, at));
        E::Compute::store(simd, sum, sums, at);
    }
}

/// Writes a group of values as float32, and returns the bits of the largest magnitudes.
#[inline(always)]
fn load_group<S: Simd, E: Element>(simd: S, values: &[E; GROUP], to: &mut [f32; GROUP]) -> S::I32 {
    let mut peak = simd.splat_i32(0);
    for at in 0..GROUP / S::LANES {
        let value = E::Compute::to_f32(simd, E::load(simd, values, at));
        peak = simd.max_i32(peak, magnitude_bits(simd, value));
        simd.store(value, to, at);
    }
    peak
}

/// Writes the values of two groups of codes.
#[inline(always)]
fn decode_pair<S: Simd, E: Element>(
    simd: S,
    table: &Table,
    scale: S::F32,
    codes: &[u8; PAIR],
    values: &mut [E; PAIR],
) {
    let mut decoded = [Aligned([0.0; GROUP]); 2];
    simd.decode(table, scale, pairs(codes), core::slice::from_mut(&mut decoded));
    for (from, to) in decoded.iter().zip(values.as_chunks_mut().0) {
        for at in 0..GROUP / S::LANES {
            E::store(simd, E::Compute::from_f32(simd, simd.load(&from.0, at)), to, at);
        }
    }
}

/// An array that begins with `rest` and goes on with `fill`.
#[inline(always)]
pub(crate) fn padded<T: Copy, const N: usize>(rest: &[T], fill: T) -> [T; N] {
    let mut array = [fill; N];
    array[..rest.len()].copy_from_slice(rest);
    array
}
