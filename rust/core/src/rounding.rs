//! Which random numbers stochastic rounding uses.
//!
//! A slow average moves by a thousandth a step while the steps of its grid are a hundredth and
//! more, so rounding to nearest would never let it move. It is rounded to one of its two neighbours
//! with probabilities that keep its expected value; element `e` of block `b` goes up at step `t`
//! where the fraction it has come from the lower neighbour to the upper, plus
//!
//! ```text
//! u = (((a_b * e + c_b) xor K[e]) + t * B) mod 2^23,    in units of 2^-23,
//! ```
//!
//! reaches one. Over time this is one Weyl sequence, `B` being the golden section: the thresholds
//! of an element are spread evenly, so the random walk of its rounding errors is shorter than with
//! independent numbers. Across the elements of a step they look independent: a lattice, whose slope
//! and origin come from a strong hash of (seed, tensor, state, block) once per block, broken up by a
//! constant table of random numbers.
//!
//! Nothing else enters: the same bits for any number of threads, order of blocks, instruction set
//! and world size, and again when a run is resumed.

use crate::simd::{Aligned, GROUP, Simd};

/// Fraction bits of a position on a grid, and bits of a threshold.
pub(crate) const FRACTION_BITS: u32 = 23;

/// The golden section in units of 2^-23, odd so that the sequence has full period.
const GOLDEN: u32 = 5_184_445;

/// Groups of random numbers; an element uses the number at its index modulo their count.
const N_NOISE_GROUPS: usize = 256 / GROUP;

/// K: random numbers, fixed for ever (changing one changes what a resumed run computes).
static NOISE: [Aligned<i32>; N_NOISE_GROUPS] = noise();

const fn noise() -> [Aligned<i32>; N_NOISE_GROUPS] {
    let mut noise = [Aligned([0; GROUP]); N_NOISE_GROUPS];
    let mut i = 0;
    while i < N_NOISE_GROUPS * GROUP {
        noise[i / GROUP].0[i % GROUP] = mix(i as u64 + 1) as i32;
        i += 1;
    }
    noise
}

/// For each bit of an element's place in its group: all ones where it is set.
static PLACE_BITS: [Aligned<i32>; GROUP.ilog2() as usize] = place_bits();

const fn place_bits() -> [Aligned<i32>; GROUP.ilog2() as usize] {
    let mut bits = [Aligned([0; GROUP]); GROUP.ilog2() as usize];
    let mut i = 0;
    while i < bits.len() * GROUP {
        bits[i / GROUP].0[i % GROUP] = -((((i % GROUP) >> (i / GROUP)) & 1) as i32);
        i += 1;
    }
    bits
}

/// A strong 64-bit hash (the finalizer of splitmix64: Steele, Lea, Flood 2014).
const fn mix(key: u64) -> u64 {
    let z = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How values between two codes are rounded.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rounding {
    /// To the nearer one.
    Nearest,
    /// To either, with probabilities that keep the expected value.
    Stochastic(Thresholds),
}

/// The source of the thresholds of one state of one tensor at one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    key: u64,
    time: u32,
}

impl Stream {
    /// `tensor` is the parameter's index in its optimizer, `state` the state's in its rule.
    pub(crate) fn new(seed: u64, tensor: u64, state: usize, step: u64) -> Self {
        let key = mix(mix(mix(seed) ^ tensor) ^ (state as u64 + 1));
        Self { key, time: (step as u32).wrapping_mul(GOLDEN) }
    }

    /// As [`Stream::new`], for the parameter itself.
    pub(crate) fn of_param(seed: u64, tensor: u64, step: u64) -> Self {
        Self::new(seed, tensor, u32::MAX as usize, step)
    }

    /// The thresholds of one block, counted over the whole tensor.
    #[inline]
    pub(crate) fn block(self, block: usize) -> Thresholds {
        let hash = mix(self.key ^ block as u64);
        Thresholds { slope: hash as u32 | 1, origin: (hash >> 32) as u32, time: self.time }
    }
}

/// The thresholds of one block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    slope: u32,
    origin: u32,
    time: u32,
}

impl Thresholds {
    /// Starts at the first element of the block.
    #[inline(always)]
    pub(crate) fn lanes<S: Simd>(self, simd: S) -> ThresholdLanes<S> {
        // Integer lanes need no multiplication: the slope times a place is a sum over its bits.
        let mut lattice = simd.splat_i32(self.origin as i32);
        for (bit, places) in PLACE_BITS.iter().enumerate().take(S::LANES.ilog2() as usize) {
            let step = simd.splat_i32((self.slope << bit) as i32);
            lattice = simd.add_i32(lattice, simd.and_i32(simd.load_i32(&places.0, 0), step));
        }
        ThresholdLanes {
            simd,
            lattice,
            stride: simd.splat_i32(self.slope.wrapping_mul(S::LANES as u32) as i32),
            time: simd.splat_i32(self.time as i32),
            mask: simd.splat_i32((1 << FRACTION_BITS) - 1),
        }
    }
}

/// The thresholds of one block, vector by vector.
pub(crate) struct ThresholdLanes<S: Simd> {
    simd: S,
    lattice: S::I32,
    stride: S::I32,
    time: S::I32,
    mask: S::I32,
}

impl<S: Simd> ThresholdLanes<S> {
    /// Those of the next vector, which is vector `at` of group `group`.
    #[inline(always)]
    pub(crate) fn next(&mut self, group: usize, at: usize) -> S::I32 {
        let simd = self.simd;
        let noise = simd.load_i32(&NOISE[group % N_NOISE_GROUPS].0, at);
        let offset = simd.xor_i32(self.lattice, noise);
        self.lattice = simd.add_i32(self.lattice, self.stride);
        simd.and_i32(simd.add_i32(offset, self.time), self.mask)
    }
}
