//! How quantized states come into the loop of an update: decoded before, a batch at once, or in the loop.
//!
//! In the loop is quicker if the codec is a formula, and if all its constants find room in registers beside
//! those of the update: decoding is then done while square roots and divisions wait for each other. With
//! AVX-512 it is so (a Xeon: 175 cycles for 64 elements of AdamW, which took 200); with AVX2's 16
//! registers constants would be loaded again and again (Zen 3: 57 instructions for 8 elements, in place of
//! 45). A codec in the loop is one more form of the loop for every rule and dtype: so there is one only,
//! the default, for two dtypes.

use crate::format::{FromBits, Line};
use crate::simd::{GROUP, Simd};

/// How quantized states come into the loop.
pub(crate) trait Decoding<S: Simd>: Copy {
    /// Whether from their codes, by [`Decoding::value`].
    const IN_LOOP: bool;

    /// The values of the codes of vector `at` of a group.
    fn value(self, simd: S, signed: bool, line: Line<S>, codes: &[u8; GROUP], at: usize) -> S::F32;
}

/// They have been decoded.
#[derive(Clone, Copy)]
pub(crate) struct Before;

impl<S: Simd> Decoding<S> for Before {
    const IN_LOOP: bool = false;

    #[inline(always)]
    fn value(self, _: S, _: bool, _: Line<S>, _: &[u8; GROUP], _: usize) -> S::F32 {
        unreachable!("they have been decoded")
    }
}

/// They are decoded in the loop.
#[derive(Clone, Copy)]
pub(crate) struct InLoop<S: Simd> {
    signed: FromBits<S, true>,
    unsigned: FromBits<S, false>,
}

impl<S: Simd> InLoop<S> {
    #[inline(always)]
    pub(crate) fn new(simd: S) -> Self {
        Self { signed: FromBits::new(simd), unsigned: FromBits::new(simd) }
    }
}

impl<S: Simd> Decoding<S> for InLoop<S> {
    const IN_LOOP: bool = true;

    #[inline(always)]
    fn value(self, simd: S, signed: bool, line: Line<S>, codes: &[u8; GROUP], at: usize) -> S::F32 {
        if signed {
            self.signed.value(simd, line, codes, at)
        } else {
            self.unsigned.value(simd, line, codes, at)
        }
    }
}
