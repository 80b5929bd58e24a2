//! Blocks: a scale and its codes from values, and values from them.

use crate::element::{Compute, Element};
use crate::format::{Codec, DecodeBlocks, ENCODING_ASKS, EncodeBlocks};
use crate::layout::Layout;
use crate::real::Real;
use crate::rounding::Rounding;
use crate::simd::{Ahead, Aligned, GROUP, Kernel, Level, PAIR, Pair, Simd, pairs};
use core::cell::Cell;
use core::mem::take;
use core::ops::{Deref, DerefMut, Range};

/// Elements that are decoded, updated and encoded together, if their blocks are not larger: few enough to
/// stay in the first-level cache, or nearly, with all that belongs to them, and enough for what happens once
/// for all of them to matter little (on a Zen 5, half of them take 5 % longer, and twice as many as long).
const BATCH: usize = 2048;

/// Blocks in a batch, at most.
pub(crate) const MAX_BLOCKS: usize = BATCH / PAIR;

/// Blocks of this size in a batch. Those that are no multiple of a pair of groups go alone.
pub(crate) fn blocks_in_batch(block_size: usize) -> usize {
    if block_size < PAIR { 1 } else { (BATCH / block_size).max(1) }
}

/// The values of a batch of blocks in float32, on their way from codes to codes. It stays in the cache:
/// this is the only place where a state exists in full precision.
pub(crate) struct Scratch<'a> {
    block_size: usize,
    pairs: &'a mut [Pair<f32>],
}

/// Memory for [`Scratch`], in one piece, whose content is no matter. A thread keeps it for its next chunk: to
/// get it anew, and zeroed, took 3 % of a step of small tensors.
pub(crate) struct Memory {
    kept: Vec<Pair<f32>>,
    n_pairs: usize,
}

thread_local! {
    static KEPT: Cell<Vec<Pair<f32>>> = const { Cell::new(vec![]) };
}

impl Deref for Memory {
    type Target = [Pair<f32>];

    fn deref(&self) -> &[Pair<f32>] {
        &self.kept[..self.n_pairs]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [Pair<f32>] {
        &mut self.kept[..self.n_pairs]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // A thread that ends keeps nothing.
        let _ = KEPT.try_with(|kept| kept.set(take(&mut self.kept)));
    }
}

impl<'a> Scratch<'a> {
    /// Memory for this many of them, for blocks of this size, of which a tensor has so many elements.
    pub(crate) fn memory(count: usize, block_size: usize, n_elements: usize) -> Memory {
        let n_pairs = count * block_size.max(BATCH).min(n_elements).div_ceil(PAIR).max(1);
        let mut kept = KEPT.try_with(Cell::take).unwrap_or_default();
        if kept.len() < n_pairs {
            kept = vec![[Aligned([0.0; GROUP]); 2]; n_pairs];
        }
        let mut memory = Memory { kept, n_pairs };
        if cfg!(debug_assertions) {
            // What reads it before it has written it shall be found.
            memory.fill([Aligned([f32::NAN; GROUP]); 2]);
        }
        memory
    }

    /// The one for which this is the memory.
    pub(crate) fn new(pairs: &'a mut [Pair<f32>], block_size: usize) -> Self {
        Self { block_size, pairs }
    }

    /// All for which this is the memory.
    pub(crate) fn each(
        memory: &'a mut [Pair<f32>],
        count: usize,
        block_size: usize,
    ) -> impl Iterator<Item = Self> {
        let n_pairs = (memory.len() / count.max(1)).max(1);
        memory.chunks_exact_mut(n_pairs).map(move |pairs| Self::new(pairs, block_size))
    }

    /// Writes a block of values from a group on, 0 for negative ones if not `signed`. Returns the bits of
    /// the largest magnitude.
    #[inline(always)]
    fn load<S: Simd, E: Element>(
        &mut self,
        simd: S,
        group: usize,
        values: &[E],
        signed: bool,
        ahead: Ahead,
    ) -> u32 {
        let mut peak = simd.splat_i32(0);
        for pair in 0..values.len() / PAIR {
            ahead.ask(pair, loading_asks::<E>());
        }
        let (whole, rest) = values.as_chunks::<GROUP>();
        let to = &mut self.pairs.as_flattened_mut()[group..];
        for (values, to) in whole.iter().zip(&mut *to) {
            peak = simd.max_u32(peak, load_group(simd, values, signed, &mut to.0));
        }
        if !rest.is_empty() {
            let (values, to) = (padded(rest, E::default()), &mut to[whole.len()].0);
            peak = simd.max_u32(peak, load_group(simd, &values, signed, to));
        }
        simd.reduce_max(peak)
    }

