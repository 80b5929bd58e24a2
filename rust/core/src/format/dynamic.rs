//! The codec `dynamic`: the dynamic tree quantization of Dettmers et al. 2021 (arXiv 2110.02861,
//! section 1.3).
//!
//! Each decade k = 0..6 holds n values `10^(k-6) * (0.1 + 0.9 (i + 1/2) / n)`, i = 0..n, with
//! n = 2^k for each sign, or n = 2^(k+1) without signs; and there are zero and one. The tables are
//! `dynamic_tables.rs`, to the bit those of the paper's code, whose arithmetic rounded in float32.
//!
//! # The position of a magnitude
//!
//! With E = 2n, the level at which decade k + 1 begins, and `d = D_k (y / 10^(k-6) - 1)`,
//! D_k = 10 n / 9, the levels around the top of decade k, at y = 10^(k-6), are `E + r` with
//!
//! ```text
//! r = w            within decade k, where w = d - 1/2, up to its last value, at w = -1;
//! r = (w - 2)/3    in the gap from there to the first value of decade k + 1, at w = 2;
//! r = (w - 2)/5    within decade k + 1: its steps are five times as long.
//! ```
//!
//! This is concave, so `r = min` of the three, and no comparison is needed to choose among them. The
//! magnitudes are cut into eight cells, and `w = S y + O` and E are looked up by the cell: tables of 8
//! entries, one permutation each on every instruction set. Six cells have one top of a decade well
//! inside them; their borders need not be exact, as they lie where only one of the three counts, and a
//! linear function of the float's bits is near enough to its logarithm. The other two have one line
//! each, which w is, and an E so large that w is the least of the three: the topmost, whose border is
//! made to be the last value below 1, as the step from there to 1 is shorter; and the lowest, around
//! half of level 1, which makes zeros.
//!
//! Since r is small where levels are far apart, what rounding does to thresholds stays below
//! 1.8e-7 of the threshold. A position costs 12 operations, 3 of them permutations.

use super::grid::{FRACTION_BITS, Grid, ONE};
use crate::real::Real;
use crate::simd::{Packing, Simd, opaque};

#[path = "dynamic_tables.rs"]
mod tables;

/// The grid of the codec `dynamic`.
#[derive(Clone, Copy)]
pub(super) struct Dynamic;

/// Level 1.
const fn smallest(signed: bool) -> f32 {
    f32::from_bits(if signed { tables::SIGNED[128] } else { tables::UNSIGNED[1] })
}

/// The constants of eight cells, at the index that the low three bits of a cell's number give.
///
/// For [`Grid::position`], r is in units of 2^-23, and E is so too. For [`Grid::nearest`] r is in
/// levels, and E is a float so large that adding r to it rounds to an integer.
#[repr(C, align(64))]
pub(super) struct Cells {
    /// S.
    slope: [f32; 8],
    /// O.
    origin: [f32; 8],
    /// E.
    level: [i32; 8],
    /// What the bits of a magnitude are multiplied by to give the number of its cell.
    cells_per_bit: f32,
    /// A magnitude of the lowest cell.
    least: f32,
    /// `-2/3` and `-2/5`.
    gap: f32,
    next: f32,
}

/// The number of the cell around the top of decade 5. Numbers are the bits of a magnitude times
/// a constant, to the nearest integer.
const fn number_of_decade_5(signed: bool) -> i32 {
    if signed { 35 } else { 34 }
}

/// What a level is in the units of r; a power of two, so that nothing is rounded by it.
const fn unit(nearest: bool) -> f64 {
    if nearest { 1.0 } else { ONE }
}

/// The float next to `value` on the side of zero. Rounded to nearest instead, the origins of lines would
/// move thresholds further, by up to 2.8e-7 of them.
const fn toward_zero(value: f64) -> f32 {
    let nearest = value as f32;
    if (nearest as f64).abs() > value.abs() {
        f32::from_bits(nearest.to_bits() - 1)
    } else {
        nearest
    }
}

/// A float whose last bit is worth one, and to which small integers can be added.
const LARGE: f32 = 1.5 * ONE as f32;

/// The constants as vectors.
#[derive(Clone, Copy)]
pub(super) struct Lines<S: Simd> {
    cells: &'static Cells,
    cells_per_bit: S::F32,
    smallest: S::F32,
    least: S::F32,
    gap: (S::F32, S::F32),
    next: (S::F32, S::F32),
}

