//! AVX2 with FMA and F16C: vectors of 8.
//!
//! Almost every method is a wrapper of one to four intrinsics. They are sound because a vector or a token
//! of this file exists only where [`Avx2::detect`] has found the features.
//!
//! **The budget.** The loops of a step of AdamW have, for 8 elements, 58 instructions with the codec
//! `minifloat` (16 decode both states, 18 update, 24 encode both) and some 143 with `dynamic`; where
//! batches and blocks of 256 begin and end are some five more. A core of Zen 3 starts six in a cycle, and
//! three for each of two threads that share it, as on rented machines: there a step took 29 and 52 cycles
//! in the cache (`cargo bench -p optim8-core`) when there were 14 more of them, 9 cycles to update, as
//! long as the divider is busy. So it is the number of instructions that counts, those that only load or
//! jump included: a quicker instruction to spread codes, which needs a load of its own, is no gain, and
//! neither is decoding beside the divisions, since constants then have to be loaded for each vector.

use super::{Aligned, F64Lanes, GROUP, Kernel, Packing, Pair, Simd, Table, ZERO_CODE};
use crate::real::Real;
use core::arch::asm;
use core::arch::x86_64::*;

/// The proof that the CPU has AVX2, FMA and F16C, and the instructions on bits that came with them.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, if the CPU has the features.
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        found.then_some(Self(()))
    }
}

/// Lanes of float32.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// Lanes of 32-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct I32x8(__m256i);

/// Calls intrinsics in a method of a token or vector.
macro_rules! avx2 {
    ($body:expr) => {
        // SAFETY: `self` is, or was made with, a token that only `Avx2::detect` makes, so the CPU
        // has the features of the intrinsics; they take and return values, not pointers.
        unsafe { $body }
    };
}

operators!(F32x8, avx2: _mm256_add_ps, _mm256_sub_ps, _mm256_mul_ps, _mm256_div_ps);

impl Real for F32x8 {
    #[inline(always)]
    fn like(self, value: f64) -> Self {
        Self(avx2!(_mm256_set1_ps(value as f32)))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(avx2!(_mm256_fmadd_ps(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(avx2!(_mm256_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx2!(_mm256_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx2!(_mm256_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(avx2!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0)))
    }
    #[inline(always)]
    fn where_positive(self, test: Self) -> Self {
        Self(avx2!({
            let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(test.0, _mm256_setzero_ps());
            _mm256_and_ps(positive, self.0)
        }))
    }
}

/// The vector `at` of a group, as a slice of its elements.
#[inline(always)]
fn part<T>(group: &[T; GROUP], at: usize) -> &[T] {
    &group[at * Avx2::LANES..(at + 1) * Avx2::LANES]
}

/// The vector `at` of a group, to be written.
#[inline(always)]
fn part_mut<T>(group: &mut [T; GROUP], at: usize) -> &mut [T] {
    &mut group[at * Avx2::LANES..(at + 1) * Avx2::LANES]
}

impl Avx2 {
    /// The levels of a group above that of zero, as words.
    #[inline(always)]
    fn levels_above(self, levels: &[i32; GROUP], zero: i16) -> [__m256i; 2] {
        let [a, b, c, d] = core::array::from_fn(|at| self.load_i32(levels, at).0);
        avx2!({
            let zero = _mm256_set1_epi16(zero);
            let words = [_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)];
            words.map(|words| _mm256_subs_epi16(words, zero))
        })
    }

    /// Signed bytes, in the order that packing gives levels too: negative where the sign bit of a value is
    /// set, 0 where it is 0, and otherwise positive. Floats are so as integers too, and saturate.
    #[inline(always)]
    fn pack_signs(self, values: &[f32; GROUP]) -> __m256i {
        let [a, b, c, d] = core::array::from_fn(|at| self.bits(self.load(values, at)).0);
        avx2!(_mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)))
    }

    /// Whether no byte is 0.
    #[inline(always)]
    fn has_no_zero(self, bytes: __m256i) -> bool {
        avx2!(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())) == 0)
    }

