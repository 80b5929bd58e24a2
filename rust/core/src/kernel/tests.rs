//! The step on every instruction set: rules, dtypes and storages, blocks that are whole or short.

use super::{Job, Pass};
use crate::effect::Effect;
use crate::element::Dtype;
use crate::flat::Flat;
use crate::format::Codec;
use crate::layout::Layout;
use crate::rule::Kind;
use crate::rules::{Part, RULES, RuleEntry};
use crate::simd::Level;
use crate::simd::tests::levels_under_test;
use crate::step::{Options, Outcome};
use crate::tensor::{Name, Tensor};
use half::{bf16, f16};

/// Memory with its description.
struct Owned {
    bytes: Vec<u64>, // of any type: aligned for the largest
    dtype: Dtype,
    len: usize,
}

impl Owned {
    fn new(dtype: Dtype, values: &[f64]) -> Self {
        let mut owned = Self {
            bytes: vec![0; (values.len() * dtype.size()).div_ceil(8)],
            dtype,
            len: values.len(),
        };
        let tensor = owned.flat();
        // SAFETY: the memory is of this dtype and length, and nothing else uses it.
        unsafe {
            let all = 0..values.len();
            let pairs = |to: usize| values[to];
            match dtype {
                Dtype::Float32 => fill(tensor.slice_mut(all), |i| pairs(i) as f32),
                Dtype::Float64 => fill(tensor.slice_mut(all), pairs),
                Dtype::BFloat16 => fill(tensor.slice_mut(all), |i| bf16::from_f64(pairs(i))),
                Dtype::Float16 => fill(tensor.slice_mut(all), |i| f16::from_f64(pairs(i))),
                Dtype::UInt8 => fill(tensor.slice_mut(all), |i| pairs(i) as u8),
            }
        }
        owned
    }

    fn flat(&mut self) -> Flat {
        self.tensor().expect_flat().expect("memory of its own")
    }

    fn tensor(&mut self) -> Tensor {
        let data = self.bytes.as_mut_ptr().cast();
        // SAFETY: the memory is as long as this and lives as long as `self`, as does no tensor of
        // these tests.
        unsafe { Tensor::new(Name::Plain("test"), self.dtype, data, &[self.len], None) }
            .expect("memory")
    }
}

fn fill<T>(to: &mut [T], value: impl Fn(usize) -> T) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = value(i);
    }
}

/// Numbers of both signs over some decades.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f64 / f64::from(1 << 24) - 0.5).powi(3)
        })
        .collect()
}

/// Hyperparameters that make every part of a rule matter.
fn hyper(rule: &RuleEntry) -> Vec<f64> {
    let value = |name: &&str| match *name {
        "lr" => 0.01,
        "eps" => 1e-8,
        "beta2" | "alpha" => 0.99,
        "t_alpha" | "t_beta3" => 10.0,
        "weight_decay" => 0.1,
        "eta_plus" => 1.2,
        "step_size_min" => 1e-6,
        "step_size_max" => 50.0,
        "grad_scale" | "grad_averaging" | "always_adapt" => 1.0,
        "maximize" | "trust_clip" | "dampening" => 0.0,
        _ => 0.9,
    };
    rule.hyper.iter().map(value).collect()
}

/// Elements of a block: two turns of the update's loop, so that a block may have a whole one and a rest.
const BLOCK_SIZE: usize = 128;

struct Run {
    rule: &'static RuleEntry,
    dtype: Dtype,
    codec: Option<&'static str>,
    len: usize,
    skip_nonfinite: bool,
    stochastic_params: bool,
    effect: Effect,
}

impl Run {
    /// The bits of everything after some steps at a level, and what came of the steps.
    fn bits(&self, level: Level, grads: &[Vec<f64>]) -> (Vec<Vec<u64>>, Outcome) {
        let options = Options {
            codec: Codec::builtin(self.codec.unwrap_or("dynamic")).expect("a codec"),
            block_size: BLOCK_SIZE,
            stochastic: true,
            skip_nonfinite: self.skip_nonfinite,
            stochastic_params: self.stochastic_params,
            seed: 11,
        };
        let layout = Layout::new(&[self.len], options.block_size).expect("a block size");
        let mut param = Owned::new(self.dtype, &noise(self.len, 1));
        let mut states = vec![];
        for (name, part) in self.rule.tensors(self.codec.is_some()) {
            let state = self.rule.states.iter().find(|state| state.name == name);
            let signed = state.is_some_and(|state| state.kind == Kind::Signed);
            let (dtype, values) = match part {
                Part::Full => (self.dtype.state(), vec![0.0; self.len]),
                Part::Copy => (self.dtype, noise(self.len, 1)),
                Part::Codes => {
                    let zero = f64::from(options.codec.codebook(signed).zero());
                    (Dtype::UInt8, vec![zero; self.len])
                }
                Part::Scales => (Dtype::Float32, vec![0.0; layout.n_blocks()]),
            };
            states.push(Owned::new(dtype, &values));
        }
        let mut scalars = vec![1.0; self.rule.scalars.len()];
        let mut outcome = Outcome::default();
        for (step, grad) in grads.iter().enumerate() {
            let mut grad = Owned::new(self.dtype, grad);
            let (param, grad) = (param.tensor(), grad.tensor());
            let states: Vec<_> = states.iter_mut().map(Owned::flat).collect();
            let step = step as u64 + 1;
            let job = Job {
                level,
                options: &options,
                layout,
                param: &param,
                grad: &grad,
                states: &states,
                quantized: self.codec.is_some(),
                effect: self.effect,
                index: 3,
                step,
            };
            let mut rule = (self.rule.bind)(&hyper(self.rule), &job, &mut scalars);
            let blocks = 0..layout.n_blocks();
            // SAFETY: the tensors are of the dtypes and lengths that the rule and the layout ask
            // for, and nothing else uses them.
            unsafe {
                if rule.measures() {
                    let sums = rule.run(Pass::Measure, &job, blocks.clone(), (&job, 0)).sums;
                    rule.measured(sums, self.len);
                }
                outcome += rule.run(Pass::Update, &job, blocks, (&job, 0));
            }
        }
        let all = core::iter::once(param).chain(states);
        (all.map(|owned| owned.bytes).collect(), outcome)
    }
}

