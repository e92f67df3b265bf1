//! Panic hooks. One test, because a process has one hook.

use std::{
    panic::{self, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
};

use async_endpoints_telemetry::{take_panic_location, watch_panics};

static SEEN: AtomicU32 = AtomicU32::new(0);

#[test]
fn location_is_kept_and_the_own_hook_runs() {
    panic::set_hook(Box::new(|_| {
        SEEN.fetch_add(1, Ordering::Relaxed);
    }));
    watch_panics();
    watch_panics();
    assert_eq!(take_panic_location(), None);
    let line = line!() + 1;
    assert!(catch_unwind(|| panic!("caught")).is_err());
    assert_eq!(SEEN.load(Ordering::Relaxed), 1);
    let elsewhere = std::thread::spawn(take_panic_location);
    assert_eq!(elsewhere.join().expect("no panic"), None);
    let location = take_panic_location().expect("a location");
    assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    assert_eq!(take_panic_location(), None);
}
