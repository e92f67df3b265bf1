//! Periodic calls: reclaim and prune.

use super::state::{State, Tombstone};
use crate::{
    job::{JobId, JobStatus},
    lifecycle::{self, EndedAttempt},
    limits::SWEEP_JOBS,
    store::{Reclaim, Reclaimed, Recovered},
    time::Timestamp,
};

impl State {
    pub(super) fn reclaim(&mut self, reclaim: &Reclaim, now: Timestamp) -> Reclaimed {
        let cut_off = self.swept.replace(now).is_none_or(|swept| now.since(swept) > reclaim.lease);
        if cut_off {
            self.quiet_until = Some(now + reclaim.lease);
        }
        if let Some(until) = self.quiet_until.filter(|until| *until > now) {
            return Reclaimed::Waiting(until.since(now));
        }
        let limit = reclaim.limit.min(SWEEP_JOBS) as usize;
        let expired = self.leased.iter().take_while(|(until, ..)| *until <= now);
        let mut expired: Vec<u32> = expired.take(limit + 1).map(|(.., place)| *place).collect();
        let more = expired.len() > limit;
        expired.truncate(limit);
        let recovered = expired.into_iter().map(|place| self.recover(place, reclaim, now)).collect();
        Reclaimed::Done { recovered, more }
    }

    fn recover(&mut self, place: u32, reclaim: &Reclaim, now: Timestamp) -> Recovered {
        let status = self.end(place, &EndedAttempt::lost(reclaim), now);
        let job = self.job_mut(place);
        job.leases.revoke();
        job.extra().span = None;
        let type_id = job.type_id;
        Recovered {
            id: job.id,
            attempt: job.attempt,
            status,
            created_at: job.created_at,
            recovered_at: now,
            trace: job.trace.clone(),
            name: self.types[type_id as usize].name.clone(),
        }
    }

    pub(super) fn prune(&mut self, limit: u32, now: Timestamp) -> u32 {
        let mut expired: Vec<u32> = Vec::new();
        for job_type in &self.types {
            for status in [JobStatus::Completed, JobStatus::Failed, JobStatus::Canceled] {
                let left = limit as usize - expired.len();
                let heads = job_type.of(status).values().take_while(|place| self.job(**place).expired(now));
                expired.extend(heads.take(left));
            }
        }
        let cut = expired.len() as u32;
        for place in expired {
            self.prune_job(place);
        }
        let forgotten: Vec<(Timestamp, JobId)> =
            self.forget.iter().take_while(|(at, _)| *at <= now).take((limit - cut) as usize).copied().collect();
        for (at, id) in &forgotten {
            self.forget.remove(&(*at, *id));
            if let Some(request) = self.tombstones.remove(id).and_then(|tombstone| tombstone.request) {
                self.keys.remove(&request);
            }
        }
        cut + forgotten.len() as u32
    }

    fn prune_job(&mut self, place: u32) {
        let Some((owner, gone_until)) = self.gone(self.job(place).id) else { return };
        let job = self.remove(place);
        let request = job.key.map(|key| (owner, job.type_id, key));
        let forget_at = lifecycle::forget_at(job.created_at, gone_until, job.repeatable);
        self.forget.insert((forget_at, job.id));
        self.tombstones.insert(job.id, Tombstone { owner, fingerprint: job.fingerprint, gone_until, request });
    }
}
