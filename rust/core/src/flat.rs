//! Elements one after the other, aligned: what is kept of a tensor that was found to be so.
//!
//! A step may have thousands of small tensors, most of them states. Once a state has been checked, only where
//! it lies is wanted. What it is called and its shape would be three quarters of what there is to
//! keep, which then would not stay in the nearer caches until the step begins.

use crate::element::Dtype;
use crate::tensor::{Name, Tensor};
use core::ops::Range;

/// Elements in memory that somebody else owns, as a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flat {
    data: *mut u8,
    n_elements: usize,
    dtype: Dtype,
}

// SAFETY: it is an address with a description; those who read or write through it say why they may.
unsafe impl Send for Flat {}
// SAFETY: as above.
unsafe impl Sync for Flat {}

impl Flat {
    /// Of a tensor that lies so.
    pub(crate) fn new(data: *mut u8, n_elements: usize, dtype: Dtype) -> Self {
        debug_assert!((data as usize).is_multiple_of(dtype.size()));
        Self { data, n_elements, dtype }
    }

    /// The number of elements.
    pub(crate) fn n_elements(&self) -> usize {
        self.n_elements
    }

    /// Where an element lies.
    pub(crate) fn address_of(&self, element: usize) -> *const u8 {
        self.data.wrapping_add(element * self.dtype.size())
    }

    /// The addresses from the first byte to the last.
    pub(crate) fn addresses(&self) -> Range<usize> {
        self.data as usize..self.address_of(self.n_elements) as usize
    }

    /// The same as a tensor of one dimension, under a name.
    pub(crate) fn named(&self, name: Name) -> Tensor {
        // SAFETY: of this memory, the maker of the tensor that this was made of has promised the same.
        unsafe { Tensor::new(name, self.dtype, self.data, &[self.n_elements], None) }
            .expect("memory")
    }

    /// Some of the elements.
    ///
    /// # Safety
    ///
    /// This was made of a tensor (whose maker has promised the memory), `T` is the type of its dtype, `range`
    /// is within it, and nothing writes to the range while the slice lives.
    pub(crate) unsafe fn slice<'a, T>(self, range: Range<usize>) -> &'a [T] {
        if range.is_empty() {
            return &[];
        }
        debug_assert!(range.end <= self.n_elements);
        // SAFETY: as this function.
        unsafe { core::slice::from_raw_parts(self.data.cast::<T>().add(range.start), range.len()) }
    }

    /// Some of the elements, to be written.
    ///
    /// # Safety
    ///
    /// As [`Flat::slice`], and nothing else reads or writes the range while the slice lives.
    pub(crate) unsafe fn slice_mut<'a, T>(self, range: Range<usize>) -> &'a mut [T] {
        if range.is_empty() {
            return &mut [];
        }
        debug_assert!(range.end <= self.n_elements);
        // SAFETY: as this function.
        unsafe {
            core::slice::from_raw_parts_mut(self.data.cast::<T>().add(range.start), range.len())
        }
    }
}
