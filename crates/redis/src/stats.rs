//! Decodes statistics: the answer of `stats.lua` and the minute buckets.

use std::collections::BTreeMap;

use async_endpoints_core::{
    JobName, Timestamp,
    limits::STATS_MINUTES,
    store::{Heartbeat, LiveWorker, MinuteStats, Stats, StatsQuery, TypeCapacity, TypeStats, WorkerId, WorkerSlots},
};
use redis::Value;
use serde::{Deserialize, Serialize};

use crate::{
    args::Args,
    calls::Calls,
    fail::Fail,
    record,
    reply::{Items, list, number, parse},
};

/// The largest count of a minute that is read, so that sums over all minutes do not overflow.
const MOST: u64 = 1 << 56;

/// A heartbeat as stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeartbeatRecord {
    types: Vec<(JobName, u32, u32)>,
    busy: u32,
    idle: u32,
    leaked: u32,
}

impl From<&Heartbeat> for HeartbeatRecord {
    fn from(heartbeat: &Heartbeat) -> Self {
        let WorkerSlots { busy, idle, leaked } = heartbeat.slots;
        let types = heartbeat.types.iter().map(|of| (of.name.clone(), of.running, of.limit)).collect();
        Self { types, busy, idle, leaked }
    }
}

impl HeartbeatRecord {
    fn live(self, worker: WorkerId, at: Timestamp) -> LiveWorker {
        let types = self.types.into_iter().map(|(name, running, limit)| TypeCapacity { name, running, limit });
        let slots = WorkerSlots { busy: self.busy, idle: self.idle, leaked: self.leaked };
        LiveWorker { worker, types: types.collect(), slots, at }
    }
}

pub(crate) async fn stats(calls: &Calls, query: &StatsQuery) -> Result<Stats, Fail> {
    let args = Args::new().items(&query.cutoffs, |args, of| {
        args.bytes(of.name.as_str()).duration(of.slow_after).duration(of.overdue_after).duration(of.stuck_after)
    });
    let stats = calls.call(&calls.scripts.stats, &args, current).await?;
    let minutes = match query.since_minute {
        Some(since) => {
            let now = stats.now.minute();
            minutes(calls, since.max(now - STATS_MINUTES + 1), now).await?
        }
        None => Vec::new(),
    };
    Ok(Stats { minutes, ..stats })
}

/// Decodes the script's answer, which has no minutes.
fn current(answer: Value) -> Result<Stats, Fail> {
    let mut found = list(answer)?;
    let now = Timestamp::from_micros(found.int()?);
    let workers = found.list()?.map(live_worker).collect::<Result<_, _>>()?;
    let (quarantined, repaired) = (found.number()?, found.number()?);
    let types = found.list()?.filter_map(|of| type_stats(of).transpose());
    let mut types = types.collect::<Result<Vec<TypeStats>, _>>()?;
    types.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Stats { now, types, minutes: Vec::new(), workers, quarantined, repaired })
}

/// `None` if the type has no valid name: the stored set of types has a foreign member.
fn type_stats(answer: Value) -> Result<Option<TypeStats>, Fail> {
    let mut of = list(answer)?;
    let Ok(name) = record::name(of.bytes()?) else { return Ok(None) };
    let mut counts = [0; 6];
    for count in &mut counts {
        *count = of.number()?;
    }
    let never_started = of.number()?;
    let mut time = || of.int().map(|micros| (micros != 0).then(|| Timestamp::from_micros(micros)));
    let (oldest_runnable, oldest_running) = (time()?, time()?);
    let (slow, overdue, stale, unrecovered) = (of.number()?, of.number()?, of.number()?, of.number()?);
    Ok(Some(TypeStats {
        name,
        counts,
        never_started,
        oldest_runnable,
        oldest_running,
        slow,
        overdue,
        stale,
        unrecovered,
    }))
}

fn live_worker(answer: Value) -> Result<LiveWorker, Fail> {
    let mut worker = list(answer)?;
    let (id, record) = (WorkerId(parse(&worker.bytes()?, "worker id")?), worker.text()?);
    let invalid = || Fail::Corrupt(format!("invalid heartbeat \"{}\"", record.escape_debug()));
    let (at, json) = record.split_once(' ').ok_or_else(invalid)?;
    let parsed: HeartbeatRecord = serde_json::from_str(json).map_err(|_| invalid())?;
    Ok(parsed.live(id, Timestamp::from_micros(number(at.as_bytes())?)))
}

