//! A job's row: its columns, and what follows from them alone.

use std::time::Duration;

use async_endpoints_core::{
    JobId, JobStatus, Priority, Timestamp,
    job::{Digest, ErrorRecord, JobTerms, Progress, TraceContext, TraceParent},
    lifecycle::{self, AttemptEffect, ErrorEffect, RunningJob},
    store::{Filtered, JobLeases, LeaseToken, WorkerId},
};
use rusqlite::{Connection, Row};

use crate::{
    column::{Columns, Parameters},
    failure::Failure,
    score::{queued_score, time_score},
};

/// Declares [`Job`] with one field for each column of table `jobs`, and all statements that read or write a whole row.
/// An update leaves the `fixed` columns out.
macro_rules! job_columns {
    (
        fixed { $($(#[$fixed_doc:meta])* $fixed:ident: $fixed_type:ty,)* }
        changing { $($(#[$changing_doc:meta])* $changing:ident: $changing_type:ty,)* }
    ) => {
        pub(crate) struct Job {
            $($(#[$fixed_doc])* pub(crate) $fixed: $fixed_type,)*
            $($(#[$changing_doc])* pub(crate) $changing: $changing_type,)*
        }

        /// The columns that [`Job::read`] expects.
        pub(crate) const COLUMNS: &str =
            concat!($(stringify!($fixed), ", ",)* $(stringify!($changing), ", ",)* "score");

        pub(crate) const INSERT: &str = concat!(
            "INSERT INTO jobs (", $(stringify!($fixed), ", ",)* $(stringify!($changing), ", ",)* "score) VALUES (",
            $(parameter!($fixed),)* $(parameter!($changing),)* "?) ON CONFLICT (id) DO NOTHING"
        );

        pub(crate) const UPDATE: &str =
            concat!("UPDATE jobs SET ", $(stringify!($changing), " = ?, ",)* "score = ? WHERE seq = ?");

        impl Job {
            /// Decodes a row of [`COLUMNS`], or says why it is unreadable.
            pub(crate) fn read(row: &Row<'_>) -> Result<Self, String> {
                let mut columns = Columns { row, next: 0 };
                let job = Self {
                    $($fixed: columns.read()?,)*
                    $($changing: columns.read()?,)*
                };
                job.checked()
            }

            /// Inserts the row. Returns false if the id exists.
            pub(crate) fn insert(&self, conn: &Connection) -> Result<bool, Failure> {
                let mut insert = Parameters { statement: conn.prepare_cached(INSERT)?, bound: 0 };
                $(insert.bind(&self.$fixed)?;)*
                $(insert.bind(&self.$changing)?;)*
                insert.bind(&self.score())?;
                Ok(insert.statement.raw_execute()? == 1)
            }

            /// Updates the changing columns.
            pub(crate) fn update(&self, conn: &Connection) -> Result<(), Failure> {
                let mut update = Parameters { statement: conn.prepare_cached(UPDATE)?, bound: 0 };
                $(update.bind(&self.$changing)?;)*
                update.bind(&self.score())?;
                update.bind(&self.seq)?;
                update.statement.raw_execute()?;
                Ok(())
            }
        }
    };
}

macro_rules! parameter {
    ($column:ident) => {
        "?, "
    };
}

// The names and their meaning are those of the files in `sql`.
job_columns! {
    fixed {
        seq: i64,
        id: JobId,
        type_id: i64,
        priority: Priority,
        max_retries: u32,
        max_losses: u32,
        retention: Duration,
        payload_bytes: i64,
        fingerprint: Digest,
        owner: Option<Digest>,
        owner_label: Option<String>,
        key: Option<String>,
        repeatable: bool,
        traceparent: Option<TraceParent>,
        tracestate: Option<String>,
        created_at: Timestamp,
        retry_of: Option<JobId>,
    }
    changing {
        status: JobStatus,
        version: i64,
        attempt: u32,
        retries: u32,
        losses: u32,
        releases: u32,
        order_number: i64,
        updated_at: Timestamp,
        entered_at: Timestamp,
        runnable_since: Timestamp,
        due: Option<Timestamp>,
        started_at: Option<Timestamp>,
        ended_at: Option<Timestamp>,
        cancel_requested_at: Option<Timestamp>,
        /// The latest claim's token. Kept after the settlement to recognize its repeat, removed by a reclaim.
        token: Option<LeaseToken>,
        /// The worker of the latest claim.
        worker: Option<WorkerId>,
        settled: Option<JobStatus>,
        /// The claim before, if it was settled: its repeat may arrive late.
        last_token: Option<LeaseToken>,
        last_settled: Option<JobStatus>,
        lease_until: Option<Timestamp>,
        deadline: Option<Timestamp>,
        error: Option<ErrorRecord>,
        progress: Option<Progress>,
        span: Option<TraceParent>,
        retried_by: Option<JobId>,
        log_lines: i64,
        log_bytes: i64,
    }
}

/// Larger than any number in a job's row.
const MAX: i64 = 1 << 60;

impl Job {
    /// Checks what later steps rely on: the times of its status, and numbers that can be added to.
    fn checked(self) -> Result<Self, String> {
        let missing = match self.status {
            JobStatus::Scheduled => self.due.is_none(),
            JobStatus::InProgress => self.started_at.is_none() || self.lease_until.is_none() || self.token.is_none(),
            status => status.is_terminal() && self.ended_at.is_none(),
        };
        if missing {
            return Err(format!("a job that is {} lacks a time or token of that status", self.status));
        }
        let small = [self.attempt, self.retries, self.losses, self.releases];
        let large = [self.version, self.order_number, self.log_lines, self.log_bytes];
        if small.contains(&u32::MAX) || !large.iter().all(|number| (0..MAX).contains(number)) {
            return Err("a counter is out of range".to_owned());
        }
        Ok(self)
    }

    pub(crate) fn terms(&self) -> JobTerms {
        JobTerms {
            priority: self.priority,
            max_retries: self.max_retries,
            max_losses: self.max_losses,
            retention: self.retention,
        }
    }

    pub(crate) fn trace(&self) -> Option<TraceContext> {
        let traceparent = self.traceparent?;
        Some(TraceContext { traceparent, tracestate: self.tracestate.clone() })
    }

    /// Its position in the index of its status.
    pub(crate) fn score(&self) -> i64 {
        match self.status {
            JobStatus::Queued => queued_score(self.priority, self.order_number),
            JobStatus::Scheduled => time_score(self.due.unwrap_or_default()),
            JobStatus::InProgress => time_score(self.started_at.unwrap_or_default()),
            JobStatus::Completed | JobStatus::Failed | JobStatus::Canceled => self.order_number,
        }
    }

    /// The values that decide which counts include the job.
    pub(crate) const fn counted(&self) -> (JobStatus, Priority, u32) {
        (self.status, self.priority, self.attempt)
    }

    /// When an ended job expires.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        lifecycle::expires_at(self.ended_at, self.retention)
    }

    /// The values that filters of a list compare.
    pub(crate) fn filtered(&self) -> Filtered<'_> {
        Filtered {
            id: self.id,
            owner: self.owner,
            created_at: self.created_at,
            error: self.error.as_ref(),
            progress: self.progress.as_ref(),
        }
    }

    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at().is_some_and(|at| at <= now)
    }

    /// Until when readers of an expired job get "gone".
    pub(crate) fn gone_until(&self) -> Option<Timestamp> {
        lifecycle::gone_until(self.ended_at, self.retention)
    }

    /// Whether the job runs under this lease.
    pub(crate) fn runs_under(&self, token: LeaseToken) -> bool {
        self.status == JobStatus::InProgress && self.token == Some(token)
    }

    /// The status that a settlement by this lease led to.
    pub(crate) fn settled_by(&self, token: LeaseToken) -> Option<JobStatus> {
        let last = self.last_token.zip(self.last_settled);
        JobLeases { current: self.token, settled: self.settled, last }.settled_by(token)
    }

    pub(crate) fn running(&self, now: Timestamp) -> RunningJob {
        RunningJob {
            attempt: self.attempt,
            worker: self.worker,
            started_at: self.started_at.unwrap_or(now),
            retry_count: self.retries,
            loss_count: self.losses,
            release_count: self.releases,
            max_losses: self.max_losses,
            cancel_requested: self.cancel_requested_at.is_some(),
        }
    }

    /// Writes the end of the running attempt. `order_number` is the job's place among ended jobs, if it is terminal.
    pub(crate) fn end_attempt(&mut self, effect: &AttemptEffect<'_>, order_number: Option<i64>) {
        self.status = effect.status;
        (self.retries, self.losses, self.releases) = (effect.retry_count, effect.loss_count, effect.release_count);
        match effect.error {
            ErrorEffect::Keep => {}
            ErrorEffect::Clear => self.error = None,
            ErrorEffect::Replace(error) => self.error = Some(error.clone()),
        }
        self.due = effect.due.or(self.due);
        self.runnable_since = effect.runnable_since.unwrap_or(self.runnable_since);
        self.ended_at = effect.ended_at;
        self.order_number = order_number.unwrap_or(self.order_number);
        (self.lease_until, self.deadline) = (None, None);
    }
}
