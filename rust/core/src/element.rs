//! The number types of parameters and gradients, and the two types that are computed in.

use crate::real::Real;
use crate::simd::{GROUP, Simd};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A number type, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE single precision.
    Float32,
    /// IEEE double precision.
    Float64,
    /// The upper half of a float32.
    BFloat16,
    /// IEEE half precision.
    Float16,
    /// Codes.
    UInt8,
}

impl Dtype {
    /// The name, as torch spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::BFloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::UInt8 => "uint8",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::UInt8 => 1,
            Self::BFloat16 | Self::Float16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// The dtype in which a state that is not quantized is kept, beside a parameter of this dtype.
    #[must_use]
    pub fn state(self) -> Self {
        if self == Self::Float64 { Self::Float64 } else { Self::Float32 }
    }
}

/// Evaluates an expression for the number type of a dtype that has been checked to be a float's.
macro_rules! for_float {
    ($dtype:expr, $float:ident => $body:expr) => {
        match $dtype {
            Dtype::Float32 => {
                type $float = f32;
                $body
            }
            Dtype::Float64 => {
                type $float = f64;
                $body
            }
            Dtype::BFloat16 => {
                type $float = half::bf16;
                $body
            }
            Dtype::Float16 => {
                type $float = half::f16;
                $body
            }
            Dtype::UInt8 => unreachable!("the dtype has been checked to be a float's"),
        }
    };
}
pub(crate) use for_float;

/// A number type that memory may hold.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// The type in which formulas are computed.
    type Compute: Compute;
    /// Whether it is narrower than that type, so that writing it is a computation of its own.
    const ROUNDED: bool = size_of::<Self>() < size_of::<Self::Compute>();
    /// Whether models have it so often that a step is compiled for it. Another goes by way of the type of
    /// its arithmetic, a chunk at a time.
    const COMMON: bool = true;
    /// Whether there is a form of the update that decodes in its loop (`decoding.rs`). One more takes its
    /// time to compile, so only the dtypes that most models have.
    const DECODES_IN_LOOP: bool = false;
    /// The vector `at` of a group, exactly.
    fn load<S: Simd>(simd: S, from: &[Self; GROUP], at: usize) -> Lanes<Self, S>;
    /// Writes the vector `at` of a group, rounded to nearest even.
    fn store<S: Simd>(simd: S, value: Lanes<Self, S>, to: &mut [Self; GROUP], at: usize);
    /// Whether numbers that are written may be rounded stochastically.
    const STOCHASTIC: bool = false;
    /// Writes the vector `at` of a group: rounded up where the fraction that rounding would drop,
    /// plus the threshold (in units of 2^-32), reaches one.
    #[inline(always)]
    fn store_stochastically<S: Simd>(
        simd: S,
        value: Lanes<Self, S>,
        _threshold: S::I32,
        to: &mut [Self; GROUP],
        at: usize,
    ) {
        Self::store(simd, value, to, at);
    }
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// To float64, exactly.
    fn to_f64(self) -> f64;
}

/// A number type in which formulas are computed: also that of states that are not quantized.
pub(crate) trait Compute: Element<Compute = Self> {
    /// Its vectors.
    type Lanes<S: Simd>: Real;
    /// The largest number.
    const LARGEST: f64;
    /// Whether the roundings of float32 are too much for it.
    const IS_WIDE: bool = false;
    /// From float32, exactly.
    fn from_f32<S: Simd>(simd: S, value: S::F32) -> Self::Lanes<S>;
    /// To float32, rounded to nearest even.
    fn to_f32<S: Simd>(simd: S, value: Self::Lanes<S>) -> S::F32;
}

/// The vectors in which a number type is computed.
pub(crate) type Lanes<E, S> = <<E as Element>::Compute as Compute>::Lanes<S>;

