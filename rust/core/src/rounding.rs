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
//! u = (T + 1/2) / 2^16,    T = K[(s_g + i) mod 256] xor ((a_b i + c_b + t B) mod 2^16),
//! s_g = (s_0 + (32 q + 17) g) mod 256,    e = 32 g + i,    i < 32,
//! ```
//!
//! reaches one. Over time this is one Weyl sequence, `B` being the golden section, of whose numbers the same
//! binary digits are changed each time: the thresholds of an element are spread evenly, so the random walk
//! of its rounding errors is shorter than with independent numbers. Across the elements of a step they look
//! independent: a lattice, whose slope and origin come from a strong hash of (seed, tensor, state, block)
//! once per block, broken up by a constant table of random numbers, in which each group of elements begins at
//! another place, `s_g`, which the hash chooses too (by `s_0` and `q`). Two groups at one place would be
//! rounded alike for ever: with steps of 17 and some 32 they never are, and neighbours are far apart.
//!
//! **Why `xor`.** It makes a threshold of two numbers in one operation. A sum would have to be cut off at one,
//! which takes another.
//!
//! **Sixteen bits.** No threshold is nearer than 2^-17 to zero or to one: so what is less than that from a level
//! is that level at any threshold. The codec `minifloat` relies on it: the largest value of a block is two or
//! three roundings off its last level, which are 2^-18. The probability of going up is a multiple of 2^-16: a
//! state that is rounded at each of a thousand steps may come to be off by a hundredth of a step of its grid,
//! and one that grows by less than a three-millionth of itself stays, as Adagrad's sums do after as many steps.
//!
//! Nothing else enters: the same bits for any number of threads, order of blocks and instruction set, on
//! every replica, and again when a run is resumed. A shard counts blocks from its own first one, so
//! thresholds do depend on how a tensor is sharded.

use crate::simd::{Aligned, GROUP, Simd, vectors};

/// The golden section in units of 2^-64.
const GOLDEN_64: u64 = 0x9e37_79b9_7f4a_7c15;

/// The golden section in units of 2^-32, odd so that the sequence has full period.
const GOLDEN: u32 = (GOLDEN_64 >> 32) as u32;

/// Bits of K and of the lattice.
const BITS: u32 = 16;

/// How many random numbers there are: a byte is a place among them.
const N_NOISE: usize = 256;

/// Where they come from. In so few, places some groups apart may happen to be alike: of 160 tables this is the
/// one with which, over many blocks, no two elements of a block are correlated more than by chance.
const SEED: u64 = 1537;

/// K and a half, in the units of thresholds, of which there are 2^`fraction_bits` in one.
pub(crate) struct Noise {
    /// A group that begins near the end goes on with copies of the first ones.
    numbers: [i32; N_NOISE + GROUP],
    fraction_bits: u32,
    base: i32,
}

impl Noise {
    /// From [`BITS`] bits to 32. To all thresholds `base`, so many ones, is added.
    pub(crate) const fn new(fraction_bits: u32, base: i32) -> Self {
        let mut numbers = [0; N_NOISE + GROUP];
        let mut i = 0;
        while i < numbers.len() {
            // Fixed for ever: to change one would change what a resumed run computes.
            let number = mix(SEED + (i % N_NOISE) as u64) as u32 >> (u32::BITS - BITS);
            numbers[i] = ((2 * number as u64 + 1) << (fraction_bits - BITS) >> 1) as i32 + base;
            i += 1;
        }
        Self { numbers, fraction_bits, base }
    }

    /// What rounds to nearest in place of a threshold.
    #[inline(always)]
    pub(crate) fn half(&self) -> i32 {
        self.base + (1 << (self.fraction_bits - 1))
    }

    /// The lowest threshold that can be, and the highest.
    #[cfg(test)]
    pub(crate) fn extremes(&self) -> [i32; 2] {
        let half_a_step = 1 << (self.fraction_bits - BITS) >> 1;
        [self.base + half_a_step, self.base + (1 << self.fraction_bits) - half_a_step]
    }
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
    let z = key.wrapping_mul(GOLDEN_64);
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
        let more = hash.wrapping_mul(GOLDEN_64);
        Thresholds {
            slope: hash as u32 >> (u32::BITS - BITS) | 1,
            origin: ((hash >> 32) as u32).wrapping_add(self.time) >> (u32::BITS - BITS),
            shift: (more >> 32) as u32,
            shift_step: ((more >> 40) as u32 & 0xe0 | 17) << 24,
        }
    }
}

/// The thresholds of one block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    /// In units of 2^-16, as is the origin.
    slope: u32,
    /// At this step.
    origin: u32,
    /// Where its first group begins in the table of random numbers, in the highest byte.
    shift: u32,
    shift_step: u32,
}

impl Thresholds {
    /// The same as vectors, in the units of some noise.
    #[inline(always)]
    pub(crate) fn lanes<S: Simd>(self, simd: S, noise: &'static Noise) -> ThresholdLanes<S> {
        let mut lattice = Aligned([0; GROUP]);
        let shift = noise.fraction_bits - BITS;
        let slope = simd.splat_i32((self.slope << shift) as i32);
        let origin = simd.splat_i32((self.origin << shift) as i32);
        let below_one = simd.splat_i32(((1 << BITS) - 1) << shift);
        for at in vectors::<S>() {
            let ramp = simd.mul_i32(slope, simd.load_i32(&PLACES.0, at));
            let ramp = simd.and_i32(simd.add_i32(ramp, origin), below_one);
            simd.store_i32(ramp, &mut lattice.0, at);
        }
        ThresholdLanes { simd, thresholds: self, noise, lattice }
    }

    /// Where a group begins in the table of random numbers.
    #[inline(always)]
    fn shift(self, group: usize) -> usize {
        let shift = self.shift.wrapping_add(self.shift_step.wrapping_mul(group as u32));
        (shift >> 24) as usize
    }
}

/// The thresholds of one block, vector by vector.
pub(crate) struct ThresholdLanes<S: Simd> {
    simd: S,
    thresholds: Thresholds,
    noise: &'static Noise,
    /// What all groups have in common.
    lattice: Aligned<i32>,
}

impl<S: Simd> ThresholdLanes<S> {
    /// Those of vector `at` of group `group`.
    #[inline(always)]
    pub(crate) fn vector(&self, group: usize, at: usize) -> S::I32 {
        let shifted = &self.noise.numbers[self.thresholds.shift(group)..];
        let noise = self.simd.load_i32(shifted.first_chunk().expect("a group"), at);
        self.simd.xor_i32(self.simd.load_i32(&self.lattice.0, at), noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use std::collections::HashSet;

    #[test]
    fn groups_of_a_block_begin_at_places_of_their_own() {
        let n_groups = Layout::MAX_BLOCK / GROUP;
        for block in 0..1000 {
            let thresholds = Stream::new(0, 0, 0, 1).block(block);
            let places: HashSet<_> = (0..n_groups).map(|group| thresholds.shift(group)).collect();
            assert_eq!(places.len(), n_groups);
        }
    }
}
