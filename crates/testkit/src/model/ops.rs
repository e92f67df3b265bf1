//! The calls of a random sequence. Jobs and leases are small numbers, so that sequences shrink. Must not know stores.

use proptest::{collection::vec, option::weighted, prelude::*};

/// One call, or a step of time. Numbers are indexes, modulo the number of known jobs or leases.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Insert(NewJobOp),
    Claim { alpha: u8, beta: u8, max: u8, bytes: u16, lease: u8 },
    Settle { lease: u8, outcome: OutcomeOp, progress: bool, lines: u8 },
    Renew { leases: Vec<u8>, lease: u8 },
    Report { lease: u8, progress: bool, lines: u8 },
    Cancel { job: u8 },
    Retry { job: u8, taken: Option<u8> },
    Reclaim { limit: u8 },
    Prune { limit: u8 },
    Get { job: u8 },
    Versions,
    List(ListOp),
    Logs { job: u8, after: u8, limit: u8 },
    Payload { job: u8 },
    Stats,
    Pass { seconds: u8 },
    Day,
    Role { name: bool, holder: u8, ttl: u8 },
    Document { version: Which, role: Option<(bool, Which)> },
}

/// A job to insert.
#[derive(Clone, Debug)]
pub(crate) struct NewJobOp {
    pub(crate) beta: bool,
    pub(crate) priority: u8,
    pub(crate) delay: u8,
    pub(crate) losses: u8,
    pub(crate) size: u8,
    /// The index of a known job whose id is reused.
    pub(crate) taken: Option<u8>,
    pub(crate) key: Option<u8>,
    pub(crate) owner: Option<u8>,
    pub(crate) fingerprint: u8,
    pub(crate) limit: Option<u8>,
}

/// Which jobs to list. Code and text are indexes of [`CODES`] and [`TEXTS`], times those of known jobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOp {
    pub(crate) status: Option<u8>,
    pub(crate) beta: Option<bool>,
    pub(crate) owner: Option<u8>,
    pub(crate) code: Option<u8>,
    pub(crate) text: Option<u8>,
    pub(crate) since: Option<u8>,
    pub(crate) until: Option<u8>,
    pub(crate) limit: u8,
}

/// Error codes that lists filter by.
pub(crate) const CODES: [&str; 5] = ["AGAIN", "FAILED", "JOB_CANCELED", "WORKER_LOST", "NO_SUCH_CODE"];
/// Texts that lists search for: parts of error details, progress messages and ids.
pub(crate) const TEXTS: [&str; 5] = ["again: ü", "quotes\" AND", "step 1", "-7000-8000-", "no such text"];

/// The outcome of an attempt.
#[derive(Clone, Debug)]
pub(crate) enum OutcomeOp {
    Complete,
    Retry { seconds: u8 },
    Fail,
    Cancel,
    Release,
}

/// Which version or token to pass.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Which {
    Absent,
    Current,
    Former,
}

fn new_job() -> impl Strategy<Value = Op> {
    let what = (any::<bool>(), 0..10_u8, prop_oneof![3 => Just(0), 2 => 1..20_u8], 0..3_u8, 0..200_u8);
    let known = (
        weighted(0.12, any::<u8>()),
        weighted(0.3, 0..4_u8),
        weighted(0.3, 0..2_u8),
        prop_oneof![5 => Just(0), 1 => Just(1_u8)],
        weighted(0.25, 0..8_u8),
    );
    (what, known).prop_map(|((beta, priority, delay, losses, size), (taken, key, owner, fingerprint, limit))| {
        Op::Insert(NewJobOp { beta, priority, delay, losses, size, taken, key, owner, fingerprint, limit })
    })
}

fn outcome() -> impl Strategy<Value = OutcomeOp> {
    prop_oneof![
        3 => Just(OutcomeOp::Complete),
        3 => (0..20_u8).prop_map(|seconds| OutcomeOp::Retry { seconds }),
        2 => Just(OutcomeOp::Fail),
        1 => Just(OutcomeOp::Cancel),
        2 => Just(OutcomeOp::Release),
    ]
}

fn list() -> impl Strategy<Value = Op> {
    let by_index = (weighted(0.8, 0..6_u8), weighted(0.4, any::<bool>()), weighted(0.3, 0..2_u8), 1..7_u8);
    let (code, text) = (weighted(0.25, 0..CODES.len() as u8), weighted(0.25, 0..TEXTS.len() as u8));
    let by_value = (code, text, weighted(0.25, any::<u8>()), weighted(0.25, any::<u8>()));
    (by_index, by_value).prop_map(|((status, beta, owner, limit), (code, text, since, until))| {
        Op::List(ListOp { status, beta, owner, code, text, since, until, limit })
    })
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![1 => Just(Which::Absent), 3 => Just(Which::Current), 1 => Just(Which::Former)]
}

fn op() -> impl Strategy<Value = Op> {
    let claim = (0..4_u8, 0..4_u8, 1..6_u8, 0..400_u16, 0..40_u8);
    let pass = prop_oneof![4 => 0..5_u8, 2 => 5..40_u8, 1 => 40..140_u8];
    prop_oneof![
        10 => new_job(),
        10 => claim.prop_map(|(alpha, beta, max, bytes, lease)| Op::Claim { alpha, beta, max, bytes, lease }),
        9 => (any::<u8>(), outcome(), any::<bool>(), prop_oneof![3 => Just(0), 1 => 1..3_u8])
            .prop_map(|(lease, outcome, progress, lines)| Op::Settle { lease, outcome, progress, lines }),
        2 => (vec(any::<u8>(), 0..4), 0..40_u8).prop_map(|(leases, lease)| Op::Renew { leases, lease }),
        3 => (any::<u8>(), any::<bool>(), 0..3_u8)
            .prop_map(|(lease, progress, lines)| Op::Report { lease, progress, lines }),
        4 => any::<u8>().prop_map(|job| Op::Cancel { job }),
        4 => (any::<u8>(), weighted(0.2, any::<u8>())).prop_map(|(job, taken)| Op::Retry { job, taken }),
        4 => prop_oneof![1..3_u8, Just(100)].prop_map(|limit| Op::Reclaim { limit }),
        2 => prop_oneof![1..3_u8, Just(100)].prop_map(|limit| Op::Prune { limit }),
        2 => any::<u8>().prop_map(|job| Op::Get { job }),
        1 => Just(Op::Versions),
        4 => list(),
        1 => (any::<u8>(), 0..5_u8, 1..5_u8).prop_map(|(job, after, limit)| Op::Logs { job, after, limit }),
        1 => any::<u8>().prop_map(|job| Op::Payload { job }),
        3 => Just(Op::Stats),
        7 => pass.prop_map(|seconds| Op::Pass { seconds }),
        1 => Just(Op::Day),
        2 => (any::<bool>(), 0..3_u8, prop_oneof![1 => Just(0), 4 => 1..30_u8])
            .prop_map(|(name, holder, ttl)| Op::Role { name, holder, ttl }),
        2 => (which(), weighted(0.5, (any::<bool>(), which())))
            .prop_map(|(version, role)| Op::Document { version, role }),
    ]
}

/// Sequences of up to 80 calls.
pub(crate) fn sequences() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..80)
}
