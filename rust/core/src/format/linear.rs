//! The codec `linear`: evenly spaced levels, the ablation of Dettmers et al. 2021 (section 4).
//!
//! 127 levels for each sign, or 255 without signs. The code above the last signed level is not used.

use super::grid::{Grid, ONE};
use crate::real::Real;
use crate::simd::{Simd, opaque};

/// The grid of the codec `linear`.
#[derive(Clone, Copy)]
pub(super) struct Linear;

/// Levels above zero.
pub(super) const fn n_levels(signed: bool) -> f64 {
    if signed { 127.0 } else { 255.0 }
}

/// `value` and a unit in the last place more: so that 1 - 2^-24 reaches the last level.
const fn a_little_more(value: f64) -> f32 {
    f32::from_bits((value as f32).to_bits() + 1)
}

/// The values of codes whose level `i` of `n` is `value(i / n)`, on both sides of zero if signed.
pub(super) fn symmetric(signed: bool, value: impl Fn(f64) -> f64) -> [f32; 256] {
    core::array::from_fn(|code| {
        let level = code as f64 - if signed { 127.0 } else { 0.0 };
        let fraction = (level / n_levels(signed)).min(1.0);
        value(fraction.abs()).copysign(fraction) as f32
    })
}

impl Grid for Linear {
    fn values(signed: bool) -> [f32; 256] {
        symmetric(signed, |fraction| fraction)
    }

    type Constants<S: Simd> = S::F32;

    #[inline(always)]
    fn constants<S: Simd>(simd: S, signed: bool, nearest: bool) -> S::F32 {
        let n = n_levels(signed);
        simd.splat(opaque(if nearest { n as f32 } else { a_little_more(n * ONE) }))
    }

    #[inline(always)]
    fn position<S: Simd, const SIGNED: bool>(
        simd: S,
        &n_levels: &S::F32,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        simd.round((value * factor).abs() * n_levels)
    }

    #[inline(always)]
    fn nearest<S: Simd, const SIGNED: bool>(
        simd: S,
        n_levels: &S::F32,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        // In units of a level, not of 2^-23 of one.
        Self::position::<S, SIGNED>(simd, n_levels, value, factor)
    }
}
