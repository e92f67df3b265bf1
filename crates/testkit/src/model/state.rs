//! The model of a store: a list of jobs that every call scans. Must not know how sequences are made or compared.

use std::{collections::BTreeMap, time::Duration};

use async_endpoints_core::{
    JobId, JobName, JobStatus, JobView, Timestamp,
    job::{AttemptOutcome, AttemptRecord, ErrorRecord, JobTerms, LogLine, TraceParent},
    limits::{ATTEMPTS_KEPT, KEY_SECONDS},
    store::{
        Attempt, CancelOutcome, Claim, InsertOutcome, JobLookup, Lease, LeaseToken, ListFilter, MinuteStats, NewJob,
        Outcome, Renewed, Report, RetryAs, RetryOutcome, Settlement,
    },
};
use bytes::Bytes;

/// An order number: milliseconds, and a number within the millisecond.
type Place = (i64, u64);

/// A token, and the state that settling by it led to.
type Held = (LeaseToken, Option<JobStatus>);

/// A job: its view, and values that readers do not see. `view.version` counts the model's own changes.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) view: JobView,
    pub(crate) new: NewJob,
    pub(crate) place: Place,
    ended: Place,
    pub(crate) runnable_since: Timestamp,
    pub(crate) expires: Timestamp,
    current: Option<Held>,
    last: Option<Held>,
    /// The last lease before a reclaim removed the current one. After the next claim a store may have forgotten it.
    blurred: Option<Held>,
    span: Option<TraceParent>,
    pub(crate) logs: Vec<LogLine>,
    /// After a release, a store may keep the error before or none.
    pub(crate) error_open: bool,
    /// Requeued after a start: its order number is older than its wait.
    pub(crate) returned: bool,
    /// Pruned for certain, so no longer counted.
    pub(crate) pruned: bool,
}

/// The expected answer to a settlement.
#[derive(Debug, PartialEq)]
pub(crate) enum Expect {
    Settled(JobStatus),
    Lost,
    /// The contract allows this state, and Lost.
    Either(JobStatus),
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) jobs: Vec<Job>,
    pub(crate) minutes: BTreeMap<(i64, JobName), MinuteStats>,
    number: u64,
}

pub(crate) fn gone_until(job: &Job) -> Option<Timestamp> {
    job.view.expires_at.map(|at| at + job.new.terms.retention)
}

fn has_code(job: &JobView, code: &str) -> bool {
    job.error.as_ref().is_some_and(|error| error.code == code)
}

/// Whether an ASCII text is in the id, the error's detail or the progress, in upper or lower case.
fn has_text(job: &JobView, text: &str) -> bool {
    let detail = job.error.as_ref().and_then(|error| error.detail.clone());
    let message = job.progress.as_ref().and_then(|progress| progress.message.clone());
    let fields = [Some(job.id.to_string()), detail, message];
    fields.into_iter().flatten().any(|field| field.to_lowercase().contains(&text.to_lowercase()))
}

impl Model {
    pub(crate) fn at(&self, id: JobId) -> Option<usize> {
        self.jobs.iter().position(|job| job.view.id == id)
    }

    fn expired(&self, job: &Job) -> bool {
        job.view.expires_at.is_some_and(|at| at <= self.now)
    }

    pub(crate) fn readable(&self, job: &Job) -> bool {
        !self.expired(job)
    }

    /// Whether its record may be forgotten or not, so that no answer can be expected.
    pub(crate) fn unclear(&self, job: &Job) -> bool {
        let repeatable = job.new.id_chosen || job.new.key.is_some();
        let day = job.view.created_at + Duration::from_secs(if repeatable { KEY_SECONDS } else { 0 });
        gone_until(job).is_some_and(|until| until.max(day) <= self.now)
    }

    /// Forgets every job that may be forgotten, as after a complete prune.
    pub(crate) fn forget(&mut self) {
        let kept = self.jobs.iter().filter(|job| !self.unclear(job)).cloned().collect();
        self.jobs = kept;
        self.pruned();
    }

    pub(crate) fn pruned(&mut self) {
        let now = self.now;
        for job in &mut self.jobs {
            job.pruned |= job.view.expires_at.is_some_and(|at| at <= now);
        }
    }

    /// The present minute of a job's type.
    fn minute(&mut self, at: usize) -> &mut MinuteStats {
        let (minute, name) = (self.now.minute(), &self.jobs[at].view.name);
        self.minutes.entry((minute, name.clone())).or_insert_with(|| MinuteStats::new(minute, name.clone()))
    }

    fn numbered(&mut self) -> Place {
        self.number += 1;
        (self.now.as_millis(), self.number)
    }

