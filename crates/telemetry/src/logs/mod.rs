//! Log outputs: JSON or pretty lines to stderr, to daily files, or to a writer of the application.
//!
//! | module | contents |
//! |---|---|
//! | `settings` | `Logs` and `LogOutput`, environment variables |
//! | `layer` | the layer of one output |
//! | `json`, `pretty` | formats of a line |
//! | `fields` | values of events and spans, cut and redacted |
//! | `redact` | names of credentials |
//! | `escape` | control characters |
//! | `daily` | files by UTC day |
//! | `time` | timestamps |

mod daily;
mod escape;
mod fields;
mod json;
mod layer;
mod pretty;
pub(crate) mod redact;
mod settings;
#[cfg(test)]
mod tests;
mod time;

pub use self::settings::{LogFormat, LogOutput, Logs};
pub(crate) use self::{
    fields::{Fields, MESSAGE, SpanFields, Value, char_boundary, for_each_span},
    layer::{add_fields, keep_fields},
    settings::LogWriters,
};
