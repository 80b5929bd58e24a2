//! The update of a batch of blocks: apply the rule to decoded states, write the parameters.
//!
//! The hot loop of the library. What makes it fast is what the compiler knows of it: how each state is
//! kept, so that nothing is chosen in the loop; where everything lies, so that no structure is copied
//! for a batch; and how many elements a turn has, always two groups. What is left of a block goes
//! through the same code in memory of our own: to compile the update twice would double the size of
//! the library.
//!
//! A batch is a function of its own, and nothing else is in it. As part of the loop over batches, with calls
//! of codecs beside it, the compiler found no registers for its constants (AdamW had 22 of them, AVX-512 has
//! 32 registers) and loaded all of them again in each turn: an eighth of a step's time on a Zen 5.
//!
//! The long chain of an update ends with a square root and a division, which take turns in one unit. What
//! else there is to do should be done meanwhile, if it finds room, in the registers and in the processor's
//! window: that is so of decoding in some cases, which `decoding.rs` has. Parameters of 16 bits are rounded
//! after, two groups at once.
//!
//! A step is bound by memory once the arithmetic is fast, and then the processor's own prefetching
//! of five to seven interleaved streams is not enough: asking for all of them a few blocks ahead was
//! the largest gain of all (`simd/prefetch.rs`). Gradients are asked for while states are encoded, where
//! they are.

use crate::block::{MAX_BLOCKS, magnitude_bits};
use crate::decoding::{Before, Decoding, InLoop};
use crate::element::{Compute, Element, Lanes};
use crate::format::{ENCODING_ASKS, Line};
use crate::real::Real;
use crate::rule::{Kind, Rule};
use crate::simd::{
    Ahead, Aligned, GROUP, Kernel, Level, PAIR, Pair, Simd, pairs, pairs_mut, vectors,
};
use core::ops::Range;

/// Elements of a turn.
const TURN: usize = PAIR;

/// The sums of a block, for each element of a group.
pub(crate) type Sums<C> = [[C; GROUP]; 2];

/// Runs a body for the index of each state, of which there are at most three. A loop would be
/// unrolled as well, but after the compiler has decided that what its index selects lies in memory.
macro_rules! for_each_state {
    ($i:ident of $n:ident $body:block) => {
        const { assert!($n <= 3) };
        if $n > 0 {
            let $i = 0;
            $body
        }
        if $n > 1 {
            let $i = 1;
            $body
        }
        if $n > 2 {
            let $i = 2;
            $body
        }
    };
}
pub(crate) use for_each_state;

/// Bytes of gradients that are asked for in each turn. The rest is while states are encoded; where they are
/// not (if an update is only measured), or not in pairs of groups, it is left to the processor.
pub(crate) const fn grad_asks<R: Rule<N>, E: Element, const N: usize>(encodes: bool) -> usize {
    let (mut n_encoded, mut i) = (0, 0);
    while i < N {
        n_encoded += (encodes && !matches!(R::STATES[i].kind, Kind::Copy)) as usize;
        i += 1;
    }
    size_of::<[E; TURN]>().saturating_sub(n_encoded * ENCODING_ASKS)
}

/// Consecutive elements of one block.
pub(crate) struct Part<'a, E: Element, const N: usize> {
    pub(crate) param: &'a mut [E],
    pub(crate) grad: &'a [E],
    pub(crate) states: [StatePart<'a, E>; N],
    pub(crate) ahead: PartAhead<N>,
}

/// What to ask for while elements are updated.
#[derive(Clone, Copy)]
pub(crate) struct PartAhead<const N: usize> {
    pub(crate) param: Ahead,
    pub(crate) grad: Ahead,
    /// Of states that are copies, or decoded in the loop.
    pub(crate) states: [Ahead; N],
}

/// One state of these elements. What a state does not have is empty.
pub(crate) struct StatePart<'a, E: Element> {
    /// A quantized state, decoded if it is decoded before, and then the fresh one.
    pub(crate) fresh: &'a mut [Pair<f32>],
    /// Its codes, if they are decoded in the loop.
    pub(crate) codes: &'a [u8],
    /// The scales of all blocks of the batch, likewise.
    pub(crate) scales: &'a [f32],
    pub(crate) full: &'a mut [E::Compute],
    pub(crate) copy: &'a mut [E],
}

