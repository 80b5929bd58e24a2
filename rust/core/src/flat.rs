//! Elements one after the other, aligned: what is kept of a tensor that was found to be so.
//!
//! A step may have thousands of small tensors, most of them states. Once a state has been checked, only where
//! it lies is wanted. What it is called and its shape would be three quarters of what there is to
//! keep, which then would not stay in the nearer caches until the step begins.

use crate::element::Dtype;
use core::ops::Range;

/// Elements in memory that somebody else owns, as a slice. Only `Tensor::flat` makes one, so that whoever made
/// the tensor has promised the memory for this, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flat {
    pub(crate) data: *mut u8,
    pub(crate) n_elements: usize,
    pub(crate) dtype: Dtype,
}

// SAFETY: it is an address with a description; those who read or write through it say why they may.
unsafe impl Send for Flat {}
// SAFETY: as above.
unsafe impl Sync for Flat {}

impl Flat {
    /// Where an element lies.
    pub(crate) fn address_of(&self, element: usize) -> *const u8 {
        self.data.wrapping_add(element * self.dtype.size())
    }

    /// The addresses from the first byte to the last.
    pub(crate) fn addresses(&self) -> Range<usize> {
        self.data as usize..self.address_of(self.n_elements) as usize
    }

    /// Some of the elements.
    ///
    /// # Safety
    ///
    /// `T` is the type of the tensor's dtype, `range` is within it, the slice lives no longer than its maker has
    /// promised the memory for, and nothing writes to the range meanwhile.
    pub(crate) unsafe fn slice<'a, T>(self, range: Range<usize>) -> &'a [T] {
        if range.is_empty() {
            return &[];
        }
        debug_assert!(range.end <= self.n_elements && size_of::<T>() == self.dtype.size());
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
        debug_assert!(range.end <= self.n_elements && size_of::<T>() == self.dtype.size());
        // SAFETY: as this function.
        unsafe {
            core::slice::from_raw_parts_mut(self.data.cast::<T>().add(range.start), range.len())
        }
    }
}
