//! Codecs against the definition: a float64 search of the table, for every codec, codebook and
//! instruction set.

use super::{Codec, EncodeBlocks};
use crate::block::QuantizeBlocks;
use crate::layout::Layout;
use crate::rounding::{Rounding, Stream};
use crate::simd::tests::levels_under_test;
use crate::simd::{Ahead, Aligned, GROUP, Level, PAIR};
use proptest::prelude::*;

/// Encodes to nearest a block whose scale is 1.
fn encode(
    level: Level,
    codec: &Codec,
    signed: bool,
    values: &[f32],
    rounding: Rounding,
) -> Vec<u8> {
    let mut pairs = vec![[Aligned([0.0; GROUP]); 2]; values.len().div_ceil(PAIR)];
    for (group, chunk) in pairs.as_flattened_mut().iter_mut().zip(values.chunks(GROUP)) {
        group.0[..chunk.len()].copy_from_slice(chunk);
    }
    let mut codes = vec![0; values.len()];
    let block_size = values.len().next_power_of_two().max(PAIR);
    let blocks = EncodeBlocks {
        values: &pairs,
        block_size,
        inverse_scales: &[1.0],
        codes: &mut codes,
        signed,
        rounding,
        ahead: Ahead::NOWHERE,
    };
    codec.encode(level, blocks);
    codes
}

fn stochastic(stream: Stream, first_block: usize) -> Rounding {
    Rounding::Stochastic { stream, first_block }
}

fn codecs() -> Vec<Codec> {
    let mut codecs: Vec<_> =
        Codec::names().map(|name| Codec::builtin(name).expect("in the list")).collect();
    let dynamic = Codec::builtin("dynamic").expect("in the list");
    let values = |signed| dynamic.codebook(signed).values().as_slice();
    codecs.push(Codec::custom("mine", values(true), values(false)).expect("sound tables"));
    codecs
}

/// The values of a codebook from the least to the largest.
fn in_order(table: &[f32; 256]) -> [f32; 256] {
    let mut values = *table;
    values.sort_by(f32::total_cmp);
    values
}

/// Every value of a codebook that is ever a code's, and the floats around every midpoint.
fn critical_values(table: &[f32; 256]) -> Vec<f32> {
    let mut values: Vec<f32> = table.to_vec();
    for pair in in_order(table).windows(2) {
        let middle = f64::midpoint(f64::from(pair[0]), f64::from(pair[1])) as f32;
        for offset in -8_i32..=8 {
            let bits = middle.to_bits() as i32 + offset;
            let value = f32::from_bits(bits as u32);
            values.extend(value.is_finite().then_some(value).filter(|value| value.abs() <= 1.0));
        }
    }
    values
}

/// How far a value lies beyond the midpoint at which its code should change, relative to what a codec may
/// lose there: 1.8e-7 of the midpoint, and a millionth of a step.
fn excess(table: &[f32; 256], value: f32, code: u8) -> f64 {
    let value = f64::from(value);
    let distance = |code: usize| (f64::from(table[code]) - value).abs();
    let nearest = (0..256).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).expect("256 codes");
    if distance(nearest) == distance(usize::from(code)) {
        return 0.0;
    }
    let [nearest, found] = [nearest, usize::from(code)].map(|code| f64::from(table[code]));
    let middle = f64::midpoint(nearest, found);
    (value - middle).abs() / (1.8e-7 * middle.abs() + 1e-6 * (nearest - found).abs())
}

#[test]
fn nearest_codes_are_nearest() {
    for level in levels_under_test() {
        for codec in codecs() {
            for signed in [true, false] {
                let table = codec.codebook(signed).values();
                let mut values = critical_values(table);
                if !signed {
                    values.retain(|&value| value >= 0.0);
                }
                let codes = encode(level, &codec, signed, &values, Rounding::Nearest);
                for (&value, code) in values.iter().zip(codes) {
                    let excess = excess(table, value, code);
                    // The quotient of value and scale adds at most 1.2e-7 to this.
                    assert!(
                        excess < 1.0,
                        "{codec:?} signed={signed} {}: {value:e} became code {code}, {excess} too far past the midpoint",
                        level.name()
                    );
                }
            }
        }
    }
}