    /// The sort key of runnable jobs.
    fn sort_key(job: &Job) -> (u8, Place) {
        (9 - job.view.priority.get(), job.place)
    }

    /// The view that `get` returns.
    pub(crate) fn view(&self, at: usize) -> JobView {
        let job = &self.jobs[at];
        let queued = job.view.status == JobStatus::Queued;
        let before = self.jobs.iter().filter(|other| {
            other.view.name == job.view.name
                && other.view.status == JobStatus::Queued
                && Self::sort_key(other) < Self::sort_key(job)
        });
        JobView { ahead: queued.then(|| before.count() as u64), ..job.view.clone() }
    }

    pub(crate) fn lookup(&self, id: JobId) -> JobLookup {
        let Some(at) = self.at(id) else { return JobLookup::NotFound };
        let job = &self.jobs[at];
        if self.readable(job) {
            JobLookup::Found(Box::new(self.view(at)))
        } else if gone_until(job) > Some(self.now) {
            JobLookup::Gone { owner: job.view.owner }
        } else {
            JobLookup::NotFound
        }
    }

    /// The answer to a replay. A record outlives `Gone` for readers.
    fn existing(&self, at: usize) -> JobLookup {
        let job = &self.jobs[at];
        match self.lookup(job.view.id) {
            JobLookup::NotFound => JobLookup::Gone { owner: job.view.owner },
            other => other,
        }
    }

    pub(crate) fn keyed(&self, new: &NewJob) -> Option<usize> {
        let key = new.key.as_ref()?;
        self.jobs.iter().position(|job| {
            job.new.key.as_ref() == Some(key) && job.view.owner == new.owner && job.view.name == new.name
        })
    }

    pub(crate) fn insert(&mut self, new: &NewJob) -> InsertOutcome {
        if let Some(at) = self.keyed(new) {
            let same = self.jobs[at].new.fingerprint == new.fingerprint;
            return if same { InsertOutcome::Existing(self.existing(at)) } else { InsertOutcome::Conflict };
        }
        if let Some(at) = self.at(new.id) {
            let old = &self.jobs[at].new;
            let same = old.fingerprint == new.fingerprint && old.owner == new.owner && new.key.is_none();
            return if same { InsertOutcome::Existing(self.existing(at)) } else { InsertOutcome::Conflict };
        }
        let waiting = self.jobs.iter().filter(|job| {
            let view = &job.view;
            let waits = view.status == JobStatus::Queued || view.status == JobStatus::Scheduled && view.attempt == 0;
            waits && view.name == new.name
        });
        if new.queue_limit.is_some_and(|limit| waiting.count() as u64 >= limit) {
            return InsertOutcome::Full;
        }
        let at = self.add(new, None);
        InsertOutcome::Inserted { created_at: self.now, version: 1, ahead: self.view(at).ahead }
    }

    fn add(&mut self, new: &NewJob, retry_of: Option<JobId>) -> usize {
        let mut place = self.numbered();
        let view = JobView { retry_of, ..new.view(self.now, 1, None) };
        let runnable_since = view.scheduled_at.unwrap_or(self.now);
        if view.scheduled_at.is_some() {
            place = (runnable_since.as_millis(), 0);
        }
        self.jobs.push(Job {
            view,
            new: new.clone(),
            place,
            ended: (0, 0),
            runnable_since,
            expires: self.now,
            current: None,
            last: None,
            blurred: None,
            span: None,
            logs: Vec::new(),
            error_open: false,
            returned: false,
            pruned: false,
        });
        let at = self.jobs.len() - 1;
        self.minute(at).arrivals += 1;
        at
    }

    fn touch(&mut self, at: usize) -> &mut Job {
        let job = &mut self.jobs[at];
        job.view.version += 1;
        job.view.last_updated_at = self.now;
        job
    }

    fn requested(claim: &Claim, name: &JobName) -> bool {
        claim.quotas.iter().any(|quota| quota.name == *name)
    }

    fn promote(&mut self, claim: &Claim) {
        for at in 0..self.jobs.len() {
            let view = &self.jobs[at].view;
            let due = view.status == JobStatus::Scheduled && view.scheduled_at <= Some(self.now);
            if due && Self::requested(claim, &view.name) {
                self.touch(at).view.status = JobStatus::Queued;
            }
        }
    }