impl<E: Element> StatePart<'_, E> {
    /// Of no elements.
    pub(crate) const NONE: Self =
        Self { fresh: nothing(), codes: &[], scales: &[], full: nothing(), copy: nothing() };
}

/// A [`StatePart`], turn by turn. All that it has is of one length, which is that of the loop: so nothing
/// is checked in there.
struct Turns<'a, E: Element> {
    fresh: &'a mut [Pair<f32>],
    codes: &'a [[[u8; GROUP]; 2]],
    scales: &'a [f32],
    full: &'a mut [[[E::Compute; GROUP]; 2]],
    copy: &'a mut [[[E; GROUP]; 2]],
}

impl<'a, E: Element> Turns<'a, E> {
    const NONE: Self =
        Self { fresh: nothing(), codes: &[], scales: &[], full: nothing(), copy: nothing() };

    #[inline(always)]
    fn of(
        part: StatePart<'a, E>,
        kind: Kind,
        quantized: bool,
        in_loop: bool,
        n_turns: usize,
    ) -> Self {
        let mut turns = Self { scales: part.scales, ..Self::NONE };
        match (kind, quantized) {
            (Kind::Copy, _) => turns.copy = &mut pairs_mut(part.copy)[..n_turns],
            (_, false) => turns.full = &mut pairs_mut(part.full)[..n_turns],
            (_, true) => turns.fresh = &mut part.fresh[..n_turns],
        }
        if in_loop && kind != Kind::Copy {
            turns.codes = &pairs(part.codes)[..n_turns];
        }
        turns
    }
}

const fn nothing<'a, T>() -> &'a mut [T] {
    &mut []
}

impl<E: Element, const N: usize> Part<'_, E, N> {
    /// Some of the elements; they begin with a turn.
    #[inline(always)]
    fn slice<R: Rule<N>, const QUANTIZED: bool>(
        &mut self,
        elements: Range<usize>,
    ) -> Part<'_, E, N> {
        let bytes_before = elements.start * size_of::<E>();
        let mut states = [const { StatePart::NONE }; N];
        let mut from = self.states.iter_mut();
        for_each_state!(i of N {
            let part = &mut states[i];
            match (R::STATES[i].kind, QUANTIZED, from.next()) {
                (_, _, None) => {}
                (Kind::Copy, _, Some(from)) => part.copy = &mut from.copy[elements.clone()],
                (_, false, Some(from)) => part.full = &mut from.full[elements.clone()],
                (_, true, Some(from)) => {
                    part.fresh = &mut from.fresh[elements.start / TURN..];
                    // None, if they were decoded before.
                    part.codes = from.codes.get(elements.clone()).unwrap_or_default();
                    part.scales = from.scales;
                }
            }
        });
        let ahead = PartAhead {
            param: self.ahead.param.skip(bytes_before),
            grad: self.ahead.grad.skip(bytes_before),
            states: core::array::from_fn(|i| {
                let is_copy = R::STATES[i].kind == Kind::Copy;
                self.ahead.states[i].skip(if is_copy { bytes_before } else { elements.start })
            }),
        };
        Part { param: &mut self.param[elements.clone()], grad: &self.grad[elements], states, ahead }
    }
}

/// The update of a batch of blocks, or the sums of the rule's terms over it.
///
/// Leaves quantized states in `fresh`, and the bits of the largest magnitudes of each block in
/// `largest`.
pub(crate) struct Update<'a, R, E: Element, const N: usize> {
    pub(crate) rule: &'a R,
    pub(crate) batch: Part<'a, E, N>,
    pub(crate) block_size: usize,
    pub(crate) sums: &'a mut Sums<E::Compute>,
    pub(crate) tail: &'a mut Tail<E, N>,
    pub(crate) largest: &'a mut [[u32; MAX_BLOCKS]; N],
}

