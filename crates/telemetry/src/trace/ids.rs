//! Random ids of traces and spans.

use opentelemetry::{SpanId, TraceId};
use uuid::Uuid;

pub(super) fn trace_id() -> TraceId {
    TraceId::from(u128::from(bits()) << 64 | u128::from(bits()))
}

pub(super) fn span_id() -> SpanId {
    SpanId::from(bits())
}

/// 64 random bits. Each half of a random UUID has fixed bits, which are random in the other half.
fn bits() -> u64 {
    let (first, second) = Uuid::new_v4().as_u64_pair();
    first.rotate_left(32) ^ second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bit_is_fixed() {
        let ids: Vec<u64> = (0..200).map(|_| bits()).collect();
        assert_eq!(ids.iter().fold(0, |or, id| or | id), u64::MAX);
        assert_eq!(ids.iter().fold(u64::MAX, |and, id| and & id), 0);
    }
}
