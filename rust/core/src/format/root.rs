//! The codec `root`: levels evenly spaced in the square root of a magnitude, for states of either
//! sign, and in its fourth root, for those never negative.
//!
//! Second moments are squares, so the fourth root treats them as the square root does first moments.
//! 127 levels for each sign, or 255 without signs. The code above the last signed level is not used.
//! The first level of a first moment is four times the root of that of a second moment: so where a block
//! has gradients far above all others, the others make steps that are right on average, but few and large.
//!
//! # The position of a magnitude
//!
//! With s the root times the number of levels n, and i the integer below it, the value of level i is
//! `t_i = (i / n)^2` or `(i / n)^4`, and the position, linear in the value, is
//! `i + (y - t_i) / (t_{i+1} - t_i)`. Where s is near an integer it does not matter on which side of
//! it i falls: the position is continuous.

use super::grid::{FRACTION_BITS, Grid, ONE};
use super::linear::{n_levels, symmetric};
use crate::real::Real;
use crate::simd::{Simd, opaque};

/// A little more than 2^-24.
const NUDGE: f32 = 6.02e-8;

/// The grid of the codec `root`.
#[derive(Clone, Copy)]
pub(super) struct Root;

impl Grid for Root {
    fn values(signed: bool) -> [f32; 256] {
        symmetric(signed, |root| if signed { root.powi(2) } else { root.powi(4) })
    }

    type Constants<S: Simd> = S::F32;

    #[inline(always)]
    fn constants<S: Simd>(simd: S, signed: bool, _nearest: bool) -> S::F32 {
        let n = n_levels(signed);
        simd.splat(opaque((if signed { n * n } else { n * n * (n * n) }) as f32))
    }

    #[inline(always)]
    fn position<S: Simd, const SIGNED: bool>(
        simd: S,
        &scale: &S::F32,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        let n = n_levels(SIGNED);
        let magnitude = (value * factor).abs();
        // 1 - 2^-24 becomes 1, and what is further from 1 changes the less.
        let magnitude = (magnitude * simd.splat(NUDGE)).mul_add(magnitude, magnitude);
        let root = if SIGNED { magnitude.sqrt() } else { magnitude.sqrt().sqrt() };
        // Adding this constant rounds to an integer, so that of s - 1/2 is the one below s.
        let to_integer = simd.splat(1.5 * ONE as f32);
        let below = root.mul_add(simd.splat(n as f32), simd.splat(-0.5));
        let level = (below + to_integer) - to_integer;
        let square = level * level;
        let twice = level + level;
        let (start, step) = if SIGNED {
            (square, twice + simd.splat(1.0))
        } else {
            let sum_of_squares = square + square + twice + simd.splat(1.0);
            (square * square, (twice + simd.splat(1.0)) * sum_of_squares)
        };
        let fraction = magnitude.mul_add(scale, simd.splat(0.0) - start) / step;
        // Level and fraction apart: as one float, the fraction would lose the bits of the level.
        let whole = simd.shift_left::<FRACTION_BITS>(simd.round(level));
        simd.add_i32(whole, simd.round(fraction * simd.splat(ONE as f32)))
    }
}