impl Element for f32 {
    type Compute = f32;
    const DECODES_IN_LOOP: bool = true;
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f32; GROUP], at: usize) -> S::F32 {
        simd.load(from, at)
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::F32, to: &mut [f32; GROUP], at: usize) {
        simd.store(value, to, at);
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Compute for f32 {
    type Lanes<S: Simd> = S::F32;
    const LARGEST: f64 = f32::MAX as f64;
    #[inline(always)]
    fn from_f32<S: Simd>(_simd: S, value: S::F32) -> S::F32 {
        value
    }
    #[inline(always)]
    fn to_f32<S: Simd>(_simd: S, value: S::F32) -> S::F32 {
        value
    }
}

impl Element for f64 {
    type Compute = f64;
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f64; GROUP], at: usize) -> S::F64 {
        simd.load_f64(from, at)
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::F64, to: &mut [f64; GROUP], at: usize) {
        simd.store_f64(value, to, at);
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl Compute for f64 {
    type Lanes<S: Simd> = S::F64;
    const LARGEST: f64 = f64::MAX;
    const IS_WIDE: bool = true;
    #[inline(always)]
    fn from_f32<S: Simd>(simd: S, value: S::F32) -> S::F64 {
        simd.widen(value)
    }
    #[inline(always)]
    fn to_f32<S: Simd>(simd: S, value: S::F64) -> S::F32 {
        simd.narrow(value)
    }
}

impl Element for bf16 {
    type Compute = f32;
    const DECODES_IN_LOOP: bool = true;
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[bf16; GROUP], at: usize) -> S::F32 {
        simd.with_bits(simd.load_high(group_bits(from), at))
    }
    // By integer arithmetic: the conversion instructions that some CPUs have flush denormals.
    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::F32, to: &mut [bf16; GROUP], at: usize) {
        let bits = simd.bits(value);
        let even = simd.and_i32(simd.shift_right::<16>(bits), simd.splat_i32(1));
        let rounded = simd.add_i32(simd.add_i32(bits, simd.splat_i32(0x7fff)), even);
        // Rounding could carry the payload of a NaN into the exponent.
        let chosen = simd.select_nan(value, simd.splat_i32(NAN), rounded);
        simd.store_high(chosen, group_bits_mut(to), at);
    }

    const STOCHASTIC: bool = true;
    #[inline(always)]
    fn store_stochastically<S: Simd>(
        simd: S,
        value: S::F32,
        threshold: S::I32,
        to: &mut [bf16; GROUP],
        at: usize,
    ) {
        let bits = simd.bits(value);
        let dropped = simd.shift_right::<16>(threshold);
        let rounded = simd.add_i32(bits, dropped);
        let infinity = simd.splat_i32(INFINITY);
        let magnitude = simd.bits(value.abs());
        // An infinity has nothing to be dropped, but a threshold could make it a NaN.
        let finite = simd.select_greater(infinity, magnitude, rounded, bits);
        let chosen = simd.select_nan(value, simd.splat_i32(NAN), finite);
        simd.store_high(chosen, group_bits_mut(to), at);
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn to_f64(self) -> f64 {
        Self::to_f64(self)
    }
}

impl Element for f16 {
    type Compute = f32;
    const COMMON: bool = false;
    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &[f16; GROUP], at: usize) -> S::F32 {
        simd.load_f16(group_bits(from), at)
    }
    #[inline(always)]
    fn store<S: Simd>(simd: S, value: S::F32, to: &mut [f16; GROUP], at: usize) {
        simd.store_f16(value, group_bits_mut(to), at);
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        Self::is_finite(self)
    }
    fn to_f64(self) -> f64 {
        Self::to_f64(self)
    }
}

/// The bits of a positive infinity.
const INFINITY: i32 = 0x7f80_0000;

/// The bits of the NaN that every NaN becomes, as in torch.
const NAN: i32 = 0x7fc0_0000;

/// The bits of a group of 16-bit floats.
#[inline(always)]
fn group_bits<T>(group: &[T; GROUP]) -> &[u16; GROUP]
where
    [T]: HalfFloatSliceExt,
{
    group.as_slice().reinterpret_cast().try_into().expect("the same length")
}

/// The bits of a group of 16-bit floats, to be written.
#[inline(always)]
fn group_bits_mut<T>(group: &mut [T; GROUP]) -> &mut [u16; GROUP]
where
    [T]: HalfFloatSliceExt,
{
    group.as_mut_slice().reinterpret_cast_mut().try_into().expect("the same length")
}