/// Requires that every rule steps to the same bits on every level, for parameters of a dtype.
fn every_level_steps_alike(dtype: Dtype, stochastic_params: bool, effect: Effect) {
    for rule in RULES {
        for codec in core::iter::once(None).chain(Codec::names().map(Some)) {
            // Whole groups and blocks, and ends of every length.
            for len in (1..70).chain([BLOCK_SIZE, 150, 200, 1000]) {
                let skip_nonfinite = false;
                let run =
                    Run { rule, dtype, codec, len, skip_nonfinite, stochastic_params, effect };
                let grads: Vec<_> = (0..3).map(|step| noise(len, step + 10)).collect();
                let expected = run.bits(Level::SCALAR, &grads);
                for level in levels_under_test() {
                    let found = run.bits(level, &grads);
                    let differs = found.0.iter().zip(&expected.0).position(|(a, b)| a != b);
                    let what = differs.map(|tensor| {
                        let pairs = found.0[tensor].iter().zip(&expected.0[tensor]);
                        let at = pairs.clone().position(|(a, b)| a != b).unwrap();
                        let (a, b) = (found.0[tensor][at], expected.0[tensor][at]);
                        format!("tensor {tensor}, word {at}: {a:x} where {b:x}")
                    });
                    assert_eq!(what, None, "{} {codec:?} {len} {}", rule.name, level.name());
                    let [length, reference] = [found.1, expected.1].map(|it| it.squared_length);
                    assert_eq!(length.to_bits(), reference.to_bits(), "{} {len}", rule.name);
                }
            }
        }
    }
}

#[test]
fn every_level_steps_float32_alike() {
    every_level_steps_alike(Dtype::Float32, false, Effect::Write);
}

#[test]
fn every_level_steps_float64_alike() {
    every_level_steps_alike(Dtype::Float64, false, Effect::Write);
}

#[test]
fn every_level_steps_bfloat16_alike() {
    every_level_steps_alike(Dtype::BFloat16, false, Effect::Write);
}

#[test]
fn every_level_steps_stochastic_bfloat16_alike() {
    every_level_steps_alike(Dtype::BFloat16, true, Effect::Write);
}

#[test]
fn every_level_steps_float16_alike() {
    every_level_steps_alike(Dtype::Float16, false, Effect::Write);
}

#[test]
fn every_level_measures_and_scales_updates_alike() {
    every_level_steps_alike(Dtype::BFloat16, false, Effect::Length { states: false });
    every_level_steps_alike(Dtype::Float32, false, Effect::Length { states: true });
    every_level_steps_alike(Dtype::BFloat16, true, Effect::Scale(0.3));
}

