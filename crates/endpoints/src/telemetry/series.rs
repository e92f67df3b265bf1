//! The series of one job type, bound to their labels.

use std::time::{Duration, Instant};

use async_endpoints_core::{JobStatus, job::AttemptOutcome};
use async_endpoints_telemetry::{
    Attachment, Instrument, Timer,
    opentelemetry::{
        KeyValue,
        metrics::{BoundCounter, Counter},
    },
};

use super::{catalogue as c, cause::Cause};

/// Error code of jobs and attempts whose worker died or lost the store.
pub(crate) const WORKER_LOST: &str = "WORKER_LOST";

/// Label values of the outcomes of attempts, in the order of [`AttemptOutcome::ALL`].
pub(super) const OUTCOMES: [&str; 6] = ["completed", "retried", "failed", "canceled", "released", "lost"];

/// Result of a submission.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum SubmissionResult {
    Accepted,
    Duplicate,
    Conflict,
    Invalid,
    Rejected,
}

impl SubmissionResult {
    /// Every result in the order of the enum, with its label value.
    const ALL: [(Self, &str); 5] = [
        (Self::Accepted, "accepted"),
        (Self::Duplicate, "duplicate"),
        (Self::Conflict, "conflict"),
        (Self::Invalid, "invalid"),
        (Self::Rejected, "rejected"),
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

pub(crate) struct TypeSeries {
    pub(super) label: KeyValue,
    pub(super) queued: BoundCounter<u64>,
    pub(super) retries: BoundCounter<u64>,
    pub(super) recovered: BoundCounter<u64>,
    pub(super) queue_time: Timer,
    submissions: [BoundCounter<u64>; 5],
    processed: BoundCounter<u64>,
    canceled: BoundCounter<u64>,
    /// Attempts with an outcome that has one error code or none.
    completed_attempts: BoundCounter<u64>,
    canceled_attempts: BoundCounter<u64>,
    released_attempts: BoundCounter<u64>,
    lost_attempts: BoundCounter<u64>,
    /// By outcome. The duration of a lost attempt is unknown.
    processing_time: [Timer; 5],
    /// Of completed, failed and canceled jobs.
    total_time: [Timer; 3],
}

impl TypeSeries {
    pub(super) fn new(attachment: &Attachment, attempts: &Counter<u64>, name: &str) -> Self {
        let label = KeyValue::new("job_type", name.to_owned());
        let type_only = [label.clone()];
        let with = |name: &'static str, value: &'static str| [label.clone(), KeyValue::new(name, value)];
        let with_code = |outcome: &'static str, code: &'static str| {
            [label.clone(), KeyValue::new("outcome", outcome), KeyValue::new("error_type", code)]
        };
        let submissions = attachment.counter(&c::SUBMISSIONS);
        let counter = |instrument: &Instrument| attachment.counter(instrument).bind(&type_only);
        Self {
            queued: counter(&c::QUEUED),
            submissions: SubmissionResult::ALL.map(|(_, result)| submissions.bind(&with("result", result))),
            processed: counter(&c::PROCESSED),
            canceled: counter(&c::CANCELED),
            retries: counter(&c::RETRIES),
            recovered: counter(&c::RECOVERED),
            completed_attempts: attempts.bind(&with("outcome", "completed")),
            canceled_attempts: attempts.bind(&with_code("canceled", "JOB_CANCELED")),
            released_attempts: attempts.bind(&with("outcome", "released")),
            lost_attempts: attempts.bind(&with_code("lost", WORKER_LOST)),
            queue_time: attachment.timer(&c::QUEUE_TIME, &type_only),
            processing_time: [0, 1, 2, 3, 4]
                .map(|outcome| OUTCOMES[outcome])
                .map(|outcome| attachment.timer(&c::PROCESSING_TIME, &with("outcome", outcome))),
            total_time: ["completed", "failed", "canceled"]
                .map(|outcome| attachment.timer(&c::TOTAL_TIME, &with("outcome", outcome))),
            label,
        }
    }

    /// Counts a submission, and the queued job if it was accepted.
    pub(crate) fn submission(&self, result: SubmissionResult) {
        self.submissions[result as usize].add(1);
        if result == SubmissionResult::Accepted {
            self.queued.add(1);
        }
    }

    /// Counter of attempts with this outcome. None for outcomes whose error code varies.
    pub(super) fn attempts(&self, outcome: AttemptOutcome) -> Option<&BoundCounter<u64>> {
        match outcome {
            AttemptOutcome::Completed => Some(&self.completed_attempts),
            AttemptOutcome::Canceled => Some(&self.canceled_attempts),
            AttemptOutcome::Released => Some(&self.released_attempts),
            AttemptOutcome::Lost => Some(&self.lost_attempts),
            AttemptOutcome::Retried | AttemptOutcome::Failed => None,
        }
    }

    /// Counter of jobs with this final status. None for failed jobs, whose error code varies, and for other states.
    pub(super) fn jobs(&self, status: JobStatus) -> Option<&BoundCounter<u64>> {
        match status {
            JobStatus::Completed => Some(&self.processed),
            JobStatus::Canceled => Some(&self.canceled),
            JobStatus::Failed | JobStatus::Queued | JobStatus::Scheduled | JobStatus::InProgress => None,
        }
    }

    /// Durations of attempts with this outcome. None for lost attempts.
    pub(super) fn processing_time(&self, outcome: AttemptOutcome) -> Option<&Timer> {
        self.processing_time.get(outcome as usize)
    }

    /// Total times of jobs with this status. None unless it is terminal.
    pub(super) fn total_time(&self, status: JobStatus) -> Option<&Timer> {
        let index = match status {
            JobStatus::Completed => 0,
            JobStatus::Failed => 1,
            JobStatus::Canceled => 2,
            JobStatus::Queued | JobStatus::Scheduled | JobStatus::InProgress => return None,
        };
        Some(&self.total_time[index])
    }

    /// Records a job that was canceled before it ran.
    pub(super) fn canceled_unstarted(&self, total: Duration, cause: Cause) {
        self.canceled.add(1);
        self.total_time[2].record(total, Instant::now(), || cause.labels());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_in_enum_order() {
        assert!(SubmissionResult::ALL.iter().enumerate().all(|(index, (result, _))| *result as usize == index));
        assert!(AttemptOutcome::ALL.iter().enumerate().all(|(index, outcome)| *outcome as usize == index));
    }
}