    /// The attempts that a claim starts, and its `next_claim`.
    pub(crate) fn claim(&mut self, claim: &Claim) -> (Vec<Attempt>, Option<Duration>) {
        self.promote(claim);
        let mut queue: Vec<usize> = (0..self.jobs.len())
            .filter(|at| self.jobs[*at].view.status == JobStatus::Queued)
            .filter(|at| Self::requested(claim, &self.jobs[*at].view.name))
            .collect();
        queue.sort_by_key(|at| Self::sort_key(&self.jobs[*at]));
        let mut left: Vec<(JobName, u32)> = claim.quotas.iter().map(|quota| (quota.name.clone(), quota.max)).collect();
        let (mut taken, mut bytes, mut rest) = (Vec::new(), 0, false);
        let mut full = false;
        for at in queue {
            let job = &self.jobs[at];
            let quota =
                left.iter_mut().find(|(name, _)| *name == job.view.name).expect("only requested types are queued");
            full |= taken.len() >= claim.max as usize;
            let size = job.new.payload.len();
            if quota.1 > 0 && !full {
                full |= !taken.is_empty() && bytes + size > claim.max_bytes;
            }
            if full || quota.1 == 0 {
                rest = true;
                continue;
            }
            quota.1 -= 1;
            bytes += size;
            taken.push(self.start(at, claim));
        }
        let due = self.jobs.iter().filter(|job| job.view.status == JobStatus::Scheduled);
        let due =
            due.filter(|job| Self::requested(claim, &job.view.name)).filter_map(|job| job.view.scheduled_at).min();
        let next = due.map(|due| due.since(self.now));
        (taken, if rest { Some(Duration::ZERO) } else { next })
    }

    fn start(&mut self, at: usize, claim: &Claim) -> Attempt {
        let now = self.now;
        let waited = now.since(self.jobs[at].runnable_since);
        self.minute(at).queue_time.record(waited);
        let job = self.touch(at);
        job.blurred = if job.current.is_none() { job.last.or(job.blurred) } else { None };
        job.last = job.current.replace((claim.token, None));
        job.expires = now + claim.lease;
        job.error_open = false;
        let view = &mut job.view;
        view.status = JobStatus::InProgress;
        view.attempt += 1;
        view.started_at = Some(now);
        view.progress = None;
        let attempt = view.attempt;
        view.attempts.push(AttemptRecord {
            attempt,
            worker: Some(claim.worker),
            started_at: now,
            ended_at: None,
            outcome: None,
            error: None,
        });
        if view.attempts.len() > ATTEMPTS_KEPT {
            view.attempts.remove(0);
        }
        Attempt {
            lease: Lease { job: view.id, token: claim.token },
            name: view.name.clone(),
            attempt: view.attempt,
            retry_count: view.retry_count,
            max_retries: view.max_retries,
            priority: view.priority,
            payload: job.new.payload.clone(),
            created_at: view.created_at,
            runnable_since: job.runnable_since,
            started_at: now,
            owner: view.owner,
            owner_label: view.owner_label.clone(),
            trace: view.trace.clone(),
            previous_span: job.span.take(),
        }
    }

    /// The job that runs under this lease.
    fn running(&self, lease: Lease) -> Option<usize> {
        let at = self.at(lease.job)?;
        let job = &self.jobs[at];
        let held = job.current.is_some_and(|(token, _)| token == lease.token);
        (job.view.status == JobStatus::InProgress && held).then_some(at)
    }

    pub(crate) fn renew(&mut self, lease: Lease, lasts: Duration) -> Renewed {
        let until = self.now + lasts;
        let Some(at) = self.running(lease) else { return Renewed::Lost };
        self.jobs[at].expires = until;
        let requested = self.jobs[at].view.cancel_requested_at.is_some();
        if requested { Renewed::CancelRequested } else { Renewed::Held }
    }

    pub(crate) fn report(&mut self, report: &Report) -> bool {
        let now = self.now;
        let Some(at) = self.running(report.lease) else { return false };
        if let Some(progress) = &report.progress {
            self.touch(at).view.progress = Some(progress.stored(now));
        }
        self.log(at, &report.logs);
        true
    }

    fn log(&mut self, at: usize, lines: &[LogLine]) {
        let job = &mut self.jobs[at];
        for line in lines {
            let (number, attempt) = (job.logs.len() as u64 + 1, job.view.attempt);
            job.logs.push(LogLine { line: number, attempt, ..line.clone() });
        }
    }

