//! Calls fetch few rows, also with plans that were made after a vacuum found the tables empty. The planner then assumes one row, for
//! which it prefers to read a whole index. Index entries that a call reads without their rows are not seen here.

mod common;

use std::time::Duration;

use async_endpoints_core::{
    JobStore as _,
    job::Digest,
    store::{Claim, LeaseToken, NewJob, Outcome, Settlement, TypeQuota, WorkerId},
};
use async_endpoints_postgres::{PostgresStore, tokio_postgres::Client};
use async_endpoints_testkit::{
    jobs::{error, job, name},
    server::PostgresServer,
};
use bytes::Bytes;
use common::{client, open, schema};
use futures_util::future::join_all;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const TABLES: [&str; 10] =
    ["jobs", "ready", "scheduled", "running", "ended", "attempts", "logs", "keys", "tombs", "deltas"];
/// Jobs of each state.
const JOBS: usize = 640;
/// Rows that a call for ten jobs may fetch: some for each job, and fewer than an index has.
const MOST: i64 = 200;

/// Makes the planner assume that all tables are empty.
async fn assume_empty(client: &Client, schema: &str) {
    for table in TABLES {
        let sql = format!("ALTER TABLE {schema}.{table} SET (autovacuum_enabled = off, vacuum_truncate = off)");
        client.batch_execute(&sql).await.expect("set");
    }
    fill(client, schema).await;
    for table in TABLES {
        client.batch_execute(&format!("DELETE FROM {schema}.{table}")).await.expect("emptied");
        client.batch_execute(&format!("VACUUM (ANALYZE) {schema}.{table}")).await.expect("vacuumed");
    }
    let empty = format!(
        "SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relname = ANY ($1) AND relpages > 0 AND reltuples = 0"
    );
    let empty: i64 = client.query_one(&empty, &[&TABLES.as_slice()]).await.expect("answered").get(0);
    assert_eq!(empty, TABLES.len() as i64, "tables that the planner takes for empty");
}

/// Adds a row to each table, so that it has a page.
async fn fill(client: &Client, schema: &str) {
    let state = "gen_random_uuid(), 1, 1, 1, 1, 0, 5";
    let sql = format!(
        "INSERT INTO {schema}.jobs (id, ord, created_at, retention, max_retries, max_losses, type, bytes, prio, repeatable, fingerprint, payload)
             VALUES (gen_random_uuid(), 1, 1, 1, 1, 1, 1, 0, 4, false, sha256(''), '');
         INSERT INTO {schema}.ready (id, ord, since, entered_at, type, bytes, rank) VALUES ({state});
         INSERT INTO {schema}.scheduled (id, ord, since, entered_at, type, bytes, rank, due) VALUES ({state}, 1);
         INSERT INTO {schema}.running (id, ord, since, entered_at, type, bytes, rank, token, started_at, lease_until, retention, updated_at)
             VALUES ({state}, gen_random_uuid(), 1, 1, 1, 1);
         INSERT INTO {schema}.ended (id, ord, ended_at, expires_at, type, version, attempt, retries, losses, releases, status)
             VALUES (gen_random_uuid(), 1, 1, 1, 1, 1, 1, 0, 0, 0, 3);
         INSERT INTO {schema}.attempts (id, attempt, started_at, ended_at, outcome) VALUES (gen_random_uuid(), 1, 1, 1, 1);
         INSERT INTO {schema}.logs (id, line, attempt, bytes, record) VALUES (gen_random_uuid(), 1, 1, 0, '');
         INSERT INTO {schema}.keys (type, key, owner, id) VALUES (1, 'key', '', gen_random_uuid());
         INSERT INTO {schema}.tombs (id, gone_until, forget_at, type, fingerprint) VALUES (gen_random_uuid(), 1, 1, 1, '');
         INSERT INTO {schema}.deltas (at, type, codes, vals) VALUES (1, 1, '{{}}', '{{}}')"
    );
    client.batch_execute(&sql).await.expect("filled");
}

/// Adds rows that no call needs.
async fn add_others(client: &Client, schema: &str) {
    let sql = format!(
        "INSERT INTO {schema}.logs SELECT gen_random_uuid(), 1, 1, 0, '' FROM generate_series(1, {JOBS});
         INSERT INTO {schema}.keys SELECT 1, 'other ' || n, '', gen_random_uuid() FROM generate_series(1, {JOBS}) n;
         INSERT INTO {schema}.tombs SELECT gen_random_uuid(), {max}, {max}, 1, '' FROM generate_series(1, {JOBS})",
        max = i64::MAX
    );
    client.batch_execute(&sql).await.expect("added");
}

