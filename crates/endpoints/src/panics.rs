//! Caught panics with the place where they began.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub(crate) use async_endpoints_telemetry::{panic_message as message, watch_panics};
use async_endpoints_telemetry::{restore_panic_location, take_panic_location};

/// A caught panic.
#[derive(Debug)]
pub(crate) struct Panic {
    payload: Box<dyn Any + Send>,
    /// `file:line:column`; none if it began on another thread, or if the application replaced the panic hook.
    pub(crate) location: Option<String>,
}

impl Panic {
    /// The panic that this thread caught last, with its location.
    pub(crate) fn caught(payload: Box<dyn Any + Send>) -> Self {
        Self { payload, location: take_panic_location() }
    }

    pub(crate) fn message(&self) -> &str {
        message(&*self.payload)
    }

    /// Continues the panic on this thread.
    pub(crate) fn resume(self) -> ! {
        restore_panic_location(self.location);
        std::panic::resume_unwind(self.payload)
    }
}

/// Forgets the location of an earlier panic, which the code that panicked caught itself.
pub(crate) fn forget_location() {
    take_panic_location();
}

/// Calls a function and catches its panic.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    forget_location();
    catch_unwind(AssertUnwindSafe(run)).map_err(Panic::caught)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_caught_with_its_location() {
        watch_panics();
        let panic = catch(|| panic!("no paper {}", 7)).expect_err("a panic");
        assert_eq!(panic.message(), "no paper 7");
        assert!(panic.location.as_deref().is_some_and(|at| at.starts_with("crates/endpoints/src/panics.rs:")));
        let resumed = catch(|| catch(|| std::panic::resume_unwind(Box::new("from elsewhere")))).expect("caught inside");
        assert_eq!(resumed.expect_err("a panic").location, None);
    }
}