    /// Ends the running attempt of a job.
    fn end(&mut self, at: usize, outcome: AttemptOutcome, after: JobStatus, error: Option<&ErrorRecord>) {
        let (now, place) = (self.now, self.numbered());
        let minute = self.minute(at);
        minute.attempts[outcome as usize] += 1;
        minute.count_ended(after);
        let job = self.touch(at);
        job.view.status = after;
        let record = job.view.attempts.last_mut().expect("a running job has an attempt");
        (record.ended_at, record.outcome, record.error) = (Some(now), Some(outcome), error.cloned());
        job.error_open = outcome == AttemptOutcome::Released;
        if !job.error_open {
            job.view.error = error.cloned();
        }
        match after {
            JobStatus::Queued => (job.runnable_since, job.returned) = (now, true),
            _ if after.is_terminal() => self.terminal(at, place),
            _ => {}
        }
    }

    fn terminal(&mut self, at: usize, place: Place) {
        let job = &mut self.jobs[at];
        job.ended = place;
        job.view.completed_at = Some(self.now);
        job.view.expires_at = Some(self.now + job.new.terms.retention);
    }

    pub(crate) fn settle(&mut self, settlement: &Settlement) -> Expect {
        let lease = settlement.lease;
        if let Some(at) = self.running(lease) {
            let ran = self.now.since(self.jobs[at].view.started_at.unwrap_or_default());
            let minute = self.minute(at);
            minute.processing_time.record(ran);
            minute.slow += u64::from(settlement.slow);
            let status = self.apply(at, settlement);
            if let Some(progress) = &settlement.progress {
                self.jobs[at].view.progress = Some(progress.stored(self.now));
            }
            self.log(at, &settlement.logs);
            self.jobs[at].current = Some((lease.token, Some(status)));
            return Expect::Settled(status);
        }
        let Some(at) = self.at(lease.job) else { return Expect::Lost };
        let job = &self.jobs[at];
        let of = |held: Option<Held>| held.filter(|(token, _)| *token == lease.token).and_then(|(_, status)| status);
        match (of(job.current).or(of(job.last)), of(job.blurred)) {
            (Some(status), _) if self.expired(job) => Expect::Either(status),
            (Some(status), _) => Expect::Settled(status),
            (None, Some(status)) => Expect::Either(status),
            (None, None) => Expect::Lost,
        }
    }

    fn apply(&mut self, at: usize, settlement: &Settlement) -> JobStatus {
        use AttemptOutcome as Out;
        self.jobs[at].span = settlement.span;
        let requested = self.jobs[at].view.cancel_requested_at.is_some();
        if requested && !matches!(settlement.outcome, Outcome::Completed { .. }) {
            self.end(at, Out::Canceled, JobStatus::Canceled, Some(&settlement.if_canceled));
            return JobStatus::Canceled;
        }
        match &settlement.outcome {
            Outcome::Completed { result } => {
                self.end(at, Out::Completed, JobStatus::Completed, None);
                self.jobs[at].view.result = Some(result.clone());
            }
            Outcome::Retry { delay, error } => {
                let due = self.now + *delay;
                self.end(at, Out::Retried, JobStatus::Scheduled, Some(error));
                let job = &mut self.jobs[at];
                job.view.retry_count += 1;
                job.view.scheduled_at = Some(due);
                (job.runnable_since, job.place, job.returned) = (due, (due.as_millis(), 0), false);
            }
            Outcome::Failed { error } => self.end(at, Out::Failed, JobStatus::Failed, Some(error)),
            Outcome::Canceled { error } => self.end(at, Out::Canceled, JobStatus::Canceled, Some(error)),
            Outcome::Released => {
                self.end(at, Out::Released, JobStatus::Queued, None);
                self.jobs[at].view.release_count += 1;
            }
        }
        self.jobs[at].view.status
    }

    pub(crate) fn cancel(&mut self, id: JobId, error: &ErrorRecord) -> CancelOutcome {
        let at = match (self.lookup(id), self.at(id)) {
            (JobLookup::Found(_), Some(at)) => at,
            (JobLookup::Gone { owner }, _) => return CancelOutcome::Gone { owner },
            _ => return CancelOutcome::NotFound,
        };
        let (status, now) = (self.jobs[at].view.status, self.now);
        if status.is_terminal() {
            return CancelOutcome::Terminal(Box::new(self.view(at)));
        }
        if status == JobStatus::InProgress {
            if self.jobs[at].view.cancel_requested_at.is_none() {
                self.touch(at).view.cancel_requested_at = Some(now);
            }
            return CancelOutcome::Requested(Box::new(self.view(at)));
        }
        let place = self.numbered();
        self.minute(at).count_ended(JobStatus::Canceled);
        let view = &mut self.touch(at).view;
        (view.status, view.error) = (JobStatus::Canceled, Some(error.clone()));
        self.jobs[at].error_open = false;
        self.terminal(at, place);
        CancelOutcome::Canceled(Box::new(self.view(at)))
    }