#[test]
fn an_update_is_as_long_as_the_way_it_goes() {
    let grads = [noise(1000, 10)];
    for rule in RULES {
        for codec in [None, Some("dynamic")] {
            let bits = |effect| {
                let run = Run {
                    rule,
                    dtype: Dtype::Float64,
                    codec,
                    len: 1000,
                    skip_nonfinite: false,
                    stochastic_params: false,
                    effect,
                };
                let (bits, outcome) = run.bits(Level::SCALAR, &grads);
                (bits, outcome.squared_length)
            };
            let floats = |bits: &[u64]| bits.iter().copied().map(f64::from_bits).collect();
            let (written, _) = bits(Effect::Write);
            let (scaled, _) = bits(Effect::Scale(0.25));
            let (measured, of_states) = bits(Effect::Length { states: true });
            let (left, of_nothing) = bits(Effect::Length { states: false });
            let [start, end, quarter]: [Vec<f64>; 3] =
                [&left[0], &written[0], &scaled[0]].map(|bits| floats(bits));
            assert_eq!(start, noise(1000, 1), "{} wrote parameters", rule.name);
            assert_eq!(measured[0], left[0], "{} wrote parameters", rule.name);
            assert_eq!(measured[1..], written[1..], "{}: other states", rule.name);
            assert_eq!(scaled[1..], written[1..], "{}: other states", rule.name);
            if !rule.states.is_empty() {
                assert_ne!(left[1..], written[1..], "{} wrote states", rule.name);
            }
            let squares = start.iter().zip(&end).map(|(a, b)| (b - a) * (b - a));
            let square: f64 = squares.sum();
            assert!((of_states - square).abs() <= 1e-13 * square, "{}", rule.name);
            assert_eq!(of_nothing.to_bits(), of_states.to_bits(), "{}", rule.name);
            for ((a, b), c) in start.iter().zip(&end).zip(&quarter) {
                assert!((c - (a + 0.25 * (b - a))).abs() < 1e-15, "{}", rule.name);
            }
        }
    }
}

#[test]
fn states_that_cannot_be_negative_have_no_sign() {
    // Their bits count as their magnitude (`update.rs`), so there must be no -0.
    let grad = [0.0, -0.0, 5e-324, -5e-324, -1e-170, 1e-170, -1.0].repeat(4);
    for rule in RULES {
        let run = Run {
            rule,
            dtype: Dtype::Float64,
            codec: None,
            len: grad.len(),
            skip_nonfinite: false,
            stochastic_params: false,
            effect: Effect::Write,
        };
        let (bits, _) = run.bits(Level::SCALAR, &[grad.clone(), grad.clone()]);
        for (state, bits) in rule.states.iter().zip(&bits[1..]) {
            let negative = bits.iter().any(|bits| bits >> 63 != 0);
            assert!(state.kind != Kind::Unsigned || !negative, "{} {}", rule.name, state.name);
        }
    }
}

#[test]
fn a_bad_gradient_stays_in_its_block_or_is_skipped() {
    for level in levels_under_test() {
        for bad in [f64::NAN, f64::INFINITY] {
            let rule = RuleEntry::named("adamw").expect("a rule");
            let len = 3 * BLOCK_SIZE;
            let mut run = Run {
                rule,
                dtype: Dtype::Float32,
                codec: Some("dynamic"),
                len,
                skip_nonfinite: false,
                stochastic_params: false,
                effect: Effect::Write,
            };
            let good = vec![noise(len, 10), noise(len, 11)];
            let mut spoiled = good.clone();
            let block = BLOCK_SIZE..2 * BLOCK_SIZE;
            spoiled[0][block.start + 6] = bad;
            let ([expected, found], skip) =
                ([&good, &spoiled].map(|grads| run.bits(level, grads).0), {
                    run.skip_nonfinite = true;
                    run.bits(level, &spoiled)
                });
            let floats = |bits: &[u64]| -> Vec<f32> {
                bits.iter()
                    .flat_map(|&pair| [pair as u32, (pair >> 32) as u32])
                    .map(f32::from_bits)
                    .collect()
            };
            let (expected, found) = (floats(&expected[0]), floats(&found[0]));
            for i in (0..block.start).chain(block.end..len) {
                assert_eq!(found[i].to_bits(), expected[i].to_bits(), "{} {bad} {i}", level.name());
            }
            assert!(
                found[block].iter().all(|value| value.is_nan()),
                "a NaN state spoils its block"
            );
            assert_eq!(skip.1.skipped, 1);
            assert!(floats(&skip.0[0]).iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn adamw_is_its_definition() {
    // Loshchilov and Hutter 2019, algorithm 2, in the plainest float64.
    let n = 50;
    let run = Run {
        rule: RuleEntry::named("adamw").expect("a rule"),
        dtype: Dtype::Float64,
        codec: None,
        len: n,
        skip_nonfinite: false,
        stochastic_params: false,
        effect: Effect::Write,
    };
    let grads: Vec<_> = (0..20).map(|step| noise(n, step + 10)).collect();
    let found = run.bits(Level::SCALAR, &grads).0.remove(0);
    let (mut p, mut m, mut v) = (noise(n, 1), vec![0.0; n], vec![0.0; n]);
    for (t, grad) in (1..).zip(&grads) {
        for i in 0..n {
            m[i] = 0.9 * m[i] + 0.1 * grad[i];
            v[i] = 0.99 * v[i] + 0.01 * grad[i] * grad[i];
            let (mh, vh) = (m[i] / (1.0 - 0.9_f64.powi(t)), v[i] / (1.0 - 0.99_f64.powi(t)));
            p[i] -= 0.01 * (mh / (vh.sqrt() + 1e-8) + 0.1 * p[i]);
        }
    }
    for (&found, expected) in found.iter().zip(p) {
        assert!((f64::from_bits(found) - expected).abs() < 1e-13);
    }
}
