//! Helpers of all tests: stores on one real server, each in a schema of its own, and a clock that tests advance.

// Each test file uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::sync::{
    Arc, LazyLock, Mutex as SyncMutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use async_endpoints_core::{
    Clock as _, JobStore, SharedState, forward_store_calls,
    store::{Result, StoreOperation},
};
use async_endpoints_postgres::{
    Options, PostgresStore,
    tokio_postgres::{self, Client, NoTls},
};
use async_endpoints_testkit::{Fixture, ManualClock, server::PostgresServer};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Mutex,
};

/// A schema of this test alone.
pub fn schema() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("t{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub async fn open(server: &PostgresServer, schema: &str) -> PostgresStore {
    Options::new().schema(schema).open(server.url()).await.expect("opened")
}

/// A connection of the test itself. A thread of its own drives it, since a test may block its runtime.
pub async fn client(server: &PostgresServer) -> Client {
    static DRIVERS: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts"));
    let url = server.url();
    let connected = DRIVERS.spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("connected");
        tokio::spawn(async move { drop(connection.await) });
        client
    });
    connected.await.expect("the task ends")
}

/// A schema that one test uses at a time, with a connection for it. Most tests of the conformance suite take less time than
/// making a schema does.
#[derive(Debug)]
pub struct TestSchema {
    pub name: String,
    client: Client,
    port: u16,
}

impl TestSchema {
    /// An empty schema, or the name for a new one. The next [`OnClock`] replaces its clock.
    pub async fn unused(server: &PostgresServer) -> Arc<Self> {
        /// Those that no test holds are unused.
        static ALL: SyncMutex<Vec<Arc<TestSchema>>> = SyncMutex::new(Vec::new());
        let all = || ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = |schema: &&Arc<Self>| {
            Arc::strong_count(schema) == 1 && schema.port == server.port() && !schema.client.is_closed()
        };
        let unused = all().iter().find(is_unused).cloned();
        if let Some(schema) = unused {
            schema.empty().await;
            return schema;
        }
        let schema = Arc::new(Self { name: schema(), client: client(server).await, port: server.port() });
        all().push(Arc::clone(&schema));
        schema
    }

    async fn empty(&self) {
        let name = &self.name;
        let sql = format!(
            "DO $$ DECLARE of_table text; BEGIN
                 PERFORM pg_advisory_xact_lock(hashtext('{name}.fold'), 0);
                 FOR of_table IN SELECT tablename FROM pg_tables
                     WHERE schemaname = '{name}' AND tablename NOT IN ('meta', 'marks', 'test_clock')
                 LOOP EXECUTE 'DELETE FROM {name}.' || of_table; END LOOP;
                 DELETE FROM {name}.marks WHERE name NOT IN ('fold', 'fold_all', 'probe');
                 UPDATE {name}.marks SET at = 0;
                 PERFORM setval('{name}.places', 0, false);
             END $$"
        );
        self.client.batch_execute(&sql).await.expect("the schema is emptied");
    }
}

/// A store whose server has a manual clock: its clock function is replaced by one that reads a table, and each call first
/// writes the clock's time there.
#[derive(Debug)]
pub struct OnClock {
    store: PostgresStore,
    clock: ManualClock,
    schema: Arc<TestSchema>,
    /// The time that the table has.
    written: Mutex<i64>,
}

impl OnClock {
    /// Opens a store in a schema, which another store may use already.
    pub async fn open(server: &PostgresServer, schema: Arc<TestSchema>, clock: ManualClock) -> Self {
        // Each connection prepares the plans of the calls anew.
        let options =
            Options::new().submit_connections(1).work_connections(2).schema(&schema.name).allow_volatile(true);
        let store = options.open(server.url()).await.expect("opened");
        let (time, name) = (clock.now().as_micros(), &schema.name);
        let sql = format!(
            "SELECT pg_advisory_xact_lock(hashtext('{name}.fold'), 0);
             CREATE TABLE IF NOT EXISTS {name}.test_clock (us bigint);
             DELETE FROM {name}.test_clock;
             INSERT INTO {name}.test_clock VALUES ({time});
             CREATE OR REPLACE FUNCTION {name}.now_us() RETURNS bigint LANGUAGE sql VOLATILE AS
             $$ SELECT us FROM {name}.test_clock $$;
             UPDATE {name}.marks SET at = {time}"
        );
        schema.client.batch_execute(&sql).await.expect("the clock is replaced");
        Self { store, clock, schema, written: Mutex::new(time) }
    }

    async fn timed<'a, T>(
        &self,
        _operation: StoreOperation,
        call: impl FnOnce() -> BoxFuture<'a, Result<T>> + Send,
    ) -> Result<T> {
        let time = self.clock.now().as_micros();
        let mut written = self.written.lock().await;
        if *written != time {
            let sql = format!("UPDATE {}.test_clock SET us = {time}", self.schema.name);
            self.schema.client.batch_execute(&sql).await.expect("the clock is set");
            *written = time;
        }
        drop(written);
        call().await
    }
}

#[async_trait]
impl JobStore for OnClock {
    forward_store_calls!(self.timed => self.store; job_calls);
    forward_store_calls!(self => self.store; hints, kind);
}

#[async_trait]
impl SharedState for OnClock {
    forward_store_calls!(self.timed => self.store; shared_calls);
}

/// A store of the server, on a manual clock.
pub async fn timed(server: Arc<PostgresServer>) -> Fixture {
    let clock = ManualClock::new();
    let schema = TestSchema::unused(&server).await;
    let store = OnClock::open(&server, schema, clock.clone()).await;
    Fixture::manual(store, clock).keep(server)
}

/// A store on the server that all tests of this process share.
pub async fn shared() -> (Arc<PostgresServer>, PostgresStore) {
    let server = PostgresServer::shared();
    let store = open(&server, &schema()).await;
    (server, store)
}
