//! The arithmetic that a formula may use.
//!
//! An update rule is written once over [`Real`] and runs on vectors of float32, on vectors of
//! float64 and on plain numbers alike, with the same rounding at every step: only operations that
//! IEEE 754 rounds correctly are here, so every instruction set gives the same bits.

use core::ops::{Add, Div, Mul, Sub};

/// A number, or a vector of numbers that are computed side by side.
pub(crate) trait Real:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The constant `value`, rounded to this type, in the shape of `self`.
    fn like(self, value: f64) -> Self;

    /// `self * a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;

    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;

    /// `self` where it is greater than `other`, otherwise `other`; so a NaN in either gives `other`.
    fn max(self, other: Self) -> Self;

    /// `self` where it is less than `other`, otherwise `other`; so a NaN in either gives `other`.
    fn min(self, other: Self) -> Self;

    /// The magnitude: the sign bit cleared.
    fn abs(self) -> Self;

    /// `self` where `test > 0`, otherwise 0; so 0 where `test` is NaN.
    fn where_positive(self, test: Self) -> Self;

    /// `-self`; of zeros, +0.
    #[inline(always)]
    fn negated(self) -> Self {
        self.like(0.0) - self
    }

    /// 1 for positive numbers, -1 for negative ones, and 0 for zeros and NaN.
    #[inline(always)]
    fn sign(self) -> Self {
        let one = self.like(1.0);
        one.where_positive(self) - one.where_positive(self.negated())
    }
}

/// Implements [`Real`] for a primitive float.
macro_rules! real_primitive {
    ($float:ty) => {
        impl Real for $float {
            #[inline(always)]
            #[allow(
                clippy::cast_possible_truncation,
                reason = "rounding to this type is the meaning"
            )]
            fn like(self, value: f64) -> Self {
                value as $float
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                <$float>::mul_add(self, a, b)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self > other { self } else { other }
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if self < other { self } else { other }
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$float>::abs(self)
            }
            #[inline(always)]
            fn where_positive(self, test: Self) -> Self {
                if test > 0.0 { self } else { 0.0 }
            }
        }
    };
}

real_primitive!(f32);
real_primitive!(f64);
