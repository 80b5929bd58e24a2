//! Codecs whose code is a formula of the value.
//!
//! Such a codec is symmetric: level 0 is zero, levels 1, 2, ... are its positive values in order,
//! and a signed codebook has the same levels below zero: their codes are on the other side of the code of
//! zero, or have a sign bit. A [`Grid`] gives the *position* of a magnitude among the levels: an integer at
//! each level and linear in the value between two of them, in fixed point with 23 fraction bits, if a grid
//! has no more apt number of them. To round it is to add to it: a half, for the nearest level (which a grid
//! may have a quicker way to), or a random threshold, for a level whose expected value is the value. This is
//! the whole encoder. Values come as they are, with the factor that makes the largest of their block 1, or
//! what else a grid asks for: so that it may have one multiplication for the two.
//!
//! **Order.** The positions of two groups are computed before either is rounded. In one go, a vector is a
//! chain of some thirty operations that wait for each other, and few such chains fit into a processor's
//! window; in two halves, more are under way (Zen 3, a step of AdamW: 48 cycles for 8 elements, where it
//! takes 53 in one go, and 51 with one group at a time). More groups would have to wait in memory.
//!
//! **Zero.** Rounded to nearest, a magnitude below half of level 1 is zero. Rounded stochastically,
//! states of either sign may become zero, with the probability that keeps their expected value; but
//! states that cannot be negative never do, unless they are zero: they are what an update divides
//! by, and a second moment of zero beside a first moment that is not would throw a parameter off. Packing
//! sees to this, where it takes half the operations that it would before.
//!
//! **The largest.** The largest magnitude of a block, divided by the scale, is 1 or 1 - 2^-24 (the
//! reciprocal and the product are both rounded). Both are to come out as the last level: so positions are a
//! little high at the very top, and packing saturates; or they are off by less than any threshold is.

use super::{
    Codebook, DecodeBlocks, Decoder, ENCODING_ASKS, EncodeBlocks, Format, LookUp, decode_blocks,
};
use crate::rounding::{Noise, Rounding, ThresholdLanes, Thresholds};
use crate::simd::{
    Aligned, GROUP, Kernel, Level, PAIR, Packing, Pair, Simd, Table, pairs_mut, vectors,
};
use core::marker::PhantomData;

/// Fraction bits of a position: those of a float32.
pub(crate) const FRACTION_BITS: u32 = 23;

/// One, as the scale of a position.
pub(crate) const ONE: f64 = (1_u64 << FRACTION_BITS) as f64;

/// The levels of a codec.
pub(crate) trait Grid: Copy + Send + Sync + 'static {
    /// The values of all 256 codes.
    fn values(signed: bool) -> [f32; 256];

    /// Whether the highest bit of a signed code is its sign. Otherwise codes go up with values.
    const SIGN_BIT: bool = false;

    /// How levels of values that are not negative become codes, if they are rounded stochastically.
    const POSITIVE: Packing = Packing::Above;

    /// The level of zero, as levels may be counted from any number up. What is below it is taken for it.
    fn zero(_signed: bool) -> i16 {
        0
    }

    /// What positions are computed with.
    type Constants<S: Simd>: Copy;

    /// The constants of a codebook, for [`Grid::nearest`] or for [`Grid::position`]. Numbers that many
    /// vectors share should go through [`opaque`](crate::simd::opaque).
    fn constants<S: Simd>(simd: S, signed: bool, nearest: bool) -> Self::Constants<S>;

    /// What the factor, which else would make the largest value of a block 1, makes of it. No more than 2.
    fn largest(_signed: bool) -> f32 {
        1.0
    }

    /// The position of the magnitudes of values, which are not negative if not `SIGNED`, with as many
    /// fraction bits as [`Grid::level`] drops.
    fn position<S: Simd, const SIGNED: bool>(
        simd: S,
        constants: &Self::Constants<S>,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32;

    /// Whether [`FromBits`](super::FromBits) decodes it.
    const FROM_BITS: bool = false;

    /// What thresholds are made of, in the units of positions.
    fn noise(_signed: bool) -> &'static Noise {
        static NOISE: Noise = Noise::new(FRACTION_BITS, 0);
        &NOISE
    }

    /// The levels of positions, without their fractions.
    #[inline(always)]
    fn level<S: Simd>(simd: S, position: S::I32) -> S::I32 {
        simd.shift_right::<FRACTION_BITS>(position)
    }

    /// One of the two levels around the position of values: the upper one, where a threshold takes the
    /// fraction to one.
    #[inline(always)]
    fn at_random<S: Simd, const SIGNED: bool>(
        simd: S,
        position: S::I32,
        threshold: S::I32,
        _value: S::F32,
        _factor: S::F32,
    ) -> S::I32 {
        Self::level(simd, simd.add_i32(position, threshold))
    }

    /// How codes are decoded: by the table, if there is no quicker way.
    #[inline(always)]
    fn decoder<S: Simd, const SIGNED: bool>(_simd: S, table: &Table) -> impl Decoder<S> {
        LookUp(table)
    }

    /// The levels, all positive, nearest to the magnitudes of values.
    #[inline(always)]
    fn nearest<S: Simd, const SIGNED: bool>(
        simd: S,
        constants: &Self::Constants<S>,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        let position = Self::position::<S, SIGNED>(simd, constants, value, factor);
        Self::level(simd, simd.add_i32(position, simd.splat_i32(Self::noise(SIGNED).half())))
    }
}

