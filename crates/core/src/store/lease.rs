//! Leases, and those that a store remembers of a job.

use uuid::Uuid;

use crate::job::{JobId, JobStatus};

/// 128 random bits made by the caller for each claim. Every write to a running attempt is guarded by them.
/// Random, never a counter: a failover can roll a counter back.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(pub Uuid);

impl LeaseToken {
    /// A new, unique token.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

/// The right to write to one running attempt.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// The token of the claim that took it.
    pub token: LeaseToken,
}

/// The leases that a store remembers of a job, to recognize a repeated settlement.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct JobLeases {
    /// The token of the latest claim. Kept after the settlement, removed by a reclaim.
    pub current: Option<LeaseToken>,
    /// The state that settling by `current` led to.
    pub settled: Option<JobStatus>,
    /// The claim before, if it settled: a repeat may come after the next claim.
    pub last: Option<(LeaseToken, JobStatus)>,
}

impl JobLeases {
    /// A claim took the job.
    pub fn claim(&mut self, token: LeaseToken) {
        self.last = self.current.zip(self.settled);
        (self.current, self.settled) = (Some(token), None);
    }

    /// A sweep took the lease away: its token is worth nothing from here on.
    pub fn revoke(&mut self) {
        (self.current, self.settled) = (None, None);
    }

    /// The state that settling by `token` led to, if it did.
    pub fn settled_by(&self, token: LeaseToken) -> Option<JobStatus> {
        match self.last {
            _ if self.current == Some(token) => self.settled,
            Some((last, status)) if last == token => Some(status),
            _ => None,
        }
    }
}
