//! One battery for every instruction set: each method of [`Simd`] must give the bits of the scalar
//! reference, on inputs that are ordinary, extreme and special.

use super::{Aligned, F64Lanes, GROUP, Kernel, Level, Packing, Pair, Scalar, Simd, Table};
use crate::real::Real;

/// Names the levels to test, where an instruction set is what is being tested: the machine must have
/// them. Elsewhere all that it has are tested.
const REQUIRED: &str = "OPTIM8_REQUIRE_LEVELS";

/// The levels that tests compare with the reference.
pub(crate) fn levels_under_test() -> Vec<Level> {
    let available = Level::available();
    let required = std::env::var(REQUIRED).unwrap_or_default();
    let required: Vec<_> = required.split(',').filter(|level| !level.is_empty()).collect();
    for name in &required {
        let found: Vec<_> = available.iter().map(|level| level.name()).collect();
        assert!(found.contains(name), "{REQUIRED} names {name}, found only {found:?}");
    }
    let chosen = |level: &Level| required.is_empty() || required.contains(&level.name());
    available.into_iter().filter(chosen).collect()
}

#[test]
fn required_levels_are_here() {
    let names: Vec<_> = levels_under_test().into_iter().map(Level::name).collect();
    println!("levels tested: {}", names.join(", "));
}

/// Float32 inputs: a deterministic walk through exponents and mantissas, with every special value.
///
/// Not inlined, since the CPU emulator that runs this battery cannot gather with a high index register.
#[inline(never)]
fn floats(seed: u32) -> [f32; GROUP] {
    const SPECIAL: [u32; 12] = [
        0,
        0x8000_0000,
        1,
        0x007f_ffff,
        0x0080_0000,
        0x3f80_0000,
        0xbf80_0000,
        0x3f7f_ffff,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_1234,
    ];
    core::array::from_fn(|i| {
        let mixed = (seed.wrapping_mul(0x9e37_79b9) ^ (i as u32 + 1)).wrapping_mul(0x85eb_ca6b);
        let bits = mixed ^ (mixed >> 13);
        let special = SPECIAL.get((bits >> 8) as usize % 40).copied();
        // Half of the rest within a few decades of 1, where the work is.
        let usual = (bits & 0x807f_ffff) | ((110 + (bits >> 23) % 20) << 23);
        f32::from_bits(special.unwrap_or(if bits & 64 == 0 { usual } else { bits }))
    })
}

fn ints(seed: u32) -> [i32; GROUP] {
    floats(seed ^ 0x5555).map(|value| value.to_bits() as i32)
}

/// What one operation makes of a group.
#[derive(Clone, Copy)]
struct Output {
    lanes: [u32; GROUP],
    wide: [u64; GROUP],
    codes: [[u8; GROUP]; 2],
    halves: [u16; GROUP],
}

/// Every operation, by number, on the inputs of a seed.
#[derive(Clone, Copy)]
struct Battery {
    operation: usize,
    seed: u32,
}

/// The operations of the battery.
const N_OPERATIONS: usize = 49;

