//! A job as this store keeps it. Rarely used fields are boxed, since most of a million queued jobs lack them.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    job::{
        AttemptRecord, Digest, ErrorRecord, JobId, JobName, JobStatus, JobTerms, JobView, LogLine, Progress,
        TraceContext, TraceParent,
    },
    lifecycle::{self, AttemptEffect, ErrorEffect, RunningJob},
    limits::{ATTEMPTS_KEPT, LOG_BYTES_PER_JOB},
    store::{Filtered, IdempotencyKey, JobLeases, LeaseToken, NewJob, RetryAs, WorkerId},
    time::Timestamp,
};

pub(super) struct Job {
    pub(super) id: JobId,
    /// Whether it may be submitted again: it has a key, or its submitter chose the id.
    pub(super) repeatable: bool,
    /// Its type's place in `State::types`.
    pub(super) type_id: u32,
    pub(super) status: JobStatus,
    pub(super) terms: JobTerms,
    pub(super) payload: Bytes,
    pub(super) fingerprint: Digest,
    pub(super) owner: Option<Digest>,
    pub(super) owner_label: Option<Box<str>>,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) trace: Option<TraceContext>,

    pub(super) version: u64,
    pub(super) attempt: u32,
    pub(super) retries: u32,
    pub(super) losses: u32,
    pub(super) releases: u32,

    /// Its order number when accepted; never changes.
    pub(super) accepted: u64,
    /// Its order number in the index of its state, if that is Queued or terminal.
    pub(super) order: u64,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    /// When it entered its state.
    pub(super) entered_at: Timestamp,
    /// Since when it is, or was, runnable.
    pub(super) runnable_since: Timestamp,
    pub(super) due: Option<Timestamp>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) cancel_requested_at: Option<Timestamp>,

    pub(super) leases: JobLeases,
    /// The worker of the latest attempt.
    pub(super) worker: Option<WorkerId>,
    /// When the lease expires.
    pub(super) lease_until: Timestamp,

    pub(super) result: Option<Bytes>,
    pub(super) error: Option<Box<ErrorRecord>>,
    pub(super) extra: Option<Box<Extra>>,
}

/// Fields that only some jobs have.
#[derive(Default)]
pub(super) struct Extra {
    /// Ended attempts, oldest first, except a completed one.
    pub(super) history: VecDeque<AttemptRecord>,
    pub(super) progress: Option<Progress>,
    pub(super) span: Option<TraceParent>,
    pub(super) retry_of: Option<JobId>,
    pub(super) retried_by: Option<JobId>,
    logs: VecDeque<LogLine>,
    log_bytes: usize,
    lines: u64,
}

impl Job {
    /// A job accepted at `now`.
    pub(super) fn new(new: NewJob, type_id: u32, order: u64, now: Timestamp) -> Self {
        let delayed = !new.delay.is_zero();
        let runnable_since = now + new.delay;
        Self {
            id: new.id,
            repeatable: new.id_chosen || new.key.is_some(),
            type_id,
            status: if delayed { JobStatus::Scheduled } else { JobStatus::Queued },
            terms: new.terms,
            payload: new.payload,
            fingerprint: new.fingerprint,
            owner: new.owner,
            owner_label: new.owner_label.map(String::into_boxed_str),
            key: new.key,
            trace: new.trace,
            version: 1,
            attempt: 0,
            retries: 0,
            losses: 0,
            releases: 0,
            accepted: order,
            order,
            created_at: now,
            updated_at: now,
            entered_at: now,
            runnable_since,
            due: delayed.then_some(runnable_since),
            started_at: None,
            ended_at: None,
            cancel_requested_at: None,
            leases: JobLeases::default(),
            worker: None,
            lease_until: now,
            result: None,
            error: None,
            extra: None,
        }
    }

    /// The new job of an operator's retry.
    pub(super) fn again(&self, new: &RetryAs, name: JobName) -> NewJob {
        NewJob::new(new.id, name, self.payload.clone(), self.terms.clone(), self.fingerprint)
            .owner(self.owner)
            .owner_label(self.owner_label.clone().map(String::from))
            .trace(new.trace.clone())
    }

    pub(super) fn expires_at(&self) -> Option<Timestamp> {
        lifecycle::expires_at(self.ended_at, self.terms.retention)
    }

    pub(super) fn expired(&self, now: Timestamp) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// Whether `token` is the lease that it runs under.
    pub(super) fn runs_under(&self, token: LeaseToken) -> bool {
        self.status == JobStatus::InProgress && self.leases.current == Some(token)
    }

