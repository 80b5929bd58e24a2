//! Elements that are narrower than the type of their arithmetic, in that type, and back.
//!
//! bfloat16 parameters that are simply written are rounded in the update itself. All else takes this way:
//! float16, stochastic rounding, and what is measured before it is written. It costs a copy of a chunk,
//! which stays in the second-level cache, and spares a form of every rule's update.

use crate::block::padded;
use crate::element::Element;
use crate::layout::Layout;
use crate::rounding::Stream;
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
        let mut wide = vec![E::Compute::default(); self.from.len().next_multiple_of(GROUP)];
        for (from, to) in self.from.chunks(GROUP).zip(wide.as_chunks_mut().0) {
            let from = padded(from, E::default());
            for at in 0..GROUP / S::LANES {
                E::Compute::store(simd, E::load(simd, &from, at), to, at);
            }
        }
        wide.truncate(self.from.len());
        wide
    }
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
            let mut thresholds = self.stream.map(|stream| stream.block(block).lanes(simd));
            let groups = self.from[elements.clone()].chunks(GROUP);
            for (group, (from, to)) in groups.zip(self.to[elements].chunks_mut(GROUP)).enumerate() {
                let from = padded(from, E::Compute::default());
                let mut rounded = [E::default(); GROUP];
                for at in vectors::<S>() {
                    let value = E::Compute::load(simd, &from, at);
                    match &mut thresholds {
                        Some(lanes) => {
                            let threshold = lanes.next(group, at);
                            E::store_stochastically(simd, value, threshold, &mut rounded, at);
                        }
                        None => E::store(simd, value, &mut rounded, at),
                    }
                }
                to.copy_from_slice(&rounded[..to.len()]);
            }
        }
    }
}
