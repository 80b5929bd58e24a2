//! Vectors: the one interface between the algorithms and the instruction sets.
//!
//! Everything that differs between instruction sets is a method of [`Simd`], and each instruction
//! set implements it in one file (`scalar.rs`, `avx2.rs`, `avx512.rs`, `neon.rs`). `scalar.rs` is
//! the reference: every other implementation must give the same bits for the same input, and one
//! battery of tests (`tests.rs`) demands it of each method.
//!
//! **Tokens.** A value of a type that implements [`Simd`] is the proof that the CPU has the
//! features: it can only be made by detection (`level.rs`). Vectors can only be made with a token,
//! so their methods are safe too. Intrinsics appear nowhere else in the crate.
//!
//! **Groups.** Loads and stores address one vector inside a group of [`GROUP`] elements, a fixed
//! size array. The position within a group is known to the compiler once the loop over a group is
//! unrolled, so safe code pays for no bounds check; and a group is what one packing of codes needs.
//!
//! **Inlining.** Methods are `#[inline(always)]` wrappers of intrinsics. They are compiled well only
//! inside a function that enables the features, and the one way into such a function is
//! [`Simd::vectorize`]. A closure does not inherit the features of the function around it, and one
//! that is not inlined is slower by an order of magnitude; so code that handles vectors uses loops,
//! and traits with `#[inline(always)]` methods ([`Kernel`]), where other code would use
//! closures.