#[test]
fn the_largest_is_the_last_code() {
    for codec in codecs() {
        for signed in [true, false] {
            let almost_one = 1.0 - f32::EPSILON / 2.0;
            let values = [1.0, almost_one, 0.0];
            let last = codec.codebook(signed).values().iter().position(|&value| value == 1.0);
            let last = last.expect("every table has a 1") as u8;
            for step in 0..200 {
                let at_random = stochastic(Stream::new(0, 0, 0, step), 0);
                for rounding in [Rounding::Nearest, at_random] {
                    let codes = encode(Level::SCALAR, &codec, signed, &values, rounding);
                    let table = codec.codebook(signed).values();
                    for &code in &codes[..2] {
                        assert!(
                            code >= last && table[usize::from(code)] == 1.0,
                            "{codec:?} {signed}"
                        );
                    }
                    assert_eq!(codes[2], codec.codebook(signed).zero(), "{codec:?} {signed}");
                }
            }
        }
    }
}

#[test]
fn rounding_at_random_keeps_the_expected_value() {
    // One Weyl sequence visits the thresholds evenly, so the mean over n steps is within about 1 / n
    // of the fraction that a value has come from one code to the next.
    let n_steps = 4096;
    for codec in codecs() {
        for signed in [true, false] {
            let table = codec.codebook(signed).values();
            let sorted = in_order(table);
            let mut values = vec![];
            for pair in sorted.windows(2).filter(|pair| pair[0] < pair[1] && pair[1] < 1.0) {
                values.extend([0.25, 0.5, 0.9].map(|f| pair[0] + f * (pair[1] - pair[0])));
            }
            // States that cannot be negative never become zero.
            let smallest = sorted[sorted.partition_point(|&entry| entry <= 0.0)];
            values.retain(|&value| if signed { value.abs() < 0.99 } else { value >= smallest });
            let mut sums = vec![0.0; values.len()];
            for step in 0..n_steps {
                let rounding = stochastic(Stream::new(7, 3, 1, step), 5);
                let codes = encode(Level::SCALAR, &codec, signed, &values, rounding);
                for (sum, code) in sums.iter_mut().zip(codes) {
                    *sum += f64::from(table[usize::from(code)]);
                }
            }
            for (&value, sum) in values.iter().zip(sums) {
                let upper = sorted.partition_point(|&entry| entry <= value);
                let step = f64::from(sorted[upper] - sorted[upper - 1]);
                let error = (sum / n_steps as f64 - f64::from(value)) / step;
                assert!(
                    error.abs() < 2e-3,
                    "{codec:?} signed={signed} {value:e}: off by {error} steps"
                );
            }
        }
    }
}

#[test]
fn states_that_cannot_be_negative_become_zero_only_if_they_are() {
    let values: Vec<f32> = (0..64).map(|i| 1e-30 * f32::from(i as u8)).collect();
    for level in levels_under_test() {
        for codec in codecs() {
            let at_random = stochastic(Stream::new(0, 0, 1, 9), 0);
            let codes = encode(level, &codec, false, &values, at_random);
            assert_eq!(codes[0], 0);
            assert!(codes[1..].iter().all(|&code| code == 1), "{codec:?} {codes:?}");
            let nearest = encode(level, &codec, false, &values, Rounding::Nearest);
            assert!(nearest.iter().all(|&code| code == 0), "{codec:?}");
        }
    }
}

fn quantize(level: Level, codec: &Codec, signed: bool, values: &[f32]) -> (Vec<u8>, f32) {
    let mut codes = vec![0; values.len()];
    let mut scales = [0.0];
    let layout = Layout::new(&[values.len()], Layout::MAX_BLOCK).expect("a good block size");
    level.run(QuantizeBlocks {
        level,
        codec,
        signed,
        layout,
        blocks: 0..1,
        values,
        codes: &mut codes,
        scales: &mut scales,
    });
    (codes, scales[0])
}

