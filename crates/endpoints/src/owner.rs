//! The owner of a job: the hash of a name, and the name itself if the application keeps it. Must not know HTTP.

use std::fmt;

use async_endpoints_core::job::Digest;
use sha2::{Digest as _, Sha256};

use crate::error::cut;

/// Maximum bytes of a stored name. A longer one is cut.
const LABEL_BYTES: usize = 256;

/// The owner of a job, as handlers see it. Displays as the hash that operators see in the job document.
///
/// ```
/// # use async_endpoints::JobContext;
/// let ctx = JobContext::for_test(()).with_owner("ada");
/// let owner = ctx.owner().unwrap();
/// assert!(owner.is("ada"));
/// assert_eq!(owner.label(), Some("ada"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobOwner {
    digest: Digest,
    label: Option<String>,
}

impl JobOwner {
    /// The owner of this name. `keeps_name` is [`Options::owner_labels`](crate::Options::owner_labels).
    pub(crate) fn new(name: &str, keeps_name: bool) -> Self {
        let digest = Digest(Sha256::digest(name.as_bytes()).into());
        Self { digest, label: keeps_name.then(|| cut(name.to_owned(), LABEL_BYTES)) }
    }

    /// The owner of a stored job.
    pub(crate) fn stored(digest: Option<Digest>, label: Option<&String>) -> Option<Self> {
        Some(Self { digest: digest?, label: label.cloned() })
    }

    /// The SHA-256 of the owner's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The owner's name. `None` unless [`Options::owner_labels`](crate::Options::owner_labels) was set when the job was
    /// submitted.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    pub(crate) fn into_label(self) -> Option<String> {
        self.label
    }

    /// Whether this is the owner of that name.
    pub fn is(&self, name: &str) -> bool {
        self.digest == Self::new(name, false).digest
    }
}

impl fmt::Display for JobOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.digest.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_displays_as_sha256_and_keeps_its_name_on_request() {
        let owner = JobOwner::new("ada", false);
        assert_eq!(owner.to_string(), "fdee430d40bd57deeac186cd9790033d0f06f909a8806e7ce6e717ab7c7d5029");
        assert!(owner.is("ada") && !owner.is("Ada") && owner.label().is_none());
        let long = JobOwner::new(&"ä".repeat(200), true);
        assert_eq!(long.label().map(str::len), Some(256));
    }
}
