//! Calls of workers: claim, renew, report, settle. Every write is guarded by the lease.

use std::time::Duration;

use bytes::Bytes;

use super::{index::order_at, job::Job, state::State};
use crate::{
    job::{JobName, JobStatus},
    lifecycle::{self, EndedAttempt, Event},
    limits::{BATCH_JOBS, SWEEP_JOBS},
    store::{
        Attempt, Claim, Claimed, Fenced, Heartbeat, Lease, Outcome, Renewed, Report, Settled, Settlement, TypeQuota,
    },
    time::Timestamp,
};

impl State {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        let kinds: Vec<(u32, &TypeQuota)> =
            claim.quotas.iter().filter_map(|want| Some((self.kind(&want.name)?, want))).collect();
        self.promote(&kinds, now);
        let mut left: Vec<u32> = kinds.iter().map(|(_, want)| want.max).collect();
        let mut attempts = Vec::new();
        let mut bytes = 0;
        while attempts.len() < BATCH_JOBS.min(claim.max as usize) {
            let heads = kinds.iter().zip(&left).enumerate().filter(|(_, (_, left))| **left > 0);
            let first = heads
                .filter_map(|(i, ((kind, _), _))| {
                    let (key, place) = self.types[*kind as usize].of(JobStatus::Queued).first_key_value()?;
                    Some((key, i, *place))
                })
                .min();
            let Some((_, want, place)) = first else { break };
            bytes += self.job(place).payload.len();
            if bytes > claim.max_bytes && !attempts.is_empty() {
                break;
            }
            left[want] -= 1;
            attempts.push(self.start(place, claim, now));
        }
        let next = kinds.iter().filter_map(|(kind, _)| self.next_claim(*kind, now)).min();
        Claimed { attempts, next_claim: next, now }
    }

    /// Makes due jobs runnable, soonest first. Their order is the time they were due.
    fn promote(&mut self, kinds: &[(u32, &TypeQuota)], now: Timestamp) {
        for _ in 0..SWEEP_JOBS {
            let heads = kinds.iter().filter_map(|(kind, _)| {
                self.types[*kind as usize].of(JobStatus::Scheduled).first_key_value().map(|(key, place)| (key, *place))
            });
            let Some((_, place)) = heads.min() else { break };
            let job = self.job(place);
            let due = job.due.unwrap_or(now);
            let Some(after) = lifecycle::next(job.status, false, Event::Due).filter(|_| due <= now) else { break };
            self.change(place, now, |job| {
                job.status = after;
                job.order = order_at(due);
            });
        }
    }

    fn next_claim(&self, kind: u32, now: Timestamp) -> Option<Duration> {
        let kind = &self.types[kind as usize];
        if !kind.of(JobStatus::Queued).is_empty() {
            return Some(Duration::ZERO);
        }
        let (_, place) = kind.of(JobStatus::Scheduled).first_key_value()?;
        Some(self.job(*place).due?.since(now))
    }

    fn start(&mut self, place: u32, claim: &Claim, now: Timestamp) -> Attempt {
        self.change(place, now, |job| {
            job.status = JobStatus::InProgress;
            job.attempt += 1;
            job.started_at = Some(now);
            job.leases.claim(claim.token);
            job.lease_until = now + claim.lease;
            if let Some(extra) = &mut job.extra {
                extra.progress = None;
            }
        });
        let job = self.job(place);
        let (kind, waited) = (job.kind as usize, now.since(job.runnable_since));
        let attempt = attempt(job, claim, &self.types[kind].name, now);
        self.types[kind].slot(now).queue_time.record(waited);
        attempt
    }

    pub(super) fn beat(&mut self, beat: &Heartbeat, now: Timestamp) {
        self.beats.retain(|_, (beat, at)| *at + beat.ttl > now);
        if beat.ttl.is_zero() {
            self.beats.remove(&beat.worker);
        } else {
            self.beats.insert(beat.worker, (beat.clone(), now));
        }
    }

    pub(super) fn renew(&mut self, lease: Lease, until: Timestamp) -> Renewed {
        let Some(place) = self.running_under(lease) else { return Renewed::Lost };
        let job = self.amend(place);
        let (id, before) = (job.id, job.lease_until);
        job.lease_until = until;
        let asked = job.cancel_requested_at.is_some();
        self.leased.remove(&(before, id, place));
        self.leased.insert((until, id, place));
        if asked { Renewed::CancelRequested } else { Renewed::Held }
    }

    pub(super) fn report(&mut self, report: &Report, now: Timestamp) -> Fenced {
        let Some(place) = self.running_under(report.lease) else { return Fenced::Lost };
        let job = self.amend(place);
        let attempt = job.attempt;
        for line in &report.logs {
            job.extra().log(line, attempt);
        }
        if let Some(progress) = &report.progress {
            self.change(place, now, |job| job.extra().progress = Some(progress.stored(now)));
        }
        Fenced::Applied
    }

    pub(super) fn settle(&mut self, settle: &Settlement, now: Timestamp) -> Settled {
        let Some(place) = self.running_under(settle.lease) else {
            let job = self.ids.get(&settle.lease.job).map(|place| self.job(*place));
            return job
                .and_then(|job| job.leases.settled_by(settle.lease.token))
                .map_or(Settled::Lost, Settled::Settled);
        };
        let after = self.end(place, &EndedAttempt::settled(settle), now);
        let job = self.amend(place);
        job.leases.settled = Some(after);
        if let Outcome::Completed { result } = &settle.outcome {
            job.result = Some(result.clone());
            job.payload = Bytes::new(); // Nothing can run it again.
        }
        if settle.span.is_some() || job.extra.is_some() {
            job.extra().span = settle.span.clone();
        }
        if let Some(progress) = &settle.progress {
            job.extra().progress = Some(progress.stored(now));
        }
        Settled::Settled(after)
    }

    fn running_under(&self, lease: Lease) -> Option<u32> {
        let place = *self.ids.get(&lease.job)?;
        self.job(place).runs_under(lease.token).then_some(place)
    }
}

fn attempt(job: &Job, claim: &Claim, name: &JobName, now: Timestamp) -> Attempt {
    Attempt {
        lease: Lease { job: job.id, token: claim.token },
        name: name.clone(),
        attempt: job.attempt,
        retry_count: job.retries,
        max_retries: job.terms.max_retries,
        priority: job.terms.priority,
        payload: job.payload.clone(),
        created_at: job.created_at,
        runnable_since: job.runnable_since,
        started_at: now,
        trace: job.trace.as_deref().cloned(),
        previous_span: job.extra.as_ref().and_then(|extra| extra.span.clone()),
    }
}
