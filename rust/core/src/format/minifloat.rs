//! The codec `minifloat`: a magnitude as a small floating point number, of which a code is the bits.
//!
//! With four bits of mantissa, a level i stands for `F(i) - F(0)`, where
//!
//! ```text
//! F(i) = F(0) * 2^(i / 16) * (1 + (i mod 16) / 16),    i / 16 rounded down,
//! ```
//!
//! divided by that of the last level: sixteen even steps in each octave of F. What the difference is for
//! is zero: below the first octave, which is 1/65536 of the largest value without signs (255 levels) and
//! 1/256 with them (127 levels for each sign), steps are even. This is the companding of telephony, the
//! mu-law of ITU-T G.711, which has as many segments. A signed code is a sign bit and seven bits of level,
//! as there: so its codebook is not sorted, and has two zeros, which are equal, as those of floats are.
//!
//! **Why.** F(i) is the float32 whose upper bits are those of i: so a code becomes a value, and a value
//! a code, by a few additions, shifts and multiplications, where `dynamic` needs two tables. A step of
//! AdamW takes 58 instructions for 8 elements (AVX2), where it takes 143 with `dynamic`.
//!
//! **How good.** Steps are 3 to 6 % of a value over most of the range; those of `dynamic` are 1 to 14 % in
//! its first decade, and up to 56 % in those below the second. Where all elements of a block are of one
//! size, an update is about as far from that of 32-bit states as with `dynamic` (a tenth further); where
//! they are not (the columns of a weight matrix whose inputs differ), it is less than half as far
//! (`python -m benches fidelity`). Five bits of mantissa are better on the former and much worse on the
//! latter, as fewer octaves are left; three, the other way around.

use super::Decoder;
use super::grid::{FRACTION_BITS, Grid};
use super::linear::n_levels;
use crate::real::Real;
use crate::rounding::Noise;
use crate::simd::{GROUP, Pair, Scalar, Simd, Table, opaque};

/// The grid of the codec `minifloat`.
#[derive(Clone, Copy)]
pub(super) struct Minifloat;

/// Bits of a level that say where in its octave it is.
const MANTISSA_BITS: u32 = 4;

/// The last level of a signed codebook, and the bits of a code that are a level there.
const LAST_LEVEL: usize = n_levels(true) as usize;

/// What a level is shifted by to be at its place in a float32.
const SHIFT: u32 = FRACTION_BITS - MANTISSA_BITS;

/// F(0): so that F of the last level, which is odd, lies between 1 and 2.
const fn first(signed: bool) -> f32 {
    1.0 / (1_u32 << (n_levels(signed) as u32 >> MANTISSA_BITS)) as f32
}

/// The bits of F(0).
const fn first_bits(signed: bool) -> i32 {
    first(signed).to_bits() as i32
}

/// F of a level.
const fn f(signed: bool, level: u32) -> f32 {
    f32::from_bits(first(signed).to_bits() + (level << SHIFT))
}

/// What F(i) - F(0) is divided by.
const fn range(signed: bool) -> f32 {
    f(signed, n_levels(signed) as u32) - first(signed)
}

impl Grid for Minifloat {
    const FROM_BITS: bool = true;

    fn values(signed: bool) -> [f32; 256] {
        let Line { slope, origin } = Line::new(Scalar, signed, 1.0);
        let value = |level: usize| f(signed, level as u32).mul_add(slope, origin);
        core::array::from_fn(|code| {
            let is_negative = signed && code > LAST_LEVEL;
            if is_negative { -value(code & LAST_LEVEL) } else { value(code) }
        })
    }

    const SIGN_BIT: bool = true;

    /// F(0).
    type Constants<S: Simd> = S::F32;

    #[inline(always)]
    fn constants<S: Simd>(simd: S, signed: bool, _nearest: bool) -> S::F32 {
        simd.splat(opaque(first(signed)))
    }

    #[inline(always)]
    fn largest(signed: bool) -> f32 {
        range(signed)
    }

    #[inline(always)]
    fn position<S: Simd, const SIGNED: bool>(
        simd: S,
        &first: &S::F32,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        let magnitude = if SIGNED { value.abs() } else { value };
        simd.bits(magnitude.mul_add(factor, first))
    }

    // Positions have as many fraction bits as a level is shifted by. The bits of F(0) are in them, and are taken
    // off with the threshold.
    fn noise(signed: bool) -> &'static Noise {
        static NOISE: [Noise; 2] =
            [Noise::new(SHIFT, -first_bits(false)), Noise::new(SHIFT, -first_bits(true))];
        &NOISE[usize::from(signed)]
    }

    #[inline(always)]
    fn level<S: Simd>(simd: S, position: S::I32) -> S::I32 {
        simd.shift_right::<SHIFT>(position)
    }

    #[inline(always)]
    fn decoder<S: Simd, const SIGNED: bool>(simd: S, _table: &Table) -> impl Decoder<S> {
        FromBits::<S, SIGNED>::new(simd)
    }
}

