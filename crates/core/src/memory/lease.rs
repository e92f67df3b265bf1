//! Calls made by workers: claim, renew, report, settle. Every write is guarded by the lease.

use std::time::Duration;

use bytes::Bytes;

use super::{index::order_at, job::Job, state::State};
use crate::{
    job::{JobName, JobStatus},
    lifecycle::EndedAttempt,
    limits::{BATCH_JOBS, SWEEP_JOBS},
    store::{
        Attempt, Claim, Claimed, Fenced, Heartbeat, Lease, Outcome, Renewed, Report, Settled, Settlement, TypeQuota,
    },
    time::Timestamp,
};

impl State {
    pub(super) fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        let quotas: Vec<(u32, &TypeQuota)> =
            claim.quotas.iter().filter_map(|quota| Some((self.type_id(&quota.name)?, quota))).collect();
        self.promote(&quotas, now);
        let mut left: Vec<u32> = quotas.iter().map(|(_, quota)| quota.max).collect();
        let mut attempts = Vec::new();
        let mut bytes = 0;
        while attempts.len() < BATCH_JOBS.min(claim.max as usize) {
            let heads = quotas.iter().zip(&left).enumerate().filter(|(_, (_, left))| **left > 0);
            let first = heads
                .filter_map(|(i, ((type_id, _), _))| {
                    let (key, place) = self.types[*type_id as usize].of(JobStatus::Queued).first_key_value()?;
                    Some((key, i, *place))
                })
                .min();
            let Some((_, quota, place)) = first else { break };
            bytes += self.job(place).payload.len();
            if bytes > claim.max_bytes && !attempts.is_empty() {
                break;
            }
            left[quota] -= 1;
            attempts.push(self.start(place, claim, now));
        }
        let next = quotas.iter().filter_map(|(type_id, _)| self.next_claim(*type_id, now)).min();
        Claimed { attempts, next_claim: next, now }
    }

    /// Promotes due jobs, soonest first. Their order number is that of their due time.
    fn promote(&mut self, quotas: &[(u32, &TypeQuota)], now: Timestamp) {
        for _ in 0..SWEEP_JOBS {
            let heads = quotas.iter().filter_map(|(type_id, _)| {
                self.types[*type_id as usize]
                    .of(JobStatus::Scheduled)
                    .first_key_value()
                    .map(|(key, place)| (key, *place))
            });
            let Some((_, place)) = heads.min() else { break };
            let due = self.job(place).due.unwrap_or(now);
            if due > now {
                break;
            }
            self.change(place, now, |job| {
                job.status = JobStatus::Queued;
                job.order = order_at(due);
            });
        }
    }

    fn next_claim(&self, type_id: u32, now: Timestamp) -> Option<Duration> {
        let job_type = &self.types[type_id as usize];
        if !job_type.of(JobStatus::Queued).is_empty() {
            return Some(Duration::ZERO);
        }
        let (_, place) = job_type.of(JobStatus::Scheduled).first_key_value()?;
        Some(self.job(*place).due?.since(now))
    }

    fn start(&mut self, place: u32, claim: &Claim, now: Timestamp) -> Attempt {
        self.change(place, now, |job| {
            job.status = JobStatus::InProgress;
            job.attempt += 1;
            job.started_at = Some(now);
            job.leases.claim(claim.token);
            job.worker = Some(claim.worker);
            job.lease_until = now + claim.lease;
            if let Some(extra) = &mut job.extra {
                extra.progress = None;
            }
        });
        let job = self.job(place);
        let (type_id, waited) = (job.type_id as usize, now.since(job.runnable_since));
        let attempt = attempt(job, claim, &self.types[type_id].name, now);
        self.types[type_id].minute(now).queue_time.record(waited);
        attempt
    }

    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, now: Timestamp) {
        self.heartbeats.retain(|_, (heartbeat, at)| *at + heartbeat.ttl > now);
        if heartbeat.ttl.is_zero() {
            self.heartbeats.remove(&heartbeat.worker.id);
        } else {
            self.heartbeats.insert(heartbeat.worker.id, (heartbeat.clone(), now));
        }
    }

    pub(super) fn renew(&mut self, lease: Lease, until: Timestamp) -> Renewed {
        let Some(place) = self.running_under(lease) else { return Renewed::Lost };
        let job = self.job_mut(place);
        let (id, before) = (job.id, job.lease_until);
        job.lease_until = until;
        let requested = job.cancel_requested_at.is_some();
        self.leased.remove(&(before, id, place));
        self.leased.insert((until, id, place));
        if requested { Renewed::CancelRequested } else { Renewed::Held }
    }

    pub(super) fn report(&mut self, report: &Report, now: Timestamp) -> Fenced {
        let Some(place) = self.running_under(report.lease) else { return Fenced::Lost };
        self.job_mut(place).log(&report.logs);
        if let Some(progress) = &report.progress {
            self.change(place, now, |job| job.extra().progress = Some(progress.stored(now)));
        }
        Fenced::Applied
    }

    pub(super) fn settle(&mut self, settlement: &Settlement, now: Timestamp) -> Settled {
        let Some(place) = self.running_under(settlement.lease) else {
            let job = self.ids.get(&settlement.lease.job).map(|place| self.job(*place));
            return job
                .and_then(|job| job.leases.settled_by(settlement.lease.token))
                .map_or(Settled::Lost, Settled::Settled);
        };
        let after = self.end(place, &EndedAttempt::settled(settlement), now);
        let job = self.job_mut(place);
        job.leases.settled = Some(after);
        if let Outcome::Completed { result } = &settlement.outcome {
            job.result = Some(result.clone());
            job.payload = Bytes::new(); // A completed job never runs again.
        }
        if settlement.span.is_some() || job.extra.is_some() {
            job.extra().span = settlement.span;
        }
        if let Some(progress) = &settlement.progress {
            job.extra().progress = Some(progress.stored(now));
        }
        job.log(&settlement.logs);
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
        owner: job.owner,
        owner_label: job.owner_label.clone().map(String::from),
        trace: job.trace.clone(),
        previous_span: job.extra.as_ref().and_then(|extra| extra.span),
    }
}
