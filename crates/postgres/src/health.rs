//! The condition of the server, for health checks.

use async_endpoints_core::store::{Result, StoreHealth};
use tokio_postgres::types::Type;

use crate::{
    calls::Calls,
    link::Lane,
    value::{Columns, answer},
};

/// Percentage of `max_connections` from which on the server is degraded.
const FULL_PERCENT: i64 = 90;
/// A transaction that is open for this many seconds keeps too many dead rows.
const LONG_SECONDS: i64 = 3600;

/// The age of a snapshot is in transactions. It can be read without a right to the session's other fields, which the start of a
/// transaction needs: the oldest is unknown while another role has one open. The session of a standby has a snapshot without a
/// transaction.
const SQL: &str = "WITH sessions AS (SELECT * FROM pg_stat_activity \
        WHERE usesysid IS NOT NULL AND pid NOT IN (SELECT pid FROM pg_stat_replication)) \
    SELECT current_setting('server_version'), \
    (SELECT count(*) FROM sessions), \
    current_setting('max_connections')::bigint, \
    (SELECT coalesce(max(age(backend_xmin)), 0)::bigint FROM pg_stat_activity), \
    current_setting('synchronous_standby_names'), \
    (SELECT CASE WHEN bool_or(xact_start IS NULL AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)) THEN NULL \
        ELSE coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::bigint END \
     FROM sessions), \
    (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables WHERE schemaname = $1)";

impl Calls {
    pub(crate) async fn health(&self) -> Result<StoreHealth> {
        let row = self.query_one(Lane::Urgent, SQL, &[(&self.schema.as_str(), Type::TEXT)]).await?;
        let mut columns = Columns::new(&row);
        let version: String = answer(columns.read())?;
        let (used, max): (i64, i64) = (answer(columns.read())?, answer(columns.read())?);
        let oldest: i64 = answer(columns.read())?;
        let standbys: String = answer(columns.read())?;
        let (open, dead): (Option<i64>, i64) = (answer(columns.read())?, answer(columns.read())?);
        let health = StoreHealth::default()
            .with("version", version)
            .with("connections", used)
            .with("max_connections", max)
            .with("oldest_snapshot_age", oldest)
            .with("synchronous_standby_names", standbys)
            .with("oldest_transaction_seconds", open)
            .with("dead_rows", dead)
            .degraded_if(open.is_some_and(|open| open >= LONG_SECONDS), || {
                let open = open.unwrap_or_default();
                format!("a transaction is open for {open} s, and the server keeps all rows deleted since; end it")
            })
            .degraded_if(used * 100 >= max * FULL_PERCENT, || {
                format!("{used} of {max} connections are used; raise max_connections or use fewer")
            });
        Ok(match self.link.server().volatile() {
            Some(why) => health.degraded_if(true, || why),
            None => health,
        })
    }
}
