//! The one loop that every optimizer, dtype and instruction set shares.
//!
//! For each block: decode the states, apply the rule, write the parameters (`update.rs`), find the new
//! scales, encode the states. It is two passes over a block, the fresh states waiting in the first-level
//! cache in between, because a scale is not known before the last element of its block. The second
//! pass over a block comes after the first over the next one, which hides how long it takes to find
//! a maximum and divide by it.
//!
//! Rules that need a sum over the whole tensor (a norm, say) go over it once more, beforehand. The
//! same loop then writes nothing and adds up: in the rule's type, each of the [`GROUP`] elements of a
//! group for itself, over a block; and from there in float64, so that the order of the additions is
//! that of the elements, and the sum the same for any vectors and threads. Where a step's own length is
//! asked for, or another one is given to it, the passes work on a copy of a block (`effect.rs`).

use crate::block::Scratch;
use crate::effect::{Effect, Rooms};
use crate::element::{Compute, Element};
use crate::format::Codec;
use crate::layout::Layout;
use crate::rounding::{Rounding, Stream};
use crate::rule::{Kind, Rule};
use crate::simd::{GROUP, Kernel, Level, Simd, Table};
use crate::update::{Part, StatePart, Sums, Tail, for_each_state, update_block};
use core::ops::{AddAssign, Range};

/// How the blocks of a group of tensors are treated.
#[derive(Clone, Debug)]
pub struct Options {
    /// How states are stored.
    pub codec: Codec,
    /// Elements that share one scale.
    pub block_size: usize,
    /// Whether slow averages are rounded stochastically, and not to nearest.
    pub stochastic: bool,
    /// Whether blocks with a gradient that is not finite are left as they are.
    pub skip_nonfinite: bool,
    /// Whether bfloat16 parameters are rounded stochastically, and not to nearest.
    pub stochastic_params: bool,
    /// Of the stochastic rounding.
    pub seed: u64,
}

/// One state over some blocks.
pub(crate) enum StateBlocks<'a, E: Element> {
    /// Kept in the type that formulas are computed in.
    Full(&'a mut [E::Compute]),
    /// Kept in the parameters' type.
    Copy(&'a mut [E]),
    /// Codes and scales; the stream of thresholds if it is rounded stochastically.
    Quantized { codes: &'a mut [u8], scales: &'a mut [f32], stream: Option<Stream> },
}

/// What came of a pass over some blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// Blocks that were left as they were.
    pub(crate) skipped: usize,
    /// Sums of what the rule asked for, if this pass was made for them.
    pub(crate) sums: [f64; 2],
    /// The square of the length of the update, if that was to be measured.
    pub(crate) squared_length: f64,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.skipped += other.skipped;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum += more;
        }
        self.squared_length += other.squared_length;
    }
}

/// A pass over consecutive blocks of one tensor: a step, or (`MEASURE`) the sums that the rule needs
/// before it.
///
/// All slices begin at the first of the blocks. `QUANTIZED` says of all states that may be quantized
/// whether they are.
pub(crate) struct StepBlocks<'a, R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool>
where
    E: Element,
{
    pub(crate) level: Level,
    pub(crate) rule: R,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) param: &'a mut [E],
    pub(crate) grad: &'a [E],
    pub(crate) states: [StateBlocks<'a, E>; N],
    pub(crate) effect: Effect,
    /// The thresholds of the parameters, if they are rounded stochastically.
    pub(crate) param_stream: Option<Stream>,
}

impl<R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool> Kernel
    for StepBlocks<'_, R, E, N, QUANTIZED, MEASURE>
