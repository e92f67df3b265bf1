//! Time limits of store calls.

use std::time::Duration;

use async_endpoints_core::StoreError;

use crate::time_limit::time_limit;

/// Limit of a store call that a caller waits for.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(4500);

/// Runs a store call, or several as one, with the limit [`STORE_TIMEOUT`].
pub(crate) async fn within<T, E: From<StoreError>>(calls: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    limited(STORE_TIMEOUT, calls).await
}

/// Runs a store call; returns [`StoreError::Unavailable`] if it takes longer than `limit`.
///
/// The call may still be applied after the limit.
pub(crate) async fn limited<T, E: From<StoreError>>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = || StoreError::Unavailable(format!("no answer within {limit:?}"));
    time_limit(limit, call).await.ok_or_else(late)?
}