impl Cells {
    const fn new(signed: bool, nearest: bool) -> Self {
        let unit = unit(nearest);
        let last = f32::from_bits(if signed { tables::SIGNED[254] } else { tables::UNSIGNED[254] });
        let smallest = smallest(signed);
        let top = number_of_decade_5(signed);
        let mut cells = Self {
            slope: [0.0; 8],
            origin: [0.0; 8],
            level: [0; 8],
            cells_per_bit: ((top as f64 + 0.5) / last.to_bits() as f64) as f32,
            least: smallest / 4.0,
            gap: (-2.0 / 3.0 * unit) as f32,
            next: (-2.0 / 5.0 * unit) as f32,
        };
        let mut power = 1e6; // 10^(6 - k)
        let mut k = 0;
        while k < 6 {
            let n = (if signed { 1 << k } else { 2 << k }) as f64;
            let d_top = 10.0 * n / 9.0;
            let at = (top - 5 + k) as usize;
            let origin = toward_zero(-(d_top + 0.5));
            cells.set(at, d_top * power, origin, 2 * n as i32, nearest);
            power /= 10.0;
            k += 1;
        }
        // From the last value, at which w = -2, to 1, at which w = -1; which 1 - 2^-24 is to reach.
        let slope = 1.0 / (1.0 - last as f64);
        let (above, n_levels) = (top as usize + 1, if signed { 128 } else { 256 });
        let origin = -1.0 - slope * (1.0 - f32::EPSILON as f64 / 2.0);
        cells.set(above, slope, origin as f32, n_levels + 1, nearest);
        // From zero, at which w = -2, to level 1, at which w = -1.
        let (below, zero) = (top as usize - 6, if signed { 0 } else { 1 });
        cells.set(below, 1.0 / smallest as f64, -2.0, zero + 2, nearest);
        cells
    }

    const fn set(&mut self, number: usize, slope: f64, origin: f32, level: i32, nearest: bool) {
        let (at, unit) = (number % 8, unit(nearest) as f32);
        self.slope[at] = slope as f32 * unit;
        self.origin[at] = origin * unit;
        self.level[at] = if nearest {
            (LARGE + level as f32).to_bits() as i32
        } else {
            (level as u32).wrapping_mul(1 << FRACTION_BITS) as i32
        };
    }

    /// Those of a codebook.
    #[inline(always)]
    fn of(signed: bool, nearest: bool) -> &'static Self {
        static CELLS: [[Cells; 2]; 2] = [
            [Cells::new(false, false), Cells::new(false, true)],
            [Cells::new(true, false), Cells::new(true, true)],
        ];
        &CELLS[usize::from(signed)][usize::from(nearest)]
    }
}

impl<S: Simd> Lines<S> {
    /// The numbers of the cells of magnitudes, in the low bits.
    #[inline(always)]
    fn number(&self, simd: S, magnitude: S::F32) -> S::I32 {
        let bits = simd.to_f32(simd.bits(magnitude));
        simd.bits(bits.mul_add(self.cells_per_bit, simd.splat(LARGE)))
    }

    /// r and E of magnitudes.
    #[inline(always)]
    fn position(&self, simd: S, magnitude: S::F32) -> (S::F32, S::I32) {
        let (cells, number) = (self.cells, self.number(simd, magnitude));
        let within = magnitude
            .mul_add(simd.lookup8(&cells.slope, number), simd.lookup8(&cells.origin, number));
        let gap = within.mul_add(self.gap.0, self.gap.1);
        let next = within.mul_add(self.next.0, self.next.1);
        let r = within.min(gap).min(next);
        (r, simd.lookup8_i32(&cells.level, number))
    }
}

/// The magnitudes of values, which are not negative if not `SIGNED`, or `least` where that is more.
#[inline(always)]
fn at_least<S: Simd, const SIGNED: bool>(simd: S, value: S::F32, least: S::F32) -> S::F32 {
    if SIGNED { simd.max_abs(value, least) } else { value.max(least) }
}

impl Grid for Dynamic {
    fn values(signed: bool) -> [f32; 256] {
        if signed {
            tables::SIGNED.map(f32::from_bits)
        } else {
            tables::UNSIGNED.map(f32::from_bits)
        }
    }

    #[inline(always)]
    fn zero(signed: bool) -> i16 {
        // Decade 0 of an unsigned grid begins at level 2, as it has two values.
        i16::from(!signed)
    }

    // Positions begin at level 1, to within less than the lowest threshold: only zeros are left to see to.
    const POSITIVE: Packing = Packing::UnlessZero;

    type Constants<S: Simd> = Lines<S>;

