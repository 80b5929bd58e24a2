//! NEON, which every 64-bit ARM CPU has: vectors of 4.
//!
//! Almost every method is a wrapper of one to four intrinsics. They are sound because a vector or a token
//! of this file exists only where [`Neon::detect`] has found the feature.
//!
//! The comparisons of floats are made by a compare and a select, not by the instructions for the
//! minimum and the maximum: those give a NaN for a NaN, and order the two zeros. Conversions to
//! integers saturate and give 0 for a NaN, as Rust's do. Two instructions have no stable intrinsic in the
//! oldest Rust that we support, the conversions of half precision, so they are written in assembly.

use super::{Aligned, F64Lanes, GROUP, Kernel, Packing, Pair, Simd, Table, ZERO_CODE};
use crate::real::Real;
use core::arch::aarch64::*;
use core::arch::asm;

/// The proof that the CPU has NEON.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token, if the CPU has the feature. Not for big-endian systems, where the bytes of a lane
    /// are in another order than [`Neon::lookup8`] takes them to be.
    pub(super) fn detect() -> Option<Self> {
        let found =
            cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon");
        found.then_some(Self(()))
    }
}

/// Lanes of float32.
#[derive(Clone, Copy)]
pub(crate) struct F32x4(float32x4_t);

/// Lanes of 32-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct I32x4(int32x4_t);

/// Calls intrinsics in a method of a token or vector.
macro_rules! neon {
    ($body:expr) => {
        // SAFETY: `self` is, or was made with, a token that only `Neon::detect` makes, so the CPU
        // has the feature of the intrinsics; they take and return values, not pointers.
        unsafe { $body }
    };
}

operators!(F32x4, neon: vaddq_f32, vsubq_f32, vmulq_f32, vdivq_f32);

