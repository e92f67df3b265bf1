//! Jobs that a transaction of the application creates.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::{Duration, Instant};

use async_endpoints_core::{
    JobId, JobStore,
    store::{Claim, Hint, InsertOutcome, JobLookup, LeaseToken, NewJob, TypeQuota, WorkerId},
};
use async_endpoints_postgres::{
    Enqueued, PostgresStore, PreparedJob,
    tokio_postgres::{Client, IsolationLevel, error::SqlState},
};
use async_endpoints_testkit::{
    jobs::{digest, key, name},
    server::{PostgresServer, psql},
};
use common::{client, open, schema};
use futures_util::{StreamExt as _, future::join_all};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

struct World {
    server: std::sync::Arc<PostgresServer>,
    store: PostgresStore,
    client: Client,
    schema: String,
}

impl World {
    async fn new() -> Self {
        let (server, schema) = (PostgresServer::shared(), schema());
        let store = open(&server, &schema).await;
        let client = client(&server).await;
        Self { server, store, client, schema }
    }

    fn prepared(&self, job: &NewJob) -> PreparedJob {
        PreparedJob::new(job.clone()).schema(&self.schema)
    }

    async fn claim(&self) -> Vec<JobId> {
        let claim = Claim {
            worker: WorkerId(uuid::Uuid::new_v4()),
            token: LeaseToken::random(),
            quotas: vec![TypeQuota { name: name("Print"), max: 10, timeout: LIMIT }],
            max: 10,
            max_bytes: 1 << 20,
            lease: LIMIT,
        };
        self.store.claim(&claim).await.unwrap().attempts.iter().map(|attempt| attempt.lease.job).collect()
    }

    /// Waits for the hint that jobs are runnable.
    async fn woken(&self, hints: &mut (impl futures_util::Stream<Item = Hint> + Unpin)) {
        let work = async { while hints.next().await.unwrap() != Hint::Work(name("Print")) {} };
        timeout(LIMIT, work).await.unwrap();
    }

    fn count(&self, table: &str) -> String {
        psql(&self.server.url(), &format!("SELECT count(*) FROM {}.{table}", self.schema))
    }
}