    pub(super) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(super) fn running(&self, now: Timestamp) -> RunningJob {
        RunningJob {
            attempt: self.attempt,
            worker: self.worker,
            started_at: self.started_at.unwrap_or(now),
            retry_count: self.retries,
            loss_count: self.losses,
            release_count: self.releases,
            max_losses: self.terms.max_losses,
            cancel_requested: self.cancel_requested_at.is_some(),
        }
    }

    /// Writes the end of the running attempt. `order` is the job's new order number, if it is terminal.
    pub(super) fn end_attempt(&mut self, effect: AttemptEffect<'_>, order: Option<u64>) {
        self.status = effect.status;
        (self.retries, self.losses, self.releases) = (effect.retry_count, effect.loss_count, effect.release_count);
        match effect.error {
            ErrorEffect::Keep => {}
            ErrorEffect::Clear => self.error = None,
            ErrorEffect::Replace(error) => self.error = Some(Box::new(error.clone())),
        }
        self.due = effect.due.or(self.due);
        self.runnable_since = effect.runnable_since.unwrap_or(self.runnable_since);
        self.ended_at = effect.ended_at;
        self.order = order.unwrap_or(self.order);
        if let Some(record) = effect.record {
            let history = &mut self.extra().history;
            history.push_back(record);
            while history.len() > ATTEMPTS_KEPT {
                history.pop_front();
            }
        }
    }

    /// Appends lines of the latest attempt.
    pub(super) fn log(&mut self, lines: &[LogLine]) {
        let attempt = self.attempt;
        for line in lines {
            self.extra().log(line, attempt);
        }
    }

    /// The values that filters of a list compare.
    pub(super) fn filtered(&self) -> Filtered<'_> {
        Filtered {
            id: self.id,
            owner: self.owner,
            created_at: self.created_at,
            error: self.error.as_deref(),
            progress: self.extra.as_ref().and_then(|extra| extra.progress.as_ref()),
        }
    }

    fn attempts(&self) -> Vec<AttemptRecord> {
        let recorded = self.extra.iter().flat_map(|extra| extra.history.iter().cloned()).collect();
        lifecycle::attempts(recorded, self.status, self.attempt, self.worker, self.started_at, self.ended_at)
    }

    pub(super) fn view(&self, name: JobName, ahead: Option<u64>) -> JobView {
        let extra = self.extra.as_deref();
        JobView {
            id: self.id,
            name,
            status: self.status,
            attempt: self.attempt,
            retry_count: self.retries,
            loss_count: self.losses,
            release_count: self.releases,
            max_retries: self.terms.max_retries,
            priority: self.terms.priority,
            version: self.version,
            created_at: self.created_at,
            scheduled_at: self.due,
            started_at: self.started_at,
            completed_at: self.ended_at,
            last_updated_at: self.updated_at,
            expires_at: self.expires_at(),
            cancel_requested_at: self.cancel_requested_at,
            progress: extra.and_then(|extra| extra.progress.clone()),
            result: self.result.clone(),
            error: self.error.as_deref().cloned(),
            attempts: self.attempts(),
            ahead,
            retry_of: extra.and_then(|extra| extra.retry_of),
            retried_by: extra.and_then(|extra| extra.retried_by),
            trace: self.trace.clone(),
            owner: self.owner,
            owner_label: self.owner_label.clone().map(String::from),
        }
    }
}

impl Extra {
    /// Appends a line. Beyond the limit the oldest attempt's lines are deleted, never the present attempt's.
    fn log(&mut self, line: &LogLine, attempt: u32) {
        self.lines += 1;
        self.log_bytes += line.bytes();
        self.logs.push_back(LogLine { line: self.lines, attempt, ..line.clone() });
        while self.log_bytes > LOG_BYTES_PER_JOB {
            let oldest = self.logs.front().map_or(attempt, |line| line.attempt);
            if oldest == attempt {
                break;
            }
            while self.logs.front().is_some_and(|line| line.attempt == oldest) {
                self.log_bytes -= self.logs.pop_front().map_or(0, |line| line.bytes());
            }
        }
    }

    pub(super) fn logs(&self, after: u64, limit: u32) -> Vec<LogLine> {
        let start = self.logs.partition_point(|line| line.line <= after);
        self.logs.iter().skip(start).take(limit as usize).cloned().collect()
    }
}