/// The codec of a grid.
pub(super) struct GridFormat<G> {
    signed: Codebook,
    unsigned: Codebook,
    grid: PhantomData<G>,
}

impl<G: Grid> GridFormat<G> {
    pub(super) fn new() -> Self {
        let codebook = |signed| Codebook::new(G::values(signed));
        Self { signed: codebook(true), unsigned: codebook(false), grid: PhantomData }
    }
}

impl<G: Grid> Format for GridFormat<G> {
    fn codebook(&self, signed: bool) -> &Codebook {
        if signed { &self.signed } else { &self.unsigned }
    }

    fn decode(&self, level: Level, blocks: &mut DecodeBlocks<'_>) {
        let table = self.codebook(blocks.signed).table();
        if blocks.signed {
            level.run(Decode::<G, true> { table, blocks, grid: PhantomData });
        } else {
            level.run(Decode::<G, false> { table, blocks, grid: PhantomData });
        }
    }

    fn is_from_bits(&self) -> bool {
        G::FROM_BITS
    }

    fn encode(&self, level: Level, blocks: &mut EncodeBlocks<'_>) {
        match (blocks.signed, blocks.rounding) {
            (true, Rounding::Nearest) => level.run(Encode::<G, true, true>::new(blocks)),
            (true, Rounding::Stochastic { .. }) => level.run(Encode::<G, true, false>::new(blocks)),
            (false, Rounding::Nearest) => level.run(Encode::<G, false, true>::new(blocks)),
            (false, Rounding::Stochastic { .. }) => {
                level.run(Encode::<G, false, false>::new(blocks))
            }
        }
    }
}

/// The decoder.
struct Decode<'a, 'b, G, const SIGNED: bool> {
    table: &'a Table,
    blocks: &'a mut DecodeBlocks<'b>,
    grid: PhantomData<G>,
}

impl<G: Grid, const SIGNED: bool> Kernel for Decode<'_, '_, G, SIGNED> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let decoder = G::decoder::<S, SIGNED>(simd, self.table);
        decode_blocks(simd, decoder, self.blocks);
    }
}

/// The encoder.
struct Encode<'a, 'b, G, const SIGNED: bool, const NEAREST: bool> {
    blocks: &'a mut EncodeBlocks<'b>,
    grid: PhantomData<G>,
}

impl<'a, 'b, G: Grid, const SIGNED: bool, const NEAREST: bool> Encode<'a, 'b, G, SIGNED, NEAREST> {
    fn new(blocks: &'a mut EncodeBlocks<'b>) -> Self {
        Self { blocks, grid: PhantomData }
    }
}