/// The decoder: codes are shifted to where they are the bits of F. Scale, decay and the range of F are one
/// factor. What comes of it may be a rounding off the value of the codebook times a scale, which an update may
/// take (`dequantize` does not).
#[derive(Clone, Copy)]
pub(crate) struct FromBits<S: Simd, const SIGNED: bool> {
    first: S::I32,
    level: S::I32,
}

/// What F becomes a value by: `slope * F + origin`, which at F(0) is 0 (or, if values are denormal, the least
/// number above).
#[derive(Clone, Copy)]
pub(crate) struct Line<S: Simd> {
    slope: S::F32,
    origin: S::F32,
}

impl<S: Simd> Line<S> {
    /// That of values whose largest is `largest`.
    #[inline(always)]
    pub(crate) fn new(simd: S, signed: bool, largest: f32) -> Self {
        let slope = largest * (1.0 / range(signed));
        // F(0) is a power of two, so the product is rounded only where it is denormal. It must not be rounded
        // up: a state that cannot be negative would be -0.
        let product = first(signed) * slope;
        let rounded_up = product * (1.0 / first(signed)) > slope;
        let product = f32::from_bits(product.to_bits() - u32::from(rounded_up));
        Self { slope: simd.splat(slope), origin: simd.splat(-product) }
    }
}

impl<S: Simd, const SIGNED: bool> FromBits<S, SIGNED> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self {
            first: simd.splat_i32(opaque(first_bits(SIGNED))),
            level: simd.splat_i32(opaque((LAST_LEVEL as i32) << SHIFT)),
        }
    }

    /// The values of the codes of vector `at` of a group.
    #[inline(always)]
    pub(crate) fn value(self, simd: S, line: Line<S>, codes: &[u8; GROUP], at: usize) -> S::F32 {
        let code =
            if SIGNED { simd.load_signed_codes(codes, at) } else { simd.load_codes(codes, at) };
        let code = simd.shift_left::<SHIFT>(code);
        let level = if SIGNED { simd.and_i32(code, self.level) } else { code };
        // The bits of F(0) are above those of a level.
        let bits = simd.xor_i32(level, self.first);
        let magnitude = simd.with_bits(bits).mul_add(line.slope, line.origin);
        if SIGNED { simd.minus_where_negative(code, magnitude) } else { magnitude }
    }
}

impl<S: Simd, const SIGNED: bool> Decoder<S> for FromBits<S, SIGNED> {
    type Factor = Line<S>;

    #[inline(always)]
    fn factor(self, simd: S, factor: f32) -> Line<S> {
        Line::new(simd, SIGNED, factor)
    }

    #[inline(always)]
    fn decode(self, simd: S, line: Line<S>, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        for (codes, to) in codes.iter().zip(to) {
            for at in 0..GROUP / S::LANES {
                simd.store(self.value(simd, line, codes, at), &mut to.0, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_the_last_level_at_any_threshold() {
        for step in 0..100_000 {
            let scale = f32::from_bits(1.0_f32.to_bits() + step * 83);
            for (signed, last) in [(true, 127), (false, 255)] {
                let first = Minifloat::constants(Scalar, signed, false);
                let factor = 1.0 / scale * Minifloat::largest(signed);
                let position = Minifloat::position::<_, true>(Scalar, &first, scale, factor);
                for threshold in Minifloat::noise(signed).extremes() {
                    let level =
                        Minifloat::at_random::<_, true>(Scalar, position, threshold, scale, factor);
                    assert_eq!(level, last);
                }
            }
        }
    }

    #[test]
    fn the_lowest_level_is_never_below_zero_nor_minus_zero() {
        for exponent in 0..=127 {
            for scale in (0..100).map(|step| 2.0_f32.powi(-exponent) * (1.0 + 0.01 * step as f32)) {
                // Down to the smallest denormals.
                for scale in [scale, scale * 2.0_f32.powi(-22)] {
                    let line = Line::new(Scalar, false, scale);
                    let value =
                        FromBits::<_, false>::new(Scalar).value(Scalar, line, &[0; GROUP], 0);
                    assert!(value.is_sign_positive() && value <= f32::from_bits(1), "{scale:e}");
                }
            }
        }
    }

    #[test]
    fn values_are_evenly_spaced_within_octaves_and_end_with_one() {
        for (signed, octave, last) in [(false, 15, 255), (true, 7, LAST_LEVEL)] {
            let values = Minifloat::values(signed);
            assert_eq!(values[last], 1.0);
            let step = f64::from(values[last] - values[last - 1]);
            let exact = 2.0_f64.powi(octave) / 16.0 / (2.0_f64.powi(octave) * 31.0 / 16.0 - 1.0);
            assert!((step - exact).abs() < 1e-7);
            assert_eq!(values[0], 0.0);
            for (level, &value) in (1_u8..16).zip(&values[1..]) {
                let expected = f64::from(level) * exact / 2.0_f64.powi(octave);
                assert!((f64::from(value) / expected - 1.0).abs() < 1.2e-7);
            }
            if signed {
                let minus = values.map(|value| -value);
                assert_eq!(values[LAST_LEVEL + 1..], minus[..=LAST_LEVEL]);
            }
        }
    }
}
