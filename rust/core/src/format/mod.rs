//! How a state is stored: codecs, and the codebooks that define them.
//!
//! A block of a state is one float32 scale, its largest magnitude, and a byte for each element: an
//! index into a codebook of 256 sorted values. What is stored means exactly `codebook[code] * scale`
//! in float32, whatever the codec; so decoding is written once, as a table lookup (`block.rs`), and
//! a codec is a codebook with a way to find the code of a value. Two ways exist: [`grid`] for
//! codecs whose code is a formula of the value, [`custom`] for any table at all.

mod codebook;
mod custom;
mod dynamic;
mod grid;
mod linear;
mod root;
#[cfg(test)]
mod tests;

pub use codebook::Codebook;

use crate::error::{Error, Result};
use crate::rounding::Rounding;
use crate::simd::{Level, Pair};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What a codec does: its codebooks, and how a block is encoded.
pub(crate) trait Format: Send + Sync {
    /// The values that codes stand for.
    fn codebook(&self, signed: bool) -> &Codebook;
    /// Encodes one block; the scale is positive and finite.
    fn encode(&self, level: Level, block: EncodeBlock<'_>);
}

/// One block of values to be encoded.
pub(crate) struct EncodeBlock<'a> {
    /// The values; what follows the last one does not matter.
    pub(crate) values: &'a [Pair<f32>],
    /// What makes the value of largest magnitude 1 or -1.
    pub(crate) inverse_scale: f32,
    /// Where the codes go; no longer than `values`.
    pub(crate) codes: &'a mut [u8],
    /// Which of the codec's codebooks.
    pub(crate) signed: bool,
    /// How values between two codes are rounded.
    pub(crate) rounding: Rounding,
}

/// How a normalized value becomes a byte.
#[derive(Clone)]
pub struct Codec {
    name: Arc<str>,
    format: Arc<dyn Format>,
}

/// A line of the list of codecs.
type Builtin = (&'static str, fn() -> Arc<dyn Format>);

/// The codecs that have a name. The first is the default.
const BUILTIN: &[Builtin] = &[
    ("dynamic", || Arc::new(grid::GridFormat::<dynamic::Dynamic>::new())),
    ("root", || Arc::new(grid::GridFormat::<root::Root>::new())),
    ("linear", || Arc::new(grid::GridFormat::<linear::Linear>::new())),
];

impl Codec {
    /// The names of the codecs that come with the crate.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// A codec by its name.
    ///
    /// # Errors
    ///
    /// [`Error::CodecName`] for a name that is not in [`Codec::names`].
    pub fn builtin(name: &str) -> Result<Self> {
        static CODECS: LazyLock<Vec<Codec>> = LazyLock::new(|| {
            BUILTIN
                .iter()
                .map(|(name, new)| Codec { name: (*name).into(), format: new() })
                .collect()
        });
        CODECS.iter().find(|codec| &*codec.name == name).cloned().ok_or_else(|| Error::CodecName {
            found: name.to_owned(),
            expected: Self::names().collect::<Vec<_>>().join(", "),
        })
    }

    /// A codec of one's own: 256 sorted values for states of either sign, and 256 for states that
    /// are never negative. Both hold 0, and 1 as their largest value.
    ///
    /// # Errors
    ///
    /// [`Error::CodebookLength`] or [`Error::CodebookValue`].
    pub fn custom(name: &str, signed: &[f32], unsigned: &[f32]) -> Result<Self> {
        let codebook = |values| Codebook::new(name, values);
        let format = custom::Custom::new(codebook(signed)?, codebook(unsigned)?);
        Ok(Self { name: name.into(), format: Arc::new(format) })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values that codes stand for, for states of either sign or for those never negative.
    #[must_use]
    pub fn codebook(&self, signed: bool) -> &Codebook {
        self.format.codebook(signed)
    }

    /// Encodes one block.
    #[inline]
    pub(crate) fn encode(&self, level: Level, block: EncodeBlock<'_>) {
        self.format.encode(level, block);
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.name).finish()
    }
}
