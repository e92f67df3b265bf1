//! Random sequences of calls on a store and on a simple model, whose answers must be equal.
//!
//! The model follows the contract alone. Must not know any particular store.

mod compare;
mod drive;
mod ops;
mod shared;
mod state;
mod stats;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use rand::Rng as _;

use crate::Fixture;

/// Compares a store with the model over `cases` random sequences of up to 80 calls. The fixture needs a
/// [`ManualClock`](crate::ManualClock). Call it from a plain `#[test]`.
///
/// # Panics
/// If an answer differs, with the shortest sequence found and the seed. Set `TESTKIT_SEED` to that seed to repeat the
/// sequences.
pub fn check_model(fresh: impl AsyncFn() -> Fixture, cases: u32) {
    let seed = seed();
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let outcome = runner.run(&ops::sequences(), |ops| {
        let run = async {
            let fixture = fresh().await;
            Box::pin(drive::Drive::new(&fixture).run(&ops)).await
        };
        runtime.block_on(run).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, ops)) => {
            let calls: Vec<String> = ops.iter().enumerate().map(|(at, op)| format!("{at:3} {op:?}")).collect();
            panic!("{why}\n\nthe shortest sequence, TESTKIT_SEED={seed}:\n{}", calls.join("\n"));
        }
        Err(TestError::Abort(why)) => panic!("aborted, TESTKIT_SEED={seed}: {why}"),
    }
}

/// The seed of `TESTKIT_SEED`, or else a random one.
pub(crate) fn seed() -> u64 {
    match std::env::var("TESTKIT_SEED") {
        Ok(text) => text.parse().expect("TESTKIT_SEED is a number"),
        Err(_) => rand::rng().random(),
    }
}
