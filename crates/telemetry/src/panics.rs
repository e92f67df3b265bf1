//! The location of a caught panic.

use std::{
    any::Any,
    cell::RefCell,
    panic::{self, PanicHookInfo},
    sync::Once,
};

thread_local! {
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Adds a panic hook that keeps the location of each panic for [`take_panic_location`], then runs the hook that was set
/// before. Only the first call does anything.
pub fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            keep_location(panic);
            next(panic);
        }));
    });
}

/// Takes the location, such as `src/report.rs:17:9`, of the last panic on this thread. Call it on the thread that caught the
/// panic. None without [`watch_panics`], or if the application has replaced the hook.
pub fn take_panic_location() -> Option<String> {
    LOCATION.try_with(RefCell::take).ok().flatten()
}

/// Sets the location that [`take_panic_location`] returns. For a panic that continues on this thread after another caught it.
pub fn restore_panic_location(location: Option<String>) {
    let _at_thread_exit = LOCATION.try_with(|last| last.replace(location));
}

pub(crate) fn keep_location(panic: &PanicHookInfo<'_>) {
    restore_panic_location(panic.location().map(ToString::to_string));
}

/// The message of a caught panic.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("a panic without a message")
}
