//! Time limits of store calls.

use std::time::Duration;

use async_endpoints_core::StoreError;

/// Limit of a store call that a caller waits for.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_millis(4500);

/// Runs a store call with the limit [`STORE_TIMEOUT`].
pub(crate) async fn within<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    limited(STORE_TIMEOUT, call).await
}

/// Runs a store call; returns [`StoreError::Unavailable`] if it takes longer than `limit`.
///
/// The call may still be applied after the limit.
pub(crate) async fn limited<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.map_err(late)?
}
