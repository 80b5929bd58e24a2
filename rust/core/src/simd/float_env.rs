//! The floating-point environment of a task.
//!
//! Rounding mode and flushing of denormals are a register of each thread, and
//! `torch.set_flush_denormal(True)` changes that of the calling thread alone. Compiled Rust assumes
//! the default; and one step must give the same bits on however many threads it runs. So every task
//! runs in the default environment and puts back what it found.

/// Runs `task` with rounding to nearest and denormals kept.
pub(crate) fn with_default_float_env<R>(task: impl FnOnce() -> R) -> R {
    /// Restores the environment, also while unwinding.
    struct Restore(imp::Control);
    impl Drop for Restore {
        fn drop(&mut self) {
            imp::set(self.0);
        }
    }
    let _restore = Restore(imp::get());
    imp::set(imp::DEFAULT);
    task()
}

#[cfg(target_arch = "x86_64")]
mod imp {
    use core::arch::asm;

    /// The MXCSR register.
    pub(super) type Control = u32;
    /// All exceptions masked, round to nearest, no flushing.
    pub(super) const DEFAULT: Control = 0x1f80;
    /// With denormals read and written as zeros.
    #[cfg(test)]
    pub(super) const FLUSHING: Control = DEFAULT | 0x8040;

    pub(super) fn get() -> Control {
        let mut control: Control = 0;
        // SAFETY: stores the register into a local of its size, and changes nothing else.
        unsafe {
            asm!("stmxcsr [{}]", in(reg) &raw mut control, options(nostack, preserves_flags))
        };
        control
    }

    pub(super) fn set(control: Control) {
        // SAFETY: loads either the architecture's default or a value that `get` read, both valid;
        // between the two, the register holds the environment that compiled code assumes.
        unsafe {
            asm!("ldmxcsr [{}]", in(reg) &raw const control, options(nostack, preserves_flags))
        };
    }
}

#[cfg(target_arch = "aarch64")]
mod imp {
    use core::arch::asm;

    /// The FPCR register.
    pub(super) type Control = u64;
    /// Round to nearest, no flushing, NaNs propagated.
    pub(super) const DEFAULT: Control = 0;
    /// With denormals read and written as zeros.
    #[cfg(test)]
    pub(super) const FLUSHING: Control = 1 << 24;

    pub(super) fn get() -> Control {
        let control: Control;
        // SAFETY: reads a register that is always accessible.
        unsafe { asm!("mrs {}, fpcr", out(reg) control, options(nomem, nostack, preserves_flags)) };
        control
    }

    pub(super) fn set(control: Control) {
        // SAFETY: writes either the architecture's default or a value that `get` read, both valid;
        // between the two, the register holds the environment that compiled code assumes.
        unsafe { asm!("msr fpcr, {}", in(reg) control, options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod imp {
    /// Nothing is known of this architecture's environment.
    pub(super) type Control = ();
    pub(super) const DEFAULT: Control = ();
    pub(super) fn get() -> Control {}
    pub(super) fn set(_control: Control) {}
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests {
    use super::*;
    use core::hint::black_box;

    #[test]
    fn tasks_run_in_the_default_environment_and_leave_the_callers() {
        let denormal = || black_box(f32::MIN_POSITIVE) * black_box(0.5);
        let (before, inside, after) = {
            imp::set(imp::FLUSHING);
            let found = (denormal(), with_default_float_env(denormal), denormal());
            imp::set(imp::DEFAULT);
            found
        };
        assert_eq!((before, after), (0.0, 0.0));
        assert!(inside > 0.0);
    }
}
