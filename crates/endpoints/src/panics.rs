//! Where a handler panicked.
//!
//! A caught panic has a message but no location, which only a panic hook sees. The hook of this module records it for the
//! thread, then calls the hook that was installed before.

use std::{
    any::Any,
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

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
        Self { payload, location: take_location() }
    }

    pub(crate) fn message(&self) -> &str {
        message(&*self.payload)
    }

    /// Continues the panic on this thread.
    pub(crate) fn resume(self) -> ! {
        set_location(self.location);
        std::panic::resume_unwind(self.payload)
    }
}

/// The message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// Installs the hook, once in a process.
pub(crate) fn record_locations() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            set_location(panic.location().map(ToString::to_string));
            before(panic);
        }));
    });
}

/// Forgets the location of an earlier panic, which the code that panicked caught itself.
pub(crate) fn forget_location() {
    take_location();
}

/// Calls a function and catches its panic.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    forget_location();
    catch_unwind(AssertUnwindSafe(run)).map_err(Panic::caught)
}

// A thread that ends has no location any more.
fn take_location() -> Option<String> {
    LOCATION.try_with(RefCell::take).unwrap_or_default()
}

fn set_location(location: Option<String>) {
    let _ = LOCATION.try_with(|stored| stored.replace(location));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_caught_with_its_location() {
        record_locations();
        let panic = catch(|| panic!("no paper {}", 7)).expect_err("a panic");
        assert_eq!(panic.message(), "no paper 7");
        assert!(panic.location.as_deref().is_some_and(|at| at.starts_with("crates/endpoints/src/panics.rs:")));
        let resumed = catch(|| catch(|| std::panic::resume_unwind(Box::new("from elsewhere")))).expect("caught inside");
        assert_eq!(resumed.expect_err("a panic").location, None);
    }
}
