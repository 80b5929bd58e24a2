//! Asking for memory before it is needed.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Asks for the cache lines of so many bytes from `address` on, which may be any address at all: nothing is
/// read that a program could see, and nothing faults.
#[inline(always)]
pub fn prefetch<T>(address: *const T, n_bytes: usize) {
    for line in 0..n_bytes.div_ceil(LINE) {
        prefetch_line(address.cast::<u8>().wrapping_add(line * LINE));
    }
}

#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has the instruction, and as it says above.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: likewise. There is no stable intrinsic of it in the oldest Rust that we support.
    unsafe {
        core::arch::asm!(
            "prfm pldl1keep, [{}]",
            in(reg) address,
            options(readonly, nostack, preserves_flags)
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