async fn submit(store: &PostgresStore, delay: Duration) {
    for _ in 0..JOBS / 64 {
        let inserts = (0..64).map(|_| {
            let fingerprint = Digest([9; 32]);
            store.insert(NewJob { delay, fingerprint, owner: Some(Digest([3; 32])), ..job("alpha", HOUR) })
        });
        for outcome in join_all(inserts).await {
            outcome.expect("accepted");
        }
    }
}

/// Starts the queued jobs, and ends their attempts with this outcome. Without one they keep running.
async fn work(store: &PostgresStore, outcome: Option<Outcome>) {
    for _ in 0..JOBS / 64 {
        let claim = Claim {
            worker: WorkerId(Uuid::new_v4()),
            token: LeaseToken::random(),
            quotas: vec![TypeQuota { name: name("alpha"), max: 64, timeout: HOUR }],
            max: 64,
            max_bytes: 1 << 20,
            lease: HOUR,
        };
        let attempts = store.claim(&claim).await.expect("answered").attempts;
        assert_eq!(attempts.len(), 64);
        let Some(outcome) = &outcome else { continue };
        let settlements: Vec<_> =
            attempts.iter().map(|attempt| Settlement::new(attempt.lease, outcome.clone(), error("C"))).collect();
        store.settle(&settlements).await.expect("settled");
    }
}

/// Rows that a call fetches. The call is undone.
async fn rows_fetched(client: &Client, schema: &str, call: &Call) -> i64 {
    let count = format!(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
         WHERE schemaname = '{schema}' AND relname = ANY ($1)"
    );
    let count = async || -> i64 { client.query_one(&count, &[&TABLES.as_slice()]).await.expect("answered").get(0) };
    client.batch_execute(&format!("BEGIN; {}", call.before)).await.expect("prepared");
    let before = count().await;
    let sql = format!("SELECT {schema}.{}", call.sql);
    client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let fetched = count().await - before;
    client.batch_execute("ROLLBACK").await.expect("undone");
    fetched
}

/// A call, what is changed before it, and how many rows it has to fetch.
struct Call {
    before: String,
    sql: String,
    least: i64,
}

fn call(least: i64, sql: &str) -> Call {
    Call { before: String::new(), sql: sql.to_owned(), least }
}

/// Texts of SQL. Arguments are literals, because rows read by a subquery would be counted.
struct Texts<'a> {
    server: &'a PostgresServer,
    schema: &'a str,
}