    /// Reads as many values as there are, from the first one on.
    #[inline(always)]
    fn store<S: Simd, E: Element>(&self, simd: S, values: &mut [E]) {
        let from = self.pairs.as_flattened();
        let (whole, rest) = values.as_chunks_mut::<GROUP>();
        let n_whole = whole.len();
        for (from, values) in from.iter().zip(whole) {
            store_group(simd, &from.0, values);
        }
        if !rest.is_empty() {
            let mut values = [E::default(); GROUP];
            store_group(simd, &from[n_whole].0, &mut values);
            rest.copy_from_slice(&values[..rest.len()]);
        }
    }

    /// All values.
    #[inline(always)]
    pub(crate) fn pairs_mut(&mut self) -> &mut [Pair<f32>] {
        self.pairs
    }

    /// Decodes a batch. The last value is repeated up to the end of its pair of groups, as it changes no
    /// maximum.
    #[inline]
    pub(crate) fn decode(
        &mut self,
        level: Level,
        codec: &Codec,
        signed: bool,
        scales: &[f32],
        decay: Option<f32>,
        codes: &[u8],
        ahead: Ahead,
    ) {
        let (block_size, whole) = (self.block_size, pairs(codes));
        let values = &mut *self.pairs;
        codec.decode(
            level,
            DecodeBlocks { codes: whole, block_size, scales, decay, values, signed, ahead },
        );
        let rest = &codes[whole.len() * PAIR..];
        if let (Some(&last), Some(scale)) = (rest.last(), scales.last()) {
            let codes: [u8; PAIR] = padded(rest, last);
            let (codes, scales) = (pairs(&codes), core::slice::from_ref(scale));
            let (values, ahead) = (&mut self.pairs[whole.len()..], ahead.skip(whole.len() * PAIR));
            codec.decode(
                level,
                DecodeBlocks { codes, block_size, scales, decay, values, signed, ahead },
            );
        }
    }

    /// Encodes a batch, as many values as there are codes, and writes the scales of its blocks.
    ///
    /// `peaks` holds the bits of their largest magnitudes. A block with a NaN or an infinity gets the
    /// scale NaN, so that every value of it is NaN from now on, and no other block's.
    #[inline]
    pub(crate) fn encode(
        &mut self,
        level: Level,
        codec: &Codec,
        signed: bool,
        rounding: Rounding,
        peaks: &[u32],
        codes: &mut [u8],
        scales: &mut [f32],
        ahead: Ahead,
    ) {
        let mut inverse_scales = [0.0; MAX_BLOCKS];
        let inverse_scales = &mut inverse_scales[..peaks.len()];
        for (block, &peak) in peaks.iter().enumerate() {
            let scale = f32::from_bits(peak);
            let usual = (f32::MIN_POSITIVE..=1.0 / f32::MIN_POSITIVE).contains(&scale);
            (scales[block], inverse_scales[block]) =
                if usual { (scale, 1.0 / scale) } else { self.make_usual(block, scale) };
        }
        let (values, block_size) = (&*self.pairs, self.block_size);
        codec.encode(
            level,
            EncodeBlocks { values, block_size, inverse_scales, codes, signed, rounding, ahead },
        );
    }

    /// Makes values fit for encoding whose largest magnitude, `scale`, cannot be divided by. Returns the
    /// scale of the block, and what to multiply by instead.
    #[cold]
    fn make_usual(&mut self, block: usize, scale: f32) -> (f32, f32) {
        let groups = self.pairs.as_flattened_mut();
        let values = groups[block * self.block_size / GROUP..]
            .iter_mut()
            .take(self.block_size / GROUP)
            .flat_map(|group| &mut group.0);
        if !scale.is_finite() {
            values.for_each(|value| *value = 0.0);
            return (f32::NAN, 0.0);
        }
        if scale == 0.0 {
            return (0.0, 0.0);
        }
        // The reciprocal of a denormal overflows, and that of a huge number is denormal: such
        // blocks are brought to the middle of the range first.
        let shift = if scale < 1.0 { 2.0_f32.powi(64) } else { 2.0_f32.powi(-64) };
        for value in values {
            let shifted = *value * shift;
            // What is not zero must not become it.
            let lost = shifted == 0.0 && *value != 0.0;
            *value = if lost { f32::MIN_POSITIVE.copysign(*value) } else { shifted };
        }
        (scale, 1.0 / (scale * shift))
    }
}

/// The magnitude's bits, which are ordered as magnitudes are, with NaN above all: so their maximum
/// is exact, the same in any order, and finds a NaN.
#[inline(always)]
pub(crate) fn magnitude_bits<S: Simd>(simd: S, value: S::F32) -> S::I32 {
    simd.bits(value.abs())
}

/// Bytes that are asked for while a pair of groups is loaded to be quantized. The rest is while it is encoded.
const fn loading_asks<E>() -> usize {
    size_of::<[E; PAIR]>().saturating_sub(ENCODING_ASKS)
}

/// Quantizes consecutive blocks of a tensor to nearest. All slices begin at the first of them.
pub(crate) struct QuantizeBlocks<'a, E> {
    pub(crate) level: Level,
    pub(crate) codec: &'a Codec,
    pub(crate) signed: bool,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) values: &'a [E],
    pub(crate) codes: &'a mut [u8],
    pub(crate) scales: &'a mut [f32],
}

