//! Calls of clients and operators, sweeps, and roles.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, StoreError,
    job::{ErrorRecord, LogLine},
    limits::SWEEP_JOBS,
    store::{
        CancelOutcome, DocVersion, Document, JobLookup, PutOutcome, Reclaim, Reclaimed, Recovered, Result, RetryAs,
        RetryOutcome, Role, RoleToken,
    },
};
use bytes::Bytes;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use crate::{
    calls::Calls,
    link::Lane,
    record,
    value::{Columns, Read, answer, clean, from_json, json, micros},
};

/// How often a call looks again for a job that moves between states.
const LOOKS: u32 = 3;

impl Calls {
    pub(crate) async fn cancel(&self, id: JobId, error: &ErrorRecord) -> Result<CancelOutcome> {
        let error = json(error)?;
        let sql = "SELECT * FROM ae.cancel_v1($1, $2)";
        let row = self.query_one(Lane::Work, sql, &[(&id.0, Type::UUID), (&error, Type::TEXT)]).await?;
        let mut columns = Columns::new(&row);
        let kind: i16 = answer(columns.read())?;
        let _type: Option<i32> = answer(columns.read())?;
        if answer(columns.read())? {
            self.wrote();
            self.hints.publish(&[], &[id]);
        }
        if kind <= 1 {
            let record = self.record(id).await?.ok_or_else(|| missing(id))?;
            let view = Box::new(record.view);
            return Ok(if kind == 0 { CancelOutcome::Canceled(view) } else { CancelOutcome::Requested(view) });
        }
        Ok(match self.lookup(id).await? {
            JobLookup::Found(view) => CancelOutcome::Terminal(view),
            JobLookup::Gone { owner } => CancelOutcome::Gone { owner },
            JobLookup::NotFound => CancelOutcome::NotFound,
        })
    }

    pub(crate) async fn retry(&self, id: JobId, new: &RetryAs) -> Result<RetryOutcome> {
        let parent = new.trace.as_ref().map(|trace| trace.traceparent.to_string());
        let state = new.trace.as_ref().and_then(|trace| trace.tracestate.as_deref()).map(clean);
        for _ in 0..LOOKS {
            let row = self
                .query_one(
                    Lane::Work,
                    "SELECT * FROM ae.retry_v1($1, $2, $3, $4)",
                    &[(&id.0, Type::UUID), (&new.id.0, Type::UUID), (&parent, Type::TEXT), (&state, Type::TEXT)],
                )
                .await?;
            let mut columns = Columns::new(&row);
            let kind: i16 = answer(columns.read())?;
            let number: Option<i32> = answer(columns.read())?;
            let other = answer(columns.maybe_job())?;
            match (kind, other) {
                (0, _) => {
                    self.wrote();
                    self.hint(number.as_slice(), &[id]).await;
                    let record = self.record(new.id).await?.ok_or_else(|| missing(new.id))?;
                    return Ok(RetryOutcome::Created(Box::new(record.view)));
                }
                (1, Some(other)) => return Ok(RetryOutcome::Existing(self.lookup(other).await?)),
                (2, _) => return Ok(RetryOutcome::Conflict),
                _ => {}
            }
            match self.lookup(id).await? {
                JobLookup::Gone { owner } => return Ok(RetryOutcome::Gone { owner }),
                JobLookup::NotFound => return Ok(RetryOutcome::NotFound),
                // The job has failed or was canceled since.
                JobLookup::Found(view) if matches!(view.status, JobStatus::Failed | JobStatus::Canceled) => {}
                JobLookup::Found(view) => return Ok(RetryOutcome::NotEnded(view.status)),
            }
        }
        Err(StoreError::Unavailable(format!("job {id} changes too often")))
    }

    pub(crate) async fn reclaim(&self, reclaim: &Reclaim) -> Result<Reclaimed> {
        let (lost, canceled) = (json(&reclaim.lost)?, json(&reclaim.canceled)?);
        let limit = reclaim.limit.min(SWEEP_JOBS) as i32;
        let is_full = self.sweeps.begin();
        let rows = self
            .query(
                Lane::Work,
                "SELECT * FROM ae.reclaim_v1($1, $2, $3, $4, $5)",
                &[
                    (&limit, Type::INT4),
                    (&micros(reclaim.lease), Type::INT8),
                    (&lost, Type::TEXT),
                    (&canceled, Type::TEXT),
                    (&is_full, Type::BOOL),
                ],
            )
            .await?;
        let numbers = rows.iter().filter_map(|row| row.try_get::<_, Option<i32>>("type").ok().flatten());
        self.types.require(&self.link, &self.schema, numbers).await?;
        let (mut recovered, mut requeued, mut more) = (Vec::new(), Vec::new(), false);
        for row in &rows {
            let mut columns = Columns::new(row);
            let now = answer(columns.time())?;
            let pause: Option<i64> = answer(columns.read())?;
            more |= answer(columns.read::<bool>())?;
            if let Some(pause) = pause {
                return Ok(Reclaimed::Waiting(Duration::from_micros(pause.unsigned_abs())));
            }
            let Some(id) = answer(columns.maybe_job())? else { continue };
            let number: i32 = answer(columns.read())?;
            let job = answer(self.recovered(columns, id, number, now))?;
            if job.status == JobStatus::Queued && !requeued.contains(&number) {
                requeued.push(number);
            }
            recovered.push(job);
        }
        if !recovered.is_empty() {
            self.wrote();
        }
        let changed: Vec<JobId> = recovered.iter().map(|job| job.id).collect();
        self.hint(&requeued, &changed).await;
        Ok(Reclaimed::Done { recovered, more })
    }

