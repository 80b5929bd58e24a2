//! What becomes of an update that is not simply written: how long it is, or another length for it.
//! AdaGraft needs both of its two optimizers.
//!
//! The update knows nothing of this, or it would have to be compiled once more for each rule, or to
//! choose for each vector. It updates a copy of the block, and what to do with the copy is decided
//! here. A block stays in the cache, so this costs no memory that grows with a tensor.
//!
//! Numbers narrower than those of the arithmetic would be rounded before their update is measured, which
//! may be all of it: they come here in the wider type (`wide.rs`).

use crate::block::padded;
use crate::element::Element;
use crate::real::Real;
use crate::simd::{GROUP, Kernel, Level, Simd};

/// What becomes of the updates of a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effect {
    /// They are written.
    Write,
    /// They are written, multiplied by a factor.
    Scale(f64),
    /// They are measured; of states they are written or not, of parameters they are not.
    Length { states: bool },
}

impl Effect {
    /// Whether parameters change.
    pub(crate) fn writes_params(self) -> bool {
        !matches!(self, Self::Length { .. })
    }

    /// Whether states become what the rule makes of them.
    pub(crate) fn writes_states(self) -> bool {
        self != Self::Length { states: false }
    }
}

/// Room for copies of a block's elements, of what is not to be updated in place.
pub(crate) struct Rooms<E: Element, const N: usize> {
    effect: Effect,
    pub(crate) param: Room<E>,
    /// For each state, one of which is used.
    pub(crate) states: [(Room<E::Compute>, Room<E>); N],
}

impl<E: Element, const N: usize> Rooms<E, N> {
    /// Room for a rule with `N` states.
    #[inline(never)]
    pub(crate) fn new(effect: Effect) -> Self {
        let in_place = effect.writes_states();
        let state = |_| (Room::unless(in_place), Room::unless(in_place));
        Self {
            effect,
            param: Room::unless(effect == Effect::Write),
            states: core::array::from_fn(state),
        }
    }

    /// Brings about the effect, now that the parameters of a block have been updated, here or in
    /// place. Returns the square of the update's length, if that was to be measured.
    #[inline]
    pub(crate) fn apply(&self, level: Level, params: &mut [E]) -> f64 {
        match (self.effect, &self.param.0) {
            (Effect::Length { .. }, Some(updated)) => {
                level.run(SquaredLength { from: params, to: updated })
            }
            (Effect::Scale(factor), Some(updated)) => {
                level.run(Scale { from: params, to: updated, factor });
                0.0
            }
            _ => 0.0,
        }
    }
}

/// Room for a copy of some elements of a block, unless they are updated in place.
pub(crate) struct Room<T>(Option<Vec<T>>);

impl<T: Copy> Room<T> {
    fn unless(in_place: bool) -> Self {
        Self((!in_place).then(Vec::new))
    }

    /// Where the elements are to be updated.
    #[inline(always)]
    pub(crate) fn of<'a>(&'a mut self, elements: &'a mut [T]) -> &'a mut [T] {
        if self.0.is_none() { elements } else { self.copy_of(elements) }
    }

    #[cold]
    fn copy_of(&mut self, elements: &[T]) -> &mut [T] {
        let copy = self.0.get_or_insert_default();
        copy.clear();
        copy.extend_from_slice(elements);
        copy
    }
}

/// The sum of the squares of the differences, the same for any vectors.
struct SquaredLength<'a, E> {
    from: &'a [E],
    to: &'a [E],
}

impl<E: Element> Kernel for SquaredLength<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [E::Compute::default(); GROUP];
        let [(from, from_rest), (to, to_rest)] = [self.from, self.to].map(<[E]>::as_chunks);
        for (from, to) in from.iter().zip(to) {
            add_squared_steps(simd, from, to, &mut sums);
        }
        if !to_rest.is_empty() {
            // What follows the last element is the same in both.
            let [from, to] = [from_rest, to_rest].map(|rest| padded(rest, E::default()));
            add_squared_steps(simd, &from, &to, &mut sums);
        }
        sums.into_iter().map(E::Compute::to_f64).sum()
    }
}

/// Adds the squares of the differences of two groups, each to the sum at its place.
#[inline(always)]
fn add_squared_steps<S: Simd, E: Element>(
    simd: S,
    from: &[E; GROUP],
    to: &[E; GROUP],
    sums: &mut [E::Compute; GROUP],
) {
    for at in 0..GROUP / S::LANES {
        let step = E::load(simd, to, at) - E::load(simd, from, at);
        let sum = step.mul_add(step, E::Compute::load(simd, sums, at));
        E::Compute::store(simd, sum, sums, at);
    }
}

/// Moves elements by `factor` times the way to others.
struct Scale<'a, E> {
    from: &'a mut [E],
    to: &'a [E],
    factor: f64,
}

impl<E: Element> Kernel for Scale<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (from, from_rest) = self.from.as_chunks_mut();
        let (to, to_rest) = self.to.as_chunks();
        for (from, to) in from.iter_mut().zip(to) {
            scale_group(simd, from, to, self.factor);
        }
        if !to_rest.is_empty() {
            let [mut from, to] = [&*from_rest, to_rest].map(|rest| padded(rest, E::default()));
            scale_group(simd, &mut from, &to, self.factor);
            from_rest.copy_from_slice(&from[..from_rest.len()]);
        }
    }
}

/// Moves a group by `factor` times the way to another.
#[inline(always)]
fn scale_group<S: Simd, E: Element>(simd: S, from: &mut [E; GROUP], to: &[E; GROUP], factor: f64) {
    for at in 0..GROUP / S::LANES {
        let start = E::load(simd, from, at);
        let step = E::load(simd, to, at) - start;
        E::store(simd, step.mul_add(step.like(factor), start), from, at);
    }
}
