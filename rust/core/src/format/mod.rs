//! How a state is stored: codecs, and the codebooks that define them.
//!
//! A block of a state is one float32 scale, its largest magnitude, and a byte for each element: an
//! index into a codebook of 256 values. What is stored means exactly `codebook[code] * scale`
//! in float32, whatever the codec. So all of them can be decoded by a table lookup, and a codec is a
//! codebook with a way to find the code of a value. Two ways exist: [`grid`] for codecs whose code is
//! a formula of the value, [`custom`] for any table at all. An update multiplies what it decodes by a decay,
//! and may have it some roundings off: for that, where the value is a formula of the code too, a codec may
//! use it, and have one multiplication for all that there is to multiply.

mod codebook;
mod custom;
mod dynamic;
mod grid;
mod linear;
mod minifloat;
mod root;
#[cfg(test)]
mod tests;

pub use codebook::Codebook;
pub(crate) use minifloat::{FromBits, Line};

use crate::error::{Error, Result};
use crate::rounding::Rounding;
use crate::simd::{Ahead, GROUP, Kernel, Level, PAIR, Pair, Simd, Table};
use std::fmt;
use std::sync::{Arc, LazyLock};

/// What a codec does: its codebooks, and how blocks are decoded and encoded.
pub(crate) trait Format: Send + Sync {
    /// The values that codes stand for.
    fn codebook(&self, signed: bool) -> &Codebook;
    /// Decodes blocks by the codebook.
    fn look_up(&self, level: Level, blocks: &mut DecodeBlocks<'_>) {
        level.run(LookUpBlocks { table: self.codebook(blocks.signed).table(), blocks });
    }
    /// Decodes blocks for an update.
    fn decode(&self, level: Level, blocks: &mut DecodeBlocks<'_>) {
        self.look_up(level, blocks);
    }
    /// Encodes blocks.
    fn encode(&self, level: Level, blocks: &mut EncodeBlocks<'_>);
    /// Whether [`FromBits`] decodes it.
    fn is_from_bits(&self) -> bool {
        false
    }
}

/// Blocks to be decoded, one after the other in memory, which end with a pair of groups.
pub(crate) struct DecodeBlocks<'a> {
    /// The codes.
    pub(crate) codes: &'a [[[u8; GROUP]; 2]],
    /// Elements in a block, a power of two; the last one may be short.
    pub(crate) block_size: usize,
    /// What the values of the codes of each block are multiplied by.
    pub(crate) scales: &'a [f32],
    /// What they are multiplied by besides for an update, which takes what is some roundings off. Without,
    /// they are exactly what is stored.
    pub(crate) decay: Option<f32>,
    /// Where the values go; as many or more.
    pub(crate) values: &'a mut [Pair<f32>],
    /// Which of the codec's codebooks.
    pub(crate) signed: bool,
    /// Codes to ask for meanwhile.
    pub(crate) ahead: Ahead,
}

/// Blocks of values to be encoded, one after the other in memory.
pub(crate) struct EncodeBlocks<'a> {
    /// The values; what follows the last one does not matter.
    pub(crate) values: &'a [Pair<f32>],
    /// Elements in a block, a power of two; the last one may be short.
    pub(crate) block_size: usize,
    /// For each block, what makes its value of largest magnitude 1 or -1.
    pub(crate) inverse_scales: &'a [f32],
    /// Where the codes go; no longer than `values`.
    pub(crate) codes: &'a mut [u8],
    /// Which of the codec's codebooks.
    pub(crate) signed: bool,
    /// How values between two codes are rounded.
    pub(crate) rounding: Rounding,
    /// What to ask for meanwhile, [`ENCODING_ASKS`] for each pair of groups. A slow codec need not.
    pub(crate) ahead: Ahead,
}

/// Bytes that are asked for while two groups are encoded: a few lines keep the memory busy.
pub(crate) const ENCODING_ASKS: usize = 128;

/// How codes become values.
pub(crate) trait Decoder<S: Simd>: Copy {
    /// What a block is decoded with.
    type Factor: Copy;

    /// That of a block whose values are multiplied by `factor`.
    fn factor(self, simd: S, factor: f32) -> Self::Factor;

    /// The values of two groups of codes.
    fn decode(self, simd: S, factor: Self::Factor, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>);
}

/// By a table, which every codec has.
#[derive(Clone, Copy)]
struct LookUp<'a>(&'a Table);

impl<S: Simd> Decoder<S> for LookUp<'_> {
    type Factor = S::F32;

    #[inline(always)]
    fn factor(self, simd: S, factor: f32) -> S::F32 {
        simd.splat(factor)
    }

    #[inline(always)]
    fn decode(self, simd: S, factor: S::F32, codes: &[[u8; GROUP]; 2], to: &mut Pair<f32>) {
        simd.decode(self.0, factor, codes, to);
    }
}

/// Decodes blocks with a decoder.
#[inline(always)]
fn decode_blocks<S: Simd>(simd: S, decoder: impl Decoder<S>, blocks: &mut DecodeBlocks<'_>) {
    let DecodeBlocks { codes, block_size, scales, decay, values, ahead, .. } = blocks;
    let (log_pairs, decay) = (block_size.div_ceil(PAIR).ilog2(), decay.unwrap_or(1.0));
    let mut factor = decoder.factor(simd, 0.0);
    for (pair, (codes, values)) in codes.iter().zip(&mut **values).enumerate() {
        ahead.ask(pair, PAIR);
        if pair & ((1 << log_pairs) - 1) == 0 {
            factor = decoder.factor(simd, scales[pair >> log_pairs] * decay);
        }
        decoder.decode(simd, factor, codes, values);
    }
}

/// Decodes blocks by a table.
struct LookUpBlocks<'a, 'b> {
    table: &'a Table,
    blocks: &'a mut DecodeBlocks<'b>,
}

impl Kernel for LookUpBlocks<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        decode_blocks(simd, LookUp(self.table), self.blocks);
    }
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
    ("minifloat", || Arc::new(grid::GridFormat::<minifloat::Minifloat>::new())),
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
        let signed = Codebook::checked(name, signed)?;
        let unsigned = Codebook::checked(name, unsigned)?;
        if unsigned.zero() != 0 {
            let found = f64::from(unsigned.values()[0]);
            return Err(Error::CodebookValue { name: name.to_owned(), index: 0, found });
        }
        let format = custom::Custom::new(signed, unsigned);
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

    /// Decodes blocks.
    //
    // By reference, here and in encoding: to copy what was written a moment ago would wait for its parts
    // to reach the cache.
    #[inline]
    pub(crate) fn decode(&self, level: Level, mut blocks: DecodeBlocks<'_>) {
        match blocks.decay {
            None => self.format.look_up(level, &mut blocks),
            Some(_) => self.format.decode(level, &mut blocks),
        }
    }

    /// Whether [`FromBits`] decodes it.
    #[inline]
    pub(crate) fn is_from_bits(&self) -> bool {
        self.format.is_from_bits()
    }

    /// Encodes blocks.
    #[inline]
    pub(crate) fn encode(&self, level: Level, mut blocks: EncodeBlocks<'_>) {
        self.format.encode(level, &mut blocks);
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Codec").field(&self.name).finish()
    }
}
