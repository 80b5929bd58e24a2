//! The reference: vectors of one element, in plain Rust.
//!
//! It is what every other instruction set is tested against, and what runs where none of them is.

use super::{Aligned, GROUP, Kernel, Packing, Pair, Simd, Table, ZERO_CODE, opaque};
use half::f16;

/// The token of no instruction set at all, which every CPU has.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Simd for Scalar {
    const LANES: usize = 1;
    type F32 = f32;
    type I32 = i32;
    type F64 = f64;

    #[inline]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn splat_i32(self, value: i32) -> i32 {
        value
    }
    #[inline(always)]
    fn load(self, from: &[f32; GROUP], at: usize) -> f32 {
        from[at]
    }
    #[inline(always)]
    fn store(self, value: f32, to: &mut [f32; GROUP], at: usize) {
        to[at] = value;
    }
    #[inline(always)]
    fn load_i32(self, from: &[i32; GROUP], at: usize) -> i32 {
        from[at]
    }
    #[inline(always)]
    fn store_i32(self, value: i32, to: &mut [i32; GROUP], at: usize) {
        to[at] = value;
    }
    #[inline(always)]
    fn load_high(self, from: &[u16; GROUP], at: usize) -> i32 {
        i32::from(from[at]) << 16
    }
    #[inline(always)]
    fn store_high(self, value: i32, to: &mut [u16; GROUP], at: usize) {
        to[at] = (value >> 16) as u16;
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; GROUP], at: usize) -> f32 {
        f16::from_bits(from[at]).to_f32()
    }
    #[inline(always)]
    fn store_f16(self, value: f32, to: &mut [u16; GROUP], at: usize) {
        to[at] = f16::from_f32(value).to_bits();
    }
    #[inline(always)]
    fn load_f64(self, from: &[f64; GROUP], at: usize) -> f64 {
        from[at]
    }
    #[inline(always)]
    fn store_f64(self, value: f64, to: &mut [f64; GROUP], at: usize) {
        to[at] = value;
    }
    #[inline(always)]
    fn widen(self, value: f32) -> f64 {
        f64::from(value)
    }
    #[inline(always)]
    fn narrow(self, value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn decode(self, table: &Table, scale: f32, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        for (codes, to) in codes.iter().zip(to) {
            for (&code, to) in codes.iter().zip(&mut to.0) {
                *to = table.values[usize::from(code)] * scale;
            }
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; GROUP], at: usize) -> i32 {
        i32::from(codes[at])
    }
    #[inline(always)]
    fn load_signed_codes(self, codes: &[u8; GROUP], at: usize) -> i32 {
        i32::from(codes[at] as i8)
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
            for (at, code) in codes.iter_mut().enumerate() {
                let at = opaque(at); // unrolled, this loop is large and no faster
                let (level, value) = (levels[at], values[at]);
                let level = level.saturating_sub(zero.into()).clamp(0, 255) as u8;
                *code = match packing {
                    Packing::Level => level,
                    Packing::UnlessZero => u8::from(value > 0.0) * level,
                    Packing::Above => level.max(u8::from(value > 0.0)),
                    Packing::AroundZero => {
                        if value.is_sign_negative() {
                            ZERO_CODE.saturating_sub(level)
                        } else {
                            ZERO_CODE.saturating_add(level)
                        }
                    }
                    Packing::SignBit => level.min(127) | u8::from(value.is_sign_negative()) << 7,
                };
            }
        }
    }
    #[inline(always)]
    fn lookup8(self, table: &[f32; 8], index: i32) -> f32 {
        table[index as usize % 8]
    }
    #[inline(always)]
    fn lookup8_i32(self, table: &[i32; 8], index: i32) -> i32 {
        table[index as usize % 8]
    }

    #[inline(always)]
    fn max_abs(self, a: f32, b: f32) -> f32 {
        if a.abs() > b { a.abs() } else { b }
    }
    #[inline(always)]
    fn bits(self, value: f32) -> i32 {
        value.to_bits() as i32
    }
    #[inline(always)]
    fn with_bits(self, value: i32) -> f32 {
        f32::from_bits(value as u32)
    }
    #[inline(always)]
    fn round(self, value: f32) -> i32 {
        value.round_ties_even() as i32
    }
    #[inline(always)]
    fn to_f32(self, value: i32) -> f32 {
        value as f32
    }
    #[inline(always)]
    fn keep_where_greater(self, value: i32, a: f32, b: f32) -> i32 {
        if a > b { value } else { 0 }
    }
    #[inline(always)]
    fn minus_where_negative(self, of: i32, value: f32) -> f32 {
        if of < 0 { -value } else { value }
    }

    #[inline(always)]
    fn add_i32(self, a: i32, b: i32) -> i32 {
        a.wrapping_add(b)
    }
    #[inline(always)]
    fn mul_i32(self, a: i32, b: i32) -> i32 {
        a.wrapping_mul(b)
    }
    #[inline(always)]
    fn and_i32(self, a: i32, b: i32) -> i32 {
        a & b
    }
    #[inline(always)]
    fn xor_i32(self, a: i32, b: i32) -> i32 {
        a ^ b
    }
    #[inline(always)]
    fn shift_right<const N: u32>(self, value: i32) -> i32 {
        (value as u32 >> N) as i32
    }
    #[inline(always)]
    fn shift_left<const N: u32>(self, value: i32) -> i32 {
        value << N
    }
    #[inline(always)]
    fn max_u32(self, a: i32, b: i32) -> i32 {
        (a as u32).max(b as u32) as i32
    }
    #[inline(always)]
    fn select_nan(self, of: f32, yes: i32, no: i32) -> i32 {
        if of.is_nan() { yes } else { no }
    }
    #[inline(always)]
    fn select_greater(self, a: i32, b: i32, yes: i32, no: i32) -> i32 {
        if a > b { yes } else { no }
    }
    #[inline(always)]
    fn reduce_max(self, value: i32) -> u32 {
        value as u32
    }
}
