//! The pointer border: tensors whose memory somebody else owns, and how they become slices.
//!
//! A [`Tensor`] is made with a promise (its `unsafe` constructor) about its memory. What can be
//! checked is checked here, in `group.rs` and in `api.rs`, before anything is written. One that is contiguous
//! and aligned is used where it lies (`flat.rs`); any other is read and written element by element, a chunk at
//! a time, so that even then no copy of a whole tensor is made.

use crate::element::{Dtype, Element};
use crate::error::{Error, Result};
use crate::flat::Flat;
use crate::layout::Shape;
use crate::strided::{self, Dims, Run};
use core::ops::Range;
use std::fmt;

/// What a tensor is called in an error message.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// A tensor that belongs to no parameter.
    Plain(&'static str),
    /// The parameter of this index.
    Param(u64),
    /// Something that belongs to the parameter of this index: (what, index, kind).
    Of(&'static str, u64, &'static str),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(name) => write!(f, "{name}"),
            Self::Param(index) => write!(f, "parameter {index}"),
            Self::Of(what, index, kind) => write!(f, "{what}{kind} of parameter {index}"),
        }
    }
}

/// A tensor in memory that somebody else owns.
#[derive(Clone, Debug)]
pub struct Tensor {
    name: Name,
    dtype: Dtype,
    data: *mut u8,
    shape: Shape,
    /// How far it is from one element to the next along each dimension, in elements; None if contiguous.
    strides: Option<Box<[isize]>>,
}

