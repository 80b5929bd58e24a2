//! Large pages for memory that is about to be written for the first time.
//!
//! What an allocator returns is not there yet: the system finds, clears and maps each page when it is first
//! touched, and with pages of 4 KiB this takes longer than to compute what is written to them. Linux
//! has pages of 2 MiB too, on most systems for those only who ask for them, as NumPy does for its arrays.

use core::ops::Range;

/// Bytes of a large page, on most processors.
const PAGE: usize = 2 << 20;

/// Asks the system to back memory by large pages, where there is room for some between these addresses. It
/// is a hint: nothing that a program computes depends on it.
pub fn prefer_large_pages(addresses: Range<usize>) {
    let start = addresses.start.div_ceil(PAGE);
    let end = addresses.end / PAGE;
    if start < end {
        advise(start * PAGE, (end - start) * PAGE);
    }
}

#[cfg(target_os = "linux")]
fn advise(start: usize, len: usize) {
    // SAFETY: whatever memory it is, this advice changes nothing of what it holds.
    unsafe { libc::madvise(core::ptr::without_provenance_mut(start), len, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_start: usize, _len: usize) {}
