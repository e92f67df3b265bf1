//! All jobs and their indexes, and the one function that changes a job.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use super::{
    index::{Index, TypeIndex, order_at},
    job::Job,
};
use crate::{
    job::{Digest, JobId, JobName, JobStatus, JobView},
    lifecycle::{self, EndedAttempt},
    limits::AHEAD_COUNTED,
    store::{Heartbeat, IdempotencyKey, JobLookup, WorkerId},
    time::Timestamp,
};

/// The scope of an idempotency key: owner, type, key.
pub(super) type Request = (Option<Digest>, u32, IdempotencyKey);

#[derive(Default)]
pub(super) struct State {
    /// A job keeps its place in this list; a freed place is reused.
    jobs: Vec<Option<Box<Job>>>,
    free: Vec<u32>,
    /// Sorted maps, because a hash map would rehash a million entries under the lock.
    pub(super) ids: BTreeMap<JobId, u32>,
    pub(super) keys: BTreeMap<Request, JobId>,
    type_ids: HashMap<JobName, u32>,
    pub(super) types: Vec<TypeIndex>,
    /// The jobs of each owner by acceptance, newest last.
    pub(super) owned: BTreeMap<Digest, Index>,
    /// Running jobs by the expiry of their lease.
    pub(super) leased: BTreeSet<(Timestamp, JobId, u32)>,
    pub(super) tombstones: BTreeMap<JobId, Tombstone>,
    /// Tombstones by when they may be forgotten.
    pub(super) forget: BTreeSet<(Timestamp, JobId)>,
    pub(super) heartbeats: BTreeMap<WorkerId, (Heartbeat, Timestamp)>,
    last_order: u64,
    /// When the latest sweep ran, and until when sweeps take no lease.
    pub(super) swept: Option<Timestamp>,
    pub(super) quiet_until: Option<Timestamp>,
    /// Hints of the running step.
    pub(super) changed: Vec<JobId>,
    pub(super) work: Vec<JobName>,
}

/// The remains of a pruned job.
pub(super) struct Tombstone {
    pub(super) owner: Option<Digest>,
    pub(super) fingerprint: Digest,
    /// Until when readers get `Gone`.
    pub(super) gone_until: Timestamp,
    /// The idempotency key, forgotten with the tombstone.
    pub(super) request: Option<Request>,
}

impl State {
    /// The job at a place from an index.
    ///
    /// # Panics
    /// If there is none. Indexes and jobs change together, so there is.
    pub(super) fn job(&self, place: u32) -> &Job {
        self.jobs[place as usize].as_deref().expect("every place in an index has a job")
    }

    pub(super) fn type_id(&self, name: &JobName) -> Option<u32> {
        self.type_ids.get(name).copied()
    }

    /// The place of a type in `types`, added at its first use.
    pub(super) fn type_id_or_new(&mut self, name: &JobName) -> u32 {
        if let Some(type_id) = self.type_id(name) {
            return type_id;
        }
        let type_id = self.types.len() as u32;
        self.types.push(TypeIndex::new(name.clone()));
        self.type_ids.insert(name.clone(), type_id);
        type_id
    }

    pub(super) fn next_order(&mut self, now: Timestamp) -> u64 {
        self.last_order = order_at(now).max(self.last_order + 1);
        self.last_order
    }

    /// Adds an accepted job to all its indexes, and counts its arrival.
    pub(super) fn add(&mut self, job: Box<Job>) -> u32 {
        let place = self.free.pop().unwrap_or(self.jobs.len() as u32);
        let job_type = &mut self.types[job.type_id as usize];
        job_type.add(&job, place);
        job_type.accepted.insert((job.accepted, job.id), place);
        job_type.minute(job.created_at).arrivals += 1;
        if let Some(owner) = job.owner {
            self.owned.entry(owner).or_default().insert((job.accepted, job.id), place);
        }
        self.ids.insert(job.id, place);
        let runnable = job.status == JobStatus::Queued;
        let type_id = job.type_id;
        match self.jobs.get_mut(place as usize) {
            Some(free) => *free = Some(job),
            None => self.jobs.push(Some(job)),
        }
        if runnable {
            self.hint_work(type_id);
        }
        place
    }