impl Kernel for Battery {
    type Output = Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Output {
        let (a, b, c) = (floats(self.seed), floats(self.seed + 1), floats(self.seed + 2));
        let (i, j) = (ints(self.seed + 3), ints(self.seed + 4));
        let table = Table::new(core::array::from_fn(|entry| (entry as f32 - 100.0) * 0.37));
        let bytes = [11, 5].map(|shift| i.map(|value| (value >> shift) as u8));
        let mut decoded = [Aligned([0.0; GROUP]); 2];
        simd.decode(&table, simd.splat(0.7), &bytes, &mut decoded);
        let halves = i.map(|value| (value >> 7) as u16);
        let table8: [f32; 8] = core::array::from_fn(|entry| entry as f32 * 1.5 - 3.0);
        let table8_i32: [i32; 8] = core::array::from_fn(|entry| entry as i32 * 77 - 100);
        let mut output = Output {
            lanes: [0; GROUP],
            wide: [0; GROUP],
            codes: [[0; GROUP]; 2],
            halves: [0; GROUP],
        };
        let mut lanes = Aligned([0.0; GROUP]);
        let mut wide = [0.0; GROUP];
        let mut stored = [0; GROUP];
        let mut largest = 0;
        for at in 0..GROUP / S::LANES {
            let (x, y, z) = (simd.load(&a, at), simd.load(&b, at), simd.load(&c, at));
            let (p, q) = (simd.load_i32(&i, at), simd.load_i32(&j, at));
            let (d, e) = (simd.widen(x), simd.widen(y));
            let float = |value: S::F32| value;
            let int = |value: S::I32| simd.with_bits(value);
            let result = match self.operation {
                0 => float(x + y),
                1 => float(x - y),
                2 => float(x * y),
                3 => float(x / y),
                4 => float(x.mul_add(y, z)),
                5 => float(x.sqrt()),
                6 => float(x.max(y)),
                7 => float(x.like(0.1)),
                8 => float(x.abs()),
                9 => float(x.min(y)),
                10 => int(simd.round(in_range(simd, x))),
                11 => int(simd.keep_where_greater(p, x, y)),
                13 => int(simd.add_i32(p, q)),
                14 => int(simd.and_i32(p, q)),
                15 => int(simd.xor_i32(p, q)),
                16 => int(simd.shift_right::<9>(p)),
                17 => int(simd.shift_left::<7>(p)),
                18 => int(simd.max_u32(p, q)),
                19 => int(simd.select_greater(p, q, q, p)),
                20 => simd.to_f32(p),
                21 => {
                    largest = largest.max(simd.reduce_max(p));
                    x
                }
                22 => simd.lookup8(&table8, p),
                23 => int(simd.lookup8_i32(&table8_i32, p)),
                24 => simd.load(&decoded[0].0, at),
                25 => int(simd.load_high(&halves, at)),
                26 => simd.load_f16(&halves, at),
                27 => {
                    simd.store_f16(x, &mut output.halves, at);
                    x
                }
                28 => {
                    simd.store_high(p, &mut output.halves, at);
                    x
                }
                29 => simd.narrow((d * e).mul_add(d, e) / e),
                30 => {
                    simd.store_f64((d + e) * e - d.sqrt().max(e), &mut wide, at);
                    x
                }
                31 => {
                    let group = wide_inputs(&a);
                    simd.narrow(simd.load_f64(&group, at))
                }
                32 => simd.splat(0.3),
                33 => int(simd.load_signed_codes(&bytes[1], at)),
                35 => float(x.sign()),
                36 => simd.narrow(d.where_positive(e) + e.abs()),
                37 => simd.load(&decoded[1].0, at),
                38 => {
                    simd.store_i32(p, &mut stored, at);
                    x
                }
                39 => int(simd.select_nan(x, p, q)),
                40 => simd.max_abs(in_range(simd, x), in_range(simd, y).abs()),
                41 => float(x.where_positive(y)),
                42 => int(simd.load_codes(&bytes[0], at)),
                43 => simd.minus_where_negative(p, x),
                // Packing, below.
                12 | 34 | 44 | 45 | 47 | 48 => x,
                46 => int(simd.mul_i32(p, q)),
                _ => unreachable!("no such operation"),
            };
            simd.store(result, &mut lanes.0, at);
        }
        output.codes[0][..4].copy_from_slice(&largest.to_le_bytes());
        let levels = [i, j].map(|group| Aligned(group.map(|value| value >> 22)));
        let signed = [a, b].map(Aligned);
        let unsigned = [a, b].map(|group| Aligned(group.map(positive)));
        let above = levels.map(|group| Aligned(group.0.map(|level| level.max(1))));
        // Some at level 0, those of zeros among them; or none.
        let some = [0, 1].map(|group: usize| {
            let level = |i: usize| if unsigned[group].0[i] > 0.0 { above[group].0[i] } else { 1 };
            Aligned(core::array::from_fn(level))
        });
        let none = above.map(|group| Aligned(group.0.map(|level| level.max(2))));
        let not_zero = unsigned.map(|group| Aligned(group.0.map(|value| value.max(1e-45))));
        let packing = match self.operation {
            12 => Some((Packing::AroundZero, &levels, &signed)),
            34 => Some((Packing::Level, &levels, &signed)),
            44 => Some((Packing::SignBit, &above, &signed)),
            45 => Some((Packing::UnlessZero, &levels, &unsigned)),
            47 => Some((Packing::Above, &some, &unsigned)),
            48 => Some((Packing::Above, &none, &not_zero)),
            _ => None,
        };
        if let Some((packing, levels, values)) = packing {
            simd.store_codes(packing, levels, 1, values, &mut output.codes);
        }
        output.lanes = lanes.0.map(canonical);
        if self.operation == 38 {
            output.lanes = stored.map(|bits: i32| bits as u32);
        }
        output.wide =
            wide.map(|value: f64| if value.is_nan() { u64::MAX } else { value.to_bits() });
        if self.operation == 27 {
            output.halves =
                output.halves.map(|half| if half & 0x7fff > 0x7c00 { 0x7e00 } else { half });
        }
        output
    }
}

