//! How the blocks of all tensors of a call are cut into chunks of work.
//!
//! A chunk is some consecutive blocks of one tensor, about [`CHUNK_ELEMENTS`] elements: large enough
//! that taking one costs nothing, small enough that one huge tensor keeps all threads busy to the
//! end. Chunks are numbered through, so that many small tensors are one range of work too.

use crate::layout::Layout;
use core::ops::Range;

/// Elements in a chunk, about.
const CHUNK_ELEMENTS: usize = 16_384;

/// The chunks of all tensors.
pub(crate) struct Plan {
    /// The number of the first chunk of each tensor, and the number of chunks.
    first_chunk: Vec<usize>,
    layouts: Vec<Layout>,
    n_elements: usize,
}

impl Plan {
    /// Cuts tensors into chunks.
    pub(crate) fn new(layouts: Vec<Layout>) -> Self {
        let mut first_chunk = Vec::with_capacity(layouts.len() + 1);
        let mut n_chunks = 0;
        for layout in &layouts {
            first_chunk.push(n_chunks);
            n_chunks += layout.n_blocks().div_ceil(blocks_per_chunk(layout));
        }
        first_chunk.push(n_chunks);
        let n_elements = layouts.iter().map(Layout::n_elements).sum();
        Self { first_chunk, layouts, n_elements }
    }

    /// How many chunks there are.
    pub(crate) fn n_chunks(&self) -> usize {
        *self.first_chunk.last().expect("the number of chunks is always there")
    }

    /// Elements in all tensors.
    pub(crate) fn n_elements(&self) -> usize {
        self.n_elements
    }

    /// The tensor and the blocks of a chunk.
    pub(crate) fn chunk(&self, chunk: usize) -> (usize, Range<usize>) {
        let tensor = self.first_chunk.partition_point(|&first| first <= chunk) - 1;
        let layout = &self.layouts[tensor];
        let start = (chunk - self.first_chunk[tensor]) * blocks_per_chunk(layout);
        (tensor, start..(start + blocks_per_chunk(layout)).min(layout.n_blocks()))
    }
}

fn blocks_per_chunk(layout: &Layout) -> usize {
    (CHUNK_ELEMENTS / layout.block_size()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_cover_every_block_once(sizes in prop::collection::vec(0_usize..60_000, 0..12)) {
            let layouts: Vec<_> =
                sizes.iter().map(|&size| Layout::new(&[size], 256).unwrap()).collect();
            let plan = Plan::new(layouts.clone());
            let mut next = vec![0; layouts.len()];
            for chunk in 0..plan.n_chunks() {
                let (tensor, blocks) = plan.chunk(chunk);
                prop_assert_eq!(blocks.start, next[tensor]);
                prop_assert!(!blocks.is_empty());
                next[tensor] = blocks.end;
            }
            for (layout, end) in layouts.iter().zip(next) {
                prop_assert_eq!(layout.n_blocks(), end);
            }
        }
    }
}
