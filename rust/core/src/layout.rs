//! Where blocks begin and end.
//!
//! A tensor is cut into blocks of `block_size` consecutive elements of its row-major order, and each
//! block has one scale. If each slice along dimension 0 has at least `block_size` elements, blocks
//! start afresh at every slice: then a state that is sharded along dimension 0 has the same blocks at
//! any number of shards, and a row of an embedding has scales of its own. Otherwise blocks run
//! through the whole tensor. The last block of a slice, or of the tensor, may be short.

use crate::error::{Error, Result};
use core::ops::Range;
use smallvec::{SmallVec, smallvec};

/// The shape of a tensor, in one piece with what else is known of it: a call may have thousands of
/// tensors, all of them out of the cache.
pub type Shape = SmallVec<[usize; 4]>;

/// The blocks of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    n_slices: usize,
    slice_len: usize,
    block_size: usize,
    by_slice: bool,
}

impl Layout {
    /// The smallest block.
    pub const MIN_BLOCK: usize = 32;
    /// The largest block.
    pub const MAX_BLOCK: usize = 4096;

    /// The blocks of a tensor of this shape.
    ///
    /// # Errors
    ///
    /// [`Error::BlockSize`] unless `block_size` is a power of two from 32 to 4096.
    pub fn new(shape: &[usize], block_size: usize) -> Result<Self> {
        if !block_size.is_power_of_two()
            || !(Self::MIN_BLOCK..=Self::MAX_BLOCK).contains(&block_size)
        {
            return Err(Error::BlockSize { found: block_size });
        }
        let by_slice = shape.len() >= 2 && shape[1..].iter().product::<usize>() >= block_size;
        let (n_slices, slice_len) = if by_slice {
            (shape[0], shape[1..].iter().product())
        } else {
            (1, shape.iter().product())
        };
        Ok(Self { n_slices, slice_len, block_size, by_slice })
    }

    /// Elements in a full block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Elements in the tensor.
    #[must_use]
    pub fn n_elements(&self) -> usize {
        self.n_slices * self.slice_len
    }

    /// Blocks in the tensor, and so scales.
    #[must_use]
    pub fn n_blocks(&self) -> usize {
        self.n_slices * self.blocks_per_slice()
    }

    /// The shape of the tensor of scales: slices x blocks, or blocks.
    #[must_use]
    pub fn scales_shape(&self) -> Shape {
        if self.by_slice {
            smallvec![self.n_slices, self.blocks_per_slice()]
        } else {
            smallvec![self.n_blocks()]
        }
    }

    /// The elements of a block, or where block `n_blocks` would begin.
    #[must_use]
    #[inline]
    pub fn block(&self, block: usize) -> Range<usize> {
        if self.n_slices == 1 {
            let start = (block * self.block_size).min(self.slice_len);
            return start..(start + self.block_size).min(self.slice_len);
        }
        let (slice, within) = (block / self.blocks_per_slice(), block % self.blocks_per_slice());
        let start = within * self.block_size;
        let end = (start + self.block_size).min(self.slice_len);
        slice * self.slice_len + start..slice * self.slice_len + end
    }

    /// The elements of consecutive blocks.
    #[must_use]
    pub fn elements(&self, blocks: Range<usize>) -> Range<usize> {
        if blocks.is_empty() {
            return 0..0;
        }
        self.block(blocks.start).start..self.block(blocks.end - 1).end
    }

    /// Consecutive blocks in batches of at most so many, and none of more than one slice: all but the last
    /// of a batch are full, and so lie at multiples of the block size. Yields the batch's blocks and its
    /// elements, both counted from the first of all.
    #[inline(always)]
    pub(crate) fn batches(
        &self,
        blocks: Range<usize>,
        n_most: usize,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (first, origin) = (blocks.start, self.elements(blocks.clone()).start);
        let mut start = first;
        core::iter::from_fn(move || {
            let batch = start..self.end_of_batch(start, blocks.end, n_most);
            start = batch.end;
            let elements = self.elements(batch.clone());
            let from_first = batch.start - first..batch.end - first;
            (!batch.is_empty())
                .then(|| (from_first, elements.start - origin..elements.end - origin))
        })
    }

    #[inline]
    fn end_of_batch(&self, start: usize, end: usize, n_most: usize) -> usize {
        let end = end.min(start + n_most);
        if self.n_slices == 1 || n_most == 1 {
            return end;
        }
        let per_slice = self.blocks_per_slice();
        end.min((start / per_slice + 1) * per_slice)
    }

    fn blocks_per_slice(&self) -> usize {
        self.slice_len.div_ceil(self.block_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_restart_at_slices_that_hold_one() {
        let by_slice = Layout::new(&[3, 300], 256).unwrap();
        assert_eq!(by_slice.scales_shape()[..], [3, 2]);
        assert_eq!(by_slice.block(2), 300..556);
        assert_eq!(by_slice.block(3), 556..600);
        let flat = Layout::new(&[300, 3], 256).unwrap();
        assert_eq!(flat.scales_shape()[..], [4]);
        assert_eq!(flat.block(3), 768..900);
        assert_eq!(Layout::new(&[4, 8, 8], 64).unwrap().scales_shape()[..], [4, 1]);
        assert_eq!(Layout::new(&[], 256).unwrap().scales_shape()[..], [1]);
        assert_eq!(Layout::new(&[5, 0], 256).unwrap().scales_shape()[..], [0]);
        assert_eq!(Layout::new(&[0, 300], 256).unwrap().scales_shape()[..], [0, 2]);
    }

    #[test]
    fn only_powers_of_two_from_32_to_4096() {
        for bad in [0, 1, 16, 48, 8192] {
            assert_eq!(Layout::new(&[8], bad), Err(Error::BlockSize { found: bad }));
        }
    }

    proptest! {
        #[test]
        fn blocks_partition_the_tensor(
            shape in prop::collection::vec(0_usize..70, 0..4),
            log_block in 5_u32..8,
        ) {
            let layout = Layout::new(&shape, 1 << log_block).unwrap();
            let n_elements: usize = shape.iter().product();
            prop_assert_eq!(layout.n_elements(), n_elements);
            prop_assert_eq!(layout.scales_shape().iter().product::<usize>(), layout.n_blocks());
            let mut next = 0;
            for block in 0..layout.n_blocks() {
                let range = layout.block(block);
                prop_assert_eq!(range.start, next);
                prop_assert!(!range.is_empty() && range.len() <= layout.block_size());
                next = range.end;
            }
            prop_assert_eq!(next, n_elements);
        }
    }
}
