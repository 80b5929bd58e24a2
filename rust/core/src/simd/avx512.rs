//! AVX-512 F, BW, DQ, VL and VBMI: vectors of 16. (CPUs with AVX-512 but without VBMI, from Skylake to
//! Cooper Lake, use AVX2.)
//!
//! Every method but `decode` is a wrapper of a few intrinsics. They are sound because a vector or a token
//! of this file exists only where [`Avx512::detect`] has found the features.
//!
//! **The budget.** A step of AdamW has, for 64 elements, 129 vector operations with the codec `minifloat`
//! (36 decode both states, 44 update, 49 encode both) and some 300 with `dynamic`. Of the 44, four are
//! square roots and four divisions, which have a unit of their own.
//!
//! A Xeon (Emerald Rapids) has two units for the rest. With 54 operations more than today, it took, in the
//! cache, 96 cycles in which codes were decoded and parameters updated, for 24 of them a vector in the
//! divider; some 40 in which states were encoded; and 20 where batches began and ended. Tried there without
//! gain: to encode a block beside the update of the next one, turn by turn or in one piece; to place the
//! batch so that no two streams are at the same offset in their pages. To take square roots while decoding,
//! and to divide and write the parameters while encoding, so that neither waits for the divider: 2 to 7 % in
//! the cache, nothing from memory, and every rule would be in two parts. Square roots by an approximation
//! and Newton's steps, exact for every mantissa: nothing, as the two units are as busy then.
//!
//! A Zen 5 has four units. With all it needs in the first-level cache, its loops take 30 cycles for the update
//! with decoding, in which the divider is busy (25 without roots and divisions), and 7 and 8 to encode the
//! states. A step takes 64: the rest is what a batch costs to begin and to end, and what waits for the
//! second-level cache. Tried without gain: roots and divisions beside encoding; two or four vectors at each
//! step of the formula; packing by `vpmultishiftqb`, of whose masks the compiler makes instructions of their own.

use super::{F64Lanes, GROUP, Kernel, Packing, Pair, Simd, Table, ZERO_CODE};
use crate::real::Real;
use core::arch::x86_64::*;

/// The proof that the CPU has AVX-512 F, BW, DQ, VL and VBMI, and what AVX2's level needs.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The token, if the CPU has the features.
    pub(super) fn detect() -> Option<Self> {
        let found = super::avx2::Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi");
        found.then_some(Self(()))
    }
}

/// Lanes of float32.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// Lanes of 32-bit integers.
#[derive(Clone, Copy)]
pub(crate) struct I32x16(__m512i);

/// Calls intrinsics in a method of a token or vector.
macro_rules! avx512 {
    ($body:expr) => {
        // SAFETY: `self` is, or was made with, a token that only `Avx512::detect` makes, so the CPU
        // has the features of the intrinsics; they take and return values, not pointers.
        unsafe { $body }
    };
}

operators!(F32x16, avx512: _mm512_add_ps, _mm512_sub_ps, _mm512_mul_ps, _mm512_div_ps);

