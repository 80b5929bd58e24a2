//! The elements of a strided tensor, in runs at equal distances.
//!
//! A chunk of a tensor that is not contiguous is copied to a buffer in row-major order and back. How long
//! that takes is a matter of the order in which memory is read: a run goes along the dimension whose
//! elements lie nearest to each other, if it is one of the last two. That is so of convolutions in
//! `channels_last` and of transposed matrices.

use core::ops::Range;
use smallvec::SmallVec;

/// Length and stride in bytes of each dimension, the outermost first.
pub(crate) type Dims = SmallVec<[(usize, isize); 4]>;

/// Elements at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    start: *mut u8,
    /// Bytes from each to the next.
    stride: isize,
    len: usize,
    /// Which of the range's elements, in row-major order, is the first.
    first: usize,
    /// How many further the next one is.
    spacing: usize,
}

impl Run {
    /// Calls `f` with each address, and with what belongs to it of one thing for each element of the range.
    #[inline(always)]
    pub(crate) fn zip<T>(self, range: &mut [T], mut f: impl FnMut(&mut T, *mut u8)) {
        let mut address = self.start;
        for one in range[self.first..].iter_mut().step_by(self.spacing).take(self.len) {
            f(one, address);
            address = address.wrapping_offset(self.stride);
        }
    }

    /// The addresses.
    pub(crate) fn addresses(self) -> impl Iterator<Item = *mut u8> {
        (0..self.len).map(move |i| self.start.wrapping_offset(i as isize * self.stride))
    }
}

/// As few dimensions as have the same elements in the same order: without those of one element, and with
/// those in one that are stepped through as one.
pub(crate) fn merged(dims: impl Iterator<Item = (usize, isize)>) -> Dims {
    let mut merged = Dims::new();
    for (len, stride) in dims.filter(|&(len, _)| len != 1) {
        match merged.last_mut() {
            Some(outer) if outer.1 == stride * len as isize => *outer = (outer.0 * len, stride),
            _ => merged.push((len, stride)),
        }
    }
    merged
}

/// Calls `f` with all elements of a range of the row-major order.
pub(crate) fn for_each_run(
    data: *mut u8,
    dims: &Dims,
    range: Range<usize>,
    mut f: impl FnMut(Run),
) {
    // Planes of rows of elements, and further dimensions.
    let one = (1, 0);
    let (&columns, dims) = dims.split_last().unwrap_or((&one, &[]));
    let (&rows, outer) = dims.split_last().unwrap_or((&one, &[]));
    let plane_len = rows.0 * columns.0;
    let mut element = range.start;
    while element < range.end {
        let (plane, start) = (element / plane_len, element % plane_len);
        let within = start..plane_len.min(start + range.end - element);
        let mut offset = 0;
        let mut n_before = plane;
        for &(len, stride) in outer.iter().rev() {
            offset += (n_before % len) as isize * stride;
            n_before /= len;
        }
        let first = element - range.start;
        for_each_run_of_plane(data.wrapping_offset(offset), rows, columns, within.clone(), |run| {
            f(Run { first: first + run.first, ..run });
        });
        element += within.len();
    }
}

/// As [`for_each_run`], of two dimensions.
fn for_each_run_of_plane(
    data: *mut u8,
    rows: (usize, isize),
    columns: (usize, isize),
    range: Range<usize>,
    mut f: impl FnMut(Run),
) {
    let address = |row: usize, column: usize| {
        data.wrapping_offset(row as isize * rows.1 + column as isize * columns.1)
    };
    let across = rows.1.abs() < columns.1.abs();
    let mut element = range.start;
    while element < range.end {
        let (row, column) = (element / columns.0, element % columns.0);
        let first = element - range.start;
        let n_rows = (range.end - element) / columns.0;
        if across && column == 0 && n_rows > 1 {
            for column in 0..columns.0 {
                let start = address(row, column);
                let (stride, spacing) = (rows.1, columns.0);
                f(Run { start, stride, len: n_rows, first: first + column, spacing });
            }
            element += n_rows * columns.0;
        } else {
            let len = (columns.0 - column).min(range.end - element);
            f(Run { start: address(row, column), stride: columns.1, len, first, spacing: 1 });
            element += len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_all_elements_each_with_its_place(
            dims in prop::collection::vec(
                (1_usize..5, prop::sample::select(vec![-8_isize, -2, 0, 1, 2, 4, 12])),
                0..5,
            ),
            ends in any::<[prop::sample::Index; 2]>(),
        ) {
            let data = core::ptr::without_provenance_mut::<u8>(1000);
            let all = dims.iter().fold(vec![data], |all, &(len, stride)| {
                let along = |at: *mut u8| (0..len as isize).map(move |i| at.wrapping_offset(i * stride));
                all.into_iter().flat_map(along).collect()
            });
            let mut ends = ends.map(|end| end.index(all.len() + 1));
            ends.sort_unstable();
            let expected = &all[ends[0]..ends[1]];
            let mut found = vec![None; expected.len()];
            let mut n_found = 0;
            for_each_run(data, &merged(dims.into_iter()), ends[0]..ends[1], |run| {
                run.zip(&mut found, |found, address| *found = Some(address));
                n_found += run.addresses().count();
            });
            prop_assert_eq!(n_found, expected.len());
            prop_assert!(found.into_iter().eq(expected.iter().copied().map(Some)));
        }
    }
}
