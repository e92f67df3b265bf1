//! What the conformance suite cannot know: dead rows under an old snapshot, damaged rows, versions of the schema, and rights.

mod common;

use std::time::{Duration, Instant};

use async_endpoints_core::{
    JobStatus, JobStore as _, StoreError,
    job::Priority,
    limits::AHEAD_COUNTED,
    store::{
        Claim, InsertOutcome, JobLookup, LeaseToken, NewJob, Outcome, Reclaim, Reclaimed, Settled, Settlement,
        StatsQuery, TypeQuota, WorkerId,
    },
};
use async_endpoints_postgres::{OpenError, Options, PostgresStore};
use async_endpoints_testkit::{
    jobs::{error, job, name},
    server::PostgresServer,
};
use common::{client, open, schema, shared};
use futures_util::future::join_all;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);

fn claim(n: u32) -> Claim {
    Claim {
        worker: WorkerId(Uuid::new_v4()),
        token: LeaseToken::random(),
        quotas: vec![TypeQuota { name: name("alpha"), max: n, timeout: HOUR }],
        max: n,
        max_bytes: 1 << 20,
        lease: HOUR,
    }
}

async fn insert(store: &PostgresStore) -> NewJob {
    let job = job("alpha", HOUR);
    let outcome = store.insert(job.clone()).await.expect("answered");
    assert!(matches!(outcome, InsertOutcome::Inserted { .. }), "{outcome:?}");
    job
}

async fn settle(store: &PostgresStore, lease: async_endpoints_core::store::Lease, outcome: Outcome) -> Settled {
    store.settle(&[Settlement::new(lease, outcome, error("C"))]).await.expect("answered").remove(0)
}