fn job() -> NewJob {
    let payload = r#"{"v":1,"body":{"pages":3}}"#.into();
    NewJob::new(JobId::random(), name("Print"), payload, async_endpoints_core::job::JobTerms::default(), digest(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn rollback_leaves_nothing() {
    let world = World::new().await;
    let mut client = client(&world.server).await;
    let job = job().key(key("k")).owner(digest(7)).delay(Duration::from_secs(5));
    let prepared = world.prepared(&job);
    let transaction = client.transaction().await.unwrap();
    assert_eq!(prepared.enqueue(&transaction).await.unwrap(), Enqueued::Accepted(job.id));
    transaction.rollback().await.unwrap();
    assert_eq!(world.store.get(job.id).await.unwrap(), JobLookup::NotFound);
    for table in ["jobs", "ready", "scheduled", "keys", "deltas"] {
        assert_eq!(world.count(table), "0", "{table}");
    }
    assert!(matches!(world.store.insert(job).await.unwrap(), InsertOutcome::Inserted { .. }), "the key is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_job_is_like_a_submitted_one() {
    let world = World::new().await;
    let job = job().key(key("k")).owner(digest(7)).owner_label("Ada\0".to_owned());
    world.prepared(&job).enqueue(&world.client).await.unwrap();
    let JobLookup::Found(found) = world.store.get(job.id).await.unwrap() else { panic!("no job") };
    let other = NewJob { id: JobId::random(), key: Some(key("other")), ..job.clone() };
    world.store.insert(other.clone()).await.unwrap();
    let JobLookup::Found(submitted) = world.store.get(other.id).await.unwrap() else { panic!("no job") };
    let expected = async_endpoints_core::JobView {
        id: job.id,
        created_at: found.created_at,
        scheduled_at: found.scheduled_at,
        last_updated_at: found.last_updated_at,
        ahead: found.ahead,
        ..*submitted
    };
    assert_eq!(*found, expected);
    assert_eq!(world.store.payload(job.id).await.unwrap(), Some(job.payload));
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_wakes_a_worker_within_250_ms() {
    let world = World::new().await;
    let (mut hints, mut client) = (world.store.hints(), client(&world.server).await);
    let mut best = Duration::MAX;
    // One quick answer is enough, as other processes may slow down the machine.
    for _ in 0..10 {
        assert_eq!(world.claim().await, []);
        let job = job();
        let transaction = client.transaction().await.unwrap();
        world.prepared(&job).enqueue(&transaction).await.unwrap();
        let began = Instant::now();
        transaction.commit().await.unwrap();
        world.woken(&mut hints).await;
        assert_eq!(world.claim().await, [job.id]);
        best = best.min(began.elapsed());
    }
    assert!(best < Duration::from_millis(250), "{best:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn job_of_a_long_transaction_is_claimed_after_its_commit() {
    let world = World::new().await;
    let (mut hints, mut client) = (world.store.hints(), client(&world.server).await);
    // A claim stores the type. Otherwise the first job does, and others wait for its transaction.
    assert_eq!(world.claim().await, []);
    let late = job();
    let transaction = client.transaction().await.unwrap();
    world.prepared(&late).enqueue(&transaction).await.unwrap();
    // Later jobs are claimed meanwhile, so that claims begin after them.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let job = job();
        world.store.insert(job.clone()).await.unwrap();
        world.woken(&mut hints).await;
        assert_eq!(world.claim().await, [job.id]);
    }
    transaction.commit().await.unwrap();
    world.woken(&mut hints).await;
    let claimed = async { while !world.claim().await.contains(&late.id) {} };
    timeout(Duration::from_secs(1), claimed).await.expect("the late job is claimed");
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_does_not_wait_for_the_first_job_of_a_type() {
    let world = World::new().await;
    let mut client = client(&world.server).await;
    let first = job();
    let transaction = client.transaction().await.unwrap();
    world.prepared(&first).enqueue(&transaction).await.unwrap();
    assert_eq!(timeout(Duration::from_secs(1), world.claim()).await.expect("the claim does not wait"), []);
    transaction.commit().await.unwrap();
    assert_eq!(world.claim().await, [first.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unnotified_job_is_found_by_claims() {
    let world = World::new().await;
    let mut hints = world.store.hints();
    let (quiet, loud) = (job(), job());
    world.prepared(&quiet).without_wake().enqueue(&world.client).await.unwrap();
    assert_eq!(world.claim().await, [quiet.id]);
    // The only hint is that of the second job.
    world.prepared(&loud).enqueue(&world.client).await.unwrap();
    world.woken(&mut hints).await;
    assert_eq!(world.claim().await, [loud.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn key_of_an_earlier_job_is_answered() {
    let world = World::new().await;
    let first = job().key(key("k"));
    world.store.insert(first.clone()).await.unwrap();
    let again = NewJob { id: JobId::random(), ..first.clone() };
    assert_eq!(world.prepared(&again).enqueue(&world.client).await.unwrap(), Enqueued::Existing(first.id));
    let different = NewJob { fingerprint: digest(9), ..again };
    let error = world.prepared(&different).enqueue(&world.client).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION), "{error}");
    assert_eq!(world.count("jobs"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_ends_the_transaction() {
    let world = World::new().await;
    let enqueue = async |job: &NewJob| world.prepared(job).enqueue(&world.client).await;
    let (first, second) = (job().queue_limit(2), job().queue_limit(2));
    assert_eq!(enqueue(&first).await.unwrap(), Enqueued::Accepted(first.id));
    assert_eq!(enqueue(&second).await.unwrap(), Enqueued::Accepted(second.id));
    assert_eq!(enqueue(&second).await.unwrap(), Enqueued::Existing(second.id), "a repeat needs no place");
    let mut client = client(&world.server).await;
    let transaction = client.transaction().await.unwrap();
    let error = world.prepared(&job().queue_limit(2)).enqueue(&transaction).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::CONFIGURATION_LIMIT_EXCEEDED), "{error}");
    let ended = transaction.execute("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(ended.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION), "the transaction cannot commit");
}

/// Of jobs that arrive together, only that with the held key waits for the transaction, and each limit is checked.
#[tokio::test(flavor = "multi_thread")]
async fn open_transaction_delays_only_the_job_of_its_key() {
    let world = World::new().await;
    assert_eq!(world.claim().await, []);
    let held = job().key(key("held")).queue_limit(1000);
    let mut client = client(&world.server).await;
    let transaction = client.transaction().await.unwrap();
    world.prepared(&held).enqueue(&transaction).await.unwrap();
    let repeat = world.store.insert(NewJob { id: JobId::random(), ..held.clone() });
    let keyed = (0..40).map(|n| job().key(key(&format!("k{n}"))).queue_limit(1000));
    let others = keyed.chain((0..20).map(|_| job().queue_limit(1000))).chain([job().queue_limit(0)]);
    let others = others.map(|job| world.store.insert(job));
    let others = async {
        let inserted = timeout(Duration::from_secs(2), join_all(others)).await.expect("the others do not wait");
        let [others @ .., full] = &*inserted else { panic!("no answers") };
        assert!(others.iter().all(|outcome| matches!(outcome, Ok(InsertOutcome::Inserted { .. }))), "{others:?}");
        assert!(matches!(full, Ok(InsertOutcome::Full)), "{full:?}");
        transaction.commit().await.unwrap();
    };
    let (repeat, ()) = tokio::join!(repeat, others);
    let Ok(InsertOutcome::Existing(JobLookup::Found(found))) = &repeat else { panic!("{repeat:?}") };
    assert_eq!(found.id, held.id);
    assert_eq!(world.count("jobs"), "61");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_traceparent_is_kept() {
    let world = World::new().await;
    let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for parent in [valid, "00-00000000000000000000000000000000-b7ad6b7169203331-01", "01-x", "no traceparent"] {
        let sql =
            format!(r#"SELECT {}.enqueue_v1('{{"name":"Print","traceparent":"{parent}"}}', '{{}}')"#, world.schema);
        let answer = psql(&world.server.url(), &sql);
        let Enqueued::Accepted(id) = Enqueued::parse(&answer) else { panic!("{answer}") };
        let JobLookup::Found(found) = world.store.get(id).await.unwrap() else { panic!("no job") };
        let kept = found.trace.map(|trace| trace.traceparent.to_string());
        assert_eq!(kept.as_deref(), (parent == valid).then_some(valid), "{parent}");
    }
    assert_eq!(world.claim().await.len(), 4, "no job is unreadable");
}

/// Two transactions use the same key, and the first one commits while the second one waits.
async fn second_of_two(level: IsolationLevel) -> Result<(Enqueued, JobId), SqlState> {
    let world = World::new().await;
    let (first, second) = (job().key(key("k")), job().key(key("k")));
    let (mut one, mut other) = (client(&world.server).await, client(&world.server).await);
    let transaction = other.build_transaction().isolation_level(level).start().await.unwrap();
    // Its snapshot is from now, before the first transaction.
    let pid: i32 = transaction.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let holder = one.transaction().await.unwrap();
    world.prepared(&first).enqueue(&holder).await.unwrap();
    let waiting = world.prepared(&second);
    let commits = async {
        let waits = "SELECT cardinality(pg_blocking_pids($1)) > 0";
        let waits = async { while !world.client.query_one(waits, &[&pid]).await.unwrap().get::<_, bool>(0) {} };
        timeout(LIMIT, waits).await.expect("the second transaction waits");
        holder.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting.enqueue(&transaction), commits);
    answer.map(|answer| (answer, first.id)).map_err(|error| error.code().unwrap().clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn second_transaction_with_a_key_finds_the_first_job_under_read_committed() {
    let (answer, first) = second_of_two(IsolationLevel::ReadCommitted).await.unwrap();
    assert_eq!(answer, Enqueued::Existing(first));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_transaction_with_a_key_fails_under_repeatable_read_and_serializable() {
    for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
        assert_eq!(second_of_two(level).await.unwrap_err(), SqlState::T_R_SERIALIZATION_FAILURE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn role_with_execute_alone_may_enqueue() {
    let world = World::new().await;
    let (schema, role) = (&world.schema, format!("app_{}", world.schema));
    world.client.batch_execute(&format!("CREATE ROLE {role}; SET ROLE {role}")).await.unwrap();
    let error = world.prepared(&job()).enqueue(&world.client).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    // The function does not use the functions of its caller.
    let setup = format!(
        "RESET ROLE; GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT EXECUTE ON FUNCTION {schema}.enqueue_v1(text, bytea) TO {role}; CREATE SCHEMA {role} AUTHORIZATION {role}; \
         SET ROLE {role}; SET search_path = {role}, pg_catalog; CREATE FUNCTION {role}.length(bytea) RETURNS int \
         LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''hijacked''; END'"
    );
    world.client.batch_execute(&setup).await.unwrap();
    world.client.execute("SELECT length('x'::bytea)", &[]).await.expect_err("hijacked");
    let job = job();
    assert_eq!(world.prepared(&job).enqueue(&world.client).await.unwrap(), Enqueued::Accepted(job.id));
    let read = world.client.query(&format!("SELECT * FROM {schema}.jobs"), &[]).await.unwrap_err();
    assert_eq!(read.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
}

#[tokio::test(flavor = "multi_thread")]
async fn job_from_psql_needs_a_name_and_a_body() {
    let world = World::new().await;
    let enqueue = |head: &str, payload: &str| {
        let sql = format!("SELECT {}.enqueue_v1('{head}', convert_to('{payload}', 'UTF8'))", world.schema);
        psql(&world.server.url(), &sql)
    };
    let body = r#"{"v":1,"body":{"pages":3}}"#;
    let answer = enqueue(r#"{"name": "Print"}"#, body);
    let Enqueued::Accepted(id) = Enqueued::parse(&answer) else { panic!("{answer}") };
    assert_eq!(id.0.get_version_num(), 7, "{id}");
    let (claimed, payload) = (world.claim().await, world.store.payload(id).await.unwrap());
    assert_eq!((claimed, payload.as_deref()), (vec![id], Some(body.as_bytes())));
    let keyed = r#"{"name": "Print", "key": "order-7", "delaySeconds": 0.5, "priority": 9, "maxRetries": 0}"#;
    let (first, again) = (Enqueued::parse(&enqueue(keyed, body)), Enqueued::parse(&enqueue(keyed, body)));
    let Enqueued::Accepted(id) = first else { panic!("{first:?}") };
    assert_eq!(again, Enqueued::Existing(id));
    for (head, payload, says) in [
        ("{}", body, "invalid job name"),
        (r#"{"name": "a b"}"#, body, "invalid job name a b"),
        (r#"{"name": "Print", "v": 2}"#, body, "unsupported version 2"),
        (r#"{"name": "Print", "key": "ü"}"#, body, "invalid key"),
        (r#"{"name": "Print", "priority": 11}"#, body, "violates check constraint"),
        (r#"{"name": "Print", "maxRetries": -1}"#, body, "expected 0 or more"),
        (r#"{"name": "Print"}"#, "", "invalid payload"),
        ("no JSON", body, "invalid input syntax for type json"),
    ] {
        let error = enqueue(head, payload);
        assert!(error.contains(says), "{head}: {error}");
    }
}