impl<R: Rule<N>, E: Element, const N: usize> Update<'_, R, E, N> {
    /// Updates, or (`MEASURE`) sums; `QUANTIZED` says of all states that may be quantized whether they are.
    #[inline]
    pub(crate) fn run<const QUANTIZED: bool, const MEASURE: bool>(
        self,
        level: Level,
        in_loop: bool,
    ) {
        if in_loop {
            level.run(Form::<_, QUANTIZED, MEASURE, true>(self));
        } else {
            level.run(Form::<_, QUANTIZED, MEASURE, false>(self));
        }
    }
}

/// The forms of an update, each compiled for itself.
struct Form<U, const QUANTIZED: bool, const MEASURE: bool, const IN_LOOP: bool>(U);

impl<R, E, const N: usize, const QUANTIZED: bool, const MEASURE: bool, const IN_LOOP: bool> Kernel
    for Form<Update<'_, R, E, N>, QUANTIZED, MEASURE, IN_LOOP>
where
    R: Rule<N>,
    E: Element,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        if !IN_LOOP {
            update_blocks::<S, R, E, _, N, QUANTIZED, MEASURE>(simd, Before, self.0);
        } else if QUANTIZED && E::DECODES_IN_LOOP && S::DECODES_IN_LOOP {
            update_blocks::<S, R, E, _, N, QUANTIZED, MEASURE>(simd, InLoop::new(simd), self.0);
        } else {
            unreachable!("there is no such form");
        }
    }
}

#[inline(always)]
fn update_blocks<S, R, E, D, const N: usize, const QUANTIZED: bool, const MEASURE: bool>(
    simd: S,
    decoding: D,
    update: Update<'_, R, E, N>,
) where
    S: Simd,
    R: Rule<N>,
    E: Element,
    D: Decoding<S>,
{
    let Update { rule, mut batch, block_size, sums, tail, largest } = update;
    // A copy, which no store can change: else its numbers are converted again for every vector.
    let rule = &{ *rule };
    let mut peaks = Peaks::new(simd, block_size, largest);
    let len = batch.param.len();
    let mut start = 0;
    while start < len {
        // All whole turns, then the rest.
        let n_whole = (len - start) / TURN * TURN;
        let elements = start..if n_whole > 0 { start + n_whole } else { len };
        let mut part = batch.slice::<R, QUANTIZED>(elements.clone());
        if n_whole == 0 {
            part = tail.take(part);
        }
        update_turns::<S, R, E, D, N, QUANTIZED, MEASURE>(
            simd,
            rule,
            decoding,
            part,
            elements.clone(),
            &mut peaks,
            sums,
        );
        if n_whole == 0 {
            tail.give_back(batch.slice::<R, QUANTIZED>(elements.clone()));
        }
        start = elements.end;
    }
    peaks.finish(simd);
}

/// The largest magnitudes of the fresh states of each block, as bits.
struct Peaks<'a, S: Simd, const N: usize> {
    /// Of the turns so far of a block.
    so_far: [S::I32; N],
    /// Turns that are left of it.
    n_left: usize,
    turns_per_block: usize,
    of_blocks: &'a mut [[u32; MAX_BLOCKS]; N],
    /// Blocks before it.
    n_blocks: usize,
}

impl<'a, S: Simd, const N: usize> Peaks<'a, S, N> {
    #[inline(always)]
    fn new(simd: S, block_size: usize, of_blocks: &'a mut [[u32; MAX_BLOCKS]; N]) -> Self {
        let turns_per_block = block_size.div_ceil(TURN);
        Self {
            so_far: [simd.splat_i32(0); N],
            n_left: turns_per_block,
            turns_per_block,
            of_blocks,
            n_blocks: 0,
        }
    }

    /// A turn is over.
    #[inline(always)]
    fn end_turn(&mut self, simd: S) {
        self.n_left -= 1;
        if self.n_left == 0 {
            self.end_block(simd);
        }
    }

    #[inline(always)]
    fn end_block(&mut self, simd: S) {
        for_each_state!(i of N {
            self.of_blocks[i][self.n_blocks] = simd.reduce_max(self.so_far[i]);
            self.so_far[i] = simd.splat_i32(0);
        });
        self.n_left = self.turns_per_block;
        self.n_blocks += 1;
    }