    pub(crate) fn retry(&mut self, id: JobId, new: &RetryAs) -> RetryOutcome {
        let at = match (self.lookup(id), self.at(id)) {
            (JobLookup::Found(_), Some(at)) => at,
            (JobLookup::Gone { owner }, _) => return RetryOutcome::Gone { owner },
            _ => return RetryOutcome::NotFound,
        };
        let view = &self.jobs[at].view;
        if let Some(again) = view.retried_by {
            return RetryOutcome::Existing(self.lookup(again));
        }
        if !matches!(view.status, JobStatus::Failed | JobStatus::Canceled) {
            return RetryOutcome::NotEnded(view.status);
        }
        if self.at(new.id).is_some() {
            return RetryOutcome::Conflict;
        }
        let job = &mut self.jobs[at];
        job.view.version += 1;
        job.view.retried_by = Some(new.id);
        let plain = Duration::ZERO;
        let copy = NewJob {
            id: new.id,
            id_chosen: false,
            trace: new.trace.clone(),
            key: None,
            delay: plain,
            ..job.new.clone()
        };
        let made = self.add(&copy, Some(id));
        RetryOutcome::Created(Box::new(self.view(made)))
    }

    /// Jobs whose lease has expired, oldest first.
    pub(crate) fn expired_leases(&self) -> Vec<(Timestamp, JobId)> {
        let running = self.jobs.iter().filter(|job| job.view.status == JobStatus::InProgress);
        let mut expired: Vec<_> =
            running.filter(|job| job.expires <= self.now).map(|job| (job.expires, job.view.id)).collect();
        expired.sort_unstable();
        expired
    }

    /// Reclaims one lease. Returns the job's new state.
    pub(crate) fn lose(&mut self, id: JobId, lost: &ErrorRecord, canceled: &ErrorRecord) -> JobStatus {
        use AttemptOutcome as Out;
        let at = self.at(id).expect("an expired lease is of a known job");
        let job = &mut self.jobs[at];
        job.view.loss_count += 1;
        (job.current, job.span) = (None, None);
        let JobTerms { max_losses, .. } = job.new.terms;
        let (outcome, after, error) = match () {
            () if job.view.cancel_requested_at.is_some() => (Out::Canceled, JobStatus::Canceled, canceled),
            () if job.view.loss_count > max_losses => (Out::Lost, JobStatus::Failed, lost),
            () => (Out::Lost, JobStatus::Queued, lost),
        };
        self.end(at, outcome, after, Some(error));
        after
    }

    /// The jobs of a list with their sort keys. Jobs with equal keys may have any order.
    pub(crate) fn list(&self, filter: &ListFilter) -> Vec<(i64, i64, u64, JobId)> {
        let listed = self.jobs.iter().filter(|job| self.readable(job));
        let listed = listed.filter(|job| filter.status.is_none_or(|status| job.view.status == status));
        let listed = listed.filter(|job| filter.name.as_ref().is_none_or(|name| job.view.name == *name));
        let listed = listed.filter(|job| filter.owner.is_none_or(|owner| job.view.owner == Some(owner)));
        let listed = listed.filter(|job| filter.since.is_none_or(|since| job.view.created_at >= since));
        let listed = listed.filter(|job| filter.until.is_none_or(|until| job.view.created_at < until));
        let listed = listed.filter(|job| filter.code.as_ref().is_none_or(|code| has_code(&job.view, code)));
        let listed = listed.filter(|job| filter.text.as_ref().is_none_or(|text| has_text(&job.view, text)));
        let mut ordered: Vec<_> = listed
            .map(|job| {
                let (first, millis, number) = match filter.status {
                    None => (0, -job.view.created_at.as_micros(), u64::MAX - self.accepted(job)),
                    Some(JobStatus::Queued) => {
                        let (first, (millis, number)) = Self::sort_key(job);
                        (i64::from(first), millis, number)
                    }
                    Some(JobStatus::Scheduled) => (0, job.view.scheduled_at.unwrap_or_default().as_micros(), 0),
                    Some(JobStatus::InProgress) => (0, job.view.started_at.unwrap_or_default().as_micros(), 0),
                    Some(_) => (0, -job.view.completed_at.unwrap_or_default().as_micros(), 0),
                };
                (first, millis, number, job.view.id)
            })
            .collect();
        ordered.sort_unstable();
        ordered
    }

    /// Its number in the order of acceptance.
    fn accepted(&self, job: &Job) -> u64 {
        self.at(job.view.id).unwrap_or(0) as u64
    }

    pub(crate) fn payload(size: u8) -> Bytes {
        Bytes::from(vec![size; usize::from(size)])
    }
}