impl<E: Element> Kernel for QuantizeBlocks<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { level, codec, signed, layout, blocks, values, codes, scales } = self;
        let block_size = layout.block_size();
        let mut memory = Scratch::memory(1, block_size, values.len());
        let mut scratch = Scratch::new(&mut memory, block_size);
        for (indices, elements) in layout.batches(blocks, blocks_in_batch(block_size)) {
            let mut peaks = [0; MAX_BLOCKS];
            let ahead = Ahead::of(values, &elements, values.as_ptr_range().end.cast());
            for (block, values) in values[elements.clone()].chunks(block_size).enumerate() {
                let first = block * block_size;
                let ahead = ahead.skip(first / PAIR * loading_asks::<E>());
                peaks[block] = scratch.load(simd, first / GROUP, values, signed, ahead);
            }
            let ahead = ahead.skip(elements.len() / PAIR * loading_asks::<E>());
            let peaks = &peaks[..indices.len()];
            let (codes, scales) = (&mut codes[elements], &mut scales[indices]);
            let rounding = Rounding::Nearest;
            scratch.encode(level, codec, signed, rounding, peaks, codes, scales, ahead);
        }
    }
}

/// Dequantizes consecutive blocks of a tensor. All slices begin at the first of them.
pub(crate) struct DequantizeBlocks<'a, E> {
    pub(crate) level: Level,
    pub(crate) codec: &'a Codec,
    pub(crate) signed: bool,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) codes: &'a [u8],
    pub(crate) scales: &'a [f32],
    pub(crate) values: &'a mut [E],
}

impl<E: Element> Kernel for DequantizeBlocks<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { level, codec, signed, layout, blocks, codes, scales, values } = self;
        let block_size = layout.block_size();
        let mut memory = Scratch::memory(1, block_size, values.len());
        let mut scratch = Scratch::new(&mut memory, block_size);
        for (indices, elements) in layout.batches(blocks, blocks_in_batch(block_size)) {
            let ahead = Ahead::of(codes, &elements, codes.as_ptr_range().end);
            let (scales, now) = (&scales[indices], &codes[elements.clone()]);
            scratch.decode(level, codec, signed, scales, None, now, ahead);
            scratch.store(simd, &mut values[elements]);
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

/// Writes a group of values as float32, 0 for negative ones if not `signed`, and returns the bits of the
/// largest magnitudes.
#[inline(always)]
fn load_group<S: Simd, E: Element>(
    simd: S,
    values: &[E; GROUP],
    signed: bool,
    to: &mut [f32; GROUP],
) -> S::I32 {
    let mut peak = simd.splat_i32(0);
    for at in 0..GROUP / S::LANES {
        let value = E::Compute::to_f32(simd, E::load(simd, values, at));
        // A NaN stays, and of zeros the sign does not.
        let value = if signed { value } else { simd.splat(0.0).max(value).abs() };
        peak = simd.max_u32(peak, magnitude_bits(simd, value));
        simd.store(value, to, at);
    }
    peak
}

/// Writes a group of float32 as values.
#[inline(always)]
fn store_group<S: Simd, E: Element>(simd: S, from: &[f32; GROUP], values: &mut [E; GROUP]) {
    for at in 0..GROUP / S::LANES {
        E::store(simd, E::Compute::from_f32(simd, simd.load(from, at)), values, at);
    }
}

/// An array that begins with `rest` and goes on with `fill`.
#[inline(always)]
pub(crate) fn padded<T: Copy, const N: usize>(rest: &[T], fill: T) -> [T; N] {
    let mut array = [fill; N];
    array[..rest.len()].copy_from_slice(rest);
    array
}
