//! Claims.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobName,
    limits::BATCH_JOBS,
    store::{Claim, Claimed, Result},
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    calls::Calls,
    link::Lane,
    record::ClaimedJob,
    value::{Columns, Read, answer, micros},
};

const CLAIM: &str = "SELECT * FROM ae.claim_v1($1, $2, $3, $4, $5, $6, $7, $8)";

/// The quotas of known types, those of the same type added up.
#[derive(Default)]
struct Quotas {
    names: Vec<JobName>,
    numbers: Vec<i32>,
    max: Vec<i32>,
}

impl Calls {
    pub(crate) async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        let quotas = self.quotas(claim).await?;
        let bounds = self.lanes.bounds(&quotas.numbers);
        let most = i32::try_from(claim.max.min(BATCH_JOBS as u32)).unwrap_or_default();
        let rows = self
            .query(
                Lane::Work,
                CLAIM,
                &[
                    (&claim.token.0, Type::UUID),
                    (&claim.worker.0, Type::UUID),
                    (&quotas.numbers, Type::INT4_ARRAY),
                    (&quotas.max, Type::INT4_ARRAY),
                    (&bounds.froms, Type::INT8_ARRAY),
                    (&most, Type::INT4),
                    (&i64::try_from(claim.max_bytes).unwrap_or(i64::MAX), Type::INT8),
                    (&micros(claim.lease), Type::INT8),
                ],
            )
            .await?;
        let Some((last, jobs)) = rows.split_last() else {
            return answer(Err("a claim without a time".to_owned()));
        };
        let mut columns = Columns::new(last);
        let now = answer(columns.time())?;
        let wait: Option<i64> = answer(columns.read())?;
        let promoted: Vec<Uuid> = answer(columns.read())?;
        let mut next_claim = wait.map(|wait| Duration::from_micros(wait.max(0).unsigned_abs()));
        let name = |number| quotas.name(number);
        let jobs: Vec<ClaimedJob> = answer(jobs.iter().map(|row| ClaimedJob::read(row, claim.token, name)).collect())?;
        let first_claimed = jobs.iter().filter_map(|job| Some((job.type_number, job.rank, job.first_ord?)));
        self.lanes.claimed(&bounds, &quotas.numbers, first_claimed);
        self.hint_claim(&quotas, &promoted, &jobs, next_claim);
        let mut attempts = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job.attempt {
                Ok(attempt) => attempts.push(attempt),
                Err(reason) => {
                    self.quarantine(job.id, claim, &reason).await?;
                    next_claim = Some(Duration::ZERO);
                }
            }
        }
        Ok(Claimed { attempts, next_claim, now })
    }

    async fn quotas(&self, claim: &Claim) -> Result<Quotas> {
        let names: Vec<&JobName> = claim.quotas.iter().map(|quota| &quota.name).collect();
        let numbers = self.types.store(&self.link, &self.schema, &names).await?;
        let mut quotas = Quotas::default();
        for (quota, number) in claim.quotas.iter().zip(numbers) {
            let Some(number) = number else { continue };
            let max = i32::try_from(quota.max).unwrap_or(i32::MAX);
            match quotas.numbers.iter().position(|known| *known == number) {
                Some(at) => quotas.max[at] = quotas.max[at].saturating_add(max),
                None => {
                    quotas.names.push(quota.name.clone());
                    quotas.numbers.push(number);
                    quotas.max.push(max);
                }
            }
        }
        Ok(quotas)
    }

    /// Hints the changed jobs, and the types if the claim promoted more jobs than it took.
    fn hint_claim(&self, quotas: &Quotas, promoted: &[Uuid], jobs: &[ClaimedJob], next_claim: Option<Duration>) {
        if !jobs.is_empty() || !promoted.is_empty() {
            self.wrote();
        }
        let mut changed: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        changed.extend(promoted.iter().copied().map(JobId).filter(|id| !jobs.iter().any(|job| job.id == *id)));
        let leaves_some = !promoted.is_empty() && next_claim == Some(Duration::ZERO);
        self.hints.publish(if leaves_some { quotas.names.as_slice() } else { &[] }, &changed);
    }

    /// Removes an unreadable job, which this claim has started, from the jobs.
    async fn quarantine(&self, id: JobId, claim: &Claim, reason: &str) -> Result<()> {
        let parameters = [(&id.0 as _, Type::UUID), (&claim.token.0 as _, Type::UUID), (&reason as _, Type::TEXT)];
        self.query(Lane::Work, "SELECT ae.quarantine_v1($1, $2, $3)", &parameters).await.map(drop)
    }
}

impl Quotas {
    fn name(&self, number: i32) -> Read<JobName> {
        let at = self.numbers.iter().position(|known| *known == number);
        at.map(|at| self.names[at].clone()).ok_or_else(|| format!("unknown type {number}"))
    }
}