/// The bits of a result; which of its operands' payloads a NaN carries is nobody's business.
fn canonical(value: f32) -> u32 {
    if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }
}

/// Floats that fit an integer.
#[inline(always)]
fn in_range<S: Simd>(simd: S, value: S::F32) -> S::F32 {
    let magnitude = value.abs().min(simd.splat(2_147_483_520.0));
    let sign = simd.and_i32(simd.bits(value), simd.splat_i32(i32::MIN));
    simd.with_bits(simd.xor_i32(simd.bits(magnitude), sign))
}

/// What a state that is never negative can be.
fn positive(value: f32) -> f32 {
    if value.is_finite() { value.abs() } else { 0.0 }
}

fn wide_inputs(values: &[f32; GROUP]) -> [f64; GROUP] {
    values.map(|value| f64::from(value) * 1.000_000_01)
}

#[test]
fn every_method_gives_the_bits_of_the_reference() {
    for level in levels_under_test() {
        for operation in 0..N_OPERATIONS {
            for seed in 0..400 {
                let battery = Battery { operation, seed };
                let (expected, found) = (Scalar.vectorize(battery), level.run(battery));
                let context = format!("{} operation {operation} seed {seed}", level.name());
                assert_eq!(found.lanes, expected.lanes, "{context}");
                assert_eq!(found.wide, expected.wide, "{context}");
                assert_eq!(found.codes, expected.codes, "{context}");
                assert_eq!(found.halves, expected.halves, "{context}");
            }
        }
    }
}

#[test]
fn packing_saturates_at_both_ends() {
    struct Pack {
        levels: Pair<i32>,
        zero: i16,
    }
    impl Kernel for Pack {
        type Output = [[u8; GROUP]; 2];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [[u8; GROUP]; 2] {
            let mut codes = [[0; GROUP]; 2];
            let values = [Aligned([0.0; GROUP]); 2];
            simd.store_codes(Packing::Level, &self.levels, self.zero, &values, &mut codes);
            codes
        }
    }
    for level in levels_under_test() {
        for (first, zero) in [(-200, 0), (1900, 2048)] {
            let levels = [0, 1].map(|group| {
                Aligned(core::array::from_fn(|i| (2 * i + group) as i32 * 10 + first))
            });
            let expected = levels
                .map(|group| group.0.map(|level| (level - i32::from(zero)).clamp(0, 255) as u8));
            assert_eq!(level.run(Pack { levels, zero }), expected, "{}", level.name());
        }
    }
}

#[test]
fn every_half_precision_number_survives() {
    struct RoundTrip([u16; GROUP]);
    impl Kernel for RoundTrip {
        type Output = [u16; GROUP];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [u16; GROUP] {
            let mut halves = [0; GROUP];
            for at in 0..GROUP / S::LANES {
                simd.store_f16(simd.load_f16(&self.0, at), &mut halves, at);
            }
            halves
        }
    }
    for level in levels_under_test() {
        for first in (0..=u16::MAX).step_by(GROUP) {
            let halves = core::array::from_fn(|i| first + i as u16);
            for (found, half) in level.run(RoundTrip(halves)).into_iter().zip(halves) {
                let is_nan = half & 0x7fff > 0x7c00;
                let expected = if is_nan { half | 0x0200 } else { half };
                assert_eq!(found, expected, "{} {half:#x}", level.name());
            }
        }
    }
}

#[test]
fn f64_lanes_compute_lane_by_lane() {
    let (a, b) = (F64Lanes([1.0, -2.0, 9.0]), F64Lanes([0.5, 4.0, 3.0]));
    assert_eq!((a + b).0, [1.5, 2.0, 12.0]);
    assert_eq!((a - b).0, [0.5, -6.0, 6.0]);
    assert_eq!((a * b).0, [0.5, -8.0, 27.0]);
    assert_eq!((a / b).0, [2.0, -0.5, 3.0]);
    assert_eq!(a.mul_add(b, b).0, [1.0, -4.0, 30.0]);
    assert_eq!(Real::max(a, b).0, [1.0, 4.0, 9.0]);
    assert_eq!(Real::min(a, b).0, [0.5, -2.0, 3.0]);
    assert_eq!(a.abs().0, [1.0, 2.0, 9.0]);
    assert_eq!(a.sign().0, [1.0, -1.0, 1.0]);
    assert_eq!(b.like(0.1).0, [0.1; 3]);
}
