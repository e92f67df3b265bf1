//! A time limit that costs nothing if the future is ready at once.

use std::{pin::pin, time::Duration};

use futures_util::FutureExt;

/// Like [`tokio::time::timeout`], but reads the clock only if the future has to wait. `None` if the limit has passed.
pub(crate) async fn time_limit<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future.as_mut().now_or_never() {
        Some(output) => Some(output),
        None => tokio::time::timeout(limit, future).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ready_and_waiting_futures_are_limited() {
        let limit = Duration::from_secs(2);
        let after = |seconds| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        };
        assert_eq!(time_limit(limit, async { 0 }).await, Some(0));
        assert_eq!(time_limit(limit, after(1)).await, Some(1));
        assert_eq!(time_limit(limit, after(3)).await, None);
    }
}