impl Real for F32x16 {
    #[inline(always)]
    fn like(self, value: f64) -> Self {
        Self(avx512!(_mm512_set1_ps(value as f32)))
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        Self(avx512!(_mm512_fmadd_ps(self.0, a.0, b.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(avx512!(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(avx512!(_mm512_max_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(avx512!(_mm512_min_ps(self.0, other.0)))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(avx512!(_mm512_abs_ps(self.0)))
    }
    #[inline(always)]
    fn where_positive(self, test: Self) -> Self {
        Self(avx512!({
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(test.0, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(positive, self.0)
        }))
    }
}

/// The vector `at` of a group, as a slice of its elements.
#[inline(always)]
fn part<T>(group: &[T; GROUP], at: usize) -> &[T] {
    &group[at * Avx512::LANES..(at + 1) * Avx512::LANES]
}

/// The vector `at` of a group, to be written.
#[inline(always)]
fn part_mut<T>(group: &mut [T; GROUP], at: usize) -> &mut [T] {
    &mut group[at * Avx512::LANES..(at + 1) * Avx512::LANES]
}

impl Avx512 {
    /// The bytes of a table, to be looked up.
    #[inline(always)]
    fn bytes(self, table: &Table) -> [[__m512i; 4]; 4] {
        let mut vectors = [[avx512!(_mm512_setzero_si512()); 4]; 4];
        for (vectors, bytes) in vectors.iter_mut().zip(&table.bytes) {
            for (vector, bytes) in vectors.iter_mut().zip(bytes.as_chunks::<64>().0) {
                // SAFETY: `bytes` points at 64 bytes; the token proves the feature.
                *vector = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            }
        }
        vectors
    }

    /// `table[code]` for 64 codes.
    ///
    /// A permutation of bytes looks up 64 codes in 64 entries, and a mask keeps those whose code is
    /// among these; so 16 of them find all four bytes of the values, which then are put together. That
    /// is 34 operations, where four gathers take a hundred, and many more where they are slowed down
    /// because of the leaks found in 2023.
    #[inline(always)]
    fn look_up(self, table: &[[__m512i; 4]; 4], codes: __m512i) -> [F32x16; 4] {
        avx512!({
            // Putting together works within quarters of the vector, four codes of each in turn.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            let codes = _mm512_permutexvar_epi32(order, codes);
            // Which half of the table, which quarter of a half, and the last quarter.
            let half = _mm512_movepi8_mask(codes);
            let quarter = _mm512_movepi8_mask(_mm512_add_epi8(codes, codes));
            let last = half & quarter;
            let mut bytes = [_mm512_setzero_si512(); 4];
            for (bytes, [a, b, c, d]) in bytes.iter_mut().zip(table) {
                let found = _mm512_permutexvar_epi8(codes, *a);
                let found = _mm512_mask_permutexvar_epi8(found, quarter, codes, *b);
                let found = _mm512_mask_permutexvar_epi8(found, half, codes, *c);
                *bytes = _mm512_mask_permutexvar_epi8(found, last, codes, *d);
            }
            let [a, b, c, d] = bytes;
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpacklo_epi8(c, d));
            let (first, second) =
                (_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high));
            let (low, high) = (_mm512_unpackhi_epi8(a, b), _mm512_unpackhi_epi8(c, d));
            let (third, fourth) =
                (_mm512_unpacklo_epi16(low, high), _mm512_unpackhi_epi16(low, high));
            [first, second, third, fourth].map(|bits| F32x16(_mm512_castsi512_ps(bits)))
        })
    }
}

impl Avx512 {
    /// The levels of two groups above that of zero, as words.
    #[inline(always)]
    fn levels_above(self, levels: &Pair<i32>, zero: i16) -> [__m512i; 2] {
        let [a, b, c, d] = core::array::from_fn(|i| self.load_i32(&levels[i / 2].0, i % 2).0);
        avx512!({
            let zero = _mm512_set1_epi16(zero);
            let words = [_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)];
            words.map(|words| _mm512_subs_epi16(words, zero))
        })
    }

    /// Signed bytes, in the order that packing gives levels too: negative where the sign bit of a value is
    /// set, 0 where it is 0, and otherwise positive. Floats are so as integers too, and saturate.
    #[inline(always)]
    fn pack_signs(self, values: &Pair<f32>) -> __m512i {
        let bits = |i: usize| self.bits(self.load(&values[i / 2].0, i % 2)).0;
        let [a, b, c, d] = core::array::from_fn(bits);
        avx512!(_mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)))
    }

    /// Writes what has been packed.
    #[inline(always)]
    fn store_packed(self, bytes: __m512i, to: &mut [[u8; GROUP]; 2]) {
        let bytes = avx512!({
            // Each quarter of the vector holds four bytes of each of the four vectors in turn.
            let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            _mm512_permutexvar_epi32(order, bytes)
        });
        // SAFETY: `to` has room for 64 bytes, any alignment; the token proves the feature.
        unsafe { _mm512_storeu_si512(to.as_flattened_mut().as_mut_ptr().cast(), bytes) }
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const DECODES_IN_LOOP: bool = true;
    type F32 = F32x16;
    type I32 = I32x16;
    type F64 = F64Lanes<16>;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi",
            enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt"
        )]
        #[inline]
        fn with_features<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: the token proves the features.
        unsafe { with_features(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> F32x16 {
        F32x16(avx512!(_mm512_set1_ps(value)))
    }
    #[inline(always)]
    fn splat_i32(self, value: i32) -> I32x16 {
        I32x16(avx512!(_mm512_set1_epi32(value)))
    }
    #[inline(always)]
    fn load(self, from: &[f32; GROUP], at: usize) -> F32x16 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 16 float32, any alignment; the token proves the feature.
        F32x16(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    fn store(self, value: F32x16, to: &mut [f32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 16 float32 that we may write, any alignment; the token proves the feature.
        unsafe { _mm512_storeu_ps(to, value.0) }
    }
    #[inline(always)]
    fn load_i32(self, from: &[i32; GROUP], at: usize) -> I32x16 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 16 integers of 32 bits, any alignment; the token proves the feature.
        I32x16(unsafe { _mm512_loadu_si512(from.cast()) })
    }
    #[inline(always)]
    fn store_i32(self, value: I32x16, to: &mut [i32; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        // SAFETY: `to` points at 16 integers of 32 bits that we may write, any alignment; the token
        // proves the feature.
        unsafe { _mm512_storeu_si512(to.cast(), value.0) }
    }
    #[inline(always)]
    fn load_high(self, from: &[u16; GROUP], at: usize) -> I32x16 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 16 integers of 16 bits, any alignment; the token proves the features.
        let from = unsafe { _mm256_loadu_si256(from.cast()) };
        // One masked permutation of words would do, but the compiler makes the three of another of it.
        I32x16(avx512!(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(from))))
    }
    #[inline(always)]
    fn store_high(self, value: I32x16, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        let packed = avx512!({
            // Two of them for each lane of the result, whose second half is not used.
            let order = _mm512_setr_epi32(
                0x0003_0001,
                0x0007_0005,
                0x000b_0009,
                0x000f_000d,
                0x0013_0011,
                0x0017_0015,
                0x001b_0019,
                0x001f_001d,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
            );
            _mm512_castsi512_si256(_mm512_permutexvar_epi16(order, value.0))
        });
        // SAFETY: `to` points at 16 integers of 16 bits that we may write, any alignment.
        unsafe { _mm256_storeu_si256(to.cast(), packed) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; GROUP], at: usize) -> F32x16 {
        let from = part(from, at).as_ptr();
        // SAFETY: `from` points at 16 half precision numbers, any alignment; the token proves the feature.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    fn store_f16(self, value: F32x16, to: &mut [u16; GROUP], at: usize) {
        let to = part_mut(to, at).as_mut_ptr();
        let halves = avx512!(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value.0));
        // SAFETY: `to` points at 16 half precision numbers that we may write, any alignment.
        unsafe { _mm256_storeu_si256(to.cast(), halves) }
    }
    #[inline(always)]
    fn load_f64(self, from: &[f64; GROUP], at: usize) -> F64Lanes<16> {
        F64Lanes::load(from, at)
    }
    #[inline(always)]
    fn store_f64(self, value: F64Lanes<16>, to: &mut [f64; GROUP], at: usize) {
        value.store(to, at);
    }
    #[inline(always)]
    fn widen(self, value: F32x16) -> F64Lanes<16> {
        let mut lanes = [0.0; 16];
        // SAFETY: `lanes` has room for 16 float32; the token proves the feature.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), value.0) };
        let mut wide = [0.0; 16];
        for (wide, lane) in wide.iter_mut().zip(lanes) {
            *wide = f64::from(lane);
        }
        F64Lanes(wide)
    }
    #[inline(always)]
    fn narrow(self, value: F64Lanes<16>) -> F32x16 {
        let mut lanes = [0.0; 16];
        for (lane, wide) in lanes.iter_mut().zip(value.0) {
            *lane = wide as f32;
        }
        // SAFETY: `lanes` holds 16 float32; the token proves the feature.
        F32x16(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
    }

    #[inline(always)]
    fn decode(self, table: &Table, scale: F32x16, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        let codes = codes.as_flattened().as_ptr();
        // SAFETY: `codes` points at 64 bytes, any alignment; the token proves the feature.
        let codes = unsafe { _mm512_loadu_si512(codes.cast()) };
        let values = self.look_up(&self.bytes(table), codes);
        for (at, values) in values.into_iter().enumerate() {
            self.store(values * scale, &mut to[at / 2].0, at % 2);
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; GROUP], at: usize) -> I32x16 {
        let codes = part(codes, at).as_ptr();
        // SAFETY: `codes` points at 16 bytes, any alignment; the token proves the feature.
        I32x16(unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.cast())) })
    }
    #[inline(always)]
    fn load_signed_codes(self, codes: &[u8; GROUP], at: usize) -> I32x16 {
        let codes = part(codes, at).as_ptr();
        // SAFETY: `codes` points at 16 bytes, any alignment; the token proves the feature.
        I32x16(unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(codes.cast())) })
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
        let ([ab, cd], signs) = (self.levels_above(levels, zero), self.pack_signs(values));
        let packed = avx512!({
            let level = _mm512_packus_epi16(ab, cd);
            match packing {
                Packing::Level => level,
                Packing::UnlessZero => {
                    _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(signs, signs), level)
                }
                // Seldom is a second moment so far below the largest one of its block.
                Packing::Above if _mm512_testn_epi8_mask(level, level) == 0 => level,
                Packing::Above => {
                    let above = _mm512_test_epi8_mask(signs, signs);
                    _mm512_mask_max_epu8(level, above, level, _mm512_set1_epi8(1))
                }
                Packing::AroundZero => {
                    let zero = _mm512_set1_epi8(ZERO_CODE as i8);
                    let up = _mm512_adds_epu8(zero, level);
                    _mm512_mask_subs_epu8(up, _mm512_movepi8_mask(signs), zero, level)
                }
                Packing::SignBit => {
                    // level | signs & 128
                    let (level, sign) = (_mm512_packs_epi16(ab, cd), _mm512_set1_epi8(i8::MIN));
                    _mm512_ternarylogic_epi32::<0xf8>(level, signs, sign)
                }
            }
        });
        self.store_packed(packed, codes);
    }
    #[inline(always)]
    fn lookup8(self, table: &[f32; 8], index: I32x16) -> F32x16 {
        // The permutation reads four bits of the index, so both halves hold the table.
        // SAFETY: `table` holds 8 float32; the token proves the features.
        F32x16(unsafe {
            let table = _mm512_broadcast_f32x8(_mm256_loadu_ps(table.as_ptr()));
            _mm512_permutexvar_ps(index.0, table)
        })
    }
    #[inline(always)]
    fn lookup8_i32(self, table: &[i32; 8], index: I32x16) -> I32x16 {
        // SAFETY: `table` holds 8 integers of 32 bits; the token proves the features.
        I32x16(unsafe {
            let table = _mm512_broadcast_i32x8(_mm256_loadu_si256(table.as_ptr().cast()));
            _mm512_permutexvar_epi32(index.0, table)
        })
    }

    #[inline(always)]
    fn max_abs(self, a: F32x16, b: F32x16) -> F32x16 {
        // The larger magnitude of the two, without its sign.
        F32x16(avx512!(_mm512_range_ps::<0b1011>(a.0, b.0)))
    }
    #[inline(always)]
    fn bits(self, value: F32x16) -> I32x16 {
        I32x16(avx512!(_mm512_castps_si512(value.0)))
    }
    #[inline(always)]
    fn with_bits(self, value: I32x16) -> F32x16 {
        F32x16(avx512!(_mm512_castsi512_ps(value.0)))
    }
    #[inline(always)]
    fn round(self, value: F32x16) -> I32x16 {
        I32x16(avx512!(_mm512_cvtps_epi32(value.0)))
    }
    #[inline(always)]
    fn to_f32(self, value: I32x16) -> F32x16 {
        F32x16(avx512!(_mm512_cvtepi32_ps(value.0)))
    }
    #[inline(always)]
    fn keep_where_greater(self, value: I32x16, a: F32x16, b: F32x16) -> I32x16 {
        I32x16(avx512!({
            let greater = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(b.0, a.0);
            _mm512_maskz_mov_epi32(greater, value.0)
        }))
    }
    #[inline(always)]
    fn minus_where_negative(self, of: I32x16, value: F32x16) -> F32x16 {
        F32x16(avx512!({
            // value ^ of & sign
            let (value, sign) = (_mm512_castps_si512(value.0), _mm512_set1_epi32(i32::MIN));
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0x78>(value, of.0, sign))
        }))
    }

    #[inline(always)]
    fn add_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_add_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn mul_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_mullo_epi32(a.0, b.0)))
    }
    #[inline(always)]
    fn and_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_and_si512(a.0, b.0)))
    }
    #[inline(always)]
    fn xor_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_xor_si512(a.0, b.0)))
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, value: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_srli_epi32::<N>(value.0)))
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, value: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_slli_epi32::<N>(value.0)))
    }
    #[inline(always)]
    fn max_u32(self, a: I32x16, b: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_max_epu32(a.0, b.0)))
    }
    #[inline(always)]
    fn select_nan(self, of: F32x16, yes: I32x16, no: I32x16) -> I32x16 {
        I32x16(avx512!({
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(of.0, of.0);
            _mm512_mask_mov_epi32(no.0, nan, yes.0)
        }))
    }
    #[inline(always)]
    fn select_greater(self, a: I32x16, b: I32x16, yes: I32x16, no: I32x16) -> I32x16 {
        I32x16(avx512!(_mm512_mask_mov_epi32(no.0, _mm512_cmpgt_epi32_mask(a.0, b.0), yes.0)))
    }
    #[inline(always)]
    fn reduce_max(self, value: I32x16) -> u32 {
        avx512!(_mm512_reduce_max_epu32(value.0))
    }
}