impl Real for F32x4 {
    #[inline(always)]
    fn like(self, value: f64) -> Self {
        Self(neon!(vdupq_n_f32(value as f32)))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(neon!(vfmaq_f32(b.0, self.0, a.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(neon!(vsqrtq_f32(self.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(neon!(vbslq_f32(vcgtq_f32(self.0, other.0), self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(neon!(vbslq_f32(vcltq_f32(self.0, other.0), self.0, other.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(neon!(vabsq_f32(self.0)))
    }
    #[inline(always)]
    fn where_positive(self, test: Self) -> Self {
        Self(neon!(vbslq_f32(vcgtzq_f32(test.0), self.0, vdupq_n_f32(0.0))))
    }
}

/// The vector `at` of a group, as a slice of its elements.
#[inline(always)]
fn part<T>(group: &[T; GROUP], at: usize) -> &[T] {
    &group[at * Neon::LANES..(at + 1) * Neon::LANES]
}

/// The vector `at` of a group, to be written.
#[inline(always)]
fn part_mut<T>(group: &mut [T; GROUP], at: usize) -> &mut [T] {
    &mut group[at * Neon::LANES..(at + 1) * Neon::LANES]
}

impl Neon {
    /// The bytes of `table[index % 8]`.
    #[inline(always)]
    fn lookup(self, table: uint8x16x2_t, index: I32x4) -> uint8x16_t {
        neon!({
            // Byte b of the entry i is byte 4 i + b of the table.
            let entry = vandq_u32(vreinterpretq_u32_s32(index.0), vdupq_n_u32(7));
            let bytes = vmlaq_u32(vdupq_n_u32(0x0302_0100), entry, vdupq_n_u32(0x0404_0404));
            vqtbl2q_u8(table, vreinterpretq_u8_u32(bytes))
        })
    }
}

impl Neon {
    /// The levels of half a group above that of zero, as words.
    #[inline(always)]
    fn levels_above(self, levels: &[i32; GROUP], half: usize, zero: i16) -> [int16x8_t; 2] {
        let [a, b, c, d] = core::array::from_fn(|i| self.load_i32(levels, 4 * half + i).0);
        neon!({
            let zero = vdupq_n_s16(zero);
            let words = [(a, b), (c, d)];
            words.map(|(a, b)| vqsubq_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), zero))
        })
    }

    /// Signed bytes: negative where the sign bit of a value is set, 0 where it is 0, and otherwise positive.
    /// Floats are so as integers too, and saturate.
    #[inline(always)]
    fn pack_signs(self, values: &[f32; GROUP], half: usize) -> int8x16_t {
        let bits = |i: usize| self.bits(self.load(values, 4 * half + i)).0;
        let [a, b, c, d] = core::array::from_fn(bits);
        neon!({
            let ab = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
            let cd = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
            vcombine_s8(vqmovn_s16(ab), vqmovn_s16(cd))
        })
    }

    #[inline(always)]
    fn store_bytes(self, bytes: uint8x16_t, to: &mut [u8; 16]) {
        // SAFETY: `to` has room for 16 bytes; the token proves the feature.
        unsafe { vst1q_u8(to.as_mut_ptr(), bytes) }
    }
}

impl Simd for Neon {
    const LANES: usize = 4;
    type F32 = F32x4;
    type I32 = I32x4;
    type F64 = F64Lanes<4>;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        #[inline]
        fn with_features<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: the token proves the feature.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F32x4 {
        F32x4(neon!(vdupq_n_f32(value)))
    }
    #[inline(always)]
    fn splat_i32(self, value: i32) -> I32x4 {
        I32x4(neon!(vdupq_n_s32(value)))
    }
    #[inline(always)]
    fn load(self, from: &[f32; GROUP], at: usize) -> F32x4 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 4 float32; the token proves the feature.
        F32x4(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    fn store(self, value: F32x4, to: &mut [f32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 4 float32 that we may write; the token proves the feature.
        unsafe { vst1q_f32(to, value.0) }
    }
    #[inline(always)]
    fn load_i32(self, from: &[i32; GROUP], at: usize) -> I32x4 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 4 integers of 32 bits; the token proves the feature.
        I32x4(unsafe { vld1q_s32(from) })
    }
    #[inline(always)]
    fn store_i32(self, value: I32x4, to: &mut [i32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 4 integers of 32 bits that we may write; the token proves the feature.
        unsafe { vst1q_s32(to, value.0) }
    }
    #[inline(always)]
    fn load_high(self, from: &[u16; GROUP], at: usize) -> I32x4 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 4 integers of 16 bits; the token proves the feature.
        I32x4(unsafe { vreinterpretq_s32_u32(vshll_n_u16::<16>(vld1_u16(from))) })
    }
    #[inline(always)]
    fn store_high(self, value: I32x4, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 4 integers of 16 bits that we may write; the token proves the feature.
        unsafe { vst1_u16(to, vshrn_n_u32::<16>(vreinterpretq_u32_s32(value.0))) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; GROUP], at: usize) -> F32x4 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 4 half precision numbers; the token proves the feature, of which
        // the conversion is a part; it takes and returns registers.
        F32x4(unsafe {
            let (halves, floats): (uint16x4_t, float32x4_t);
            halves = vld1_u16(from);
            asm!(
                "fcvtl {floats:v}.4s, {halves:v}.4h",
                halves = in(vreg) halves,
                floats = lateout(vreg) floats,
                options(pure, nomem, nostack, preserves_flags),
            );
            floats
        })
    }
    #[inline(always)]
    fn store_f16(self, value: F32x4, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 4 half precision numbers that we may write; the token proves the
        // feature, of which the conversion is a part; it takes and returns registers.
        unsafe {
            let halves: uint16x4_t;
            asm!(
                "fcvtn {halves:v}.4h, {floats:v}.4s",
                floats = in(vreg) value.0,
                halves = lateout(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
            vst1_u16(to, halves);
        }
    }
    #[inline(always)]
    fn load_f64(self, from: &[f64; GROUP], at: usize) -> F64Lanes<4> {
        F64Lanes::load(from, at)
    }
    #[inline(always)]
    fn store_f64(self, value: F64Lanes<4>, to: &mut [f64; GROUP], at: usize) {
        value.store(to, at);
    }
    #[inline(always)]
    fn widen(self, value: F32x4) -> F64Lanes<4> {
        let mut lanes = [0.0; 4];
        // SAFETY: `lanes` has room for 4 float32; the token proves the feature.
        unsafe { vst1q_f32(lanes.as_mut_ptr(), value.0) };
        F64Lanes(lanes.map(f64::from))
    }
    #[inline(always)]
    fn narrow(self, value: F64Lanes<4>) -> F32x4 {
        let mut lanes = [0.0; 4];
        for lane in 0..4 {
            lanes[lane] = value.0[lane] as f32;
        }
        // SAFETY: `lanes` holds 4 float32; the token proves the feature.
        F32x4(unsafe { vld1q_f32(lanes.as_ptr()) })
    }

    #[inline(always)]
    fn decode(self, table: &Table, scale: F32x4, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        for (codes, to) in codes.iter().zip(to) {
            for at in 0..GROUP / Self::LANES {
                let mut values = [0.0; 4];
                for (value, &code) in values.iter_mut().zip(part(codes, at)) {
                    *value = table.values[usize::from(code)];
                }
                // SAFETY: `values` holds 4 float32; the token proves the feature.
                let values = F32x4(unsafe { vld1q_f32(values.as_ptr()) });
                self.store(values * scale, &mut to.0, at);
            }
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; GROUP], at: usize) -> I32x4 {
        let codes = u32::from_le_bytes(*part(codes, at).first_chunk().expect("4 codes"));
        I32x4(neon!({
            let words = vmovl_u8(vcreate_u8(u64::from(codes)));
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(words)))
        }))
    }
    #[inline(always)]
    fn load_signed_codes(self, codes: &[u8; GROUP], at: usize) -> I32x4 {
        let codes = u32::from_le_bytes(*part(codes, at).first_chunk().expect("4 codes"));
        I32x4(neon!(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(u64::from(codes)))))))
    }
    #[inline(always)]
    fn store_codes(
        self,
        packing: Packing,
        levels: &Pair<i32>,
        zero: i16,
        values: &Pair<f32>,
        codes: &mut [[u8; GROUP]; 2],
    ) {
        for ((Aligned(levels), Aligned(values)), codes) in levels.iter().zip(values).zip(codes) {
            for (half, codes) in codes.as_chunks_mut().0.iter_mut().enumerate() {
                let [ab, cd] = self.levels_above(levels, half, zero);
                let signs = self.pack_signs(values, half);
                let packed = neon!({
                    let level = vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd));
                    match packing {
                        Packing::Level => level,
                        Packing::UnlessZero => vandq_u8(vtstq_s8(signs, signs), level),
                        // Seldom is a second moment so far below the largest one of its block.
                        Packing::Above if vminvq_u8(level) > 0 => level,
                        Packing::Above => {
                            let signs = vreinterpretq_u8_s8(signs);
                            vmaxq_u8(level, vminq_u8(signs, vdupq_n_u8(1)))
                        }
                        Packing::AroundZero => {
                            let zero = vdupq_n_u8(ZERO_CODE);
                            let (up, down) = (vqaddq_u8(zero, level), vqsubq_u8(zero, level));
                            vbslq_u8(vcltzq_s8(signs), down, up)
                        }
                        Packing::SignBit => {
                            let level = vcombine_s8(vqmovn_s16(ab), vqmovn_s16(cd));
                            let sign = vandq_s8(signs, vdupq_n_s8(i8::MIN));
                            vreinterpretq_u8_s8(vorrq_s8(level, sign))
                        }
                    }
                });
                self.store_bytes(packed, codes);
            }
        }
    }
    #[inline(always)]
    fn lookup8(self, table: &[f32; 8], index: I32x4) -> F32x4 {
        // SAFETY: `table` holds 32 bytes; the token proves the feature.
        let table = unsafe { vld1q_u8_x2(table.as_ptr().cast()) };
        F32x4(neon!(vreinterpretq_f32_u8(self.lookup(table, index))))
    }
    #[inline(always)]
    fn lookup8_i32(self, table: &[i32; 8], index: I32x4) -> I32x4 {
        // SAFETY: `table` holds 32 bytes; the token proves the feature.
        let table = unsafe { vld1q_u8_x2(table.as_ptr().cast()) };
        I32x4(neon!(vreinterpretq_s32_u8(self.lookup(table, index))))
    }

    #[inline(always)]
    fn max_abs(self, a: F32x4, b: F32x4) -> F32x4 {
        a.abs().max(b)
    }
    #[inline(always)]
    fn bits(self, value: F32x4) -> I32x4 {
        I32x4(neon!(vreinterpretq_s32_f32(value.0)))
    }
    #[inline(always)]
    fn with_bits(self, value: I32x4) -> F32x4 {
        F32x4(neon!(vreinterpretq_f32_s32(value.0)))
    }
    #[inline(always)]
    fn round(self, value: F32x4) -> I32x4 {
        I32x4(neon!(vcvtnq_s32_f32(value.0)))
    }
    #[inline(always)]
    fn to_f32(self, value: I32x4) -> F32x4 {
        F32x4(neon!(vcvtq_f32_s32(value.0)))
    }
    #[inline(always)]
    fn keep_where_greater(self, value: I32x4, a: F32x4, b: F32x4) -> I32x4 {
        I32x4(neon!(vandq_s32(value.0, vreinterpretq_s32_u32(vcgtq_f32(a.0, b.0)))))
    }
    #[inline(always)]
    fn minus_where_negative(self, of: I32x4, value: F32x4) -> F32x4 {
        F32x4(neon!({
            let sign = vandq_s32(of.0, vdupq_n_s32(i32::MIN));
            vreinterpretq_f32_s32(veorq_s32(vreinterpretq_s32_f32(value.0), sign))
        }))
    }

    #[inline(always)]
    fn add_i32(self, a: I32x4, b: I32x4) -> I32x4 {
        I32x4(neon!(vaddq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn mul_i32(self, a: I32x4, b: I32x4) -> I32x4 {
        I32x4(neon!(vmulq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn and_i32(self, a: I32x4, b: I32x4) -> I32x4 {
        I32x4(neon!(vandq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn xor_i32(self, a: I32x4, b: I32x4) -> I32x4 {
        I32x4(neon!(veorq_s32(a.0, b.0)))
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, value: I32x4) -> I32x4 {
        // A shift left by a negative constant compiles to the immediate form of a shift right.
        I32x4(neon!({
            let shifted = vshlq_u32(vreinterpretq_u32_s32(value.0), vdupq_n_s32(-(N as i32)));
            vreinterpretq_s32_u32(shifted)
        }))
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, value: I32x4) -> I32x4 {
        I32x4(neon!(vshlq_s32(value.0, vdupq_n_s32(N as i32))))
    }
    #[inline(always)]
    fn max_u32(self, a: I32x4, b: I32x4) -> I32x4 {
        I32x4(neon!(vreinterpretq_s32_u32(vmaxq_u32(
            vreinterpretq_u32_s32(a.0),
            vreinterpretq_u32_s32(b.0)
        ))))
    }
    #[inline(always)]
    fn select_nan(self, of: F32x4, yes: I32x4, no: I32x4) -> I32x4 {
        I32x4(neon!(vbslq_s32(vceqq_f32(of.0, of.0), no.0, yes.0)))
    }
    #[inline(always)]
    fn select_greater(self, a: I32x4, b: I32x4, yes: I32x4, no: I32x4) -> I32x4 {
        I32x4(neon!(vbslq_s32(vcgtq_s32(a.0, b.0), yes.0, no.0)))
    }
    #[inline(always)]
    fn reduce_max(self, value: I32x4) -> u32 {
        neon!(vmaxvq_u32(vreinterpretq_u32_s32(value.0)))
    }
}
