//! Statistics as `stats.lua` gives them, and the minutes' counts.

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
    reply::{self, Items, number},
};

/// What is more is no count of a minute: many of those must not overflow when they are added up.
const MOST: u64 = 1 << 56;

/// A heartbeat as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct BeatRecord {
    types: Vec<(JobName, u32, u32)>,
    busy: u32,
    idle: u32,
    leaked: u32,
}

impl From<&Heartbeat> for BeatRecord {
    fn from(beat: &Heartbeat) -> Self {
        let WorkerSlots { busy, idle, leaked } = beat.slots;
        let types = beat.types.iter().map(|kind| (kind.name.clone(), kind.running, kind.limit)).collect();
        Self { types, busy, idle, leaked }
    }
}

impl BeatRecord {
    fn live(self, worker: WorkerId, at: Timestamp) -> LiveWorker {
        let types = self.types.into_iter().map(|(name, running, limit)| TypeCapacity { name, running, limit });
        let slots = WorkerSlots { busy: self.busy, idle: self.idle, leaked: self.leaked };
        LiveWorker { worker, types: types.collect(), slots, at }
    }
}

pub(crate) async fn stats(calls: &Calls, query: &StatsQuery) -> Result<Stats, Fail> {
    let mut args = Args::new();
    for of in &query.cutoffs {
        args = args.bytes(of.name.as_str()).duration(of.slow_after).duration(of.overdue_after).duration(of.stuck_after);
    }
    let mut found = reply::list(calls.call(&calls.scripts.stats, &args).await?)?;
    let now = Timestamp::from_micros(found.int()?);
    // A worker of a later version may say what cannot be read here.
    let beats = found.list()?.filter_map(|beat| beat_of(beat).ok()).collect();
    let (quarantined, repaired) = (found.number()?, found.number()?);
    let types = found.list()?.filter_map(|of| reply::list(of).and_then(type_stats).ok());
    let mut types: Vec<TypeStats> = types.collect();
    types.sort_by(|a, b| a.name.cmp(&b.name));
    let slots = match query.since_minute {
        Some(since) => slots(calls, since.max(now.minute() - STATS_MINUTES + 1), now.minute()).await?,
        None => Vec::new(),
    };
    Ok(Stats { now, types, minutes: slots, workers: beats, quarantined, repaired: repaired })
}

fn type_stats(mut of: Items) -> Result<TypeStats, Fail> {
    let name = record::name(of.bytes()?)?;
    let mut counts = [0; 6];
    for count in &mut counts {
        *count = of.number()?;
    }
    let never_started = of.number()?;
    let mut time = || of.int().map(|micros| (micros > 0).then(|| Timestamp::from_micros(micros)));
    let (oldest_runnable, oldest_running) = (time()?, time()?);
    let (slow, overdue, stale, unrecovered) = (of.number()?, of.number()?, of.number()?, of.number()?);
    Ok(TypeStats { name, counts, never_started, oldest_runnable, oldest_running, slow, overdue, stale, unrecovered })
}

fn beat_of(beat: Value) -> Result<LiveWorker, Fail> {
    let mut beat = reply::list(beat)?;
    let (worker, record) = (beat.text()?, beat.text()?);
    let bad = || Fail::Bad("a heartbeat cannot be read".to_owned());
    let worker = WorkerId(worker.parse().map_err(|_| bad())?);
    let (at, record) = record.split_once(' ').ok_or_else(bad)?;
    let record: BeatRecord = serde_json::from_str(record).map_err(|_| bad())?;
    Ok(record.live(worker, Timestamp::from_micros(number(at.as_bytes())?)))
}

/// Each minute is one hash, read by a command of its own: together they would hold the server up.
async fn slots(calls: &Calls, from: i64, to: i64) -> Result<Vec<MinuteStats>, Fail> {
    let minutes: Vec<i64> = (from..=to).collect();
    let mut commands = redis::Pipeline::with_capacity(minutes.len());
    for minute in &minutes {
        commands.cmd("HGETALL").arg(calls.key(format_args!("minute:{minute}")));
    }
    if minutes.is_empty() {
        return Ok(Vec::new());
    }
    let found = calls.link.send_all(&commands).await?;
    let mut slots = Vec::new();
    for (minute, fields) in minutes.into_iter().zip(found) {
        slots.extend(slots_of(minute, reply::list(fields)?)?);
    }
    Ok(slots)
}

fn slots_of(minute: i64, mut fields: Items) -> Result<Vec<MinuteStats>, Fail> {
    let mut slots: BTreeMap<JobName, MinuteStats> = BTreeMap::new();
    while fields.len() > 1 {
        let (field, value) = (fields.text(), number(&fields.bytes()?));
        let (Ok(field), Ok(value @ 0..=MOST)) = (field, value) else { continue };
        let Some((name, what)) = field.split_once('|') else { continue };
        let Ok(name) = JobName::new(name) else { continue };
        let slot = slots.entry(name.clone()).or_insert_with(|| MinuteStats::new(minute, name));
        count(slot, what, value);
    }
    for slot in slots.values_mut() {
        // Jobs end as their last attempt does; the others were counted apart.
        let [completed, _, failed, canceled, ..] = slot.attempts;
        slot.ended[0] += completed;
        slot.ended[1] += failed;
        slot.ended[2] += canceled;
    }
    Ok(slots.into_values().collect())
}

/// One field of a minute: what happened, and how often. What a later version counts is passed over.
fn count(slot: &mut MinuteStats, what: &str, by: u64) {
    let (kind, bucket) = what.split_once('|').unwrap_or((what, ""));
    let bucket: Option<usize> = bucket.parse().ok();
    match (kind, bucket) {
        ("wait", None) => slot.queue_time.sum_micros += by,
        ("run", None) => slot.processing_time.sum_micros += by,
        ("slow", None) => slot.slow += by,
        ("e4", None) => slot.ended[1] += by,
        ("e5", None) => slot.ended[2] += by,
        ("q", Some(bucket)) => add(&mut slot.queue_time.buckets, bucket, by),
        (outcome, bucket) => {
            let Ok(outcome) = outcome.parse::<usize>() else { return };
            add(&mut slot.attempts, outcome, by);
            if let Some(bucket) = bucket {
                add(&mut slot.processing_time.buckets, bucket, by);
            }
        }
    }
}

fn add(counts: &mut [u64], at: usize, by: u64) {
    if let Some(count) = counts.get_mut(at) {
        *count += by;
    }
}