// SAFETY: a tensor is an address with a description; those who read or write through it say why
// they may.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Tensor {
    /// Describes a tensor; one without `strides` (in elements) is contiguous, as may be one with them.
    ///
    /// # Safety
    ///
    /// For as long as the tensor, its clones and what they were put into are used: every element that
    /// shape and strides reach from `data` is memory of this dtype (at any alignment) that may be read,
    /// and, where the tensor is passed as one to be written, may be written and is not otherwise accessed.
    ///
    /// # Errors
    ///
    /// [`Error::Null`] for a null pointer to one element or more.
    pub unsafe fn new(
        name: Name,
        dtype: Dtype,
        data: *mut u8,
        shape: &[usize],
        strides: Option<&[isize]>,
    ) -> Result<Self> {
        let strides = strides.filter(|strides| !is_row_major(shape, strides)).map(Into::into);
        let shape = Shape::from_slice(shape);
        let tensor = Self { name, dtype, data, shape, strides };
        if tensor.begins_before(1) { Err(tensor.without_memory()) } else { Ok(tensor) }
    }

    /// Whether there are elements, and their addresses begin before this one.
    #[must_use]
    pub fn begins_before(&self, address: usize) -> bool {
        (self.data as usize) < address && self.n_elements() > 0
    }

    /// The error of a tensor that turns out to have elements, but no memory.
    #[must_use]
    pub fn without_memory(&self) -> Error {
        Error::Null { tensor: self.name.to_string(), n_elements: self.n_elements() }
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> Name {
        self.name
    }

    /// The number type.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Requires a dtype.
    pub(crate) fn expect_dtype(&self, expected: Dtype) -> Result<()> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(Error::Dtype {
            tensor: self.name.to_string(),
            found: self.dtype.name().to_owned(),
            expected: expected.name().to_owned(),
        })
    }

    /// Requires a dtype that formulas take.
    pub(crate) fn expect_float(&self) -> Result<()> {
        if self.dtype != Dtype::UInt8 {
            return Ok(());
        }
        Err(Error::Dtype {
            tensor: self.name.to_string(),
            found: self.dtype.name().to_owned(),
            expected: "float32, bfloat16, float16 or float64".to_owned(),
        })
    }

    /// Requires a shape.
    pub(crate) fn expect_shape(&self, expected: &[usize]) -> Result<()> {
        if *self.shape == *expected {
            return Ok(());
        }
        Err(Error::Shape {
            tensor: self.name.to_string(),
            found: self.shape.to_vec(),
            expected: expected.to_vec(),
        })
    }

    /// Requires elements one after the other, aligned, so that they are a slice.
    pub(crate) fn expect_flat(&self) -> Result<Flat> {
        if let Some(flat) = self.flat() {
            return Ok(flat);
        }
        let tensor = self.name.to_string();
        Err(match &self.strides {
            Some(strides) => {
                Error::NotContiguous { tensor, found: strides.to_vec(), shape: self.shape.to_vec() }
            }
            None => Error::Unaligned { tensor, found: self.data as usize, size: self.dtype.size() },
        })
    }

    /// Requires a slice of this dtype and shape.
    pub(crate) fn expect_flat_of(&self, dtype: Dtype, shape: &[usize]) -> Result<Flat> {
        self.expect_dtype(dtype)?;
        self.expect_shape(shape)?;
        self.expect_flat()
    }

    /// Requires that no two elements share memory, as far as strides tell.
    pub(crate) fn expect_no_self_overlap(&self) -> Result<()> {
        if self.is_contiguous() {
            return Ok(());
        }
        let mut dims = self.dims();
        dims.sort_unstable_by_key(|&(_, stride)| stride.unsigned_abs());
        // Sorted by stride, each dimension must step over all that the ones before it reach.
        let mut reach = 0;
        for (len, stride) in dims {
            let stride = stride.unsigned_abs();
            if stride <= reach {
                return Err(Error::SelfOverlap { tensor: self.name.to_string() });
            }
            reach += stride * (len - 1);
        }
        Ok(())
    }

    /// Where an element lies, if the tensor is contiguous, and else somewhere.
    pub(crate) fn address_of(&self, element: usize) -> *const u8 {
        self.data.wrapping_add(element * self.dtype.size())
    }

    /// The addresses from the first byte to the last.
    pub(crate) fn addresses(&self) -> Range<usize> {
        // One of no elements is contiguous.
        if self.is_contiguous() {
            return self.data as usize..self.address_of(self.n_elements()) as usize;
        }
        self.span(|_| true)
    }

    /// The same, where only those dimensions count whose stride is no multiple of `period` bytes.
    pub(crate) fn addresses_modulo(&self, period: usize) -> Range<usize> {
        self.span(|stride| !stride.unsigned_abs().is_multiple_of(period))
    }

    /// The addresses that elements reach along those dimensions whose stride in bytes `counts`.
    fn span(&self, counts: impl Fn(isize) -> bool) -> Range<usize> {
        let (mut low, mut high) = (0, self.dtype.size() as isize);
        for (len, stride) in self.dims().into_iter().filter(|&(_, stride)| counts(stride)) {
            let reach = stride * (len as isize - 1);
            if reach < 0 { low += reach } else { high += reach }
        }
        let start = self.data as usize;
        start.wrapping_add_signed(low)..start.wrapping_add_signed(high)
    }

    /// The distances in bytes between elements along each dimension.
    pub(crate) fn distances(&self) -> impl Iterator<Item = usize> {
        self.dims().into_iter().map(|(_, stride)| stride.unsigned_abs())
    }

    /// Whether the elements lie one after the other in row-major order.
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.strides.is_none()
    }

    /// The elements as a slice, if they lie so and are aligned.
    fn flat(&self) -> Option<Flat> {
        let Self { data, dtype, .. } = *self;
        let is_flat = self.is_contiguous() && (data as usize).is_multiple_of(dtype.size());
        is_flat.then(|| Flat { data, n_elements: self.n_elements(), dtype })
    }

    /// A tensor of one dimension of the same elements, under a name.
    pub(crate) fn of_flat(name: Name, flat: Flat) -> Self {
        let Flat { data, n_elements, dtype } = flat;
        Self { name, dtype, data, shape: Shape::from_slice(&[n_elements]), strides: None }
    }

    /// Calls `f` with elements in row-major order, in place or in a copy.
    ///
    /// # Safety
    ///
    /// `E` is the type of this tensor's dtype, `range` is within the tensor, and nothing writes to
    /// it meanwhile.
    pub(crate) unsafe fn read<E: Element, R>(
        &self,
        range: Range<usize>,
        f: impl FnOnce(&[E]) -> R,
    ) -> R {
        if let Some(flat) = self.flat() {
            // SAFETY: as this function.
            return f(unsafe { flat.slice(range) });
        }
        // SAFETY: as this function.
        f(&unsafe { self.copy(range) })
    }

    /// A copy of elements in row-major order.
    ///
    /// # Safety
    ///
    /// As [`Tensor::read`].
    unsafe fn copy<E: Element>(&self, range: Range<usize>) -> Vec<E> {
        let mut copy = vec![E::default(); range.len()];
        self.for_each_run(range, |run| {
            run.zip(&mut copy, |value, address| {
                // SAFETY: the addresses are those of elements within the tensor, which the maker
                // promised may be read at any alignment.
                *value = unsafe { address.cast::<E>().read_unaligned() };
            });
        });
        copy
    }

    /// Calls `f` with elements in row-major order, in place or in a copy; which is written back if `f`
    /// `writes` to it.
    ///
    /// # Safety
    ///
    /// As [`Tensor::read`], and nothing else reads or writes the range meanwhile.
    pub(crate) unsafe fn update<E: Element, R>(
        &self,
        range: Range<usize>,
        writes: bool,
        f: impl FnOnce(&mut [E]) -> R,
    ) -> R {
        if let Some(flat) = self.flat() {
            // SAFETY: as this function.
            return f(unsafe { flat.slice_mut(range) });
        }
        // SAFETY: as this function.
        let mut copy = unsafe { self.copy(range.clone()) };
        let result = f(&mut copy);
        if !writes {
            return result;
        }
        self.for_each_run(range, |run| {
            run.zip(&mut copy, |value, address| {
                // SAFETY: the addresses are those of elements within the tensor, which the caller
                // promises nothing else uses and the maker promised may be written at any alignment.
                unsafe { address.cast::<E>().write_unaligned(*value) }
            });
        });
        result
    }

    /// Calls `f` with all elements of a range of the row-major order, in runs.
    pub(crate) fn for_each_run(&self, range: Range<usize>, f: impl FnMut(Run)) {
        strided::for_each_run(self.data, &self.dims(), range, f);
    }

    /// Length and stride in bytes of each dimension, as few as there can be.
    fn dims(&self) -> Dims {
        let size = self.dtype.size() as isize;
        match &self.strides {
            None => Dims::from_slice(&[(self.n_elements(), size)]),
            Some(strides) => strided::merged(
                self.shape.iter().copied().zip(strides.iter().map(|stride| stride * size)),
            ),
        }
    }
}

/// The greatest common divisor; that of 0 and another number is the other.
pub(crate) fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether elements lie one after the other in row-major order: where the index along a dimension is
/// always 0, its stride does not matter.
fn is_row_major(shape: &[usize], strides: &[isize]) -> bool {
    let mut expected = 1;
    shape.contains(&0)
        || shape.iter().zip(strides).rev().all(|(&len, &stride)| {
            let holds = len == 1 || stride == expected;
            expected *= len as isize;
            holds
        })
}

#[cfg(test)]
mod tests {
    use super::is_row_major;

    #[test]
    fn row_major_is_what_torch_calls_contiguous() {
        let cases: [(&[usize], &[isize], bool); 9] = [
            (&[], &[], true),
            (&[3], &[1], true),
            (&[3], &[2], false),
            (&[1], &[7], true),
            (&[2, 3], &[3, 1], true),
            (&[2, 3], &[1, 2], false),
            (&[2, 1, 3], &[3, -5, 1], true),
            (&[2, 3], &[0, 1], false),
            (&[0, 3], &[9, 9], true),
        ];
        for (shape, strides, expected) in cases {
            assert_eq!(is_row_major(shape, strides), expected, "{shape:?} {strides:?}");
        }
    }
}
