//! Detection of instruction sets, and the choice among them.
//!
//! [`Level::best`] is the widest one that the CPU has; the environment variable `OPTIM8_ISA` forces
//! another, for tests and comparisons. A token is made here and nowhere else.

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
use super::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
use super::neon::Neon;
use super::scalar::Scalar;
use super::{Kernel, Simd};
use crate::error::{Error, Result};
use std::sync::OnceLock;

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, one element at a time: the reference.
    Scalar(Scalar),
    /// AVX2 with FMA and F16C: 8 elements.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 F, BW, DQ, VL, VBMI: 16 elements.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// NEON: 4 elements.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
}

impl Level {
    /// The level that every CPU has.
    pub(crate) const SCALAR: Self = Self::Scalar(Scalar);

    /// The environment variable that forces a level.
    pub const VARIABLE: &str = "OPTIM8_ISA";

    /// The name, as `OPTIM8_ISA` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    /// Every level that this CPU has, narrowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(Avx2::detect().map(Self::Avx2));
            levels.extend(Avx512::detect().map(Self::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        levels.extend(Neon::detect().map(Self::Neon));
        levels
    }

    /// The level in use: the widest one, or the one that `OPTIM8_ISA` names. Read once.
    ///
    /// # Errors
    ///
    /// [`Error::Level`] if the variable names a level that is unknown or that this CPU lacks.
    pub fn best() -> Result<Self> {
        static BEST: OnceLock<Result<Level>> = OnceLock::new();
        BEST.get_or_init(|| match std::env::var(Self::VARIABLE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(*Self::available().last().expect("scalar is always there")),
        })
        .clone()
    }

    fn named(name: &str) -> Result<Self> {
        let available = Self::available();
        available.iter().copied().find(|level| level.name() == name).ok_or_else(|| Error::Level {
            found: name.to_owned(),
            available: available.iter().map(|level| level.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Whether the loop of an update decodes, if the codec is a formula (`decoding.rs`).
    pub(crate) fn decodes_in_loop(self) -> bool {
        struct DecodesInLoop;
        impl Kernel for DecodesInLoop {
            type Output = bool;
            #[inline(always)]
            fn run<S: Simd>(self, _simd: S) -> bool {
                S::DECODES_IN_LOOP
            }
        }
        self.run(DecodesInLoop)
    }

    /// Runs a kernel with this level's vectors. It is inlined, as are the functions that it calls, so that
    /// the kernel is compiled where its caller is, and not all kernels of a level as one unit.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Scalar(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => simd.vectorize(kernel),
        }
    }
}
