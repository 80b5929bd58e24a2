//! Whether tensors share memory.
//!
//! The blocks of all tensors are written at the same time by many threads, so two tensors may share
//! memory only if neither is written.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use core::ops::Range;

/// A tensor of a call, and whether the call writes to it.
pub(crate) struct Access<'a> {
    pub(crate) tensor: &'a Tensor,
    pub(crate) written: bool,
}

/// Requires that no tensor that is written shares memory with another.
pub(crate) fn check(accesses: &[Access<'_>]) -> Result<()> {
    let mut ranges: Vec<(Range<usize>, usize)> = accesses
        .iter()
        .enumerate()
        .map(|(index, access)| (access.tensor.addresses(), index))
        .filter(|(range, _)| !range.is_empty())
        .collect();
    ranges.sort_unstable_by_key(|(range, _)| range.start);
    // Of the tensors before, the one that reaches furthest, and of those that are written.
    let mut furthest: Option<(usize, usize)> = None;
    let mut furthest_written: Option<(usize, usize)> = None;
    for (range, index) in ranges {
        let access = &accesses[index];
        let before = if access.written { furthest } else { furthest_written };
        if let Some((end, other)) = before
            && range.start < end
            && elements_meet(accesses[other].tensor, access.tensor)
        {
            return Err(Error::Alias {
                first: accesses[other].tensor.name().to_string(),
                second: access.tensor.name().to_string(),
            });
        }
        let further = |kept: Option<(usize, usize)>| match kept {
            Some((end, _)) if end >= range.end => kept,
            _ => Some((range.end, index)),
        };
        furthest = further(furthest);
        if access.written {
            furthest_written = further(furthest_written);
        }
    }
    Ok(())
}

/// Whether two tensors whose address ranges meet have an element in common: strided views of one
/// buffer, such as its columns, may lie between each other without touching.
fn elements_meet(a: &Tensor, b: &Tensor) -> bool {
    if a.is_contiguous() && b.is_contiguous() {
        return true;
    }
    let (a_range, b_range) = (a.addresses(), b.addresses());
    let meeting = a_range.start.max(b_range.start)..a_range.end.min(b_range.end);
    let mut used = vec![false; meeting.len()];
    let mut met = false;
    for tensor in [a, b] {
        tensor.for_each_address(0..tensor.n_elements(), |address| {
            let address = address as usize;
            for byte in address..address + tensor.dtype().size() {
                if meeting.contains(&byte) {
                    let byte = &mut used[byte - meeting.start];
                    met |= *byte && core::ptr::eq(tensor, b);
                    *byte = true;
                }
            }
        });
    }
    met
}
