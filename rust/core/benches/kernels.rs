//! The kernels on one thread, in the first-level cache and out of it: `cargo bench -p optim8-core`.
//!
//! Throughput is in elements; 8,192 elements stay in the second-level cache, 8 M do not. What users
//! feel, against torch and with Python around it, is measured in `benches/` at the top.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use optim8_core::{
    Codec, Dtype, Layout, Name, Options, QuantizeCall, RuleEntry, StepGroup, Tensor, dequantize,
    quantize, step,
};
use std::hint::black_box;

const BLOCK_SIZE: usize = 256;

/// A tensor whose memory lives until the process ends, as benches may.
fn tensor<T>(dtype: Dtype, memory: Vec<T>) -> Tensor {
    let (name, shape) = (Name::Plain("bench"), [memory.len()]);
    let data = memory.leak().as_mut_ptr().cast();
    // SAFETY: the memory is of this dtype, is never freed, and only the calls use it.
    unsafe { Tensor::new(name, dtype, data, &shape, None) }.expect("memory")
}

/// Numbers that look like gradients: both signs, several decades.
fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u64;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1 << 24) as f32;
            (unit - 0.5).powi(3) * 0.1
        })
        .collect()
}

fn bench_step(criterion: &mut Criterion) {
    for n in [8_192, 8_000_000] {
        let mut group = criterion.benchmark_group(format!("adamw/{n}"));
        group.throughput(Throughput::Elements(n as u64));
        for codec in Codec::names() {
            for dtype in [Dtype::Float32, Dtype::BFloat16] {
                let values = |dtype| match dtype {
                    Dtype::BFloat16 => {
                        tensor(dtype, noise(n).into_iter().map(bf16::from_f32).collect())
                    }
                    _ => tensor(dtype, noise(n)),
                };
                let n_blocks = Layout::new(&[n], BLOCK_SIZE).expect("a block size").n_blocks();
                let codec = Codec::builtin(codec).expect("a codec");
                let codes = |signed| tensor(Dtype::UInt8, vec![codec.codebook(signed).zero(); n]);
                let scales = || tensor(Dtype::Float32, vec![0.0_f32; n_blocks]);
                let options = Options {
                    codec: codec.clone(),
                    block_size: BLOCK_SIZE,
                    stochastic: true,
                    skip_nonfinite: false,
                    stochastic_params: false,
                    seed: 0,
                };
                let rule = RuleEntry::named("adamw").expect("a rule");
                let hyper = vec![1e-3, 0.9, 0.999, 1e-8, 0.01, 0.0];
                let mut groups = [StepGroup::new(rule, hyper, options).expect("its numbers")];
                let step_count = tensor(Dtype::Float32, vec![0.0_f32]);
                let mut tensors = vec![values(dtype), values(dtype), step_count];
                tensors.extend([codes(true), scales(), codes(false), scales()]);
                groups[0].push(0, &mut tensors).expect("sound tensors");
                group.bench_function(BenchmarkId::new(codec.name(), dtype.name()), |bencher| {
                    bencher.iter(|| step(black_box(&groups), None, 1).expect("sound tensors"));
                });
            }
        }
    }
}

fn bench_quantize(criterion: &mut Criterion) {
    let n = 8_192;
    let mut group = criterion.benchmark_group(format!("quantize/{n}"));
    group.throughput(Throughput::Elements(n as u64));
    for codec in Codec::names() {
        let call = QuantizeCall {
            values: tensor(Dtype::Float32, noise(n)),
            codes: tensor(Dtype::UInt8, vec![0_u8; n]),
            scales: tensor(Dtype::Float32, vec![0.0_f32; n / BLOCK_SIZE]),
            codec: Codec::builtin(codec).expect("a codec"),
            signed: true,
            block_size: BLOCK_SIZE,
        };
        group.bench_function(BenchmarkId::new("quantize", codec), |bencher| {
            bencher.iter(|| quantize(black_box(&call), 1).expect("sound tensors"));
        });
        group.bench_function(BenchmarkId::new("dequantize", codec), |bencher| {
            bencher.iter(|| dequantize(black_box(&call), 1).expect("sound tensors"));
        });
    }
}

criterion_group!(benches, bench_step, bench_quantize);
criterion_main!(benches);
