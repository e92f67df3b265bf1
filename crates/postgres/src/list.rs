//! Lists: positions in the indexes, and the pages made of their entries.

use async_endpoints_core::{
    JobStatus, Timestamp,
    limits::PAGE_JOBS,
    store::{Cursor, ListFilter, ListPage, Page, Result},
};
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::{
    calls::Calls,
    link::Lane,
    record::Record,
    value::{Columns, answer},
};

/// The bits of an order number. In the score of a queued job, its rank is above them.
const ORDER_BITS: u32 = 60;

/// Milliseconds from the Unix epoch to 2025.
const EPOCH_MILLIS: i64 = 1_735_689_600_000;

/// The bits of an order number below the millisecond.
const PLACE_BITS: u32 = 18;

/// The smallest order number of a time, as the function `order_at` computes it.
pub(crate) fn order_at(time: Timestamp) -> i64 {
    time.as_millis().saturating_sub(EPOCH_MILLIS).clamp(0, (1 << (ORDER_BITS - PLACE_BITS)) - 1) << PLACE_BITS
}

/// A position in the index of a state: rank, score and id.
struct Position(i16, i64, Uuid);

fn position(status: Option<JobStatus>, cursor: Option<&Cursor>) -> Position {
    let whole = |score: u64| i64::try_from(score).unwrap_or(i64::MAX);
    match (status, cursor) {
        (Some(JobStatus::Queued), Some(cursor)) => {
            let rank = (cursor.score >> ORDER_BITS) as i16;
            Position(rank, (cursor.score & ((1 << ORDER_BITS) - 1)) as i64, cursor.id.0)
        }
        (_, Some(cursor)) => Position(0, whole(cursor.score), cursor.id.0),
        (Some(status), None) if !status.is_terminal() => Position(-1, -1, Uuid::nil()),
        (_, None) => Position(0, i64::MAX, Uuid::max()),
    }
}

/// The score of a job in the index of a list.
fn score(status: Option<JobStatus>, record: &Record) -> u64 {
    let view = &record.view;
    let time = |time: Option<Timestamp>| time.unwrap_or_default().as_micros();
    let score = match status {
        None => record.accepted,
        Some(JobStatus::Queued) => {
            let rank = u64::from(9 - view.priority.get());
            return rank << ORDER_BITS | record.ord.unsigned_abs();
        }
        Some(JobStatus::Scheduled) => time(view.scheduled_at),
        Some(JobStatus::InProgress) => time(view.started_at),
        Some(_) => record.ord,
    };
    score.max(0).unsigned_abs()
}

impl Calls {
    pub(crate) async fn list(&self, filter: &ListFilter, page: &Page) -> Result<ListPage> {
        let limit = page.limit.min(PAGE_JOBS) as usize;
        let checked = filter.entries(limit);
        let types = match &filter.name {
            Some(name) => {
                let number = self.types.numbers(&self.link, &self.schema, &[name]).await?;
                Some(number.into_iter().flatten().collect::<Vec<i32>>())
            }
            None => None,
        };
        let Position(rank, after, id) = position(filter.status, page.cursor.as_ref());
        let status = filter.status.map_or(-1, |status| status as i16);
        let owner = filter.owner.as_ref().map(|owner| owner.0.as_slice());
        let first = filter.since.map_or(0, order_at);
        let end = filter.until.map_or(i64::MAX, |until| order_at(until + ListFilter::ORDER_LEAD));
        let rows = self
            .query(
                Lane::Work,
                "SELECT * FROM ae.list_v1($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                &[
                    (&status, Type::INT2),
                    (&types, Type::INT4_ARRAY),
                    (&owner, Type::BYTEA),
                    (&rank, Type::INT2),
                    (&after, Type::INT8),
                    (&id, Type::UUID),
                    (&first, Type::INT8),
                    (&end, Type::INT8),
                    (&(checked as i32), Type::INT4),
                ],
            )
            .await?;
        let found = rows.first().map_or(Ok(0), |row| answer(Columns::new(row).number()))? as usize;
        let records = self.records(&rows).await?;
        let Some(now) = records.iter().flatten().next().map(|record| record.now) else {
            return Ok(ListPage { jobs: Vec::new(), scanned: found as u32, next: None });
        };
        let since = page.cursor.map_or(now, |cursor| cursor.since);
        let mut jobs = Vec::new();
        let mut next = None;
        let mut scanned = found;
        for (at, record) in records.into_iter().enumerate() {
            // An unreadable job is left out.
            let Ok(record) = record else { continue };
            next = Some(Cursor { since, score: score(filter.status, &record), id: record.view.id });
            // Since the first page. A time ahead of now was written before the clock was set back.
            let moved = filter.status.is_some() && since < record.entered_at && record.entered_at <= now;
            let of_type = types.as_ref().is_none_or(|types| types.contains(&record.type_number));
            if of_type && filter.matches(&record.filtered()) && !record.is_expired() && !moved {
                jobs.push(record.view);
                if jobs.len() == limit {
                    scanned = at + 1;
                    break;
                }
            }
        }
        let next = next.filter(|_| jobs.len() == limit || found == checked);
        Ok(ListPage { jobs, scanned: scanned as u32, next })
    }
}

#[cfg(test)]
mod tests {
    use async_endpoints_core::JobId;

    use super::*;

    #[test]
    fn score_of_a_queued_job_holds_rank_and_order() {
        let ord = order_at(Timestamp::from_micros(1_800_000_000_000_000));
        let cursor =
            Cursor { since: Timestamp::default(), score: 9 << ORDER_BITS | ord.unsigned_abs(), id: JobId(Uuid::nil()) };
        let Position(rank, after, _) = position(Some(JobStatus::Queued), Some(&cursor));
        assert_eq!((rank, after), (9, ord));
        assert_eq!(order_at(Timestamp::from_micros(i64::MAX)) >> ORDER_BITS, 0);
        assert_eq!(order_at(Timestamp::from_micros(-1)), 0);
    }
}
