//! Checks when a store is opened that the user may run the commands of all calls.

use std::time::Duration;

use crate::{
    args::Args,
    calls::Calls,
    fail::{Fail, OpenError, is_denied},
    server::Server,
};

/// Time limit of the subscription.
const SUBSCRIBE: Duration = Duration::from_millis(500);

/// Fails if the user lacks a right to a command, to keys of the prefix, or to the channel of hints. Other errors are left
/// to the calls that meet them.
pub(crate) async fn check(server: &Server, calls: &Calls) -> Result<(), OpenError> {
    let names = |answer| redis::from_redis_value::<Vec<String>>(answer).map_err(|error| Fail::Redis(error.into()));
    match calls.call(&calls.scripts.rights, &Args::new(), names).await {
        Ok(denied) if !denied.is_empty() => {
            let denied = denied.join(", ");
            return Err(OpenError::Refused(format!("{}: the user may not run {denied}", server.address)));
        }
        Err(Fail::Redis(error)) if is_denied(&error) => return Err(server.refused(&error)),
        Ok(_) | Err(_) => {}
    }
    let subscribed = async {
        let mut subscription = server.client.get_async_pubsub().await?;
        subscription.subscribe(format!("{}hints", server.namespace)).await
    };
    match tokio::time::timeout(SUBSCRIBE, subscribed).await {
        Ok(Err(error)) if is_denied(&error) => Err(server.refused(&error)),
        _ => Ok(()),
    }
}