impl Texts<'_> {
    /// The values of ten jobs of a state.
    fn of_state(&self, table: &str, condition: &str, column: &str) -> String {
        let first = format!("SELECT * FROM {}.{table} WHERE {condition} ORDER BY id LIMIT 10", self.schema);
        format!("'{}'::uuid[]", self.server.sql(&format!("SELECT array_agg({column}) FROM ({first}) first")))
    }

    /// Ten times a value.
    fn ten(value: &str) -> String {
        format!("array_fill({value}, ARRAY[10])")
    }

    fn settle(&self, table: &str, outcome: u8, lines: &str) -> String {
        let (ids, tokens) = (self.of_state(table, "true", "id"), self.of_state(table, "true", "token"));
        let (outcomes, delays) = (Self::ten(&format!("{outcome}::smallint")), Self::ten("1000::bigint"));
        format!(
            "settle_v1({ids}, {tokens}, {outcomes}, NULL, NULL, ARRAY['{{}}'], {delays}, NULL, NULL, NULL, {lines})"
        )
    }

    /// Into a long lane, without a limit: no jobs are counted.
    fn insert(ids: &str) -> String {
        let [types, priorities, payloads, prints, zeros, ones, no] =
            ["1", "4::smallint", "''::bytea", "sha256('')", "0::bigint", "1::bigint", "false"].map(Self::ten);
        let keys = "ARRAY['a','b','c','d','e','f','g','h','i','j']";
        format!(
            "insert_v1({ids}, {types}, {priorities}, {payloads}, {prints}, NULL, NULL, {keys}, {no}, {zeros}, NULL, {ones}, {ones},
                 {ones}, NULL, NULL, NULL, NULL, ARRAY[14], false)"
        )
    }

    fn list(status: &str, owner: &str, after: i64) -> String {
        let max = i64::MAX;
        format!("list_v1({status}, NULL, {owner}, 0::smallint, {after}, gen_random_uuid(), 0, {max}, 10)")
    }

    fn of_workers(&self) -> Vec<Call> {
        let schema = self.schema;
        let (running, tokens) = (self.of_state("running", "true", "id"), self.of_state("running", "true", "token"));
        let (line, no_line) = ("ARRAY[1], ARRAY[2], ARRAY['{}']", "NULL, NULL, NULL");
        let mut calls = vec![
            call(
                10,
                "claim_v1(gen_random_uuid(), gen_random_uuid(), ARRAY[1], ARRAY[10], array_fill(0::bigint, ARRAY[10]), 10, 1000000, 1000)",
            ),
            call(10, &format!("report_v1({running}, {tokens}, {}, {line})", Self::ten("'1'::text"))),
            call(10, &format!("renew_v1(gen_random_uuid(), '{{}}', 1000, {running}, {tokens}, 1000000)")),
            call(10, &self.settle("running", 0, line)),
            call(10, &self.settle("ended", 0, no_line)),
            Call {
                before: format!(
                    "INSERT INTO {schema}.marks VALUES ('sweep', {schema}.now_us()), ('quiet', 0), ('reclaimed', 0)
                         ON CONFLICT (name) DO UPDATE SET at = excluded.at;
                     UPDATE {schema}.running SET lease_until = 1 WHERE id = ANY ({running})"
                ),
                sql: "reclaim_v1(10, 3600000000, '{}', '{}', false)".to_owned(),
                least: 10,
            },
            Call {
                before: format!(
                    "UPDATE {schema}.ended SET expires_at = 1
                     WHERE id IN (SELECT id FROM {schema}.ended WHERE status = 4 ORDER BY ord, id LIMIT 10)"
                ),
                sql: "prune_v1(10)".to_owned(),
                least: 10,
            },
        ];
        calls.extend((0..=5).map(|outcome| call(10, &self.settle("running", outcome, no_line))));
        calls
    }

    fn of_clients(&self) -> Vec<Call> {
        let new = "ARRAY(SELECT gen_random_uuid() FROM generate_series(1, 10))";
        let mut calls = vec![call(0, &Self::insert(new))];
        for (table, condition) in [
            ("ready", "version = 1"),
            ("ready", "version > 1"),
            ("scheduled", "version = 1"),
            ("scheduled", "version > 1"),
            ("running", "true"),
            ("ended", "status = 3"),
            ("ended", "status = 4"),
        ] {
            let ids = self.of_state(table, condition, "id");
            calls.push(call(10, &format!("view_v1({ids}, false)")));
            calls.push(call(10, &format!("versions_v1({ids})")));
            calls.push(call(10, &Self::insert(&ids)));
            calls.push(call(2, &format!("payload_v1(({ids})[1])")));
            calls.push(call(0, &format!("logs_v1(({ids})[1], 0, 10)")));
            calls.push(call(2, &format!("cancel_v1(({ids})[1], '{{}}')")));
            calls.push(call(0, &format!("retry_v1(({ids})[1], gen_random_uuid(), NULL, NULL)")));
        }
        for (status, after) in [("0", 0), ("1", 0), ("2", 0), ("3", i64::MAX), ("4", i64::MAX)] {
            calls.push(call(10, &Self::list(&format!("{status}::smallint"), "NULL", after)));
        }
        calls.push(call(10, &Self::list("NULL", "decode(repeat('03', 32), 'hex')", i64::MAX)));
        calls.push(call(10, &Self::list("NULL", "NULL", i64::MAX)));
        calls
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_fetch_few_rows_with_plans_for_empty_tables() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let store = open(&server, &schema).await;
    let client = client(&server).await;
    assert_eq!(server.sql(&format!("SELECT {schema}.type_v1('alpha')")), "1");
    assume_empty(&client, &schema).await;
    for outcome in [
        Some(Outcome::Completed { result: Bytes::from_static(b"1") }),
        Some(Outcome::Failed { error: error("FAILED") }),
        Some(Outcome::Retry { error: error("FAILED"), delay: HOUR }),
        None,
        Some(Outcome::Released),
    ] {
        submit(&store, Duration::ZERO).await;
        work(&store, outcome).await;
    }
    submit(&store, HOUR).await;
    submit(&store, Duration::ZERO).await;
    add_others(&client, &schema).await;

    let texts = Texts { server: &server, schema: &schema };
    let mut wrong = Vec::new();
    for call in texts.of_workers().iter().chain(&texts.of_clients()) {
        let fetched = rows_fetched(&client, &schema, call).await;
        if !(call.least..=MOST).contains(&fetched) {
            wrong.push(format!("{fetched} rows instead of {} to {MOST}: {}", call.least, call.sql));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
