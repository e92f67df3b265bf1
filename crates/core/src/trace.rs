//! The W3C trace context of jobs. Stores only keep it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The trace context of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The span.
    pub traceparent: TraceParent,
    /// The vendors' additions, passed on unchanged.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// The trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.traceparent.trace_id()
    }
}

/// The ids and flags of a span. Its text is a W3C `traceparent`: `00-<trace id>-<span id>-<flags>` in lower-case hexadecimal
/// digits.
///
/// ```
/// use async_endpoints_core::job::TraceParent;
///
/// let parent: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// assert_eq!(parent.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// # Ok::<(), async_endpoints_core::job::InvalidTraceParent>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// The flags, unknown ones included.
    pub flags: u8,
}

/// The text is no [`TraceParent`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid traceparent {0:?}: expected 00-<trace id>-<span id>-<flags> in lower-case hexadecimal digits")]
pub struct InvalidTraceParent(String);

impl TraceParent {
    /// The trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split('-').collect();
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
        match fields.as_slice() {
            ["00", trace, span, flags] if is_hex && (trace.len(), span.len(), flags.len()) == (32, 16, 2) => {
                Some(Self {
                    trace_id: u128::from_str_radix(trace, 16).ok()?.to_be_bytes(),
                    span_id: u64::from_str_radix(span, 16).ok()?.to_be_bytes(),
                    flags: u8::from_str_radix(flags, 16).ok()?,
                })
            }
            _ => None,
        }
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| InvalidTraceParent(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for TraceParent {
    type Error = InvalidTraceParent;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TraceParent> for String {
    fn from(parent: TraceParent) -> Self {
        parent.to_string()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceParent({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn text_is_kept() {
        for text in [PARENT, "00-00000000000000000000000000000001-0000000000000000-fe"] {
            let parent: TraceParent = text.parse().expect("a traceparent");
            assert_eq!(parent.to_string(), text);
            let json = serde_json::to_string(&parent).expect("JSON");
            assert_eq!(serde_json::from_str::<TraceParent>(&json).expect("JSON"), parent);
        }
    }

    #[test]
    fn malformed_text_is_rejected() {
        let wide = PARENT.replacen("0a", "ü", 1);
        let upper = PARENT.replace("b7ad", "B7AD");
        for bad in ["", "00-1-2-01", &PARENT[1..], &format!("{PARENT}-"), &format!("01{}", &PARENT[2..]), &wide, &upper]
        {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }
}
