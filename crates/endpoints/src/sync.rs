//! A mutex that ignores poisoning.

use std::sync::{MutexGuard, PoisonError};

/// A mutex whose `lock` never fails.
///
/// Every critical section of this crate leaves its data consistent, so data stays usable after a panic.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
