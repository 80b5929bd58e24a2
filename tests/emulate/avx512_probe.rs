//! Proof that AVX-512 instructions are executed, for `avx512.sh`: each kind that the kernels rest on
//! must give what plain Rust gives.
//!
//! An emulator can announce an instruction set and lack or misread an instruction of it. This
//! program tells such a fault from one of ours, in a second, before the long tests start. A fault
//! in conversions to half precision, which only one dtype needs, is the exit code 3: `avx512_init.sh`
//! then leaves the steps of that dtype out.

use std::arch::x86_64::*;

const LANES: usize = 16;

fn main() {
    macro_rules! require {
        ($($feature:tt),*) => {
            $(assert!(is_x86_feature_detected!($feature), concat!("this CPU lacks ", $feature));)*
        };
    }
    require!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx2", "fma", "f16c");
    // SAFETY: the features were found just above.
    let rounds = unsafe {
        probe();
        probe_half()
    };
    println!("probe: AVX-512 F, BW, DQ, VL and VBMI instructions agree with plain Rust");
    std::process::exit(if rounds { 0 } else { 3 });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx2,fma,f16c")]
fn probe() {
    let x: [f32; LANES] = std::array::from_fn(|i| (i as f32 - 7.5) * 1.75 + 0.25);
    let words: [i32; LANES] = std::array::from_fn(|i| (i as i32 - 4) * 0x0123_4567 >> (i % 5 * 6));
    let bytes: [u8; 64] = std::array::from_fn(|i| (i * 37 + 11) as u8);

    // SAFETY: each load reads 64 bytes, which is the size of the array.
    let (vx, vwords, vbytes) = unsafe {
        (
            _mm512_loadu_ps(x.as_ptr()),
            _mm512_loadu_si512(words.as_ptr().cast()),
            _mm512_loadu_si512(bytes.as_ptr().cast()),
        )
    };

    // F: narrowing with unsigned saturation; the minimum keeps the lanes non-negative.
    let narrowed = _mm512_cvtusepi32_epi8(_mm512_max_epi32(vwords, _mm512_setzero_si512()));
    let mut codes = [0_u8; LANES];
    // SAFETY: the store writes 16 bytes, the size of the array.
    unsafe { _mm_storeu_si128(codes.as_mut_ptr().cast(), narrowed) };
    assert_eq!(codes, words.map(|word| word.clamp(0, 255) as u8), "vpmovusdb");

    // F: rounding to integers, ties to even.
    let rounded = ints_of(_mm512_cvtps_epi32(vx));
    assert_eq!(rounded, x.map(|x| x.round_ties_even() as i32), "vcvtps2dq");

    // BW: the high half of a product of 16-bit integers.
    let high = bytes_of(_mm512_mulhi_epu16(vbytes, vwords));
    let expected: [u16; 32] = std::array::from_fn(|i| {
        let a = u32::from(bytes[2 * i]) | u32::from(bytes[2 * i + 1]) << 8;
        let b = words[i / 2] as u32 >> (i % 2 * 16) & 0xffff;
        (a * b >> 16) as u16
    });
    let expected: [u8; 64] = std::array::from_fn(|i| expected[i / 2].to_le_bytes()[i % 2]);
    assert_eq!(high, expected, "vpmulhuw");

    // VBMI and BW: bytes looked up, where the sign bit of a byte is set.
    let set = _mm512_movepi8_mask(vbytes);
    let found = bytes_of(_mm512_mask_permutexvar_epi8(vwords, set, vbytes, vbytes));
    let words_bytes: [u8; 64] = std::array::from_fn(|i| words[i / 4].to_le_bytes()[i % 4]);
    let expected = std::array::from_fn(|i| match bytes[i] {
        byte if byte < 128 => words_bytes[i],
        byte => bytes[usize::from(byte % 64)],
    });
    assert_eq!(found, expected, "vpmovb2m, vpermb with a mask");

    // DQ and F: sign bits as a mask, and masked operations.
    let negative = _mm512_movepi32_mask(_mm512_castps_si512(vx));
    let negated = ints_of(_mm512_mask_sub_epi32(vwords, negative, _mm512_setzero_si512(), vwords));
    let expected = std::array::from_fn(|i| if x[i] < 0.0 { -words[i] } else { words[i] });
    assert_eq!(negated, expected, "vpmovd2m, vpsubd with a mask");
    let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(vx, _mm512_set1_ps(2.0));
    let kept = ints_of(_mm512_maskz_mov_epi32(greater, vwords));
    let expected = std::array::from_fn(|i| if x[i] > 2.0 { words[i] } else { 0 });
    assert_eq!(kept, expected, "vcmpps, vmovdqa32 with a zeroing mask");

    // F: fused multiply-add, division and square root, all rounded once; subnormal results too.
    let fused = floats_of(_mm512_fmadd_ps(vx, vx, _mm512_set1_ps(-1.0e-3)));
    assert_eq!(fused, x.map(|x| x.mul_add(x, -1.0e-3)), "vfmadd");
    let divided = floats_of(_mm512_div_ps(vx, _mm512_set1_ps(3.0e38)));
    assert_eq!(divided, x.map(|x| x / 3.0e38), "vdivps to subnormals");
    let root = floats_of(_mm512_sqrt_ps(_mm512_abs_ps(vx)));
    assert_eq!(root, x.map(|x| x.abs().sqrt()), "vsqrtps");

    // VL: a mask on a vector of 256 bits.
    let low = _mm512_castsi512_si256(vwords);
    let mut lanes = [0_i32; 8];
    // SAFETY: the store writes 32 bytes, the size of the array.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), _mm256_maskz_mov_epi32(0xa5, low)) };
    let expected = std::array::from_fn(|i| if 0xa5 >> i & 1 == 1 { words[i] } else { 0 });
    assert_eq!(lanes, expected, "vmovdqa32 of 256 bits with a zeroing mask");
}

/// Whether conversions to half precision round as IEEE 754 says: all numbers of it, the middle
/// between each and the next, and what is next to the middle. Prints what is wrong.
#[target_feature(enable = "avx512f")]
fn probe_half() -> bool {
    let mut wrong = Vec::new();
    let mut n = 0;
    for half in 0..0x7c00_u16 {
        let (low, high) = (widen(half), widen(half + 1));
        let middle = if half == 0x7bff { 65520.0 } else { (low + high) / 2.0 };
        let around = [low, middle, middle.next_down(), middle.next_up()];
        let values: [f32; LANES] = std::array::from_fn(|i| around[i % 4]);
        // SAFETY: the load reads 64 bytes, which is the size of the array.
        let vector = unsafe { _mm512_loadu_ps(values.as_ptr()) };
        let mut found = [0_u16; LANES];
        let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(vector);
        // SAFETY: the store writes 32 bytes, the size of the array.
        unsafe { _mm256_storeu_si256(found.as_mut_ptr().cast(), halves) };
        let even = half + half % 2;
        for (i, expected) in [half, even, half, half + 1].into_iter().enumerate() {
            n += 1;
            if found[i] != expected {
                wrong.push((around[i], found[i], expected));
            }
        }
    }
    if let Some((value, found, expected)) = wrong.first() {
        println!(
            "probe: vcvtps2ph is wrong for {} of {n} numbers: {value:e} is {found:#06x}, \
             expected {expected:#06x}",
            wrong.len()
        );
    }
    wrong.is_empty()
}

/// The value of a number of half precision that is not negative.
fn widen(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10), f32::from(half & 0x3ff));
    match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        _ => (1024.0 + fraction) * 2.0_f32.powi(exponent - 25),
    }
}

/// The lanes as float32.
#[target_feature(enable = "avx512f")]
fn floats_of(value: __m512) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    // SAFETY: the store writes 64 bytes, the size of the array.
    unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), value) };
    lanes
}

/// The lanes as 32-bit integers.
#[target_feature(enable = "avx512f")]
fn ints_of(value: __m512i) -> [i32; LANES] {
    let mut lanes = [0; LANES];
    // SAFETY: the store writes 64 bytes, the size of the array.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), value) };
    lanes
}

/// The lanes as bytes.
#[target_feature(enable = "avx512f")]
fn bytes_of(value: __m512i) -> [u8; 64] {
    let mut lanes = [0; 64];
    // SAFETY: the store writes 64 bytes, the size of the array.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), value) };
    lanes
}