where
    R: Rule<N>,
    E: Element,
{
    type Output = Outcome;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) -> Outcome {
        // A copy, which no store can change: else its numbers are converted again for every vector.
        let rule = self.rule;
        let codec = &self.options.codec;
        let mut tables: [&Table; N] = [&Table::ZEROS; N];
        for_each_state!(i of N {
            tables[i] = codec.codebook(is_signed::<R, N>(i)).table();
        });
        let largest_block = self.layout.block_size().min(self.param.len());
        let mut memory = Scratch::memory(2 * N, largest_block);
        let mut each = Scratch::each(&mut memory, largest_block);
        let mut next = |_| each.next().expect("one for each state, twice");
        let mut fresh: [[Scratch<'_>; N]; 2] = [(); 2].map(|()| core::array::from_fn(&mut next));
        let [now, before] = &mut fresh;
        // Of this block, and of the one before.
        let (mut now, mut before) = (now, before);
        let mut waiting = None;
        let origin = self.layout.elements(self.blocks.clone()).start;
        let mut tail = Tail::new();
        let effect = if MEASURE { Effect::Write } else { self.effect };
        let mut rooms = Rooms::new(effect, N);
        let mut outcome = Outcome::default();
        for (index, block) in self.blocks.clone().enumerate() {
            let elements = self.layout.block(block);
            let elements = elements.start - origin..elements.end - origin;
            let grad = &self.grad[elements.clone()];
            if self.options.skip_nonfinite && !grad.iter().all(|&value| value.is_finite()) {
                outcome.skipped += 1;
                continue;
            }
            let target = &mut self.param[elements.clone()];
            let param = rooms.param.of(target);
            let mut states = [const { StatePart::NONE }; N];
            let mut from = self.states.iter_mut().zip(now.iter_mut()).zip(&mut rooms.states);
            for_each_state!(i of N {
                let part = &mut states[i];
                match from.next() {
                    Some(((StateBlocks::Quantized { codes, scales, .. }, fresh), _)) => {
                        part.codes = &codes[elements.clone()];
                        (part.table, part.scale) = (tables[i], scales[index]);
                        part.fresh = fresh.pairs_mut();
                    }
                    Some(((StateBlocks::Full(full), _), (room, _))) => {
                        part.full = room.of(&mut full[elements.clone()]);
                    }
                    Some(((StateBlocks::Copy(copy), _), (_, room))) => {
                        part.copy = room.of(&mut copy[elements.clone()]);
                    }
                    None => {}
                }
            });
            let part = Part { param, grad, states };
            let mut sums: Sums<E::Compute> = [[E::Compute::default(); GROUP]; 2];
            // With `None` as a constant there is no trace of thresholds in what it compiles to.
            let peaks = match self.param_stream {
                Some(stream) if E::STOCHASTIC => {
                    let mut thresholds = stream.block(block).lanes(simd);
                    let thresholds = Some(&mut thresholds);
                    update_block::<S, R, E, N, QUANTIZED, MEASURE>(
                        simd, &rule, part, thresholds, &mut sums, &mut tail,
                    )
                }
                _ => update_block::<S, R, E, N, QUANTIZED, MEASURE>(
                    simd, &rule, part, None, &mut sums, &mut tail,
                ),
            };
            if MEASURE {
                for (total, sums) in outcome.sums.iter_mut().zip(sums) {
                    *total += sums.into_iter().map(E::Compute::to_f64).sum::<f64>();
                }
                continue;
            }
            outcome.squared_length += rooms.apply(self.level, target);
            if !effect.writes_states() {
                continue;
            }
            // The scale of this block is not known before its last maximum; that of the one before
            // has been for long.
            if let Some(waiting) = waiting.replace(Waiting { index, block, elements, peaks }) {
                self.encode(before, waiting);
            }
            core::mem::swap(&mut now, &mut before);
        }
        if let Some(waiting) = waiting {
            self.encode(before, waiting);
        }
        outcome
    }
}

/// A block whose fresh states wait to be encoded.
struct Waiting<const N: usize> {
    /// Among the blocks of the pass.
    index: usize,
    /// In the whole tensor.
    block: usize,
    /// Of the slices of the pass.
    elements: Range<usize>,
    /// Bits of the largest magnitudes of its states.
    peaks: [i32; N],
}

impl<R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool>
    StepBlocks<'_, R, E, N, QUANTIZED, MEASURE>
where
    R: Rule<N>,
    E: Element,
{
    /// The second pass over a block.
    #[inline(always)]
    fn encode(&mut self, fresh: &mut [Scratch<'_>; N], waiting: Waiting<N>) {
        let Waiting { index, block, elements, peaks } = waiting;
        for (i, state) in self.states.iter_mut().enumerate() {
            if let StateBlocks::Quantized { codes, scales, stream } = state {
                let rounding = match stream {
                    Some(stream) => Rounding::Stochastic(stream.block(block)),
                    None => Rounding::Nearest,
                };
                let codes = &mut codes[elements.clone()];
                let (codec, signed) = (&self.options.codec, is_signed::<R, N>(i));
                scales[index] =
                    fresh[i].encode(self.level, codec, signed, rounding, peaks[i], codes);
            }
        }
    }
}

/// Whether a state of a rule may be negative.
#[inline(always)]
fn is_signed<R: Rule<N>, const N: usize>(state: usize) -> bool {
    R::STATES[state].kind == Kind::Signed
}
