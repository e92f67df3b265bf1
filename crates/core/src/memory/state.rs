//! All jobs and their indexes, and the one way to change a job.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    index::{Kind, order_at},
    job::Job,
};
use crate::{
    job::{Digest, JobId, JobName, JobStatus, JobView},
    lifecycle::{self, EndedAttempt},
    limits::AHEAD_COUNTED,
    store::{Heartbeat, IdempotencyKey, JobLookup, WorkerId},
    time::Timestamp,
};

/// Who made which request: owner, type, idempotency key.
pub(super) type Request = (Option<Digest>, u32, IdempotencyKey);

pub(super) struct State {
    /// Jobs at fixed places; a freed place is used again.
    jobs: Vec<Option<Box<Job>>>,
    free: Vec<u32>,
    /// Ordered maps, also where a hash would do: they never stop to rehash a million entries under the lock.
    pub(super) ids: BTreeMap<JobId, u32>,
    pub(super) keys: BTreeMap<Request, JobId>,
    kinds: HashMap<JobName, u32>,
    pub(super) types: Vec<Kind>,
    /// Running jobs by the expiry of their lease.
    pub(super) leased: BTreeSet<(Timestamp, JobId, u32)>,
    pub(super) tombs: BTreeMap<JobId, Tomb>,
    /// Tombstones by the time they may be forgotten.
    pub(super) forget: BTreeSet<(Timestamp, JobId)>,
    pub(super) beats: BTreeMap<WorkerId, (Heartbeat, Timestamp)>,
    last_order: u64,
    /// The latest sweep, and until when sweeps take nothing.
    pub(super) swept: Option<Timestamp>,
    pub(super) quiet_until: Option<Timestamp>,
    /// What to tell listeners once the lock is released: waking them under it would make every other call wait.
    pub(super) changed: Vec<JobId>,
    pub(super) work: Vec<JobName>,
}

/// What is left of a job after its retention.
pub(super) struct Tomb {
    pub(super) owner: Option<Digest>,
    pub(super) fingerprint: Digest,
    /// Until when readers are told that it is gone.
    pub(super) gone_until: Timestamp,
    /// Forgotten together with it.
    pub(super) request: Option<Request>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            jobs: Vec::new(),
            free: Vec::new(),
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            kinds: HashMap::new(),
            types: Vec::new(),
            leased: BTreeSet::new(),
            tombs: BTreeMap::new(),
            forget: BTreeSet::new(),
            beats: BTreeMap::new(),
            last_order: 0,
            swept: None,
            quiet_until: None,
            changed: Vec::new(),
            work: Vec::new(),
        }
    }

    /// The job at a place that an index named. Indexes and jobs change together, so it is there.
    pub(super) fn job(&self, place: u32) -> &Job {
        self.jobs[place as usize].as_deref().expect("an index names a job that is there")
    }

    pub(super) fn kind(&self, name: &JobName) -> Option<u32> {
        self.kinds.get(name).copied()
    }

    /// The place of a type, made at its first use.
    pub(super) fn kind_or_new(&mut self, name: &JobName) -> u32 {
        if let Some(kind) = self.kind(name) {
            return kind;
        }
        let kind = self.types.len() as u32;
        self.types.push(Kind::new(name.clone()));
        self.kinds.insert(name.clone(), kind);
        kind
    }

    pub(super) fn next_order(&mut self, now: Timestamp) -> u64 {
        self.last_order = order_at(now).max(self.last_order + 1);
        self.last_order
    }

    /// Adds a job to all its indexes.
    pub(super) fn put(&mut self, job: Box<Job>) -> u32 {
        let place = self.free.pop().unwrap_or(self.jobs.len() as u32);
        let kind = &mut self.types[job.kind as usize];
        kind.add(&job, place);
        kind.accepted.insert((job.accepted, job.id), place);
        self.ids.insert(job.id, place);
        let runnable = job.status == JobStatus::Queued;
        let kind = job.kind;
        match self.jobs.get_mut(place as usize) {
            Some(free) => *free = Some(job),
            None => self.jobs.push(Some(job)),
        }
        if runnable {
            self.hint_work(kind);
        }
        place
    }

    /// Takes a job that does not run out of all its indexes.
    pub(super) fn take(&mut self, place: u32) -> Box<Job> {
        let job = self.jobs[place as usize].take().expect("an index names a job that is there");
        self.free.push(place);
        let kind = &mut self.types[job.kind as usize];
        kind.remove(&job);
        kind.accepted.remove(&(job.accepted, job.id));
        self.ids.remove(&job.id);
        job
    }

    /// The one way to change a job: out of its indexes, changed, back into those of its new state.
    pub(super) fn change(&mut self, place: u32, now: Timestamp, change: impl FnOnce(&mut Job)) {
        let job = self.jobs[place as usize].as_deref_mut().expect("an index names a job that is there");
        let kind = &mut self.types[job.kind as usize];
        let before = job.status;
        kind.remove(job);
        if before == JobStatus::InProgress {
            self.leased.remove(&(job.lease_until, job.id, place));
        }
        change(job);
        job.version += 1;
        job.updated_at = now;
        if job.status != before {
            job.entered_at = now;
        }
        kind.add(job, place);
        if job.status == JobStatus::InProgress {
            self.leased.insert((job.lease_until, job.id, place));
        }
        let (id, kind, runnable) = (job.id, job.kind, job.status == JobStatus::Queued && before != job.status);
        self.changed.push(id);
        if runnable {
            self.hint_work(kind);
        }
    }

    /// Changes what no client sees and no index goes by.
    pub(super) fn amend(&mut self, place: u32) -> &mut Job {
        self.jobs[place as usize].as_deref_mut().expect("an index names a job that is there")
    }

    /// Ends the running attempt, and the job if that follows. Returns the state it went to.
    pub(super) fn end(&mut self, place: u32, end: &EndedAttempt<'_>, now: Timestamp) -> JobStatus {
        let job = self.job(place);
        let (kind, effect) = (job.kind, lifecycle::end_attempt(&job.running(now), end, now));
        let status = effect.status;
        let order = status.is_terminal().then(|| self.next_order(now));
        effect.count(self.types[kind as usize].slot(now));
        self.change(place, now, |job| job.end_attempt(effect, order));
        status
    }

    /// The job, unless it is unknown or past its retention.
    pub(super) fn readable(&self, id: JobId, now: Timestamp) -> Option<&Job> {
        self.ids.get(&id).map(|place| self.job(*place)).filter(|job| !job.expired(now))
    }

    pub(super) fn view(&self, job: &Job) -> JobView {
        let kind = &self.types[job.kind as usize];
        job.view(kind.name.clone(), kind.ahead(job, AHEAD_COUNTED))
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

    /// Owner and end of the `Gone` time of a job past its retention, whether pruned or not yet.
    pub(super) fn gone(&self, id: JobId) -> Option<(Option<Digest>, Timestamp)> {
        if let Some(tomb) = self.tombs.get(&id) {
            return Some((tomb.owner, tomb.gone_until));
        }
        let job = self.job(*self.ids.get(&id)?);
        Some((job.owner, lifecycle::gone_until(job.ended_at, job.terms.retention)?))
    }

    /// Told when jobs of a type become runnable. A claimer that is told of the first one goes on until it finds none.
    fn hint_work(&mut self, kind: u32) {
        let kind = &self.types[kind as usize];
        if kind.of(JobStatus::Queued).len() == 1 {
            self.work.push(kind.name.clone());
        }
    }
}