    /// Writes what has been packed.
    #[inline(always)]
    fn store_packed(self, bytes: __m256i, to: &mut [u8; GROUP]) {
        let bytes = avx2!({
            // Each half of the vector holds four bytes of each of the four vectors in turn.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_permutevar8x32_epi32(bytes, order)
        });
        // SAFETY: `to` has room for 32 bytes, any alignment; the token proves the feature.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
    }
}

/// The same value, of which the compiler forgets how it was made.
#[inline(always)]
fn keep(mut value: __m128) -> __m128 {
    // SAFETY: no instruction at all.
    unsafe {
        asm!("/* {0} */", inout(xmm_reg) value, options(pure, nomem, nostack, preserves_flags))
    };
    value
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    type F32 = F32x8;
    type I32 = I32x8;
    type F64 = F64Lanes<8>;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        #[inline]
        fn with_features<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: the token proves the features.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F32x8 {
        F32x8(avx2!(_mm256_set1_ps(value)))
    }
    #[inline(always)]
    fn splat_i32(self, value: i32) -> I32x8 {
        I32x8(avx2!(_mm256_set1_epi32(value)))
    }
    #[inline(always)]
    fn load(self, from: &[f32; GROUP], at: usize) -> F32x8 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 8 float32, any alignment; the token proves the feature.
        F32x8(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    fn store(self, value: F32x8, to: &mut [f32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 8 float32 that we may write, any alignment; the token proves the feature.
        unsafe { _mm256_storeu_ps(to, value.0) }
    }
    #[inline(always)]
    fn load_i32(self, from: &[i32; GROUP], at: usize) -> I32x8 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 8 integers of 32 bits, any alignment; the token proves the feature.
        I32x8(unsafe { _mm256_loadu_si256(from.cast()) })
    }
    #[inline(always)]
    fn store_i32(self, value: I32x8, to: &mut [i32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 8 integers of 32 bits that we may write, any alignment; the token
        // proves the feature.
        unsafe { _mm256_storeu_si256(to.cast(), value.0) }
    }
    #[inline(always)]
    fn load_high(self, from: &[u16; GROUP], at: usize) -> I32x8 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 8 integers of 16 bits, any alignment; the token proves the features.
        let both = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())) };
        // All eight are in both halves of the vector; each keeps four. A negative index makes a zero.
        I32x8(avx2!({
            let (low, high) = (0x0302_ffff_0100_ffff, 0x0706_ffff_0504_ffff);
            let shift = 0x0808_0000_0808_0000;
            let order = _mm256_setr_epi64x(low, high, low + shift, high + shift);
            _mm256_shuffle_epi8(both, order)
        }))
    }
    #[inline(always)]
    fn store_high(self, value: I32x8, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // Shuffling works within halves of the vector; bringing the halves together comes after.
        let packed = avx2!({
            let order = _mm256_set1_epi64x(0x0f0e_0b0a_0706_0302);
            let packed = _mm256_shuffle_epi8(value.0, order);
            _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
        });
        // SAFETY: `to` points at 8 integers of 16 bits that we may write, any alignment.
        unsafe { _mm_storeu_si128(to.cast(), packed) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; GROUP], at: usize) -> F32x8 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 8 half precision numbers, any alignment; the token proves F16C.
        F32x8(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    fn store_f16(self, value: F32x8, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        let halves = avx2!(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0));
        // SAFETY: `to` points at 8 half precision numbers that we may write, any alignment.
        unsafe { _mm_storeu_si128(to.cast(), halves) }
    }
    #[inline(always)]
    fn load_f64(self, from: &[f64; GROUP], at: usize) -> F64Lanes<8> {
        F64Lanes::load(from, at)
    }
    #[inline(always)]
    fn store_f64(self, value: F64Lanes<8>, to: &mut [f64; GROUP], at: usize) {
        value.store(to, at);
    }
    #[inline(always)]
    fn widen(self, value: F32x8) -> F64Lanes<8> {
        let mut lanes = [0.0; 8];
        // SAFETY: `lanes` has room for 8 float32; the token proves the feature.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), value.0) };
        let mut wide = [0.0; 8];
        for (wide, lane) in wide.iter_mut().zip(lanes) {
            *wide = f64::from(lane);
        }
        F64Lanes(wide)
    }
    #[inline(always)]
    fn narrow(self, value: F64Lanes<8>) -> F32x8 {
        let mut lanes = [0.0; 8];
        for (lane, wide) in lanes.iter_mut().zip(value.0) {
            *lane = wide as f32;
        }
        // SAFETY: `lanes` holds 8 float32; the token proves the feature.
        F32x8(unsafe { _mm256_loadu_ps(lanes.as_ptr()) })
    }

    // Eight scalar loads beat the gather instruction, which takes 39 micro-operations on Zen 3. They
    // are joined as a tree: the compiler's own way, a chain of insertions, takes a third longer. Codes
    // come as integers of 32 bits, since loads are what a processor has fewest of here.
    #[inline(always)]
    fn decode(self, table: &Table, scale: F32x8, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        let table = &table.values;
        for (codes, to) in codes.iter().zip(to) {
            for at in 0..GROUP / Self::LANES {
                let mut halves = [avx2!(_mm_setzero_ps()); 2];
                for (half, codes) in halves.iter_mut().zip(part(codes, at).as_chunks().0) {
                    let codes = u32::from_le_bytes(*codes);
                    let [a, b] =
                        [table[(codes & 255) as usize], table[(codes >> 8 & 255) as usize]];
                    let [c, d] =
                        [table[(codes >> 16 & 255) as usize], table[(codes >> 24) as usize]];
                    let low = keep(avx2!(_mm_setr_ps(a, b, 0.0, 0.0)));
                    let high = keep(avx2!(_mm_setr_ps(c, d, 0.0, 0.0)));
                    *half = avx2!(_mm_movelh_ps(low, high));
                }
                let values = F32x8(avx2!(_mm256_set_m128(halves[1], halves[0])));
                self.store(values * scale, &mut to.0, at);
            }
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; GROUP], at: usize) -> I32x8 {
        let codes = part(codes, at).as_ptr();
        // SAFETY: `codes` points at 8 bytes, any alignment; the token proves the feature.
        I32x8(unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.cast())) })
    }
    #[inline(always)]
    fn load_signed_codes(self, codes: &[u8; GROUP], at: usize) -> I32x8 {
        let codes = part(codes, at).as_ptr();
        // SAFETY: `codes` points at 8 bytes, any alignment; the token proves the feature.
        I32x8(unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(codes.cast())) })
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
            let ([ab, cd], signs) = (self.levels_above(levels, zero), self.pack_signs(values));
            let packed = avx2!({
                let level = _mm256_packus_epi16(ab, cd);
                match packing {
                    Packing::Level => level,
                    Packing::UnlessZero => {
                        let none = _mm256_cmpeq_epi8(signs, _mm256_setzero_si256());
                        _mm256_andnot_si256(none, level)
                    }
                    // Seldom is a second moment so far below the largest one of its block.
                    Packing::Above if self.has_no_zero(level) => level,
                    Packing::Above => {
                        _mm256_max_epu8(level, _mm256_min_epu8(signs, _mm256_set1_epi8(1)))
                    }
                    Packing::AroundZero => {
                        let zero = _mm256_set1_epi8(ZERO_CODE as i8);
                        let up = _mm256_adds_epu8(zero, level);
                        _mm256_blendv_epi8(up, _mm256_subs_epu8(zero, level), signs)
                    }
                    Packing::SignBit => {
                        let sign = _mm256_and_si256(signs, _mm256_set1_epi8(i8::MIN));
                        _mm256_or_si256(_mm256_packs_epi16(ab, cd), sign)
                    }
                }
            });
            self.store_packed(packed, codes);
        }
    }
    #[inline(always)]
    fn lookup8(self, table: &[f32; 8], index: I32x8) -> F32x8 {
        // SAFETY: `table` holds 8 float32; the token proves the features.
        F32x8(unsafe { _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index.0) })
    }
    #[inline(always)]
    fn lookup8_i32(self, table: &[i32; 8], index: I32x8) -> I32x8 {
        // SAFETY: `table` holds 8 integers of 32 bits; the token proves the features.
        I32x8(unsafe {
            _mm256_permutevar8x32_epi32(_mm256_loadu_si256(table.as_ptr().cast()), index.0)
        })
    }

    #[inline(always)]
    fn max_abs(self, a: F32x8, b: F32x8) -> F32x8 {
        a.abs().max(b)
    }
    #[inline(always)]
    fn bits(self, value: F32x8) -> I32x8 {
        I32x8(avx2!(_mm256_castps_si256(value.0)))
    }
    #[inline(always)]
    fn with_bits(self, value: I32x8) -> F32x8 {
        F32x8(avx2!(_mm256_castsi256_ps(value.0)))
    }
    #[inline(always)]
    fn round(self, value: F32x8) -> I32x8 {
        I32x8(avx2!(_mm256_cvtps_epi32(value.0)))
    }
    #[inline(always)]
    fn to_f32(self, value: I32x8) -> F32x8 {
        F32x8(avx2!(_mm256_cvtepi32_ps(value.0)))
    }
    #[inline(always)]
    fn keep_where_greater(self, value: I32x8, a: F32x8, b: F32x8) -> I32x8 {
        I32x8(avx2!({
            let greater = _mm256_cmp_ps::<_CMP_LT_OQ>(b.0, a.0);
            _mm256_and_si256(_mm256_castps_si256(greater), value.0)
        }))
    }
    #[inline(always)]
    fn minus_where_negative(self, of: I32x8, value: F32x8) -> F32x8 {
        F32x8(avx2!({
            let sign = _mm256_and_ps(_mm256_castsi256_ps(of.0), _mm256_set1_ps(-0.0));
            _mm256_xor_ps(value.0, sign)
        }))
    }

    #[inline(always)]
    fn add_i32(self, a: I32x8, b: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_add_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn mul_i32(self, a: I32x8, b: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_mullo_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn and_i32(self, a: I32x8, b: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_and_si256(a.0, b.0)))
    }
    #[inline(always)]
    fn xor_i32(self, a: I32x8, b: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_xor_si256(a.0, b.0)))
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, value: I32x8) -> I32x8 {
        // A constant count in a register compiles to the immediate form.
        I32x8(avx2!(_mm256_srl_epi32(value.0, _mm_cvtsi32_si128(N as i32))))
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, value: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_sll_epi32(value.0, _mm_cvtsi32_si128(N as i32))))
    }
    #[inline(always)]
    fn max_u32(self, a: I32x8, b: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_max_epu32(a.0, b.0)))
    }
    #[inline(always)]
    fn select_nan(self, of: F32x8, yes: I32x8, no: I32x8) -> I32x8 {
        I32x8(avx2!({
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(of.0, of.0);
            _mm256_blendv_epi8(no.0, yes.0, _mm256_castps_si256(nan))
        }))
    }
    #[inline(always)]
    fn select_greater(self, a: I32x8, b: I32x8, yes: I32x8, no: I32x8) -> I32x8 {
        I32x8(avx2!(_mm256_blendv_epi8(no.0, yes.0, _mm256_cmpgt_epi32(a.0, b.0))))
    }
    #[inline(always)]
    fn reduce_max(self, value: I32x8) -> u32 {
        avx2!({
            let (low, high) =
                (_mm256_castsi256_si128(value.0), _mm256_extracti128_si256::<1>(value.0));
            let four = _mm_max_epu32(low, high);
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
            _mm_cvtsi128_si32(one) as u32
        })
    }
}