/// Implements the operators of vectors by intrinsics, each in what says why it may be called.
macro_rules! operators {
    ($lanes:ident, $call:ident: $add:ident, $sub:ident, $mul:ident, $div:ident) => {
        operators!($lanes, $call, Add::add, $add);
        operators!($lanes, $call, Sub::sub, $sub);
        operators!($lanes, $call, Mul::mul, $mul);
        operators!($lanes, $call, Div::div, $div);
    };
    ($lanes:ident, $call:ident, $trait:ident::$method:ident, $intrinsic:ident) => {
        impl core::ops::$trait for $lanes {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self($call!($intrinsic(self.0, other.0)))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod float_env;
mod level;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
mod prefetch;
pub(crate) mod scalar;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use float_env::with_default_float_env;
pub use level::Level;
pub(crate) use prefetch::Ahead;
pub use prefetch::prefetch;
pub(crate) use scalar::Scalar;

use crate::real::Real;

/// Elements in a group: the unit in which data is loaded, stored and packed. Every block size is a
/// multiple of it, and every vector length divides it.
pub(crate) const GROUP: usize = 32;

/// A group of our own, which begins with a cache line: vectors that straddle two lines cost half of
/// the speed. Memory of others lies as it lies.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Aligned<T>(pub(crate) [T; GROUP]);

/// The code of zero in codebooks of both signs that are computed and sorted.
pub(crate) const ZERO_CODE: u8 = 127;

/// How a level, and the sign of its value, become a code. All levels count from that of zero.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packing {
    /// The level, from 0 to 255.
    Level,
    /// The same, where no value is negative: but the code of zero is 0.
    UnlessZero,
    /// The same, where no value is negative, and the level of zero is 0: but the code of any other is at least 1.
    Above,
    /// From [`ZERO_CODE`] up by the level, or down where the sign bit of the value is set, to 255 or 0 at most.
    AroundZero,
    /// The level, which is not negative, up to 127; the highest bit is the sign bit of the value.
    SignBit,
}

/// Elements in two groups, the unit in which codes are decoded: AVX-512 looks up 64 bytes at once.
pub(crate) const PAIR: usize = 2 * GROUP;

/// Two groups of our own.
pub(crate) type Pair<T> = [Aligned<T>; 2];

/// The pairs of groups that a slice begins with.
#[inline(always)]
pub(crate) fn pairs<T>(slice: &[T]) -> &[[[T; GROUP]; 2]] {
    slice.as_chunks().0.as_chunks().0
}

/// The pairs of groups that a slice begins with, to be written.
#[inline(always)]
pub(crate) fn pairs_mut<T>(slice: &mut [T]) -> &mut [[[T; GROUP]; 2]] {
    slice.as_chunks_mut().0.as_chunks_mut().0
}

/// 256 values to look up, whole and as bytes: instruction sets differ in what is quicker.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Table {
    pub(crate) values: [f32; 256],
    /// Of all values, the lowest bytes, the next ones, and so on.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "AVX-512 looks up bytes"))]
    pub(crate) bytes: [[u8; 256]; 4],
}

impl Table {
    pub(crate) fn new(values: [f32; 256]) -> Self {
        let bytes = [0, 1, 2, 3].map(|byte| values.map(|value| value.to_le_bytes()[byte]));
        Self { values, bytes }
    }
}

/// The indices of the vectors of a group, for loops whose body is large: if the compiler knew those of
/// scalars, it would unroll and vectorize the scalar kernels, which would be most of the library.
#[inline(always)]
pub(crate) fn vectors<S: Simd>() -> impl Iterator<Item = usize> {
    (0..GROUP / S::LANES).map(|at| if S::LANES == 1 { opaque(at) } else { at })
}

/// A computation that is to be compiled once for each instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Runs with the vectors of `simd`. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// The operations of one instruction set on vectors of [`Simd::LANES`] 32-bit elements.
///
/// `at` is the index of a vector within its group, `0..GROUP / LANES`.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Elements in a vector.
    const LANES: usize;
    /// Whether the loop of an update decodes, if the codec is a formula (`decoding.rs`).
    const DECODES_IN_LOOP: bool = false;
    /// float32 lanes.
    type F32: Real;
    /// 32-bit integer lanes; methods say whether they are read as signed.
    type I32: Copy;
    /// float64 lanes, as many as there are float32 ones.
    type F64: Real;

    /// Runs `kernel` in a function that is compiled for this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    // ---- constants, loads and stores

    /// `value` in every lane.
    fn splat(self, value: f32) -> Self::F32;
    /// `value` in every lane.
    fn splat_i32(self, value: i32) -> Self::I32;
    /// The vector `at` of a group.
    fn load(self, from: &[f32; GROUP], at: usize) -> Self::F32;
    /// Writes the vector `at` of a group.
    fn store(self, value: Self::F32, to: &mut [f32; GROUP], at: usize);
    /// The vector `at` of a group of integers.
    fn load_i32(self, from: &[i32; GROUP], at: usize) -> Self::I32;
    /// Writes the vector `at` of a group of integers.
    fn store_i32(self, value: Self::I32, to: &mut [i32; GROUP], at: usize);
    /// The vector `at` of a group of 16-bit integers, as the high halves of lanes; the others are 0.
    fn load_high(self, from: &[u16; GROUP], at: usize) -> Self::I32;
    /// Writes the high halves of the lanes.
    fn store_high(self, value: Self::I32, to: &mut [u16; GROUP], at: usize);
    /// The vector `at` of a group of IEEE half precision numbers (bits), converted.
    fn load_f16(self, from: &[u16; GROUP], at: usize) -> Self::F32;
    /// Writes half precision numbers (bits), rounded to nearest even; a NaN stays a quiet NaN.
    fn store_f16(self, value: Self::F32, to: &mut [u16; GROUP], at: usize);
    /// The vector `at` of a group of float64.
    fn load_f64(self, from: &[f64; GROUP], at: usize) -> Self::F64;
    /// Writes float64.
    fn store_f64(self, value: Self::F64, to: &mut [f64; GROUP], at: usize);
    /// float32 to float64, exact.
    fn widen(self, value: Self::F32) -> Self::F64;
    /// float64 to float32, rounded to nearest even.
    fn narrow(self, value: Self::F64) -> Self::F32;

    // ---- tables and codes

    /// `table[code] * scale` for each code of two groups.
    fn decode(self, table: &Table, scale: Self::F32, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>);
    /// The vector `at` of a group of codes.
    fn load_codes(self, codes: &[u8; GROUP], at: usize) -> Self::I32;
    /// As [`Simd::load_codes`], of bytes whose highest bit is a sign, which all higher bits become.
    fn load_signed_codes(self, codes: &[u8; GROUP], at: usize) -> Self::I32;
    /// Packs two groups: the codes of levels from -2^15 to 2^15 - 1, of which that of zero is from 0 to 4096.
    fn store_codes(
        self,
        packing: Packing,
        levels: &Pair<i32>,
        zero: i16,
        values: &Pair<f32>,
        codes: &mut [[u8; GROUP]; 2],
    );
    /// `table[index % 8]`.
    fn lookup8(self, table: &[f32; 8], index: Self::I32) -> Self::F32;
    /// `table[index % 8]`.
    fn lookup8_i32(self, table: &[i32; 8], index: Self::I32) -> Self::I32;

    // ---- float32 lanes

    /// `|a|` where it is greater than `b`, otherwise `b`; `a` must not be NaN, nor `b` negative.
    fn max_abs(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The bits.
    fn bits(self, value: Self::F32) -> Self::I32;
    /// The float of the given bits.
    fn with_bits(self, value: Self::I32) -> Self::F32;
    /// To the nearest integer, ties to even; magnitudes must be at most 2^31 - 2^7.
    fn round(self, value: Self::F32) -> Self::I32;
    /// To the nearest float, ties to even.
    fn to_f32(self, value: Self::I32) -> Self::F32;
    /// `value` where `a > b`, otherwise 0.
    fn keep_where_greater(self, value: Self::I32, a: Self::F32, b: Self::F32) -> Self::I32;
    /// `-value` where the sign bit of `of` is set, otherwise `value`.
    fn minus_where_negative(self, of: Self::I32, value: Self::F32) -> Self::F32;

    // ---- integer lanes

    /// Sum, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Product, wrapping.
    fn mul_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise and.
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Bitwise exclusive or.
    fn xor_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Logical shift right.
    fn shift_right<const N: u32>(self, value: Self::I32) -> Self::I32;
    /// Shift left.
    fn shift_left<const N: u32>(self, value: Self::I32) -> Self::I32;
    /// The larger one, as unsigned integers.
    fn max_u32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `yes` where `of` is a NaN, otherwise `no`.
    fn select_nan(self, of: Self::F32, yes: Self::I32, no: Self::I32) -> Self::I32;
    /// `yes` where `a > b` as signed integers, otherwise `no`.
    fn select_greater(self, a: Self::I32, b: Self::I32, yes: Self::I32, no: Self::I32)
    -> Self::I32;
    /// The largest lane, as unsigned integers.
    fn reduce_max(self, value: Self::I32) -> u32;
}

/// The same value, of which the compiler forgets that it is a constant: then it keeps the vector of
/// it, in a register or as an operand in memory, where it would else broadcast it anew for every use;
/// and does not unroll a loop of so many turns.
#[inline(always)]
pub(crate) fn opaque<T>(value: T) -> T {
    core::hint::black_box(value)
}

/// float64 lanes as an array. float64 parameters are rare and their speed matters little, so the
/// compiler vectorizes this one implementation for every instruction set.
#[derive(Clone, Copy)]
pub(crate) struct F64Lanes<const N: usize>(pub(crate) [f64; N]);

impl<const N: usize> F64Lanes<N> {
    /// The vector `at` of a group.
    #[inline(always)]
    pub(crate) fn load(from: &[f64; GROUP], at: usize) -> Self {
        let mut lanes = [0.0; N];
        lanes.copy_from_slice(&from[at * N..(at + 1) * N]);
        Self(lanes)
    }

    /// Writes the vector `at` of a group.
    #[inline(always)]
    pub(crate) fn store(self, to: &mut [f64; GROUP], at: usize) {
        to[at * N..(at + 1) * N].copy_from_slice(&self.0);
    }
}

/// Implements an operator of [`F64Lanes`] lane by lane.
macro_rules! lanewise {
    ($trait:ident, $method:ident) => {
        impl<const N: usize> core::ops::$trait for F64Lanes<N> {
            type Output = Self;
            #[inline(always)]
            fn $method(mut self, other: Self) -> Self {
                for lane in 0..N {
                    self.0[lane] = core::ops::$trait::$method(self.0[lane], other.0[lane]);
                }
                self
            }
        }
    };
}
lanewise!(Add, add);
lanewise!(Sub, sub);
lanewise!(Mul, mul);
lanewise!(Div, div);

impl<const N: usize> Real for F64Lanes<N> {
    #[inline(always)]
    fn like(self, value: f64) -> Self {
        Self([value; N])
    }
    #[inline(always)]
    fn mul_add(mut self, a: Self, b: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = self.0[lane].mul_add(a.0[lane], b.0[lane]);
        }
        self
    }
    #[inline(always)]
    fn sqrt(mut self) -> Self {
        for lane in &mut self.0 {
            *lane = lane.sqrt();
        }
        self
    }
    #[inline(always)]
    fn max(mut self, other: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = Real::max(self.0[lane], other.0[lane]);
        }
        self
    }
    #[inline(always)]
    fn min(mut self, other: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = Real::min(self.0[lane], other.0[lane]);
        }
        self
    }
    #[inline(always)]
    fn abs(mut self) -> Self {
        for lane in &mut self.0 {
            *lane = lane.abs();
        }
        self
    }
    #[inline(always)]
    fn where_positive(mut self, test: Self) -> Self {
        for lane in 0..N {
            self.0[lane] = self.0[lane].where_positive(test.0[lane]);
        }
        self
    }
}