    /// Removes a job that does not run, from all indexes.
    pub(super) fn remove(&mut self, place: u32) -> Box<Job> {
        let job = self.jobs[place as usize].take().expect("every place in an index has a job");
        self.free.push(place);
        let job_type = &mut self.types[job.type_id as usize];
        job_type.remove(&job);
        job_type.accepted.remove(&(job.accepted, job.id));
        if let Some(owner) = job.owner
            && let Entry::Occupied(mut owned) = self.owned.entry(owner)
        {
            owned.get_mut().remove(&(job.accepted, job.id));
            if owned.get().is_empty() {
                owned.remove();
            }
        }
        self.ids.remove(&job.id);
        job
    }

    /// Changes a job: removes it from the indexes of its old state, and adds it to those of its new one.
    pub(super) fn change(&mut self, place: u32, now: Timestamp, change: impl FnOnce(&mut Job)) {
        let job = self.jobs[place as usize].as_deref_mut().expect("every place in an index has a job");
        let job_type = &mut self.types[job.type_id as usize];
        let before = job.status;
        job_type.remove(job);
        if before == JobStatus::InProgress {
            self.leased.remove(&(job.lease_until, job.id, place));
        }
        change(job);
        job.version += 1;
        job.updated_at = now;
        if job.status != before {
            job.entered_at = now;
        }
        job_type.add(job, place);
        if job.status == JobStatus::InProgress {
            self.leased.insert((job.lease_until, job.id, place));
        }
        let (id, type_id, runnable) = (job.id, job.type_id, job.status == JobStatus::Queued && before != job.status);
        self.changed.push(id);
        if runnable {
            self.hint_work(type_id);
        }
    }

    /// A job, to change fields that clients do not see and indexes do not contain.
    pub(super) fn job_mut(&mut self, place: u32) -> &mut Job {
        self.jobs[place as usize].as_deref_mut().expect("every place in an index has a job")
    }

    /// Ends the running attempt. Returns the job's new state.
    pub(super) fn end(&mut self, place: u32, end: &EndedAttempt<'_>, now: Timestamp) -> JobStatus {
        let job = self.job(place);
        let (type_id, effect) = (job.type_id, lifecycle::end_attempt(&job.running(now), end, now));
        let status = effect.status;
        let order = status.is_terminal().then(|| self.next_order(now));
        effect.count(self.types[type_id as usize].minute(now));
        self.change(place, now, |job| job.end_attempt(effect, order));
        status
    }

    /// The job, unless it is unknown or expired.
    pub(super) fn readable(&self, id: JobId, now: Timestamp) -> Option<&Job> {
        self.ids.get(&id).map(|place| self.job(*place)).filter(|job| !job.expired(now))
    }

    pub(super) fn view(&self, job: &Job) -> JobView {
        let job_type = &self.types[job.type_id as usize];
        job.view(job_type.name.clone(), job_type.ahead(job, AHEAD_COUNTED))
    }

    pub(super) fn lookup(&self, id: JobId, now: Timestamp) -> JobLookup {
        if let Some(job) = self.readable(id, now) {
            return JobLookup::Found(Box::new(self.view(job)));
        }
        match self.gone(id) {
            Some((owner, until)) if now < until => JobLookup::Gone { owner },
            _ => JobLookup::NotFound,
        }
    }

    /// Owner of an expired job, pruned or not, and until when it answers `Gone`.
    pub(super) fn gone(&self, id: JobId) -> Option<(Option<Digest>, Timestamp)> {
        if let Some(tombstone) = self.tombstones.get(&id) {
            return Some((tombstone.owner, tombstone.gone_until));
        }
        let job = self.job(*self.ids.get(&id)?);
        Some((job.owner, lifecycle::gone_until(job.ended_at, job.terms.retention)?))
    }

    /// Adds a work hint when a type's queue becomes non-empty. One hint is enough: a claimer claims until the queue is empty.
    fn hint_work(&mut self, type_id: u32) {
        let job_type = &self.types[type_id as usize];
        if job_type.of(JobStatus::Queued).len() == 1 {
            self.work.push(job_type.name.clone());
        }
    }
}