    /// All blocks are over, of which the last may have been short.
    #[inline(always)]
    fn finish(mut self, simd: S) {
        if self.n_left < self.turns_per_block {
            self.end_block(simd);
        }
    }
}

/// The update of whole turns, of which those elements count that are among `elements` of the
/// block.
#[inline(always)]
fn update_turns<S, R, E, D, const N: usize, const QUANTIZED: bool, const MEASURE: bool>(
    simd: S,
    rule: &R,
    decoding: D,
    part: Part<'_, E, N>,
    elements: Range<usize>,
    peaks: &mut Peaks<'_, S, N>,
    sums: &mut Sums<E::Compute>,
) where
    S: Simd,
    R: Rule<N>,
    E: Element,
    D: Decoding<S>,
{
    let (params, grads) = (pairs_mut(part.param), pairs(part.grad));
    let ahead = part.ahead;
    let n_turns = params.len();
    let grads = &grads[..n_turns];
    let mut states = [const { Turns::NONE }; N];
    let mut from = part.states.into_iter();
    for_each_state!(i of N {
        if let Some(state) = from.next() {
            states[i] = Turns::of(state, R::STATES[i].kind, QUANTIZED, D::IN_LOOP, n_turns);
        }
    });
    let decays = rule.decays();
    let mut lines = [Line::new(simd, false, 0.0); N];
    for turn in 0..n_turns {
        let (param, grad) = (&mut params[turn], &grads[turn]);
        ahead.param.ask(turn, size_of::<[E; TURN]>());
        ahead.grad.ask(turn, grad_asks::<R, E, N>(QUANTIZED && !MEASURE));
        // The first one here may be the last one of its block, which is not whole.
        let block_is_new = turn == 0 || peaks.n_left == peaks.turns_per_block;
        for_each_state!(i of N {
            if R::STATES[i].kind == Kind::Copy {
                ahead.states[i].ask(turn, size_of::<[E; TURN]>());
            } else if QUANTIZED && D::IN_LOOP {
                ahead.states[i].ask(turn, TURN);
                if block_is_new {
                    let largest = states[i].scales[peaks.n_blocks] * decays[i] as f32;
                    lines[i] = Line::new(simd, R::STATES[i].kind == Kind::Signed, largest);
                }
            }
        });
        let mut new_params = [Aligned([E::Compute::default(); GROUP]); 2];
        for group in 0..2 {
            let start = elements.start + turn * TURN + group * GROUP;
            // What follows the elements of a tail must not count.
            let n_count = elements.end.saturating_sub(start);
            let sums_before = (MEASURE && n_count < GROUP).then_some(*sums);
            for at in vectors::<S>() {
                let old_param = E::load(simd, &param[group], at);
                let mut old: [Lanes<E, S>; N] = [old_param; N];
                for_each_state!(i of N {
                    let state = &states[i];
                    old[i] = match (R::STATES[i].kind, QUANTIZED) {
                        (Kind::Copy, _) => {
                            E::load(simd, &state.copy[turn][group], at)
                        }
                        (_, false) => {
                            let full = E::Compute::load(simd, &state.full[turn][group], at);
                            full * full.like(decays[i])
                        }
                        (_, true) => {
                            let value = if D::IN_LOOP {
                                let signed = R::STATES[i].kind == Kind::Signed;
                                decoding.value(simd, signed, lines[i], &state.codes[turn][group], at)
                            } else {
                                simd.load(&state.fresh[turn][group].0, at)
                            };
                            let value = E::Compute::from_f32(simd, value);
                            if E::Compute::IS_WIDE { value * value.like(decays[i]) } else { value }
                        }
                    };
                });
                let grad = E::load(simd, &grad[group], at);
                if MEASURE {
                    for (sum, term) in sums.iter_mut().zip(rule.terms(old_param, grad, old)) {
                        let sum_so_far = E::Compute::load(simd, sum, at);
                        E::Compute::store(simd, sum_so_far + term, sum, at);
                    }
                    continue;
                }
                let (new_param, new) = rule.update(old_param, grad, old);
                if E::ROUNDED {
                    E::Compute::store(simd, new_param, &mut new_params[group].0, at);
                } else {
                    E::store(simd, new_param, &mut param[group], at);
                }
                for_each_state!(i of N {
                    let state = &mut states[i];
                    match (R::STATES[i].kind, QUANTIZED) {
                        (Kind::Copy, _) => {
                            E::store(simd, new[i], &mut state.copy[turn][group], at);
                        }
                        (_, false) => {
                            let full = &mut state.full[turn][group];
                            E::Compute::store(simd, new[i], full, at);
                        }
                        (_, true) => {
                            let value = E::Compute::to_f32(simd, new[i]);
                            let peak = &mut peaks.so_far[i];
                            let bits = match R::STATES[i].kind {
                                Kind::Signed => magnitude_bits(simd, value),
                                // Nor ever -0.
                                _ => simd.bits(value),
                            };
                            *peak = simd.max_u32(*peak, bits);
                            simd.store(value, &mut state.fresh[turn][group].0, at);
                        }
                    }
                });
            }
            if let Some(before) = sums_before {
                for (sums, before) in sums.iter_mut().zip(before) {
                    sums[n_count..].copy_from_slice(&before[n_count..]);
                }
            }
        }
        if E::ROUNDED && !MEASURE {
            for (Aligned(values), param) in new_params.iter().zip(param) {
                for at in vectors::<S>() {
                    E::store(simd, E::Compute::load(simd, values, at), param, at);
                }
            }
        }
        if QUANTIZED && !MEASURE {
            peaks.end_turn(simd);
        }
    }
}

