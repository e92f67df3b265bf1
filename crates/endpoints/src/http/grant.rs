//! What the access policy grants to a caller: a level and a name.

use std::fmt;

use async_endpoints_core::job::Digest;

use crate::error::cut;

/// Maximum bytes of a caller's name. A longer one is cut.
const NAME_BYTES: usize = 256;

/// What a caller may do as an operator. A higher level includes the lower ones.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccessLevel {
    /// Nothing: the caller is no operator.
    #[default]
    None,
    /// Read: the jobs of all owners, their logs, metrics, workers and alerts.
    View,
    /// Read and change: cancel and retry jobs, silence alerts and the like.
    Operate,
}

impl AccessLevel {
    /// The name: `none`, `view` or `operate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::View => "view",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for AccessLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer of an [access rule](crate::Access::when): the level of a caller, and the name that the audit trail shows.
///
/// `true` is [`Grant::operate`]; `false` and `None` are [`Grant::none`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    level: AccessLevel,
    name: Option<String>,
}

impl Grant {
    /// The caller is no operator.
    pub fn none() -> Self {
        AccessLevel::None.into()
    }

    /// The caller may read.
    pub fn view() -> Self {
        AccessLevel::View.into()
    }

    /// The caller may read and change.
    pub fn operate() -> Self {
        AccessLevel::Operate.into()
    }

    /// Sets the caller's name, which is cut to 256 bytes.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(cut(name.into(), NAME_BYTES));
        self
    }
}

impl From<AccessLevel> for Grant {
    fn from(level: AccessLevel) -> Self {
        Self { level, name: None }
    }
}

impl From<bool> for Grant {
    fn from(allowed: bool) -> Self {
        if allowed { Self::operate() } else { Self::none() }
    }
}

impl<T: Into<Grant>> From<Option<T>> for Grant {
    fn from(grant: Option<T>) -> Self {
        grant.map(Into::into).unwrap_or_default()
    }
}

/// A caller as the access policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) level: AccessLevel,
    pub(crate) who: Who,
    /// Whether a session cookie is the caller's proof.
    pub(crate) by_session: bool,
}

impl Granted {
    pub(super) fn new(level: AccessLevel, who: Who) -> Self {
        Self { level, who, by_session: false }
    }
}

impl From<Grant> for Granted {
    fn from(Grant { level, name }: Grant) -> Self {
        Self::new(level, name.map_or(Who::Unknown, Who::Named))
    }
}

/// Who a caller is, as far as the access policy knows. Displays as the audit trail shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Who {
    #[default]
    Unknown,
    /// A caller of this machine.
    Loopback,
    /// A caller under a policy that grants access to all.
    Open,
    /// The holder of the token with this hash.
    Token(Digest),
    /// The name that the application's rule returned.
    Named(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("unknown"),
            Self::Loopback => f.write_str("loopback"),
            Self::Open => f.write_str("open"),
            // A part of the hash names the token and does not help to guess it.
            Self::Token(Digest([a, b, c, d, ..])) => write!(f, "token:{a:02x}{b:02x}{c:02x}{d:02x}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_rule_become_levels() {
        assert_eq!((Grant::from(true), Grant::from(false)), (Grant::operate(), Grant::none()));
        assert_eq!(Grant::from(None::<bool>), Grant::none());
        assert_eq!(Grant::from(Some(AccessLevel::View)), Grant::view());
        assert!(AccessLevel::None < AccessLevel::View && AccessLevel::View < AccessLevel::Operate);
    }

    #[test]
    fn caller_displays_as_the_audit_trail_shows_it() {
        let named = Granted::from(Grant::view().named("ada".repeat(100)));
        assert_eq!((named.level, named.who.to_string().len()), (AccessLevel::View, 256));
        for (who, text) in [
            (Who::Unknown, "unknown"),
            (Who::Loopback, "loopback"),
            (Who::Open, "open"),
            (Who::Token(Digest([0xa7; 32])), "token:a7a7a7a7"),
        ] {
            assert_eq!(who.to_string(), text);
        }
    }
}
