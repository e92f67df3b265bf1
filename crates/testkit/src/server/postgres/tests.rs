//! Tests of `PostgresServer`: settings, faults, replication, TLS, removal.

use std::{net::TcpStream, thread, time::Duration};

use super::*;

#[test]
fn drop_ends_the_server_and_removes_its_folder() {
    let postgres = PostgresServer::start();
    for name in ["fsync", "full_page_writes", "synchronous_commit"] {
        assert_eq!(postgres.sql(&format!("SHOW {name}")), "on", "{name}");
    }
    let (port, folder) = (postgres.port(), postgres.folder().to_owned());
    drop(postgres);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!folder.exists());
}

#[test]
fn concurrent_starts_use_separate_ports() {
    let starting: Vec<_> = (0..4).map(|_| thread::spawn(PostgresServer::start)).collect();
    let servers: Vec<PostgresServer> = starting.into_iter().map(|server| server.join().unwrap()).collect();
    for (number, postgres) in servers.iter().enumerate() {
        assert_eq!(postgres.sql(&format!("CREATE TABLE t AS SELECT {number} AS number")), "SELECT 1");
    }
    for (number, postgres) in servers.iter().enumerate() {
        assert_eq!(postgres.sql("SELECT number FROM t"), number.to_string());
    }
}

#[test]
fn databases_of_one_server_are_separate() {
    let postgres = PostgresServer::shared();
    let (first, second) = (postgres.database(), postgres.database());
    assert_eq!(psql(&first, "CREATE TABLE t (n int)"), "CREATE TABLE");
    assert!(psql(&second, "SELECT * FROM t").contains("does not exist"));
}

#[test]
fn start_on_a_taken_port_returns_none() {
    let first = PostgresServer::start();
    let folder = Folder::new();
    data::create(programs::debian(), &folder, &data_of(&folder));
    assert!(Postgres::start(command(programs::debian(), first.port()), &folder, &data_of(&folder), TIMEOUT).is_none());
    assert!(folder.log().contains("Address already in use"), "{}", folder.log());
}

#[test]
fn committed_row_survives_kill_stop_and_restart() {
    let postgres = PostgresServer::with(&[("max_connections", "23")]);
    postgres.sql("CREATE TABLE t AS SELECT 7 AS n");
    postgres.kill();
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err() && postgres.pid().is_none());
    postgres.restart();
    assert_eq!(postgres.sql("SELECT n FROM t"), "7");
    postgres.stop();
    assert!(postgres.sql("SELECT n FROM t").contains("refused"));
    postgres.restart();
    assert_eq!(postgres.sql("SELECT n, current_setting('max_connections') FROM t"), "7|23");
}

#[test]
fn open_session_gets_no_answer_while_the_server_is_paused() {
    let postgres = PostgresServer::start();
    let url = postgres.url();
    // The session asks twice, and is paused in between.
    let session = thread::spawn(move || psql(&url, "SELECT pg_sleep(0.3)"));
    while postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%'") != "2" {
        sleep(POLL_INTERVAL);
    }
    postgres.pause();
    sleep(Duration::from_millis(600));
    assert!(!session.is_finished());
    postgres.resume();
    session.join().unwrap();
    assert_eq!(postgres.sql("SELECT 1"), "1");
}

#[test]
fn promoted_standby_accepts_writes() {
    let first = PostgresServer::start();
    first.sql("CREATE TABLE t AS SELECT 1 AS n");
    let second = PostgresServer::standby_of(&first);
    first.sql("INSERT INTO t VALUES (2)");
    second.catch_up(&first);
    assert_eq!(second.sql("SELECT sum(n) FROM t"), "3");
    assert!(second.sql("INSERT INTO t VALUES (4)").contains("read-only"));
    first.kill();
    second.promote();
    second.sql("INSERT INTO t VALUES (4)");
    assert_eq!(second.sql("SELECT sum(n) FROM t"), "7");
}

#[test]
fn pooler_gives_each_transaction_a_session() {
    let postgres = PostgresServer::shared();
    let url = postgres.database();
    let pooler = PgBouncer::of(&postgres);
    let pooled = pooler.url_of(&url);
    // One session of the server serves both connections.
    let session = "SELECT pg_backend_pid()";
    assert_eq!(psql(&pooled, session), psql(&pooled, session));
    assert!(psql(&format!("{pooled}?options=-c%20work_mem%3D4MB"), session).contains("unsupported startup parameter"));
}

#[test]
fn tls_server_answers_over_tls() {
    let postgres = PostgresServer::tls();
    let ca = postgres.ca().unwrap();
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), ca.display());
    let uses = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(psql(&url, uses), "t");
    assert_eq!(psql(&format!("{}?sslmode=disable", postgres.url()), uses), "f");
}