impl<G: Grid, const SIGNED: bool, const NEAREST: bool> Kernel
    for Encode<'_, '_, G, SIGNED, NEAREST>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let EncodeBlocks { values, block_size, inverse_scales, codes, rounding, ahead, .. } =
            self.blocks;
        let mut encoder = Encoder::<S, G, SIGNED, NEAREST> {
            simd,
            constants: G::constants(simd, SIGNED, NEAREST),
            factor: simd.splat(0.0),
            thresholds: Thresholds::default().lanes(simd, G::noise(SIGNED)),
        };
        let log_pairs = block_size.div_ceil(PAIR).ilog2();
        let (whole, rest) = codes.as_chunks_mut::<PAIR>();
        let whole = pairs_mut(whole.as_flattened_mut());
        let n_whole = whole.len();
        for (pair, (codes, values)) in whole.iter_mut().zip(*values).enumerate() {
            ahead.ask(pair, ENCODING_ASKS);
            let within = encoder.go_to(pair, log_pairs, inverse_scales, *rounding);
            encoder.encode(within, values, codes);
        }
        if !rest.is_empty() {
            let mut codes = [[0; GROUP]; 2];
            let within = encoder.go_to(n_whole, log_pairs, inverse_scales, *rounding);
            encoder.encode(within, &values[n_whole], &mut codes);
            rest.copy_from_slice(&codes.as_flattened()[..rest.len()]);
        }
    }
}

/// What all groups of a block are encoded with.
struct Encoder<S: Simd, G: Grid, const SIGNED: bool, const NEAREST: bool> {
    simd: S,
    factor: S::F32,
    constants: G::Constants<S>,
    thresholds: ThresholdLanes<S>,
}

impl<S: Simd, G: Grid, const SIGNED: bool, const NEAREST: bool> Encoder<S, G, SIGNED, NEAREST> {
    /// Goes to a pair of groups of the batch, which may begin a block of 2^`log_pairs` of them; returns
    /// its number within the block.
    #[inline(always)]
    fn go_to(
        &mut self,
        pair: usize,
        log_pairs: u32,
        inverse_scales: &[f32],
        rounding: Rounding,
    ) -> usize {
        let (block, within) = (pair >> log_pairs, pair & ((1 << log_pairs) - 1));
        if within == 0 {
            self.factor = self.simd.splat(inverse_scales[block] * G::largest(SIGNED));
            if let (false, Rounding::Stochastic { stream, first_block }) = (NEAREST, rounding) {
                let thresholds = stream.block(first_block + block);
                self.thresholds = thresholds.lanes(self.simd, G::noise(SIGNED));
            }
        }
        within
    }

    /// Encodes two groups, the `pair`th of their block.
    #[inline(always)]
    fn encode(&mut self, pair: usize, values: &Pair<f32>, codes: &mut [[u8; GROUP]; 2]) {
        let (simd, factor) = (self.simd, self.factor);
        let mut levels = [const { Aligned([0; GROUP]) }; 2];
        for (Aligned(values), Aligned(levels)) in values.iter().zip(&mut levels) {
            for at in vectors::<S>() {
                let value = simd.load(values, at);
                let level = if NEAREST {
                    G::nearest::<S, SIGNED>(simd, &self.constants, value, factor)
                } else {
                    G::position::<S, SIGNED>(simd, &self.constants, value, factor)
                };
                simd.store_i32(level, levels, at);
            }
        }
        if !NEAREST {
            for (i, Aligned(levels)) in levels.iter_mut().enumerate() {
                for at in vectors::<S>() {
                    let (position, value) =
                        (simd.load_i32(levels, at), simd.load(&values[i].0, at));
                    let threshold = self.thresholds.vector(2 * pair + i, at);
                    let level = G::at_random::<S, SIGNED>(simd, position, threshold, value, factor);
                    simd.store_i32(level, levels, at);
                }
            }
        }
        let packing = match (SIGNED, NEAREST) {
            (true, _) if G::SIGN_BIT => Packing::SignBit,
            (true, _) => Packing::AroundZero,
            (false, true) => Packing::Level,
            (false, false) => G::POSITIVE,
        };
        simd.store_codes(packing, &levels, G::zero(SIGNED), values, codes);
    }
}
