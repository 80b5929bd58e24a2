//! Torch's own OpenMP team, if the process has one.
//!
//! `GOMP_parallel` is the entry that compilers emit calls to. After `import torch` on Linux it can be
//! found by name in the process; where it cannot, there is no team to borrow.

use core::ffi::{c_uint, c_void};
use core::sync::atomic::{AtomicU32, Ordering};
use std::process;

/// `GOMP_parallel(function, data, number of threads or 0, flags)`.
type Parallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

/// The process that has loaded the library; 0 if that is not known.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Remembers the process: in a child forked from it, the team's threads are gone but the library
/// does not know, and would wait for them for ever.
pub(super) fn remember_process(process: u32) {
    PROCESS.store(process, Ordering::Relaxed);
}

/// A team of threads.
#[derive(Clone, Copy)]
pub(super) struct Team(Parallel);

impl Team {
    /// The process's team, if it has one that is alive.
    pub(super) fn find() -> Option<Self> {
        if PROCESS.load(Ordering::Relaxed) != process::id() {
            return None;
        }
        // Looked for each time, as torch may be imported later; a look costs less than 1 us.
        // SAFETY: the name is a C string, and looking a symbol up has no other requirement.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"GOMP_parallel".as_ptr()) };
        if symbol.is_null() {
            return None;
        }
        // SAFETY: every OpenMP runtime that exports this name gives it this signature, which is
        // part of the interface that compiled programs rely on.
        Some(Self(unsafe { core::mem::transmute::<*mut c_void, Parallel>(symbol) }))
    }

    /// Calls `job` on each of `n_threads` threads, this one among them. `job` must not panic.
    pub(super) fn run(self, n_threads: usize, job: &(dyn Fn() + Sync)) {
        extern "C" fn call(data: *mut c_void) {
            // SAFETY: `data` is the address of `job` below, which outlives the parallel region.
            let job = unsafe { &*data.cast::<&(dyn Fn() + Sync)>() };
            job();
        }
        let data = (&raw const job).cast_mut().cast();
        // SAFETY: `call` takes what `data` points to, by shared reference from several threads,
        // which `Sync` allows; the region ends before this function returns.
        unsafe { (self.0)(call, data, n_threads as c_uint, 0) };
    }
}
