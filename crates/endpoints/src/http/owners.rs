//! The owners of jobs: which jobs the application's rule shows to a caller.

use std::sync::Arc;

use async_endpoints_core::job::Digest;
use axum::http::request::Parts;

use crate::owner::JobOwner;

/// The owner of a request, returned by the application's [rule](crate::Builder::owner). It decides which owner new jobs
/// get and which jobs the request sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// New jobs belong to this owner; jobs of this owner are visible.
    Of(String),
    /// New jobs have no owner; jobs without an owner are visible.
    None,
    /// New jobs have no owner; all jobs are visible. For internal services that read jobs and are no operators: operators
    /// see all jobs whatever the rule returns.
    All,
}

impl From<String> for Owner {
    fn from(name: String) -> Self {
        Self::Of(name)
    }
}

impl From<&str> for Owner {
    fn from(name: &str) -> Self {
        Self::Of(name.to_owned())
    }
}

impl<T: Into<Owner>> From<Option<T>> for Owner {
    fn from(name: Option<T>) -> Self {
        name.map_or(Self::None, Into::into)
    }
}

/// Maps a request to its owner.
pub(crate) type OwnerRule = Arc<dyn Fn(&Parts) -> Owner + Send + Sync>;

/// The owner of a request's new jobs. `keeps_names` is [`Options::owner_labels`](crate::Options::owner_labels).
pub(crate) fn owner_of(rule: Option<&OwnerRule>, request: &Parts, keeps_names: bool) -> Option<JobOwner> {
    Visibility::of(rule, request, keeps_names).owner().cloned()
}

/// Which jobs the owner rule shows to a caller. An operator sees all jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    All,
    Own(Option<JobOwner>),
}

impl Visibility {
    /// `keeps_names` is [`Options::owner_labels`](crate::Options::owner_labels).
    pub(super) fn of(rule: Option<&OwnerRule>, request: &Parts, keeps_names: bool) -> Self {
        match rule.map(|rule| rule(request)) {
            None | Some(Owner::All) => Self::All,
            Some(Owner::None) => Self::Own(None),
            Some(Owner::Of(name)) => Self::Own(Some(JobOwner::new(&name, keeps_names))),
        }
    }

    /// The owner of the caller's new jobs.
    pub(super) fn owner(&self) -> Option<&JobOwner> {
        match self {
            Self::All => None,
            Self::Own(owner) => owner.as_ref(),
        }
    }

    /// Whether the caller is an owner of jobs.
    pub(super) fn is_owner(&self) -> bool {
        self.owner().is_some()
    }

    pub(super) fn includes(&self, owner: Option<Digest>) -> bool {
        matches!(self, Self::All) || self.owner().map(JobOwner::digest) == owner
    }
}