/// The median of an odd number of durations.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_submissions_stay_fast_beside_rows_that_no_vacuum_can_remove() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let store = open(&server, &schema).await;
    insert(&store).await;
    let lease = store.claim(&claim(1)).await.expect("answered").attempts[0].lease;
    let (holder, writer) = (client(&server).await, client(&server).await);
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.expect("a snapshot");
    holder.query(&format!("SELECT count(*) FROM {schema}.jobs"), &[]).await.expect("a snapshot is taken");
    // Dead rows of jobs that were accepted before the next ones.
    let dead = format!(
        "INSERT INTO {schema}.ready (id, ord, since, entered_at, type, bytes, rank)
             SELECT gen_random_uuid(), {schema}.order_at({schema}.now_us() - 60000000) + n, 0, 0, 1, 0, 5 FROM generate_series(1, 300000) n;
         DELETE FROM {schema}.ready"
    );
    writer.batch_execute(&dead).await.expect("dead rows");
    for _ in 0..40 {
        insert(&store).await;
    }
    let mut times = Vec::new();
    let without_bounds = format!(
        "BEGIN;
         SELECT id FROM {schema}.claim_v1(gen_random_uuid(), gen_random_uuid(), ARRAY[1], ARRAY[1],
             array_fill(0::bigint, ARRAY[10]), 1, 1, 1);
         ROLLBACK"
    );
    for _ in 0..5 {
        let began = Instant::now();
        writer.batch_execute(&without_bounds).await.expect("answered");
        times.push(began.elapsed());
    }
    let unbounded = median(times);
    // The first claim since then is a full one. Those after it have a bound.
    assert_eq!(store.claim(&claim(1)).await.expect("answered").attempts.len(), 1);
    let mut times = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        assert_eq!(store.claim(&claim(1)).await.expect("answered").attempts.len(), 1);
        times.push(began.elapsed());
    }
    let bounded = median(times);
    assert!(bounded * 3 < unbounded, "{bounded:?} with bounds, {unbounded:?} without");
    // Submissions count the jobs before theirs, from the bound that the next fold stores.
    let stored = format!("SELECT count(*) FROM {schema}.lanes WHERE froms[6] > 0");
    let folded = async {
        while writer.query_one(&stored, &[]).await.expect("answered").get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), folded).await.expect("a bound is stored");
    let mut times = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        insert(&store).await;
        times.push(began.elapsed());
    }
    let submitted = median(times);
    assert!(submitted * 3 < unbounded, "{submitted:?} for a submission, {unbounded:?} for a claim without bounds");
    // A released job keeps its order number, which is far below the bound.
    assert_eq!(settle(&store, lease, Outcome::Released).await, Settled::Settled(JobStatus::Queued));
    let next = store.claim(&claim(1)).await.expect("answered").attempts.remove(0);
    assert_eq!(next.lease.job, lease.job);
    holder.batch_execute("COMMIT").await.expect("the snapshot ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_of_a_long_lane_changes_no_other_and_ends() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let store = open(&server, &schema).await;
    let ahead = async |job: NewJob| match store.insert(job).await.expect("answered") {
        InsertOutcome::Inserted { ahead, .. } => ahead.expect("the job is queued"),
        other => panic!("{other:?}"),
    };
    join_all((0..1_100).map(|_| ahead(job("alpha", HOUR)))).await;
    let urgent = || {
        let mut urgent = job("alpha", HOUR);
        urgent.terms.priority = Priority::HIGHEST;
        urgent
    };
    for round in 0..3 {
        assert!(ahead(job("alpha", HOUR)).await >= AHEAD_COUNTED);
        assert_eq!((ahead(urgent()).await, ahead(job("beta", HOUR)).await), (round, round));
    }
    server.sql(&format!("TRUNCATE {schema}.ready"));
    let counted = async { while ahead(job("alpha", HOUR)).await >= AHEAD_COUNTED {} };
    tokio::time::timeout(Duration::from_secs(10), counted).await.expect("a short lane is counted again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sweeps_stay_fast_beside_rows_that_no_vacuum_can_remove() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let store = open(&server, &schema).await;
    let lease = Duration::from_millis(50);
    let reclaim =
        Reclaim { limit: 10, lease: Duration::from_secs(1), lost: error("LOST"), canceled: error("CANCELED") };
    // The first sweeps wait for one lease, since no sweep ran before.
    while let Reclaimed::Waiting(pause) = store.reclaim(&reclaim).await.expect("answered") {
        tokio::time::sleep(pause / 2).await;
    }
    let (holder, writer) = (client(&server).await, client(&server).await);
    holder.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.expect("a snapshot");
    holder.query(&format!("SELECT count(*) FROM {schema}.jobs"), &[]).await.expect("a snapshot is taken");
    let dead = format!(
        "INSERT INTO {schema}.running (id, ord, since, entered_at, type, bytes, rank, token, started_at, retention, updated_at, lease_until)
             SELECT gen_random_uuid(), n, 0, 0, 1, 0, 5, gen_random_uuid(), n, 0, 0, {schema}.now_us() - 60000000 FROM generate_series(1, 300000) n;
         DELETE FROM {schema}.running"
    );
    writer.batch_execute(&dead).await.expect("dead rows");
    let mut medians = Vec::new();
    for is_full in [true, false] {
        let sweep = format!("BEGIN; SELECT {schema}.reclaim_v1(10, 3600000000, '{{}}', '{{}}', {is_full}); ROLLBACK");
        let mut times = Vec::new();
        for _ in 0..5 {
            let began = Instant::now();
            writer.batch_execute(&sweep).await.expect("answered");
            times.push(began.elapsed());
        }
        medians.push(median(times));
    }
    assert!(medians[1] * 3 < medians[0], "{medians:?}");
    insert(&store).await;
    assert_eq!(store.claim(&Claim { lease, ..claim(1) }).await.expect("answered").attempts.len(), 1);
    // A lease that expired long before the last sweep is found by a full sweep alone.
    let found = |is_full| {
        let answers = server.sql(&format!(
            "BEGIN; UPDATE {schema}.running SET lease_until = {schema}.now_us() - 60000000;
             SELECT count(id) FROM {schema}.reclaim_v1(10, 3600000000, '{{}}', '{{}}', {is_full}); ROLLBACK"
        ));
        answers.lines().nth(2).map(str::to_owned)
    };
    assert_eq!((found(false).as_deref(), found(true).as_deref()), (Some("0"), Some("1")));
    let sweeps = async {
        loop {
            match store.reclaim(&reclaim).await.expect("answered") {
                Reclaimed::Done { recovered, .. } if !recovered.is_empty() => break recovered,
                _ => tokio::time::sleep(lease / 5).await,
            }
        }
    };
    let recovered = tokio::time::timeout(Duration::from_secs(20), sweeps).await.expect("a lease is recovered");
    assert_eq!(recovered.len(), 1);
    holder.batch_execute("COMMIT").await.expect("the snapshot ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_jobs_are_quarantined_and_others_run() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let store = open(&server, &schema).await;
    let jobs = [insert(&store).await, insert(&store).await, insert(&store).await];
    let damage = format!(
        "UPDATE {schema}.jobs SET traceparent = 'damaged' WHERE id = '{}'; DELETE FROM {schema}.jobs WHERE id = '{}'",
        jobs[0].id, jobs[1].id
    );
    client(&server).await.batch_execute(&damage).await.expect("damaged");
    let mut taken = Vec::new();
    for _ in 0..3 {
        let claimed = store.claim(&claim(2)).await.expect("answered");
        taken.extend(claimed.attempts.iter().map(|attempt| attempt.lease.job));
    }
    assert_eq!(taken, [jobs[2].id]);
    let stats = store.stats(&StatsQuery::default()).await.expect("answered");
    assert_eq!((stats.quarantined, stats.types[0].counts), (2, [0, 0, 1, 0, 0, 0]));
    let unreadable = store.get(jobs[0].id).await;
    assert!(matches!(unreadable, Err(StoreError::Unreadable(_))), "{unreadable:?}");
    assert_eq!(store.get(jobs[1].id).await.expect("answered"), JobLookup::NotFound);
    assert_eq!(store.versions(&[jobs[0].id, jobs[1].id]).await.expect("answered"), [None, None]);
    assert_eq!(server.sql(&format!("SELECT count(*) FROM {schema}.quarantine")), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schema_that_needs_a_newer_program_is_refused_with_both_versions() {
    let (server, schema) = (PostgresServer::shared(), schema());
    drop(open(&server, &schema).await);
    server.sql(&format!("UPDATE {schema}.meta SET version = 99"));
    drop(open(&server, &schema).await);
    server.sql(&format!("UPDATE {schema}.meta SET min_version = 98"));
    let refused = Options::new().schema(&schema).open(server.url()).await.expect_err("refused");
    assert!(matches!(refused, OpenError::Newer { found: 99, known: 1, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_open_a_new_schema_together_share_it() {
    let (server, schema) = (PostgresServer::shared(), schema());
    let opened = futures_util::future::join_all((0..4).map(|_| open(&server, &schema))).await;
    let job = insert(&opened[0]).await;
    for store in &opened {
        assert!(matches!(store.get(job.id).await.expect("answered"), JobLookup::Found(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_without_ownership_needs_only_data_rights() {
    let (server, schema) = (PostgresServer::shared(), schema());
    drop(open(&server, &schema).await);
    let role = format!("{schema}_app");
    for grant in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT USAGE ON SCHEMA {schema} TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"),
        format!("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}"),
    ] {
        server.sql(&grant);
    }
    let url = server.url().replace("postgres@", &format!("{role}@"));
    let store = Options::new().schema(&schema).open(url).await.expect("opened");
    let job = insert(&store).await;
    let lease = store.claim(&claim(1)).await.expect("answered").attempts[0].lease;
    settle(&store, lease, Outcome::Failed { error: error("F") }).await;
    store.prune(10).await.expect("answered");
    store.probe().await.expect("answered");
    store.health().await.expect("answered");
    assert!(matches!(store.get(job.id).await.expect("answered"), JobLookup::Found(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_limit_is_exact_under_concurrent_inserts() {
    let (_server, store) = shared().await;
    let inserts = (0..3000).map(|_| store.insert(NewJob { queue_limit: Some(2000), ..job("alpha", HOUR) }));
    let outcomes = futures_util::future::join_all(inserts).await;
    let accepted = outcomes.iter().filter(|outcome| matches!(outcome, Ok(InsertOutcome::Inserted { .. }))).count();
    let full = outcomes.iter().filter(|outcome| matches!(outcome, Ok(InsertOutcome::Full))).count();
    assert_eq!((accepted, full), (2000, 1000));
}