    fn recovered(
        &self,
        mut columns: Columns<'_>,
        id: JobId,
        number: i32,
        recovered_at: async_endpoints_core::Timestamp,
    ) -> Read<Recovered> {
        let (attempt, status) = (columns.number()?, columns.status()?);
        // A job without its submission is quarantined when it is claimed.
        let created_at = columns.maybe_time()?.unwrap_or_default();
        // An unreadable trace context is left out.
        let trace = record::trace(&mut columns).ok().flatten();
        Ok(Recovered { id, name: self.types.name(number)?, attempt, status, created_at, recovered_at, trace })
    }

    pub(crate) async fn prune(&self, limit: u32) -> Result<u32> {
        let mut removed = 0;
        while removed < limit {
            let step = (limit - removed).min(SWEEP_JOBS);
            let row = self.query_one(Lane::Work, "SELECT ae.prune_v1($1)", &[(&(step as i32), Type::INT4)]).await?;
            let pruned = answer(Columns::new(&row).number())?;
            removed += pruned;
            if pruned > 0 {
                self.wrote();
            }
            if pruned < step {
                break;
            }
        }
        Ok(removed)
    }

    pub(crate) async fn logs(&self, id: JobId, after: u64, limit: u32) -> Result<Vec<LogLine>> {
        let rows = self
            .query(
                Lane::Work,
                "SELECT * FROM ae.logs_v1($1, $2, $3)",
                &[
                    (&id.0, Type::UUID),
                    (&i64::try_from(after).unwrap_or(i64::MAX), Type::INT8),
                    (&i64::from(limit), Type::INT8),
                ],
            )
            .await?;
        rows.iter().map(|row| answer(line(row))).collect()
    }

    pub(crate) async fn role(&self, name: &str, holder: Uuid, ttl: Duration) -> Result<Role> {
        let row = self
            .query_one(
                Lane::Urgent,
                "SELECT * FROM ae.role_v1($1, $2, $3, $4)",
                &[
                    (&name, Type::TEXT),
                    (&holder, Type::UUID),
                    (&micros(ttl), Type::INT8),
                    (&Uuid::new_v4(), Type::UUID),
                ],
            )
            .await?;
        let mut columns = Columns::new(&row);
        let kind: i16 = answer(columns.read())?;
        let token: Option<Uuid> = answer(columns.read())?;
        let rest: Option<i64> = answer(columns.read())?;
        Ok(match (kind, token) {
            (0, Some(token)) => Role::Held(RoleToken(token)),
            (1, _) => Role::Other(Duration::from_micros(rest.unwrap_or_default().max(0).unsigned_abs())),
            _ => Role::Resigned,
        })
    }

    pub(crate) async fn document(&self, name: &str) -> Result<Option<Document>> {
        let rows = self.query(Lane::Work, "SELECT * FROM ae.document_v1($1)", &[(&name, Type::TEXT)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut columns = Columns::new(row);
        let version = DocVersion(answer(columns.read())?);
        Ok(Some(Document { version, bytes: Bytes::copy_from_slice(answer(columns.read())?) }))
    }

    pub(crate) async fn put_document(
        &self,
        name: &str,
        expected: Option<DocVersion>,
        bytes: &[u8],
        role: Option<(&str, RoleToken)>,
    ) -> Result<PutOutcome> {
        let version = Uuid::new_v4();
        let row = self
            .query_one(
                Lane::Work,
                "SELECT ae.put_document_v1($1, $2, $3, $4, $5, $6)",
                &[
                    (&name, Type::TEXT),
                    (&expected.map(|version| version.0), Type::UUID),
                    (&version, Type::UUID),
                    (&bytes, Type::BYTEA),
                    (&role.map(|(role, _)| role), Type::TEXT),
                    (&role.map(|(_, token)| token.0), Type::UUID),
                ],
            )
            .await?;
        Ok(match answer(Columns::new(&row).read::<i16>())? {
            0 => PutOutcome::Stored(DocVersion(version)),
            1 => PutOutcome::Stale,
            _ => PutOutcome::Fenced,
        })
    }
}

fn missing(id: JobId) -> StoreError {
    StoreError::Unavailable(format!("job {id} was deleted meanwhile"))
}

fn line(row: &Row) -> Read<LogLine> {
    let mut columns = Columns::new(row);
    let (number, attempt, updated_at) = (columns.number()?, columns.number()?, columns.time()?);
    let line = from_json(columns.read()?).unwrap_or_else(|_| LogLine {
        line: 0,
        attempt: 0,
        timestamp: updated_at,
        level: "ERROR".into(),
        target: None,
        message: "This line is stored, but cannot be read.".to_owned(),
        fields: Default::default(),
    });
    Ok(LogLine { line: number.into(), attempt, ..line })
}
