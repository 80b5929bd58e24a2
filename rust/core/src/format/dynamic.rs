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
//! D_k = 10 n / 9, the levels around the top of decade k, at y = 10^(k-6), are `E + r - 1/2` with
//!
//! ```text
//! r = d            within decade k, up to its last value, at d = -1/2;
//! r = d/3 - 1/3    in the gap from there to the first value of decade k + 1, at d = 5/2;
//! r = d/5          within decade k + 1: its steps are five times as long.
//! ```
//!
//! This is concave, so `r = min` of the three, and no comparison is needed to choose among them. The
//! magnitudes are cut into seven cells, each with one top of a decade well inside it, and S, D, E are
//! looked up by the cell: tables of 8 entries, one permutation each on every instruction set. Cells
//! need not be exact, as their borders lie where only one of the three counts; a linear function of
//! the float's bits is near enough to its logarithm. Only the step from the last value to 1 is
//! shorter than the one before, so it is a maximum: `max(r, 2 d)` with the d of k = 6.
//!
//! Since d is small where levels are far apart, what rounding does to thresholds stays below
//! 1.5e-7 of the threshold. A position costs 14 operations, 3 of them permutations.

use super::grid::{Grid, HALF, ONE};
use crate::real::Real;
use crate::simd::{Simd, opaque};

#[path = "dynamic_tables.rs"]
mod tables;

/// The grid of the codec `dynamic`.
#[derive(Clone, Copy)]
pub(super) struct Dynamic;

/// The constants of seven cells, at the index that the low three bits of a cell's number give.
#[repr(C, align(64))]
pub(super) struct Cells {
    /// S of `d - 1/2 = S y - D`.
    slope: [f32; 8],
    /// -D of `d - 1/2 = S y - D`.
    origin: [f32; 8],
    /// E.
    level: [i32; 8],
    /// E plus a half.
    level_and_half: [i32; 8],
    /// The line from the last value to one.
    last: (f32, f32),
    /// The lines of a gap and of the decade after, as slope and intercept over `d - 1/2`.
    gap: (f32, f32),
    next: (f32, f32),
}

/// The number of the first cell.
const FIRST_CELL: usize = 31;

/// A cell's number is `(high half of the magnitude's bits) * factor / 2^16`, from 31 to 37.
///
/// Chosen so that every border lies between the first and the last value of a decade, and below
/// level 1: the test `cells_keep_away_from_gaps` holds them to it.
const fn factor(signed: bool) -> u16 {
    if signed { 150 } else { 151 }
}

/// The constants as vectors.
#[derive(Clone, Copy)]
pub(super) struct Lines<S: Simd> {
    cells: &'static Cells,
    gap: (S::F32, S::F32),
    next: (S::F32, S::F32),
    last: (S::F32, S::F32),
}

const fn cells(signed: bool) -> Cells {
    let mut cells = Cells {
        slope: [0.0; 8],
        origin: [0.0; 8],
        level: [0; 8],
        level_and_half: [0; 8],
        gap: (1.0 / 3.0, (-2.0 / 3.0 * ONE) as f32),
        next: (0.2, (-0.4 * ONE) as f32),
        last: (0.0, 0.0),
    };
    let mut power = 1e6; // 10^(6 - k)
    let mut k = 0;
    while k < 7 {
        let n = (if signed { 1 << k } else { 2 << k }) as f64;
        let at = (FIRST_CELL + k) % 8;
        let d_top = 10.0 * n / 9.0;
        cells.slope[at] = (d_top * power * ONE) as f32;
        cells.origin[at] = (-(d_top + 0.5) * ONE) as f32;
        cells.level[at] = (2.0 * n * ONE) as u32 as i32;
        cells.level_and_half[at] = cells.level[at].wrapping_add(HALF);
        if k == 6 {
            // The intercept is one unit in the last place low, for the sake of 1 - 2^-24.
            let slope = (2.0 * d_top * ONE) as f32;
            cells.last = (slope, -f32::from_bits(slope.to_bits() - 1));
        }
        power /= 10.0;
        k += 1;
    }
    cells
}

static SIGNED_CELLS: Cells = cells(true);
static UNSIGNED_CELLS: Cells = cells(false);

impl Grid for Dynamic {
    fn values(signed: bool) -> [f32; 256] {
        if signed {
            tables::SIGNED.map(f32::from_bits)
        } else {
            tables::UNSIGNED.map(f32::from_bits)
        }
    }

    #[inline(always)]
    fn smallest(signed: bool) -> f32 {
        f32::from_bits(if signed { tables::SIGNED[128] } else { tables::UNSIGNED[1] })
    }

    #[inline(always)]
    fn offset(signed: bool) -> i16 {
        // Decade 0 of an unsigned grid begins at level 2, as it has two values.
        if signed { 127 } else { -1 }
    }

    type Constants<S: Simd> = Lines<S>;

    #[inline(always)]
    fn constants<S: Simd>(simd: S, signed: bool) -> Lines<S> {
        let cells = opaque(if signed { &SIGNED_CELLS } else { &UNSIGNED_CELLS });
        Lines {
            cells,
            gap: (simd.splat(cells.gap.0), simd.splat(cells.gap.1)),
            next: (simd.splat(cells.next.0), simd.splat(cells.next.1)),
            last: (simd.splat(cells.last.0), simd.splat(cells.last.1)),
        }
    }

    #[inline(always)]
    fn position<S: Simd, const SIGNED: bool, const NEAREST: bool>(
        simd: S,
        &Lines { cells, gap, next, last }: &Lines<S>,
        magnitude: S::F32,
    ) -> S::I32 {
        let cell = simd.scale_high_half(simd.bits(magnitude), factor(SIGNED));
        let slope = simd.lookup8(&cells.slope, cell);
        let origin = simd.lookup8(&cells.origin, cell);
        let level = if NEAREST { &cells.level_and_half } else { &cells.level };
        let level = simd.lookup8_i32(level, cell);
        // From here on r and d are less 1/2, and in units of the fixed point.
        let within = magnitude.mul_add(slope, origin);
        let gap = within.mul_add(gap.0, gap.1);
        let next = within.mul_add(next.0, next.1);
        let last = magnitude.mul_add(last.0, last.1);
        let r = simd.min(simd.min(within, gap), next);
        simd.add_i32(simd.round(last.max(r)), level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_away_from_gaps() {
        for signed in [true, false] {
            let cell = |y: f32| ((y.to_bits() >> 16) * u32::from(factor(signed))) >> 16;
            let values = Dynamic::values(signed);
            let mut first = if signed { 128 } else { 1 };
            for k in 0..7 {
                let n = if signed { 1 << k } else { 2 << k };
                let (low, high) = (values[first], values[first + n - 1]);
                let below = FIRST_CELL as u32 + if k == 0 { 0 } else { k - 1 };
                assert_eq!(cell(low), below, "decade {k} begins in the cell of its lower end");
                assert_eq!(cell(high), FIRST_CELL as u32 + k, "and ends in that of its upper one");
                first += n;
            }
            assert_eq!(first, 255);
            assert_eq!(cell(1.0), FIRST_CELL as u32 + 6);
        }
    }
}
