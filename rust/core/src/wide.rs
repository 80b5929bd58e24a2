//! Elements that are narrower than the type of their arithmetic, in that type, and back.
//!
//! bfloat16 parameters that are simply written are rounded in the update itself. All else takes this way:
//! float16, stochastic rounding, and what is measured before it is written. It costs a copy of a chunk,
//! which stays in the second-level cache, and spares a form of every rule's update.

use crate::block::padded;
use crate::element::Element;
use crate::layout::Layout;
use crate::rounding::{Noise, Stream, ThresholdLanes};
use crate::simd::{GROUP, Kernel, Level, Simd, vectors};
use core::ops::Range;

/// Elements in the type of their arithmetic.
pub(crate) fn widened<E: Element>(level: Level, from: &[E]) -> Vec<E::Compute> {
    level.run(Widen { from })
}

struct Widen<'a, E> {
    from: &'a [E],
}

impl<E: Element> Kernel for Widen<'_, E> {
    type Output = Vec<E::Compute>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (whole, rest) = self.from.as_chunks();
        let mut wide = Vec::with_capacity(self.from.len());
        for group in whole {
            wide.extend_from_slice(&widen_group(simd, group));
        }
        if !rest.is_empty() {
            let group = widen_group::<S, E>(simd, &padded(rest, E::default()));
            wide.extend_from_slice(&group[..rest.len()]);
        }
        wide
    }
}

/// A group in the type of its arithmetic.
#[inline(always)]
fn widen_group<S: Simd, E: Element>(simd: S, from: &[E; GROUP]) -> [E::Compute; GROUP] {
    let mut wide = [E::Compute::default(); GROUP];
    for at in 0..GROUP / S::LANES {
        E::Compute::store(simd, E::load(simd, from, at), &mut wide, at);
    }
    wide
}

/// Writes elements of some blocks from the type of their arithmetic, rounded as a step would: to nearest,
/// or by the thresholds of a stream.
pub(crate) fn round<E: Element>(
    level: Level,
    from: &[E::Compute],
    to: &mut [E],
    layout: Layout,
    blocks: Range<usize>,
    stream: Option<Stream>,
) {
    level.run(Round { from, to, layout, blocks, stream });
}

/// In units of 2^-32, of which [`Element::store_stochastically`] takes as many bits as it drops.
static NOISE: Noise = Noise::new(u32::BITS, 0);

struct Round<'a, E: Element> {
    from: &'a [E::Compute],
    to: &'a mut [E],
    layout: Layout,
    blocks: Range<usize>,
    stream: Option<Stream>,
}

impl<E: Element> Kernel for Round<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let origin = self.layout.elements(self.blocks.clone()).start;
        for block in self.blocks {
            let elements = self.layout.block(block);
            let elements = elements.start - origin..elements.end - origin;
            let thresholds = self.stream.map(|stream| stream.block(block).lanes(simd, &NOISE));
            let (from, from_rest) = self.from[elements.clone()].as_chunks();
            let (to, to_rest) = self.to[elements].as_chunks_mut();
            for (group, (from, to)) in from.iter().zip(to).enumerate() {
                round_group(simd, from, to, thresholds.as_ref(), group);
            }
            if !to_rest.is_empty() {
                let rest = padded(from_rest, E::Compute::default());
                let mut rounded = [E::default(); GROUP];
                round_group(simd, &rest, &mut rounded, thresholds.as_ref(), from.len());
                to_rest.copy_from_slice(&rounded[..to_rest.len()]);
            }
        }
    }
}

/// Writes group `group` of a block.
#[inline(always)]
fn round_group<S: Simd, E: Element>(
    simd: S,
    from: &[E::Compute; GROUP],
    to: &mut [E; GROUP],
    thresholds: Option<&ThresholdLanes<S>>,
    group: usize,
) {
    match thresholds {
        Some(lanes) => {
            for at in vectors::<S>() {
                let (value, threshold) =
                    (E::Compute::load(simd, from, at), lanes.vector(group, at));
                E::store_stochastically(simd, value, threshold, to, at);
            }
        }
        None => {
            for at in vectors::<S>() {
                E::store(simd, E::Compute::load(simd, from, at), to, at);
            }
        }
    }
}
