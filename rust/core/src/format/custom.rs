//! Codecs of a user's own: any table of 256 sorted values.
//!
//! The code is found by binary search, one element at a time and so the same on every instruction
//! set: such tables are for experiments, and their speed matters little. Zero is treated as in
//! `grid.rs`.

use super::{Codebook, EncodeBlocks, Format};
use crate::rounding::{Noise, Rounding};
use crate::simd::{GROUP, Level, Scalar};

/// Thresholds in units of 2^-24, so that they are floats.
static NOISE: Noise = Noise::new(f32::MANTISSA_DIGITS, 0);

/// The codec of two tables.
pub(super) struct Custom {
    signed: Codebook,
    unsigned: Codebook,
}

impl Custom {
    pub(super) fn new(signed: Codebook, unsigned: Codebook) -> Self {
        Self { signed, unsigned }
    }
}

impl Format for Custom {
    fn codebook(&self, signed: bool) -> &Codebook {
        if signed { &self.signed } else { &self.unsigned }
    }

    fn encode(&self, _level: Level, blocks: &mut EncodeBlocks<'_>) {
        let codebook = self.codebook(blocks.signed);
        let values = blocks.values.as_flattened();
        for (block, codes) in blocks.codes.chunks_mut(blocks.block_size).enumerate() {
            let first = block * blocks.block_size;
            // Thresholds come as vectors; those of the reference are numbers.
            let thresholds = match blocks.rounding {
                Rounding::Stochastic { stream, first_block } => {
                    Some(stream.block(first_block + block).lanes(Scalar, &NOISE))
                }
                Rounding::Nearest => None,
            };
            for (index, code) in codes.iter_mut().enumerate() {
                let value = values[(first + index) / GROUP].0[index % GROUP];
                let normalized = value * blocks.inverse_scales[block];
                let threshold = thresholds
                    .as_ref()
                    .map(|thresholds| thresholds.vector(index / GROUP, index % GROUP));
                *code = nearest_or_threshold(codebook, normalized, threshold);
                if threshold.is_some() && !blocks.signed && value > 0.0 {
                    *code = (*code).max(codebook.zero() + 1);
                }
            }
        }
    }
}

/// The nearer one of the two codes around a value; or, given a threshold, the upper one if the
/// fraction that the value has come from the lower one, plus the threshold, reaches one.
fn nearest_or_threshold(codebook: &Codebook, value: f32, threshold: Option<i32>) -> u8 {
    let values = codebook.values();
    let upper = values.partition_point(|&entry| entry <= value).min(255);
    let lower = upper.saturating_sub(1);
    let step = values[upper] - values[lower];
    let fraction = if step > 0.0 { (value - values[lower]) / step } else { 1.0 };
    let threshold = threshold.map_or(0.5, |t| t as f32 / (1 << f32::MANTISSA_DIGITS) as f32);
    if fraction + threshold >= 1.0 { upper as u8 } else { lower as u8 }
}
