//! Calls of readers: logs, stats.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    index::{PRIORITY_SPAN, TypeIndex, order_at, queued_score},
    state::State,
};
use crate::{
    job::{JobId, JobName, JobStatus, LogLine, Priority},
    limits::AHEAD_COUNTED,
    store::{LiveWorker, MinuteStats, Stats, StatsQuery, TypeCutoffs, TypeStats},
    time::Timestamp,
};

/// Number of jobs per priority that are checked for the oldest runnable one. Only released and recovered jobs are not in
/// that order.
const HEADS: usize = 16;

impl State {
    pub(super) fn logs(&self, id: JobId, after: u64, limit: u32, now: Timestamp) -> Vec<LogLine> {
        let extra = self.readable(id, now).and_then(|job| job.extra.as_ref());
        extra.map(|extra| extra.logs(after, limit)).unwrap_or_default()
    }

    pub(super) fn payload(&self, id: JobId, now: Timestamp) -> Option<Bytes> {
        let job = self.readable(id, now).filter(|job| job.status != JobStatus::Completed)?;
        Some(job.payload.clone())
    }

    pub(super) fn stats(&self, query: &StatsQuery, now: Timestamp) -> Stats {
        let cutoffs = |name: &JobName| query.cutoffs.iter().find(|cutoffs| cutoffs.name == *name);
        let mut types: Vec<TypeStats> =
            self.types.iter().map(|job_type| self.type_stats(job_type, cutoffs(&job_type.name), now)).collect();
        types.sort_by(|a, b| a.name.cmp(&b.name));
        self.count_unrecovered(&mut types, query, now);
        let recent = self.types.iter().flat_map(|job_type| &job_type.minutes);
        let mut minutes: Vec<_> = query
            .since_minute
            .map(|since| recent.filter(|bucket| bucket.minute >= since).cloned().collect())
            .unwrap_or_default();
        minutes.sort_by(|a: &MinuteStats, b| (a.minute, &a.name).cmp(&(b.minute, &b.name)));
        let alive = self.heartbeats.values().filter(|(heartbeat, at)| *at + heartbeat.ttl > now);
        let workers =
            alive.map(|(heartbeat, at)| LiveWorker { info: heartbeat.worker.clone(), last_heartbeat_at: *at });
        Stats { now, types, minutes, workers: workers.collect(), quarantined: 0, repaired: 0 }
    }

    fn type_stats(&self, job_type: &TypeIndex, cutoffs: Option<&TypeCutoffs>, now: Timestamp) -> TypeStats {
        let running = job_type.of(JobStatus::InProgress);
        let started = |place: &u32| self.job(*place).started_at.unwrap_or(now);
        let older = |than: Timestamp| bounded(running.values().take_while(|place| started(place) < than));
        let due = job_type.of(JobStatus::Scheduled).first_key_value().and_then(|(_, place)| self.job(*place).due);
        let queued = by_priority(job_type).flat_map(|heads| heads.take(HEADS)).map(|(_, place)| *place);
        let queued = queued.map(|place| self.job(place).runnable_since);
        TypeStats {
            name: job_type.name.clone(),
            counts: JobStatus::ALL.map(|status| job_type.of(status).len() as u64),
            never_started: job_type.never_started,
            oldest_runnable: queued.chain(due.filter(|due| *due <= now)).min(),
            oldest_running: running.first_key_value().map(|(_, place)| started(place)),
            slow: cutoffs.map_or(0, |cutoffs| older(now.before(cutoffs.slow_after))),
            overdue: cutoffs.map_or(0, |cutoffs| older(now.before(cutoffs.overdue_after))),
            stale: cutoffs.map_or(0, |cutoffs| self.stale(job_type, now.before(cutoffs.stuck_after))),
            unrecovered: 0,
        }
    }

    /// Number of jobs runnable since before `than`: Queued ones by the time in their order number, and due Scheduled ones.
    fn stale(&self, job_type: &TypeIndex, than: Timestamp) -> u64 {
        let end = order_at(than) + 256;
        let queued = by_priority(job_type)
            .flat_map(|heads| heads.take_while(|((score, _), _)| score % PRIORITY_SPAN < end).map(|(_, place)| *place));
        let queued = queued.filter(|place| self.job(*place).runnable_since < than);
        let due = job_type.of(JobStatus::Scheduled).values().copied();
        let due = due.take_while(|place| self.job(*place).due.is_some_and(|due| due < than));
        bounded(queued.chain(due))
    }

    fn count_unrecovered(&self, types: &mut [TypeStats], query: &StatsQuery, now: Timestamp) {
        let expired = self.leased.iter().take_while(|(until, ..)| *until < now);
        for (until, _, place) in expired.take(AHEAD_COUNTED as usize) {
            let name = &self.types[self.job(*place).type_id as usize].name;
            let stuck_after = query.cutoffs.iter().find(|cutoffs| cutoffs.name == *name).map(|c| c.stuck_after);
            let stuck = stuck_after.is_some_and(|after| *until < now.before(after));
            if let Ok(at) = types.binary_search_by(|job_type| job_type.name.cmp(name)) {
                types[at].unrecovered += u64::from(stuck);
            }
        }
    }
}

/// The queued jobs of a type, one iterator for each priority.
fn by_priority(job_type: &TypeIndex) -> impl Iterator<Item = impl Iterator<Item = (&(u64, JobId), &u32)>> {
    let ready = job_type.of(JobStatus::Queued);
    let used = (0..10_u8).filter(|priority| job_type.queued_by_priority[*priority as usize] > 0);
    used.map(move |priority| {
        let first = queued_score(Priority::new(priority), 0);
        let end = first + PRIORITY_SPAN;
        ready.range((first, JobId(Uuid::nil()))..(end, JobId(Uuid::nil())))
    })
}

fn bounded<T>(of: impl Iterator<Item = T>) -> u64 {
    of.take(AHEAD_COUNTED as usize).count() as u64
}