/// Reads each minute's hash with a command of its own. One script over all minutes would block the server for too long.
async fn minutes(calls: &Calls, from: i64, to: i64) -> Result<Vec<MinuteStats>, Fail> {
    let numbers: Vec<i64> = (from..=to).collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let mut commands = redis::Pipeline::with_capacity(numbers.len());
    for minute in &numbers {
        commands.cmd("HGETALL").arg(calls.key(format_args!("minute:{minute}")));
    }
    let found = calls.link.send_all(&commands).await?;
    let mut minutes = Vec::new();
    for (minute, fields) in numbers.into_iter().zip(found) {
        minutes.extend(minute_stats(minute, list(fields)?)?);
    }
    Ok(minutes)
}

/// Decodes the counts of one minute. Skips fields of a later version, and counts that are no numbers or too large.
fn minute_stats(minute: i64, mut fields: Items) -> Result<Vec<MinuteStats>, Fail> {
    let mut types: BTreeMap<JobName, MinuteStats> = BTreeMap::new();
    while fields.len() > 0 {
        let (field, value) = (fields.text(), number(&fields.bytes()?));
        let (Ok(field), Ok(value @ 0..=MOST)) = (field, value) else { continue };
        let Some((name, what)) = field.split_once('|') else { continue };
        let Ok(name) = JobName::new(name) else { continue };
        let of = types.entry(name.clone()).or_insert_with(|| MinuteStats::new(minute, name));
        count(of, what, value);
    }
    for of in types.values_mut() {
        // A job ends with its last attempt; jobs that ended otherwise have counts of their own.
        let [completed, _, failed, canceled, ..] = of.attempts;
        of.ended[0] += completed;
        of.ended[1] += failed;
        of.ended[2] += canceled;
    }
    Ok(types.into_values().collect())
}

/// Adds one field of a minute.
fn count(of: &mut MinuteStats, what: &str, by: u64) {
    let (kind, bucket) = what.split_once('|').unwrap_or((what, ""));
    let bucket: Option<u16> = bucket.parse().ok();
    match (kind, bucket) {
        ("new", None) => of.arrivals += by,
        ("wait", None) => of.queue_time.sum_micros += by,
        ("run", None) => of.processing_time.sum_micros += by,
        ("slow", None) => of.slow += by,
        ("e4", None) => of.ended[1] += by,
        ("e5", None) => of.ended[2] += by,
        ("q", Some(bucket)) => of.queue_time.add(bucket, by),
        (outcome, bucket) => {
            let count = outcome.parse::<usize>().ok().and_then(|outcome| of.attempts.get_mut(outcome));
            let Some(count) = count else { return };
            *count = MOST.min(*count + by);
            if let Some(bucket) = bucket {
                of.processing_time.add(bucket, by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_endpoints_core::store::Histogram;
    use async_endpoints_testkit::server::RedisServer;

    /// Both ends of each bucket up to 2^53 µs, the largest number that scripts read, and 12 h.
    #[test]
    fn scripts_and_core_agree_on_buckets() {
        let ends = (0..49).flat_map(|octave| (16..32).map(move |part: u64| part << octave));
        let micros: Vec<u64> =
            (0..16).chain(ends.flat_map(|first| [first - 1, first])).chain([43_200_000_000]).collect();
        let script = concat!(
            include_str!("lua/bucket.lua"),
            "local found = {} for at, micros in ipairs(ARGV) do found[at] = bucket(tonumber(micros)) end return found"
        );
        let texts: Vec<String> = micros.iter().map(u64::to_string).collect();
        let command: Vec<&str> = ["EVAL", script, "0"].into_iter().chain(texts.iter().map(String::as_str)).collect();
        let found = RedisServer::shared().cli(&command);
        let expected = micros.iter().map(|micros| Histogram::bucket_of(Duration::from_micros(*micros)).to_string());
        assert_eq!(found.lines().collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }
}
