//! Tests of a link with real servers: breaks, deadlines, settings, notifications.

use std::time::Duration;

use async_endpoints_core::StoreError;
use async_endpoints_testkit::server::{PgBouncer, PostgresServer};
use tokio::time::{sleep, timeout};

use super::*;
use crate::options::Options;

const LIMIT: Duration = Duration::from_secs(20);

async fn open(options: &Options, url: &str) -> Result<Link, OpenError> {
    Link::open(options.server(url)?, options.sizes()?).await
}

async fn text(link: &Link, lane: Lane, sql: &str) -> Result<String, StoreError> {
    link.query(lane, sql, &[]).await.map(|rows| rows[0].get(0))
}

/// Waits until the link answers again.
async fn recover(link: &Link) {
    let answered = async {
        while text(link, Lane::Work, "SELECT 'yes'").await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, answered).await.expect("the link recovers");
}

/// Waits until all connections are made, and none is being checked.
async fn connect_all(link: &Link) {
    let is_ready = |slot: &Slot| matches!(&*slot.state(), State::Connected(connection) if !connection.is_suspect);
    let all = async {
        while !link.0.slots.iter().all(is_ready) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, all).await.expect("all connections are made");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_have_the_numbers_names_and_deadlines_of_the_options() {
    let postgres = PostgresServer::shared();
    let options = Options::new().submit_connections(1).work_connections(3).application_name("billing");
    let link = open(&options, &postgres.database()).await.unwrap();
    connect_all(&link).await;
    let row = &link
        .query(
            Lane::Work,
            "SELECT count(*), current_setting('statement_timeout'), current_setting('lock_timeout') \
             FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1",
            &[(&"billing", Type::TEXT)],
        )
        .await
        .unwrap()[0];
    // The connection that publishes may still be on its way.
    assert!((5..=6).contains(&row.get::<_, i64>(0)));
    assert_eq!((row.get(1), row.get(2)), ("4s", "2s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_use_their_own_connections() {
    let postgres = PostgresServer::shared();
    let options = Options::new().submit_connections(1).work_connections(1);
    let link = open(&options, &postgres.database()).await.unwrap();
    connect_all(&link).await;
    let id = "SELECT pg_backend_pid()::text";
    let mut ids = Vec::new();
    for lane in [Lane::Submit, Lane::Work, Lane::Urgent] {
        ids.push(text(&link, lane, id).await.unwrap());
        assert_eq!(text(&link, lane, id).await.unwrap(), *ids.last().unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn link_reconnects_after_kill_and_after_stop() {
    let postgres = PostgresServer::start();
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    for stops in [PostgresServer::kill, PostgresServer::stop] {
        stops(&postgres);
        let began = Instant::now();
        let error = text(&link, Lane::Submit, "SELECT 'no'").await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert_eq!(error.to_string().matches("postgres at 127.0.0.1:").count(), 1, "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        postgres.restart();
        let began = Instant::now();
        recover(&link).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_server_fails_calls_within_5_s_and_resumes() {
    let postgres = PostgresServer::start();
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    connect_all(&link).await;
    postgres.pause();
    let calls = (0..3).map(|_| async {
        let began = Instant::now();
        let error = text(&link, Lane::Work, "SELECT 'no'").await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
    futures_util::future::join_all(calls).await;
    postgres.resume();
    let began = Instant::now();
    recover(&link).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Freezes all sessions of links, as if a proxy held their connections open after their server was gone. New sessions work.
fn freeze_sessions(postgres: &PostgresServer) {
    let pids = postgres
        .sql("SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE application_name = 'async-endpoints'");
    let frozen = std::process::Command::new("kill").arg("-STOP").args(pids.split(' ')).status().unwrap();
    assert!(frozen.success(), "{pids}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_call_replaces_dead_connections() {
    let postgres = PostgresServer::start();
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    connect_all(&link).await;
    freeze_sessions(&postgres);
    timeout(Duration::from_millis(100), text(&link, Lane::Work, "SELECT 'no'")).await.unwrap_err();
    // One check finds the first dead connection, and others the rest.
    sleep(2 * CHECK).await;
    let answers = async {
        for lane in [Lane::Submit, Lane::Work, Lane::Urgent] {
            while text(&link, lane, "SELECT 'yes'").await.is_err() {}
        }
    };
    timeout(CHECK * 2, answers).await.expect("no call meets a dead connection");
    connect_all(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_call_keeps_connections_that_answer() {
    let postgres = PostgresServer::shared();
    let options = Options::new().work_connections(1);
    let link = open(&options, &postgres.database()).await.unwrap();
    connect_all(&link).await;
    let pids = async || {
        let mut pids = Vec::new();
        for lane in [Lane::Submit, Lane::Work, Lane::Urgent] {
            pids.push(text(&link, lane, "SELECT pg_backend_pid()::text").await.unwrap());
        }
        pids
    };
    let before = pids().await;
    timeout(Duration::from_millis(10), text(&link, Lane::Work, "SELECT pg_sleep(0.1)::text")).await.unwrap_err();
    assert_eq!(pids().await, before);
    // A connection with a longer statement than a check is replaced. The statement ends on it.
    let slow = text(&link, Lane::Work, "SELECT pg_sleep(2)::text || 'slow'");
    let dropped = timeout(CHECK / 4, text(&link, Lane::Work, "SELECT 'dropped'"));
    let (slow, dropped) = tokio::join!(slow, dropped);
    assert_eq!(slow.unwrap(), "slow");
    dropped.unwrap_err();
    connect_all(&link).await;
    let after = pids().await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_statement_is_canceled_at_its_deadline() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    // A server that would not cancel it by itself.
    let link = open(&Options::new(), &format!("{url}?options=-c%20statement_timeout%3D0")).await.unwrap();
    connect_all(&link).await;
    let began = Instant::now();
    let error = link.query(Lane::Work, "SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer in time"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let sleeping = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                    AND wait_event = 'PgSleep'";
    let ends = async {
        while text(&link, Lane::Urgent, sleeping).await.unwrap() != "0" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, ends).await.expect("the statement ends");
    connect_all(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statement_and_lock_timeouts_are_unavailable() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    let link = open(&Options::new(), &format!("{url}?options=-c%20statement_timeout%3D200%20-c%20lock_timeout%3D100"))
        .await
        .unwrap();
    let error = link.query(Lane::Work, "SELECT pg_sleep(10)", &[]).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("57014"), "{error}");
    let session = link.server().connect().await.unwrap();
    session.client.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(7)").await.unwrap();
    let error = link.query(Lane::Work, "SELECT pg_advisory_xact_lock(7)", &[]).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("55P03"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflict_with_another_transaction_is_repeated_once() {
    let postgres = PostgresServer::shared();
    let link = open(&Options::new(), &postgres.database()).await.unwrap();
    let session = link.server().connect().await.unwrap();
    session
        .client
        .batch_execute(
            "CREATE SEQUENCE calls; CREATE FUNCTION fail_until(n bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('calls') < n THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END IF; \
             RETURN 'done'; END $$",
        )
        .await
        .unwrap();
    assert_eq!(text(&link, Lane::Work, "SELECT fail_until(2)").await.unwrap(), "done");
    let error = text(&link, Lane::Work, "SELECT fail_until(100)").await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(text(&link, Lane::Work, "SELECT last_value::text FROM calls").await.unwrap(), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_server_become_contract_errors() {
    let postgres = PostgresServer::shared();
    let link = open(&Options::new(), &postgres.database()).await.unwrap();
    let error = link.query(Lane::Work, "SELECT no_such_function()", &[]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Backend { .. }) && error.to_string().contains("newer program"), "{error}");
    let raise = async |code: &str| {
        let sql = format!("DO $$ BEGIN RAISE EXCEPTION 'raised' USING ERRCODE = '{code}'; END $$");
        link.query(Lane::Work, &sql, &[]).await.unwrap_err()
    };
    for code in ["25006", "08006", "57P03", "53100", "58030", "40P01", "42501"] {
        assert!(raise(code).await.is_transient(), "{code}");
        recover(&link).await;
    }
    assert!(matches!(raise("XX001").await, StoreError::Corrupt(_)));
    assert!(matches!(raise("AE001").await, StoreError::Unreadable(_)));
    assert!(matches!(raise("22012").await, StoreError::Backend { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_can_lose_jobs_is_refused_unless_allowed() {
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        let postgres = PostgresServer::with(&[(name, "off")]);
        let error = open(&Options::new(), &postgres.url()).await.err().unwrap();
        assert!(!error.is_transient() && error.to_string().contains(name), "{error}");
        let link = open(&Options::new().allow_volatile(true), &postgres.url()).await.unwrap();
        assert!(link.server().volatile().unwrap().contains(name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_servers_are_refused_by_reason() {
    let postgres = PostgresServer::shared();
    let at = |database: &str| format!("{}/{database}", postgres.url().rsplit_once('/').unwrap().0);
    let error = open(&Options::new(), &at("nowhere")).await.err().unwrap();
    assert!(!error.is_transient() && error.to_string().contains("\"nowhere\" does not exist"), "{error}");
    let error = open(&Options::new(), "postgres://127.0.0.1:1/postgres").await.err().unwrap();
    assert!(error.is_transient() && error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn promoted_standby_is_found_by_a_list_of_hosts() {
    let first = PostgresServer::start();
    let second = PostgresServer::standby_of(&first);
    let error = open(&Options::new(), &second.url()).await.err().unwrap();
    assert!(error.is_transient() && error.to_string().contains("standby"), "{error}");
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", second.port(), first.port());
    let link = open(&Options::new(), &url).await.unwrap();
    let port = "SELECT inet_server_port()::text";
    assert_eq!(text(&link, Lane::Work, port).await.unwrap(), first.port().to_string());
    first.kill();
    second.promote();
    recover(&link).await;
    assert_eq!(text(&link, Lane::Work, port).await.unwrap(), second.port().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_lane_without_connection_use_another_lane() {
    let postgres = PostgresServer::with(&[("max_connections", "5"), ("superuser_reserved_connections", "0")]);
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    for lane in [Lane::Submit, Lane::Work, Lane::Urgent] {
        assert_eq!(text(&link, lane, "SELECT 'yes'").await.unwrap(), "yes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_arrive_once_from_every_link() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    let (first, second) = (open(&Options::new(), &url).await.unwrap(), open(&Options::new(), &url).await.unwrap());
    let mut heard = first.listen("hints");
    assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    for line in ["w first", "w first", "w second"] {
        second.notify("hints", line.to_owned());
    }
    second.notify("others", "w third".to_owned());
    first.notify("hints", "w fourth".to_owned());
    let mut lines = Vec::new();
    while lines.len() < 3 {
        if let Listened::Line(line) = timeout(LIMIT, heard.recv()).await.unwrap().unwrap() {
            lines.push(line);
        }
    }
    lines.sort();
    assert_eq!(lines, ["w first", "w fourth", "w second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_marks_lines_that_it_may_have_missed() {
    let postgres = PostgresServer::start();
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    let mut heard = link.listen("hints");
    assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    postgres.kill();
    assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    postgres.restart();
    assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    let hears = async {
        // A line of this time may be lost with a connection that is just broken.
        loop {
            link.notify("hints", "w again".to_owned());
            if let Ok(Some(Listened::Line(line))) = timeout(Duration::from_millis(100), heard.recv()).await {
                break line;
            }
        }
    };
    assert_eq!(timeout(LIMIT, hears).await.unwrap(), "w again");
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_with_a_dead_connection_connects_again() {
    let postgres = PostgresServer::start();
    let link = open(&Options::new(), &postgres.url()).await.unwrap();
    let mut heard = link.listen("hints");
    connect_all(&link).await;
    link.notify("hints", "w first".to_owned());
    while timeout(LIMIT, heard.recv()).await.unwrap() != Some(Listened::Line("w first".to_owned())) {}
    freeze_sessions(&postgres);
    // One for the end of the old connection, one for the new one.
    for _ in 0..2 {
        assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    }
}

#[test]
fn connections_end_with_the_last_link_and_need_no_runtime() {
    let postgres = PostgresServer::start();
    let opening = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let link = opening.block_on(open(&Options::new(), &postgres.url())).unwrap();
    drop(opening);
    let number = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'async-endpoints'";
    let deadline = Instant::now() + LIMIT;
    // The store's thread makes the other connections meanwhile.
    while postgres.sql(number) != "8" {
        assert!(Instant::now() < deadline, "{}", postgres.sql(number));
        thread::sleep(Duration::from_millis(5));
    }
    drop(link);
    while postgres.sql(number) != "0" {
        assert!(Instant::now() < deadline, "{}", postgres.sql(number));
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn sslmode_has_the_meaning_of_libpq() {
    let postgres = PostgresServer::tls();
    let ca = postgres.ca().unwrap();
    let elsewhere = postgres.url().replace("127.0.0.1", "127.0.0.2");
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ca = format!("sslrootcert={}", ca.display());
    for (query, expected) in [
        ("sslmode=disable", "false"),
        ("", "true"),
        ("sslmode=require", "true"),
        (&*format!("sslmode=require&{ca}"), "true"),
        (&*format!("sslmode=verify-ca&{ca}"), "true"),
        (&*format!("{ca}&sslmode=verify-full"), "true"),
    ] {
        let link = open(&Options::new(), &format!("{}?{query}", postgres.url())).await.unwrap();
        assert_eq!(text(&link, Lane::Work, encrypted).await.unwrap(), expected, "{query}");
    }
    let pem = std::fs::read(postgres.ca().unwrap()).unwrap();
    let options = Options::new().root_certificate(pem);
    open(&options, &format!("{}?sslmode=verify-full", postgres.url())).await.unwrap();
    // The system's authorities have not signed it.
    let error = open(&Options::new(), &format!("{}?sslmode=verify-full", postgres.url())).await.err().unwrap();
    assert!(!error.is_transient() && error.to_string().contains("certificate"), "{error}");
    // The server listens on 127.0.0.1 alone, and hostaddr says where to connect to.
    let named = |mode: &str| format!("{elsewhere}?hostaddr=127.0.0.1&{ca}&sslmode={mode}");
    let error = open(&Options::new(), &named("verify-full")).await.err().unwrap();
    assert!(!error.is_transient() && error.to_string().contains("certificate"), "{error}");
    open(&Options::new(), &named("verify-ca")).await.unwrap();
}

#[cfg(feature = "tls")]
#[tokio::test(flavor = "multi_thread")]
async fn server_without_tls_is_refused_if_tls_is_required() {
    let postgres = PostgresServer::shared();
    let error = open(&Options::new(), &format!("{}?sslmode=require", postgres.url())).await.err().unwrap();
    assert!(!error.is_transient() && error.to_string().contains("does not support TLS"), "{error}");
    open(&Options::new(), &format!("{}?sslmode=prefer", postgres.url())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_work_through_pgbouncer_in_transaction_mode() {
    let postgres = PostgresServer::shared();
    let pooler = PgBouncer::with(&postgres, &[("default_pool_size", "2")]);
    let link = open(&Options::new(), &pooler.url_of(&postgres.database())).await.unwrap();
    connect_all(&link).await;
    assert!(link.server().is_pooled());
    let calls = (0_i32..200).map(|number| {
        let link = link.clone();
        async move {
            let rows = link.query(Lane::Work, "SELECT $1 + 1", &[(&number, Type::INT4)]).await.unwrap();
            assert_eq!(rows[0].get::<_, i32>(0), number + 1);
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_statement_through_pgbouncer_ends_within_5_s() {
    let postgres = PostgresServer::shared();
    let pooler = PgBouncer::of(&postgres);
    let link = open(&Options::new(), &pooler.url_of(&postgres.database())).await.unwrap();
    connect_all(&link).await;
    let began = Instant::now();
    let error = link.query(Lane::Work, "SELECT pg_sleep(60)", &[]).await.unwrap_err();
    assert!(error.is_transient() && began.elapsed() < Duration::from_secs(5), "{error}");
    let sleeping = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                    AND wait_event = 'PgSleep'";
    let ends = async {
        while text(&link, Lane::Urgent, sleeping).await.unwrap() != "0" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, ends).await.expect("the statement ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn listener_behind_a_pooler_says_that_it_misses_lines() {
    let postgres = PostgresServer::shared();
    let pooler = PgBouncer::of(&postgres);
    let link = open(&Options::new(), &pooler.url_of(&postgres.database())).await.unwrap();
    let mut heard = link.listen("hints");
    // One when it has connected, and then one each second.
    for _ in 0..4 {
        assert_eq!(timeout(LIMIT, heard.recv()).await.unwrap(), Some(Listened::Missed));
    }
}