/// Room for a turn that is not whole. It goes on with copies of its last element, so that the rest
/// changes no maximum.
pub(crate) struct Tail<E: Element, const N: usize> {
    param: [E; TURN],
    grad: [E; TURN],
    states: [TailState<E>; N],
}

/// Room for one state of such a turn.
#[derive(Clone, Copy)]
struct TailState<E: Element> {
    codes: [u8; TURN],
    full: [E::Compute; TURN],
    copy: [E; TURN],
}

impl<E: Element, const N: usize> Tail<E, N> {
    pub(crate) fn new() -> Self {
        let full = [E::Compute::default(); TURN];
        let state = TailState { codes: [0; TURN], full, copy: [E::default(); TURN] };
        Self { param: [E::default(); TURN], grad: [E::default(); TURN], states: [state; N] }
    }

    /// Takes what is less than a turn, and is the part in its place.
    #[cold]
    fn take<'a>(&'a mut self, part: Part<'a, E, N>) -> Part<'a, E, N> {
        repeat_last(part.param, &mut self.param);
        repeat_last(part.grad, &mut self.grad);
        let mut tails = self.states.iter_mut();
        let states = part.states.map(|state| {
            let tail = tails.next().expect("one for each state");
            repeat_last(state.codes, &mut tail.codes);
            repeat_last(state.full, &mut tail.full);
            repeat_last(state.copy, &mut tail.copy);
            let TailState { codes, full, copy } = tail;
            StatePart { codes, full, copy, ..state }
        });
        Part { param: &mut self.param, grad: &self.grad, states, ..part }
    }

    /// Writes what was updated to where it was taken from.
    #[cold]
    fn give_back(&self, part: Part<'_, E, N>) {
        part.param.copy_from_slice(&self.param[..part.param.len()]);
        for (state, tail) in part.states.into_iter().zip(&self.states) {
            state.full.copy_from_slice(&tail.full[..state.full.len()]);
            state.copy.copy_from_slice(&tail.copy[..state.copy.len()]);
        }
    }
}

/// Copies, and goes on with the last one; nothing of nothing.
fn repeat_last<T: Copy>(from: &[T], to: &mut [T; TURN]) {
    if let Some(&last) = from.last() {
        to[..from.len()].copy_from_slice(from);
        to[from.len()..].fill(last);
    }
}
