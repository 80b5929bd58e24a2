//! The one loop that every optimizer, dtype and instruction set shares.
//!
//! For each batch of blocks: decode the states, apply the rule, write the parameters (`update.rs`), find
//! the new scales, encode the states. The states wait in the first-level cache in between, because a
//! scale is not known before the last element of its block. A batch is some blocks, and not one, as
//! what happens once for it (a call of a codec, loops to set up) would otherwise cost as much as what
//! happens for its elements.
//!
//! Rules that need a sum over the whole tensor (a norm, say) go over it once more, beforehand. The
//! same loop then writes nothing and adds up: in the rule's type, each of the [`GROUP`] elements of a
//! group for itself, over a block; and from there in float64, so that the order of the additions is
//! that of the elements, and the sum the same for any vectors and threads. Where a step's own length is
//! asked for, or another one is given to it, the passes work on a copy of a block (`effect.rs`).

use crate::block::{MAX_BLOCKS, Scratch, blocks_in_batch};
use crate::effect::{Effect, Rooms};
use crate::element::{Compute, Element};
use crate::format::{Codec, ENCODING_ASKS};
use crate::layout::Layout;
use crate::rounding::{Rounding, Stream};
use crate::rule::{Kind, Rule};
use crate::simd::{Ahead, GROUP, Level, PAIR, prefetch};
use crate::update::{Part, PartAhead, StatePart, Sums, Tail, Update, for_each_state, grad_asks};
use core::ops::{AddAssign, Range};

