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
//! u = (K[(i + s_g) mod 256] + a_b * i + c_b + t * B) mod 1,    e = 32 g + i,    i < 32,
//! s_g = (s_0 + (32 q + 17) g) mod 256,                         s_0 < 256,       q < 8,
//! ```
//!
//! reaches one. Over time this is one Weyl sequence, `B` being the golden section: the thresholds
//! of an element are spread evenly, so the random walk of its rounding errors is shorter than with
//! independent numbers. Across the elements of a step they look independent: a lattice, whose slope
//! and origin come from a strong hash of (seed, tensor, state, block) once per block, broken up by a
//! constant table of random numbers, in which each group of elements begins at another place, `s_g`, which
//! the hash chooses too. So a vector of thresholds takes one addition; a lattice through the block took two.
//! Two groups at one place would be rounded alike for ever: with steps of 17 and some 32 they never are, and
//! neighbours are far apart.
//!
//! Fractions are in units of 2^-32, so that what exceeds one is dropped by itself, and a codec shifts one
//! to where it needs it.
//!
//! Nothing else enters: the same bits for any number of threads, order of blocks and instruction set, on
//! every replica, and again when a run is resumed. A shard counts blocks from its own first one, so
//! thresholds do depend on how a tensor is sharded.

use crate::simd::{Aligned, GROUP, Simd, vectors};

/// The golden section in units of 2^-64.
const GOLDEN_64: u64 = 0x9e37_79b9_7f4a_7c15;

/// The golden section in units of 2^-32, odd so that the sequence has full period.
const GOLDEN: u32 = (GOLDEN_64 >> 32) as u32;

/// How many random numbers there are: a byte is a place among them.
const N_NOISE: usize = 256;

/// K: random numbers, fixed for ever (changing one changes what a resumed run computes). A group that begins
/// near their end goes on with copies of the first ones.
static NOISE: [i32; N_NOISE + GROUP] = {
    let mut noise = [0; N_NOISE + GROUP];
    let mut i = 0;
    while i < noise.len() {
        noise[i] = mix((i % N_NOISE) as u64 + 1) as i32;
        i += 1;
    }
    noise
};

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
            slope: hash as u32 | 1,
            origin: ((hash >> 32) as u32).wrapping_add(self.time),
            shift: (more >> 32) as u32,
            shift_step: ((more >> 40) as u32 & 0xe0 | 17) << 24,
        }
    }
}

/// The thresholds of one block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thresholds {
    slope: u32,
    /// At this step.
    origin: u32,
    /// Where its first group begins in the table of random numbers, in the highest byte.
    shift: u32,
    shift_step: u32,
}

impl Thresholds {
    /// The same as vectors.
    #[inline(always)]
    pub(crate) fn lanes<S: Simd>(self, simd: S) -> ThresholdLanes<S> {
        let mut lattice = Aligned([0; GROUP]);
        let (slope, origin) = (simd.splat_i32(self.slope as i32), self.origin as i32);
        for at in vectors::<S>() {
            let ramp = simd.mul_i32(slope, simd.load_i32(&PLACES.0, at));
            simd.store_i32(simd.add_i32(ramp, simd.splat_i32(origin)), &mut lattice.0, at);
        }
        ThresholdLanes { simd, block: self, lattice }
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
    block: Thresholds,
    /// What all groups have in common.
    lattice: Aligned<i32>,
}

impl<S: Simd> ThresholdLanes<S> {
    /// Those of vector `at` of group `group`, as fractions of 2^32.
    #[inline(always)]
    pub(crate) fn vector(&self, group: usize, at: usize) -> S::I32 {
        let shifted = &NOISE[self.block.shift(group)..];
        let noise = self.simd.load_i32(shifted.first_chunk().expect("a group"), at);
        self.simd.add_i32(self.simd.load_i32(&self.lattice.0, at), noise)
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