    #[inline(always)]
    fn constants<S: Simd>(simd: S, signed: bool, nearest: bool) -> Lines<S> {
        let cells = opaque(Cells::of(signed, nearest));
        Lines {
            cells,
            cells_per_bit: simd.splat(cells.cells_per_bit),
            smallest: simd.splat(opaque(smallest(signed))),
            least: simd.splat(cells.least),
            gap: (simd.splat(opaque(1.0 / 3.0)), simd.splat(cells.gap)),
            next: (simd.splat(opaque(0.2)), simd.splat(cells.next)),
        }
    }

    #[inline(always)]
    fn position<S: Simd, const SIGNED: bool>(
        simd: S,
        lines: &Lines<S>,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        // Positions begin at level 1.
        let magnitude = at_least::<S, SIGNED>(simd, value * factor, lines.smallest);
        let (r, level) = lines.position(simd, magnitude);
        simd.add_i32(simd.round(r), level)
    }

    #[inline(always)]
    fn at_random<S: Simd, const SIGNED: bool>(
        simd: S,
        position: S::I32,
        threshold: S::I32,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        let level = Self::level(simd, simd.add_i32(position, threshold));
        if !SIGNED {
            return level;
        }
        // The fraction of level 1 that a smaller magnitude has come must reach one, together with the
        // threshold, which is here put into the fraction bits of a float in [1, 2).
        let threshold = simd.xor_i32(threshold, simd.splat_i32(0x3f80_0000));
        let missing = simd.splat(2.0) - simd.with_bits(threshold);
        let magnitude = (value * factor).abs();
        simd.keep_where_greater(level, magnitude, missing * simd.splat(smallest(SIGNED)))
    }

    #[inline(always)]
    fn nearest<S: Simd, const SIGNED: bool>(
        simd: S,
        lines: &Lines<S>,
        value: S::F32,
        factor: S::F32,
    ) -> S::I32 {
        let magnitude = at_least::<S, SIGNED>(simd, value * factor, lines.least);
        let (r, level) = lines.position(simd, magnitude);
        let level = simd.bits(simd.with_bits(level) + r);
        simd.add_i32(level, simd.splat_i32(-(LARGE.to_bits() as i32)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Scalar, ZERO_CODE};

    fn lines(signed: bool, nearest: bool) -> Lines<Scalar> {
        Dynamic::constants(Scalar, signed, nearest)
    }

    #[test]
    fn borders_of_cells_lie_where_they_may() {
        for signed in [true, false] {
            let top = number_of_decade_5(signed);
            let cell = |y: f32| lines(signed, true).number(Scalar, y) - LARGE.to_bits() as i32;
            let values = Dynamic::values(signed);
            let mut first = if signed { 128 } else { 1 };
            let smallest = values[first];
            assert_eq!(cell(lines(signed, true).least), top - 6);
            assert_eq!(cell(smallest / 2.0), top - 6, "the lowest cell decides what is zero");
            assert_eq!(cell(smallest), top - 5, "and where positions begin, another one follows");
            for k in 0..7 {
                let n = if signed { 1 << k } else { 2 << k };
                let (low, high) = (values[first], values[first + n - 1]);
                assert_eq!(cell(low), top - 5 + (k - 1).max(0), "decade {k}, the lower end");
                assert_eq!(cell(high), top - 5 + k.min(5), "decade {k}, the upper end");
                first += n;
            }
            assert_eq!(cell(values[254] * (1.0 + 1e-5)), top + 1, "above the last value below 1");
            assert_eq!(cell(1.0), top + 1);
        }
    }

    #[test]
    fn positions_at_levels_are_whole() {
        for signed in [true, false] {
            let first = if signed { 128 } else { 1 };
            for (code, &value) in Dynamic::values(signed).iter().enumerate().skip(first) {
                let zero_code = if signed { i32::from(ZERO_CODE) } else { 0 };
                let level = f64::from(code as i32 - zero_code + i32::from(Dynamic::zero(signed)));
                let lines = lines(signed, false);
                let position = if signed {
                    Dynamic::position::<_, true>(Scalar, &lines, value, 1.0)
                } else {
                    Dynamic::position::<_, false>(Scalar, &lines, value, 1.0)
                };
                let excess = f64::from(position as u32) / ONE - level;
                assert!(excess.abs() < 3e-5, "code {code} is {excess} off");
                // Else it would become zero, at times.
                assert!(excess >= 0.0 || code > first, "the smallest is {excess} off");
            }
        }
    }
}
