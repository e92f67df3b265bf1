//! The answer to `health`: what a store reports about its own condition.

use serde_json::{Map, Value};

/// A store's condition, as health checks show it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreHealth {
    /// Facts for operators, by name in `snake_case`.
    pub data: Map<String, Value>,
    /// Why the store works, but can lose jobs or will stop soon. Empty for a healthy store.
    pub degraded: Vec<String>,
}

impl StoreHealth {
    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a reason if the condition holds.
    #[must_use]
    pub fn degraded_if(mut self, condition: bool, reason: impl FnOnce() -> String) -> Self {
        if condition {
            self.degraded.push(reason());
        }
        self
    }
}
