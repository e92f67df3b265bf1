//! Calls for running attempts: settle, report, renew.

use std::time::Duration;

use async_endpoints_core::{
    JobId,
    job::LogLine,
    limits::BATCH_JOBS,
    store::{Fenced, Heartbeat, Lease, Outcome, Renewed, Report, Result, Settled, Settlement},
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    calls::Calls,
    link::Lane,
    value::{Columns, answer, json, micros, progress_json, status},
};

const SETTLE: &str = "SELECT * FROM ae.settle_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";

/// Divides items into rounds with at most [`BATCH_JOBS`] places of distinct jobs: one call names each job once.
fn rounds<T>(items: &[T], job: impl Fn(&T) -> JobId) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let fits = |round: &&mut Vec<usize>| {
            round.len() < BATCH_JOBS && round.iter().all(|other| job(&items[*other]) != job(item))
        };
        match rounds.iter_mut().find(fits) {
            Some(round) => round.push(at),
            None => rounds.push(vec![at]),
        }
    }
    rounds
}

/// Ids and tokens of leases.
fn leases(leases: impl Iterator<Item = Lease>) -> (Vec<Uuid>, Vec<Uuid>) {
    leases.map(|lease| (lease.job.0, lease.token.0)).unzip()
}

/// Log lines of a call: the place of each line's job, from 1, its bytes, and its record.
#[derive(Default)]
struct Lines {
    of: Vec<i32>,
    bytes: Vec<i32>,
    records: Vec<String>,
}

impl Lines {
    fn add(&mut self, place: usize, lines: &[LogLine]) -> Result<()> {
        for line in lines {
            self.of.push(place as i32 + 1);
            self.bytes.push(i32::try_from(line.bytes()).unwrap_or(i32::MAX));
            self.records.push(json(line)?);
        }
        Ok(())
    }
}

impl Calls {
    pub(crate) async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>> {
        let mut answers = vec![Settled::Lost; settlements.len()];
        for round in rounds(settlements, |settlement| settlement.lease.job) {
            self.settle_round(settlements, &round, &mut answers).await?;
        }
        Ok(answers)
    }

    async fn settle_round(&self, settlements: &[Settlement], round: &[usize], answers: &mut [Settled]) -> Result<()> {
        let of_round = || round.iter().map(|at| &settlements[*at]);
        let (ids, tokens) = leases(of_round().map(|settlement| settlement.lease));
        let outcomes: Vec<i16> = of_round().map(|settlement| settlement.outcome.kind() as i16).collect();
        let (mut results, mut errors, mut delays) = (Vec::new(), Vec::new(), Vec::new());
        for settlement in of_round() {
            let (result, error, delay) = match &settlement.outcome {
                Outcome::Completed { result } => (Some(result.as_ref()), None, Duration::ZERO),
                Outcome::Retry { delay, error } => (None, Some(error), *delay),
                Outcome::Failed { error } | Outcome::Canceled { error } => (None, Some(error), Duration::ZERO),
                Outcome::Released => (None, None, Duration::ZERO),
            };
            results.push(result);
            errors.push(error.map(json).transpose()?);
            delays.push(micros(delay));
        }
        let mut cancels: Vec<String> =
            of_round().map(|settlement| json(&settlement.if_canceled)).collect::<Result<_>>()?;
        if cancels.iter().all(|cancel| *cancel == cancels[0]) {
            cancels.truncate(1);
        }
        let slows: Vec<bool> = of_round().map(|settlement| settlement.slow).collect();
        let spans: Vec<Option<String>> =
            of_round().map(|settlement| settlement.span.map(|span| span.to_string())).collect();
        let progresses = of_round().map(|settlement| settlement.progress.as_ref().map(progress_json).transpose());
        let progresses: Vec<Option<String>> = progresses.collect::<Result<_>>()?;
        let mut lines = Lines::default();
        for (place, settlement) in of_round().enumerate() {
            lines.add(place, &settlement.logs)?;
        }
        let rows = self
            .query(
                Lane::Work,
                SETTLE,
                &[
                    (&ids, Type::UUID_ARRAY),
                    (&tokens, Type::UUID_ARRAY),
                    (&outcomes, Type::INT2_ARRAY),
                    (&results, Type::BYTEA_ARRAY),
                    (&errors, Type::TEXT_ARRAY),
                    (&cancels, Type::TEXT_ARRAY),
                    (&delays, Type::INT8_ARRAY),
                    (&slows, Type::BOOL_ARRAY),
                    (&spans, Type::TEXT_ARRAY),
                    (&progresses, Type::TEXT_ARRAY),
                    (&lines.of, Type::INT4_ARRAY),
                    (&lines.bytes, Type::INT4_ARRAY),
                    (&lines.records, Type::TEXT_ARRAY),
                ],
            )
            .await?;
        let (mut changed, mut requeued) = (Vec::new(), Vec::new());
        for row in &rows {
            let mut columns = Columns::new(row);
            let place = answer(columns.number())? as usize - 1;
            let after = answer(columns.read().and_then(status))?;
            let is_new: bool = answer(columns.read())?;
            let number: i32 = answer(columns.read())?;
            answers[round[place]] = Settled::Settled(after);
            if is_new {
                changed.push(JobId(ids[place]));
                if after == async_endpoints_core::JobStatus::Queued && !requeued.contains(&number) {
                    requeued.push(number);
                }
            }
        }
        self.wrote();
        self.hint(&requeued, &changed).await;
        Ok(())
    }