#[test]
fn special_blocks() {
    for (name, zero, minus_zero) in [("dynamic", 127, 127), ("minifloat", 0, 128)] {
        let codec = Codec::builtin(name).expect("in the list");
        for level in levels_under_test() {
            let zeros = quantize(level, &codec, true, &[0.0, -0.0, 0.0]);
            assert_eq!(zeros, (vec![zero, minus_zero, zero], 0.0));
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let (codes, scale) = quantize(level, &codec, true, &[1.0, bad, -3.0]);
                assert_eq!(codes, [zero; 3]);
                assert!(scale.is_nan());
            }
            // Denormal and huge scales, whose reciprocal is infinite or denormal.
            for unit in [f32::from_bits(256), f32::MIN_POSITIVE / 2.0, 1e-38, 1e38, f32::MAX] {
                let (codes, scale) = quantize(level, &codec, true, &[unit, -unit / 2.0, 0.0]);
                assert_eq!(scale, unit);
                let expected = quantize(level, &codec, true, &[1.0, -0.5, 0.0]).0;
                assert_eq!(codes, expected, "{unit:e}");
            }
        }
    }
}

proptest! {
    #[test]
    fn levels_agree(
        values in prop::collection::vec(any::<i16>(), 1..300),
        power in -30_i32..30,
        skew in 1_i32..7,
        seed in any::<u64>(),
    ) {
        // From one decade to many in a block.
        let values: Vec<f32> = values
            .iter()
            .map(|&value| (f32::from(value) / 32768.0).powi(skew) * 2.0_f32.powi(power))
            .collect();
        for codec in codecs() {
            for signed in [true, false] {
                let values: Vec<f32> =
                    values.iter().map(|value| if signed { *value } else { value.abs() }).collect();
                let expected = quantize(Level::SCALAR, &codec, signed, &values);
                let largest = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                prop_assert_eq!(expected.1, largest);
                let rounding = stochastic(Stream::new(seed, 1, 2, 3), 4);
                let normalized: Vec<f32> =
                    values.iter().map(|value| if largest > 0.0 { value / largest } else { 0.0 }).collect();
                let random = encode(Level::SCALAR, &codec, signed, &normalized, rounding);
                for level in levels_under_test() {
                    prop_assert_eq!(&quantize(level, &codec, signed, &values), &expected);
                    prop_assert_eq!(&encode(level, &codec, signed, &normalized, rounding), &random);
                }
            }
        }
    }

    #[test]
    fn codes_survive_a_round_trip(codes in prop::collection::vec(any::<u8>(), 1..200), scale in 1e-30_f32..1e30) {
        for codec in codecs() {
            for signed in [true, false] {
                let table = codec.codebook(signed).values();
                let code_of = |value: f32| {
                    table.iter().position(|entry| entry.to_bits() == value.to_bits()).expect("a code") as u8
                };
                // What is not used, as another code stands for the same.
                let mut codes: Vec<u8> =
                    codes.iter().map(|&code| code_of(table[usize::from(code)])).collect();
                codes.push(code_of(1.0)); // the scale is attained
                let values: Vec<f32> =
                    codes.iter().map(|&code| table[usize::from(code)] * scale).collect();
                prop_assert_eq!(quantize(Level::SCALAR, &codec, signed, &values), (codes, scale));
            }
        }
    }
}

#[test]
fn bad_codebooks_are_refused() {
    let good: Vec<f32> = (0..256_u16).map(|i| f32::from(i) / 255.0).collect();
    let changed = |index: usize, value: f32| {
        let mut values = good.clone();
        values[index] = value;
        values
    };
    assert!(Codec::custom("mine", &good, &good).is_ok());
    for bad in [
        good[..255].to_vec(),
        changed(3, f32::NAN),
        changed(3, 0.9),
        changed(255, 0.999),
        changed(0, -1.5),
        changed(0, 1e-9),
    ] {
        assert!(Codec::custom("mine", &bad, &good).is_err());
        assert!(Codec::custom("mine", &good, &bad).is_err());
    }
    assert_eq!(
        Codec::builtin("dynamic8").unwrap_err().to_string(),
        "unknown codec 'dynamic8': expected one of minifloat, dynamic, root, linear"
    );
}
