//! The audit trail: the last actions of operators, in one document that all processes share. Must not know HTTP.
//!
//! | file | contents |
//! |---|---|
//! | `trail` | records an action before and after it runs |
//! | `document` | the stored entries, at most 500 |

mod document;
mod trail;

use async_endpoints_core::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::trail::{Action, OK, Outcome, Trail};

/// An action of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct AuditEntry {
    /// When the action began, by the clock of the process that ran it.
    pub at: Timestamp,
    /// The name that the [access rule](crate::Access::when) returned, `token:` with 8 digits of the token's SHA-256,
    /// `loopback`, `open`, or `unknown`.
    pub who: String,
    /// The action, such as `job.cancel`.
    pub action: String,
    /// The id or name of what it acts on or made.
    pub target: Option<String>,
    /// The fields of the request without the target, such as the reason of a pause. Those of a form are texts. Texts are cut
    /// after 256 bytes. `None` if the request has none, has more than 1 KiB of them, or was refused before it was read.
    #[serde(default)]
    pub values: Option<Map<String, Value>>,
    /// `ok`, or the code of the problem. `started` while the action runs, or if its process died meanwhile. `interrupted` if
    /// the client left before the end: the action may have had its effect.
    pub outcome: String,
    /// The trace of the request.
    pub trace_id: Option<String>,
}
