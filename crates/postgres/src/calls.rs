//! The parts that all calls share: the link, the schema, known types and hints.

use std::sync::atomic::{AtomicBool, Ordering};

use async_endpoints_core::{
    JobId, StoreError,
    store::{JobLookup, Result},
};
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use crate::{
    hints::Publisher,
    lanes::Lanes,
    link::{Lane, Link},
    long_lanes::LongLanes,
    places::Places,
    record::Record,
    schema::Schema,
    sweeps::Sweeps,
    types::Types,
    value::{Columns, Read, answer},
};

/// A parameter of a call, with its type.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Makes the calls of a store. Its methods are in the modules of the calls.
pub(crate) struct Calls {
    pub(crate) link: Link,
    pub(crate) schema: Schema,
    pub(crate) types: Types,
    pub(crate) lanes: Lanes,
    pub(crate) places: Places,
    pub(crate) long_lanes: LongLanes,
    pub(crate) sweeps: Sweeps,
    pub(crate) hints: Publisher,
    /// Whether counts changed since the last fold.
    wrote: AtomicBool,
}

impl Calls {
    pub(crate) fn new(link: Link, schema: Schema) -> Self {
        let hints = Publisher::new(&link, &schema);
        Self {
            link,
            schema,
            types: Types::default(),
            lanes: Lanes::default(),
            places: Places::default(),
            long_lanes: LongLanes::default(),
            sweeps: Sweeps::default(),
            hints,
            wrote: AtomicBool::new(true),
        }
    }

    /// Records that a call changed counts, and so left work for the next fold.
    pub(crate) fn wrote(&self) {
        self.wrote.store(true, Ordering::Relaxed);
    }

    /// Adds the changes of counts up, if this process made some or `always` is set. Stores the bounds of lanes.
    pub(crate) async fn fold(&self, always: bool) {
        if !self.wrote.swap(false, Ordering::Relaxed) && !always {
            return;
        }
        let (types, froms) = self.lanes.all();
        let parameters = [(&types as _, Type::INT4_ARRAY), (&froms as _, Type::INT8_ARRAY)];
        if self.query(Lane::Work, "SELECT ae.fold_v1($1, $2)", &parameters).await.is_err() {
            self.wrote();
        }
    }

    /// Runs a statement in which `ae` stands for the schema.
    pub(crate) async fn query(&self, lane: Lane, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        self.link.query(lane, &self.schema.sql(sql), parameters).await
    }

    /// Runs a statement that returns one row.
    pub(crate) async fn query_one(&self, lane: Lane, sql: &str, parameters: &[Parameter<'_>]) -> Result<Row> {
        let row = self.query(lane, sql, parameters).await?.into_iter().next();
        row.ok_or_else(|| StoreError::Corrupt("the server returned no row".to_owned()))
    }

    /// Decodes rows of `view_v1`. An unreadable job is a reason.
    pub(crate) async fn records(&self, rows: &[Row]) -> Result<Vec<Read<Record>>> {
        self.types.require(&self.link, &self.schema, rows.iter().filter_map(|row| row.try_get("type").ok())).await?;
        Ok(rows.iter().map(|row| Record::read(row, &self.types)).collect())
    }

    /// The record of a job, expired or not. None for an unknown or pruned job.
    pub(crate) async fn record(&self, id: JobId) -> Result<Option<Record>> {
        let rows = self
            .query(Lane::Work, "SELECT * FROM ae.view_v1($1, true)", &[(&[id.0].as_slice(), Type::UUID_ARRAY)])
            .await?;
        let record = self.records(&rows).await?.pop();
        record.transpose().map_err(|reason| StoreError::Unreadable(format!("job {id}: {reason}")))
    }

    pub(crate) async fn lookup(&self, id: JobId) -> Result<JobLookup> {
        if let Some(record) = self.record(id).await? {
            return Ok(record.lookup());
        }
        let rows = self.query(Lane::Work, "SELECT * FROM ae.tomb_v1($1)", &[(&id.0, Type::UUID)]).await?;
        let Some(row) = rows.first() else { return Ok(JobLookup::NotFound) };
        let mut columns = Columns::new(row);
        let (now, owner, gone_until) =
            (answer(columns.time())?, answer(columns.maybe_digest())?, answer(columns.time())?);
        Ok(if now < gone_until { JobLookup::Gone { owner } } else { JobLookup::NotFound })
    }
}