    /// Publishes hints of types and jobs. A type whose name cannot be read is not hinted.
    pub(crate) async fn hint(&self, types: &[i32], changed: &[JobId]) {
        let known = self.types.require(&self.link, &self.schema, types.iter().copied()).await;
        let names: Vec<_> = types.iter().filter_map(|number| self.types.name(*number).ok()).collect();
        // The call itself succeeded.
        drop(known);
        self.hints.publish(&names, changed);
    }

    pub(crate) async fn report(&self, reports: &[Report]) -> Result<Vec<Fenced>> {
        let mut answers = vec![Fenced::Lost; reports.len()];
        for round in rounds(reports, |report| report.lease.job) {
            let of_round = || round.iter().map(|at| &reports[*at]);
            let (ids, tokens) = leases(of_round().map(|report| report.lease));
            let progresses = of_round().map(|report| report.progress.as_ref().map(progress_json).transpose());
            let progresses: Vec<Option<String>> = progresses.collect::<Result<_>>()?;
            let mut lines = Lines::default();
            for (place, report) in of_round().enumerate() {
                lines.add(place, &report.logs)?;
            }
            let rows = self
                .query(
                    Lane::Work,
                    "SELECT * FROM ae.report_v1($1, $2, $3, $4, $5, $6)",
                    &[
                        (&ids, Type::UUID_ARRAY),
                        (&tokens, Type::UUID_ARRAY),
                        (&progresses, Type::TEXT_ARRAY),
                        (&lines.of, Type::INT4_ARRAY),
                        (&lines.bytes, Type::INT4_ARRAY),
                        (&lines.records, Type::TEXT_ARRAY),
                    ],
                )
                .await?;
            let mut changed = Vec::new();
            for row in &rows {
                let mut columns = Columns::new(row);
                let place = answer(columns.number())? as usize - 1;
                answers[round[place]] = Fenced::Applied;
                if answer(columns.read())? {
                    changed.push(JobId(ids[place]));
                }
            }
            self.hints.publish(&[], &changed);
        }
        Ok(answers)
    }

    pub(crate) async fn renew(&self, heartbeat: &Heartbeat, held: &[Lease], lease: Duration) -> Result<Vec<Renewed>> {
        let (ids, tokens) = leases(held.iter().copied());
        let record = json(&heartbeat.worker)?;
        let rows = self
            .query(
                Lane::Urgent,
                "SELECT * FROM ae.renew_v1($1, $2, $3, $4, $5, $6)",
                &[
                    (&heartbeat.worker.id.0, Type::UUID),
                    (&record, Type::TEXT),
                    (&micros(heartbeat.ttl), Type::INT8),
                    (&ids, Type::UUID_ARRAY),
                    (&tokens, Type::UUID_ARRAY),
                    (&micros(lease), Type::INT8),
                ],
            )
            .await?;
        let mut answers = vec![Renewed::Lost; held.len()];
        for row in &rows {
            let mut columns = Columns::new(row);
            let (id, token): (Uuid, Uuid) = (answer(columns.read())?, answer(columns.read())?);
            let renewed = if answer(columns.read())? { Renewed::CancelRequested } else { Renewed::Held };
            let is_answered = |lease: &Lease| lease.job.0 == id && lease.token.0 == token;
            held.iter()
                .zip(&mut answers)
                .filter(|(lease, _)| is_answered(lease))
                .for_each(|(_, answer)| *answer = renewed);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_names_each_job_once() {
        let ids: Vec<JobId> = (0..3).map(|_| JobId::random()).collect();
        let items = [ids[0], ids[1], ids[0], ids[2], ids[0]];
        assert_eq!(rounds(&items, |id| *id), [vec![0, 1, 3], vec![2], vec![4]]);
        let many: Vec<JobId> = (0..=BATCH_JOBS).map(|_| JobId::random()).collect();
        assert_eq!(rounds(&many, |id| *id).iter().map(Vec::len).collect::<Vec<_>>(), [BATCH_JOBS, 1]);
    }
}
