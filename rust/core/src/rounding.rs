//! Which random numbers stochastic rounding uses.
//!
//! A second moment moves by a thousandth a step while the steps of its grid are a hundredth and more, so
//! rounding to nearest would never let it move. Nor would it let a first moment go: where a gradient stops,
//! nine tenths of four even steps are again four steps, and while the second moment goes on falling, the
//! parameter would be driven off for ever. So states are rounded to one of their two neighbours with
//! probabilities that keep their expected value; element `e` of block `b` goes up at step `t` where the
//! fraction it has come from the lower neighbour to the upper, plus
//!
//! ```text
//! u = (a_b * e + c_b + K[e] + t * B) mod 1,
//! ```
//!
//! reaches one. Over time this is one Weyl sequence, `B` being the golden section: the thresholds
//! of an element are spread evenly, so the random walk of its rounding errors is shorter than with
//! independent numbers. Across the elements of a step they look independent: a lattice, whose slope
//! and origin come from a strong hash of (seed, tensor, state, block) once per block, broken up by a
//! constant table of random numbers.
//!
//! Fractions are in units of 2^-32, so that what exceeds one is dropped by itself, and a codec shifts one
//! to where it needs it.
//!
//! Nothing else enters: the same bits for any number of threads, order of blocks and instruction set, on
//! every replica, and again when a run is resumed. A shard counts blocks from its own first one, so
//! thresholds do depend on how a tensor is sharded.

use crate::simd::{Aligned, GROUP, Simd};

/// The golden section in units of 2^-32, odd so that the sequence has full period.
const GOLDEN: u32 = 0x9e37_79b9;

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

/// The places of elements in their group.
static PLACES: Aligned<i32> = {
    let mut places = [0; GROUP];
    let mut i = 0;
    while i < GROUP {
        places[i] = i as i32;
        i += 1;
    }
    Aligned(places)
};

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
    Stochastic {
        /// Where the thresholds come from.
        stream: Stream,
        /// The number of the first block, counted over the whole tensor.
        first_block: usize,
    },
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
        Thresholds { slope: hash as u32 | 1, origin: ((hash >> 32) as u32).wrapping_add(self.time) }
    }
}

/// The thresholds of one block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    slope: u32,
    /// At this step.
    origin: u32,
}

impl Thresholds {
    /// Starts at the first element of the block.
    #[inline(always)]
    pub(crate) fn lanes<S: Simd>(self, simd: S) -> ThresholdLanes<S> {
        let slope = simd.splat_i32(self.slope as i32);
        let ramp = simd.mul_i32(slope, simd.load_i32(&PLACES.0, 0));
        let lattice = simd.add_i32(ramp, simd.splat_i32(self.origin as i32));
        ThresholdLanes {
            simd,
            lattice,
            stride: simd.splat_i32(self.slope.wrapping_mul(S::LANES as u32) as i32),
        }
    }
}

/// The thresholds of one block, vector by vector.
pub(crate) struct ThresholdLanes<S: Simd> {
    simd: S,
    lattice: S::I32,
    stride: S::I32,
}

impl<S: Simd> ThresholdLanes<S> {
    /// Those of the next vector, as fractions of 2^32. It is vector `at` of group `group`.
    #[inline(always)]
    pub(crate) fn next(&mut self, group: usize, at: usize) -> S::I32 {
        let simd = self.simd;
        let noise = simd.load_i32(&NOISE[group % N_NOISE_GROUPS].0, at);
        let threshold = simd.add_i32(self.lattice, noise);
        self.lattice = simd.add_i32(self.lattice, self.stride);
        threshold
    }
}
