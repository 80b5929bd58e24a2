//! Whether tensors share memory.
//!
//! The blocks of all tensors are written at the same time by many threads, so two tensors may share
//! memory only if neither is written.

use crate::error::{Error, Result};
use crate::tensor::{Tensor, gcd};
use core::ops::Range;
use std::borrow::Cow;

/// Where a tensor of a call lies, whether the call writes to it, and which one it is.
pub(crate) struct Access<K> {
    pub(crate) addresses: Range<usize>,
    pub(crate) written: bool,
    pub(crate) key: K,
}

/// Requires that no tensor that is written shares memory with another. `tensor` finds one by its key,
/// and is asked for those only whose addresses meet.
pub(crate) fn check<'a, K: Copy>(
    mut accesses: Vec<Access<K>>,
    tensor: impl Fn(K) -> Cow<'a, Tensor>,
) -> Result<()> {
    accesses.retain(|access| !access.addresses.is_empty());
    accesses.sort_unstable_by_key(|access| access.addresses.start);
    // Those of the tensors before that reach further than where this one starts: mostly none.
    let mut open: Vec<&Access<K>> = vec![];
    for access in &accesses {
        open.retain(|other| other.addresses.end > access.addresses.start);
        for other in &open {
            if !access.written && !other.written {
                continue;
            }
            let (first, second) = (tensor(other.key), tensor(access.key));
            if elements_meet(&first, &second) {
                let (first, second) = (first.name().to_string(), second.name().to_string());
                return Err(Error::Alias { first, second });
            }
        }
        open.push(access);
    }
    Ok(())
}

/// Whether two tensors whose address ranges meet have an element in common: strided views of one
/// buffer, such as its columns, may lie between each other without touching.
fn elements_meet(a: &Tensor, b: &Tensor) -> bool {
    if a.is_contiguous() && b.is_contiguous() {
        return true;
    }
    if lie_apart(a, b) {
        return false;
    }
    let (a_range, b_range) = (a.addresses(), b.addresses());
    let meeting = a_range.start.max(b_range.start)..a_range.end.min(b_range.end);
    let bytes_of = |tensor: &Tensor, f: &mut dyn FnMut(usize)| {
        tensor.for_each_run(0..tensor.n_elements(), |run| {
            for address in run.addresses().map(|address| address as usize) {
                (address..address + tensor.dtype().size())
                    .filter(|byte| meeting.contains(byte))
                    .for_each(|byte| f(byte - meeting.start));
            }
        });
    };
    let mut used = vec![false; meeting.len()];
    bytes_of(a, &mut |byte| used[byte] = true);
    let mut met = false;
    bytes_of(b, &mut |byte| met |= used[byte]);
    met
}

/// Whether two tensors lie apart as columns do, or ranges of them: modulo some period, such as the length
/// of the buffer's rows, all elements of one are in one place and those of the other in another. The
/// period is what divides the largest distances between elements, some of them or all.
fn lie_apart(a: &Tensor, b: &Tensor) -> bool {
    let mut distances: Vec<usize> = a.distances().chain(b.distances()).collect();
    distances.sort_unstable_by(|a, b| b.cmp(a));
    let mut period = 0;
    distances.into_iter().any(|distance| {
        period = gcd(period, distance);
        if period == 0 {
            return false;
        }
        let (a, b) = (a.addresses_modulo(period), b.addresses_modulo(period));
        let apart = (b.start.wrapping_sub(a.start) as isize).rem_euclid(period as isize) as usize;
        a.len() <= apart && apart + b.len() <= period
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Dtype;
    use crate::tensor::Name;
    use proptest::prelude::*;

    /// A float32 view of a buffer: where it begins, and (length, stride) of each dimension.
    type View = (usize, Vec<(usize, isize)>);

    const LEN: usize = 64;

    /// Views that stay within the buffer, all of them.
    fn view() -> impl Strategy<Value = View> {
        (0..LEN, prop::collection::vec((1_usize..5, -9_isize..10), 0..3)).prop_filter(
            "within the buffer",
            |(start, dims)| {
                let reach = |negative: bool| -> isize {
                    let signed = dims.iter().filter(|(_, stride)| (*stride < 0) == negative);
                    signed.map(|&(len, stride)| (len as isize - 1) * stride).sum()
                };
                *start as isize + reach(true) >= 0 && *start as isize + reach(false) < LEN as isize
            },
        )
    }

    fn elements((start, dims): &View) -> Vec<usize> {
        dims.iter().fold(vec![*start], |all, &(len, stride)| {
            let along = |from: usize| {
                (0..len as isize).map(move |i| from.checked_add_signed(i * stride).expect("within"))
            };
            all.into_iter().flat_map(along).collect()
        })
    }

    proptest! {
        #[test]
        fn finds_all_that_share_an_element_and_no_others(
            views in prop::collection::vec((view(), any::<bool>()), 0..6),
        ) {
            let mut memory = [0.0_f32; LEN];
            let start = memory.as_mut_ptr();
            let tensors: Vec<Tensor> = views.iter().map(|((offset, dims), _)| {
                let shape: Vec<_> = dims.iter().map(|dim| dim.0).collect();
                let strides: Vec<_> = dims.iter().map(|dim| dim.1).collect();
                let data = start.wrapping_add(*offset).cast();
                // SAFETY: the view is within the memory, and nobody reads or writes it.
                unsafe { Tensor::new(Name::Plain("view"), Dtype::Float32, data, &shape, Some(&strides)) }
                    .expect("memory")
            }).collect();
            let accesses: Vec<_> = tensors.iter().zip(&views).enumerate()
                .map(|(key, (tensor, &(_, written)))| Access { addresses: tensor.addresses(), written, key })
                .collect();
            let clash = (0..views.len()).any(|a| (0..a).any(|b| {
                let of_b = elements(&views[b].0);
                (views[a].1 || views[b].1) && elements(&views[a].0).iter().any(|e| of_b.contains(e))
            }));
            prop_assert_eq!(check(accesses, |key| Cow::Borrowed(&tensors[key])).is_err(), clash);
        }
    }
}
