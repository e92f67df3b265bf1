//! Decodes statistics. Codes of counts are those of table `deltas`.

use std::time::Duration;

use async_endpoints_core::{
    JobName, JobStatus, Timestamp,
    limits::AHEAD_COUNTED,
    store::{LiveWorker, MinuteStats, Result, Stats, StatsQuery, TypeStats},
};
use tokio_postgres::{Row, types::Type};

use crate::{
    calls::Calls,
    link::Lane,
    value::{Columns, Read, answer, from_json, micros},
};

/// Codes and their values.
type Counts = Vec<(i16, i64)>;

impl Calls {
    pub(crate) async fn stats(&self, query: &StatsQuery) -> Result<Stats> {
        let names: Vec<&str> = query.cutoffs.iter().map(|cutoffs| cutoffs.name.as_str()).collect();
        let times = |time: fn(&async_endpoints_core::store::TypeCutoffs) -> Duration| -> Vec<i64> {
            query.cutoffs.iter().map(|cutoffs| micros(time(cutoffs))).collect()
        };
        let rows = self
            .query(
                Lane::Work,
                "SELECT * FROM ae.stats_v1($1, $2, $3, $4, $5)",
                &[
                    (&query.since_minute, Type::INT8),
                    (&names, Type::TEXT_ARRAY),
                    (&times(|cutoffs| cutoffs.slow_after), Type::INT8_ARRAY),
                    (&times(|cutoffs| cutoffs.overdue_after), Type::INT8_ARRAY),
                    (&times(|cutoffs| cutoffs.stuck_after), Type::INT8_ARRAY),
                ],
            )
            .await?;
        let mut stats = Stats::default();
        for row in &rows {
            answer(add(&mut stats, row))?;
        }
        stats.types.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        stats.minutes.sort_unstable_by(|one, other| (one.minute, &one.name).cmp(&(other.minute, &other.name)));
        Ok(stats)
    }
}

/// Adds a row of `stats_v1`.
fn add(stats: &mut Stats, row: &Row) -> Read<()> {
    let mut columns = Columns::new(row);
    let kind: i16 = columns.read()?;
    let name = columns.read::<Option<&str>>()?.map(JobName::new).transpose().map_err(|error| error.to_string())?;
    let number: Option<i64> = columns.read()?;
    let codes: Vec<i16> = columns.read::<Option<_>>()?.unwrap_or_default();
    let values: Vec<Option<i64>> = columns.read::<Option<_>>()?.unwrap_or_default();
    let counts = || codes.iter().copied().zip(&values).filter_map(|(code, value)| Some((code, (*value)?))).collect();
    match (kind, name) {
        (0, _) => {
            stats.now = Timestamp::from_micros(values.first().copied().flatten().unwrap_or_default());
            stats.quarantined = values.get(1).copied().flatten().unwrap_or_default().unsigned_abs();
        }
        (1, Some(name)) => stats.types.push(of_type(name, &counts(), stats.now)),
        (2, Some(name)) => stats.minutes.push(minute(number.unwrap_or_default(), name, &counts())),
        (3, _) => {
            // An unreadable heartbeat may be from another version. It is left out.
            if let Ok(info) = from_json(columns.read()?) {
                let last_heartbeat_at = Timestamp::from_micros(number.unwrap_or_default());
                stats.workers.push(LiveWorker { info, last_heartbeat_at });
            }
        }
        _ => return Err(format!("statistics of kind {kind}")),
    }
    Ok(())
}

fn value(counts: &Counts, code: i16) -> Option<i64> {
    counts.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

fn count(counts: &Counts, code: i16) -> u64 {
    value(counts, code).unwrap_or_default().max(0).unsigned_abs()
}

fn of_type(name: JobName, counts: &Counts, now: Timestamp) -> TypeStats {
    let time = |code| value(counts, code).map(Timestamp::from_micros);
    let due = time(101).filter(|due| *due <= now);
    TypeStats {
        name,
        counts: JobStatus::ALL.map(|status| count(counts, status as i16)),
        never_started: count(counts, 6),
        oldest_runnable: time(100).into_iter().chain(due).min(),
        oldest_running: time(102),
        slow: count(counts, 103),
        overdue: count(counts, 104),
        stale: count(counts, 105).min(AHEAD_COUNTED),
        unrecovered: count(counts, 106),
    }
}

fn minute(number: i64, name: JobName, counts: &Counts) -> MinuteStats {
    let mut minute = MinuteStats::new(number, name);
    for (code, n) in counts {
        let n = n.max(&0).unsigned_abs();
        let place = |first: i16| usize::try_from(code - first).unwrap_or_default();
        match code {
            20 => minute.arrivals = n,
            30..=35 => minute.attempts[place(30)] = n,
            40..=42 => minute.ended[place(40)] = n,
            43 => minute.slow = n,
            44 => minute.queue_time.sum_micros = n,
            45 => minute.processing_time.sum_micros = n,
            1000..2000 => minute.queue_time.add(place(1000) as u16, n),
            2000..3000 => minute.processing_time.add(place(2000) as u16, n),
            // A later version may count more.
            _ => {}
        }
    }
    minute
}
