//! Threads: one call, `run(n_tasks, threads, task)`, over whatever team there is.
//!
//! Where the process has OpenMP, as every process with torch on Linux does, the work runs on torch's
//! own team (`openmp.rs`). Its threads spin for some milliseconds after each of torch's parallel
//! regions, so just after a backward they are hot, and a second pool on the same cores would fight
//! them. Elsewhere, and in a forked child, where no team survives, threads are spawned for the call.
//!
//! Tasks are taken from counters, one for each thread's own share of neighbouring tasks: a thread
//! that is done helps with the others' shares, and a team that is smaller or larger than the number of
//! shares finishes too.

#[cfg(unix)]
mod openmp;

use crate::simd::with_default_float_env;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, OnceLock};
use std::thread::Builder;

/// What runs the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The process's own OpenMP team.
    OpenMp,
    /// Threads spawned for each call.
    Scoped,
}

impl Backend {
    /// The one in use in this process.
    #[must_use]
    pub fn current() -> Self {
        #[cfg(unix)]
        if openmp::Team::find().is_some() {
            return Self::OpenMp;
        }
        Self::Scoped
    }

    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenMp => "openmp",
            Self::Scoped => "scoped",
        }
    }
}

/// The most threads that this process is granted, by affinity and by control group.
#[must_use]
pub fn max_threads() -> usize {
    static GRANTED: OnceLock<usize> = OnceLock::new();
    *GRANTED.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Told the number of the process that has loaded the library, so that a child forked from it is known
/// for one.
pub fn init(process: u32) {
    #[cfg(unix)]
    openmp::remember_process(process);
    #[cfg(not(unix))]
    let _ = process;
}

/// How many threads there are for a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    /// Those that may run: torch's.
    pub(crate) allowed: usize,
    /// Those that have enough to do.
    pub(crate) worth: usize,
}

/// Calls `task` with every number below `n_tasks`, on the threads that there are for it.
///
/// # Panics
///
/// With the panic of a task, after all threads are done.
pub(crate) fn run(n_tasks: usize, threads: Threads, task: &(dyn Fn(usize) + Sync)) {
    let n_shares = threads.worth.min(threads.allowed).min(n_tasks).max(1);
    let work = Work::new(n_tasks, n_shares, task);
    if n_shares == 1 {
        work.join();
    } else {
        spread(&work, threads.allowed);
    }
    work.finish();
}

fn spread(work: &Work<'_>, allowed: usize) {
    #[cfg(unix)]
    if let Some(team) = openmp::Team::find() {
        // All of it, always: libgomp ends threads that a smaller team has no use for, and starts new
        // ones for torch's next region (pytorch issue 32008).
        team.run(allowed, &|| work.join());
        return;
    }
    std::thread::scope(|scope| {
        // Where no thread can be had, those that there are do the work.
        let spawn = |_: &usize| Builder::new().spawn_scoped(scope, || work.join()).is_ok();
        (1..work.n_joining).take_while(spawn).for_each(drop);
        work.join();
    });
}

/// Tasks that are being done.
struct Work<'a> {
    shares: Vec<Share>,
    /// Threads that have begun, and so the share that the next one begins with.
    n_joined: AtomicUsize,
    /// Threads that take part; any more have nothing to do.
    n_joining: usize,
    task: &'a (dyn Fn(usize) + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Neighbouring tasks, on a cache line of their own.
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

impl<'a> Work<'a> {
    fn new(n_tasks: usize, n_shares: usize, task: &'a (dyn Fn(usize) + Sync)) -> Self {
        let bound = |share: usize| share * n_tasks / n_shares;
        let share = |Range { start, end }| Share { next: AtomicUsize::new(start), end };
        Self {
            shares: (0..n_shares).map(|i| share(bound(i)..bound(i + 1))).collect(),
            n_joined: AtomicUsize::new(0),
            n_joining: n_shares.min(max_threads()),
            task,
            panic: Mutex::new(None),
        }
    }

    /// Does tasks until none is left. Called by each thread of the team.
    fn join(&self) {
        let own = self.n_joined.fetch_add(1, Ordering::Relaxed);
        if own >= self.n_joining {
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| with_default_float_env(|| self.take(own))));
        if let Err(payload) = done {
            *self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(payload);
        }
    }

    fn take(&self, own: usize) {
        for i in 0..self.shares.len() {
            let share = &self.shares[(own + i) % self.shares.len()];
            loop {
                let task = share.next.fetch_add(1, Ordering::Relaxed);
                if task >= share.end {
                    break;
                }
                (self.task)(task);
            }
        }
    }

    /// Passes on the panic of a task, if there was one.
    fn finish(self) {
        if let Some(payload) =
            self.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
        {
            resume_unwind(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_number_of_threads() {
        for (allowed, worth) in [(1, 1), (1, 5), (2, 2), (5, 2), (64, 0), (64, 64)] {
            for n_tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                run(n_tasks, Threads { allowed, worth }, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_smaller_or_larger_team_finishes() {
        for n_joining in [1, 7] {
            let count = AtomicUsize::new(0);
            let work_task = |_| {
                count.fetch_add(1, Ordering::Relaxed);
            };
            let work = Work::new(100, 4, &work_task);
            (0..n_joining).for_each(|_| work.join());
            work.finish();
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_nobody_else() {
        let threads = Threads { allowed: 2, worth: 2 };
        let panicked = catch_unwind(|| run(10, threads, &|task| assert!(task != 7, "task seven")));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"task seven"));
    }
}