/// How the blocks of a group of tensors are treated.
#[derive(Clone, Debug)]
pub struct Options {
    /// How states are stored.
    pub codec: Codec,
    /// Elements that share one scale.
    pub block_size: usize,
    /// Whether states are rounded stochastically, and not to nearest.
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

/// Where the elements lie that will be wanted after those of some blocks: to be asked for, and no more.
/// They are taken to be of the types of these; where they are not, some of it is asked for in vain.
#[derive(Clone, Copy)]
pub(crate) struct Next<const N: usize> {
    pub(crate) param: *const u8,
    pub(crate) grad: *const u8,
    /// Of states that are quantized, the codes.
    pub(crate) states: [*const u8; N],
    /// Of those, in any order.
    pub(crate) scales: [*const u8; N],
}

impl<const N: usize> Next<N> {
    /// Not known.
    pub(crate) const NOWHERE: Self = Self {
        param: core::ptr::null(),
        grad: core::ptr::null(),
        states: [core::ptr::null(); N],
        scales: [core::ptr::null(); N],
    };
}

/// Consecutive blocks of one tensor, to be passed over by a rule. All slices begin at the first of them.
pub(crate) struct StepBlocks<'a, R, E: Element, const N: usize> {
    pub(crate) level: Level,
    pub(crate) rule: R,
    pub(crate) options: &'a Options,
    pub(crate) layout: Layout,
    pub(crate) blocks: Range<usize>,
    pub(crate) param: &'a mut [E],
    pub(crate) grad: &'a [E],
    pub(crate) states: [StateBlocks<'a, E>; N],
    pub(crate) effect: Effect,
    pub(crate) next: Next<N>,
}

impl<R, E, const N: usize> StepBlocks<'_, R, E, N>
where
    R: Rule<N>,
    E: Element,
{
    /// A pass: a step, or (`MEASURE`) the sums that the rule needs before it; `QUANTIZED` says of all states
    /// that may be quantized whether they are.
    pub(crate) fn run<const QUANTIZED: bool, const MEASURE: bool>(mut self) -> Outcome {
        // Narrow elements come here in the wider type if there is another effect (`kernel/mod.rs`).
        let effect = if MEASURE || E::ROUNDED { Effect::Write } else { self.effect };
        let block_size = self.layout.block_size();
        let decays = self.rule.decays();
        // What is summed up or skipped by blocks goes block by block.
        let alone = MEASURE || effect != Effect::Write || self.options.skip_nonfinite;
        let n_most = if alone { 1 } else { blocks_in_batch(block_size) };
        let mut memory = Scratch::memory(N, block_size, self.param.len());
        let mut each = Scratch::each(&mut memory, N, block_size);
        let mut fresh: [Scratch<'_>; N] =
            core::array::from_fn(|_| each.next().expect("one for each state"));
        let in_loop = QUANTIZED
            && E::DECODES_IN_LOOP
            && self.level.decodes_in_loop()
            && self.options.codec.is_from_bits();
        let mut tail = Tail::new();
        let mut peaks = [[0; MAX_BLOCKS]; N];
        let mut rooms = Rooms::<E, N>::new(effect);
        let mut outcome = Outcome::default();
        let layout = self.layout;
        // A line of scales is of so many elements that the processor does not see where the next one will be.
        for scales in self.next.scales.into_iter().filter(|_| QUANTIZED) {
            prefetch(scales.cast::<f32>(), size_of::<f32>() * self.blocks.len());
        }
        for (indices, elements) in layout.batches(self.blocks.clone(), n_most) {
            let first_block = self.blocks.start + indices.start;
            let mut ahead = PartAhead {
                param: Ahead::of(self.param, &elements, self.next.param),
                grad: Ahead::of(self.grad, &elements, self.next.grad),
                states: [Ahead::NOWHERE; N],
            };
            let grad = &self.grad[elements.clone()];
            if self.options.skip_nonfinite && !grad.iter().all(|&value| fits(value, QUANTIZED)) {
                outcome.skipped += 1;
                continue;
            }
            let target = &mut self.param[elements.clone()];
            let param = rooms.param.of(target);
            let mut states = [const { StatePart::NONE }; N];
            let mut from = self.states.iter_mut().zip(fresh.iter_mut()).zip(&mut rooms.states);
            for_each_state!(i of N {
                let (part, next) = (&mut states[i], self.next.states[i]);
                match from.next() {
                    Some(((StateBlocks::Quantized { codes, scales, .. }, fresh), _)) => {
                        let (codec, signed) = (&self.options.codec, is_signed::<R, N>(i));
                        ahead.states[i] = Ahead::of(codes, &elements, next);
                        let (codes, scales) = (&codes[elements.clone()], &scales[indices.clone()]);
                        if in_loop {
                            (part.codes, part.scales) = (codes, scales);
                        } else {
                            let decay = (!E::Compute::IS_WIDE).then_some(decays[i] as f32);
                            let ahead = ahead.states[i];
                            fresh.decode(self.level, codec, signed, scales, decay, codes, ahead);
                        }
                        part.fresh = fresh.pairs_mut();
                    }
                    Some(((StateBlocks::Full(full), _), (room, _))) => {
                        part.full = room.of(&mut full[elements.clone()]);
                    }
                    Some(((StateBlocks::Copy(copy), _), (_, room))) => {
                        ahead.states[i] = Ahead::of(copy, &elements, next);
                        part.copy = room.of(&mut copy[elements.clone()]);
                    }
                    None => {}
                }
            });
            let mut sums: Sums<E::Compute> = [[E::Compute::default(); GROUP]; 2];
            let update = Update {
                rule: &self.rule,
                batch: Part { param, grad, states, ahead },
                block_size,
                sums: &mut sums,
                tail: &mut tail,
                largest: &mut peaks,
            };
            update.run::<QUANTIZED, MEASURE>(self.level, in_loop);
            if MEASURE {
                for (total, sums) in outcome.sums.iter_mut().zip(sums) {
                    *total += sums.into_iter().map(E::Compute::to_f64).sum::<f64>();
                }
                continue;
            }
            outcome.squared_length += rooms.apply(self.level, target);
            if effect.writes_states() {
                self.encode(&mut fresh, first_block, indices, elements, &peaks, ahead.grad);
            }
        }
        outcome
    }

    /// Encodes the states of a batch whose first block is block `first_block` of the tensor.
    #[inline(always)]
    fn encode(
        &mut self,
        fresh: &mut [Scratch<'_>; N],
        first_block: usize,
        indices: Range<usize>,
        elements: Range<usize>,
        peaks: &[[u32; MAX_BLOCKS]; N],
        grad_ahead: Ahead,
    ) {
        let n_pairs = elements.len() / PAIR;
        let mut ahead = grad_ahead.skip(n_pairs * grad_asks::<R, E, N>(true));
        for (i, state) in self.states.iter_mut().enumerate() {
            if let StateBlocks::Quantized { codes, scales, stream } = state {
                let rounding = match *stream {
                    Some(stream) => Rounding::Stochastic { stream, first_block },
                    None => Rounding::Nearest,
                };
                let (codec, signed) = (&self.options.codec, is_signed::<R, N>(i));
                let (codes, scales) = (&mut codes[elements.clone()], &mut scales[indices.clone()]);
                let peaks = &peaks[i][..indices.len()];
                fresh[i].encode(self.level, codec, signed, rounding, peaks, codes, scales, ahead);
                ahead = ahead.skip(n_pairs * ENCODING_ASKS);
            }
        }
    }
}

/// Whether a gradient is finite, and so is its square, which second moments are made of, where they are
/// kept.
#[inline(always)]
fn fits<E: Element>(grad: E, quantized: bool) -> bool {
    let largest = if quantized { f64::from(f32::MAX) } else { E::Compute::LARGEST };
    grad.to_f64().abs() <= largest.sqrt()
}

/// Whether a state of a rule may be negative.
#[inline(always)]
fn is_signed<R: Rule<N>, const N: usize>(state: usize) -> bool {
    R::STATES[state].kind == Kind::Signed
}
