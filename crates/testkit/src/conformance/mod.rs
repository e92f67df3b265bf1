//! The conformance suite: one case for each rule of the store contract, and the macro that turns the cases into tests.
//!
//! A case works on a fresh store and depends on no other case or particular store. It lets the store's time pass instead
//! of waiting for a fixed time.
#![allow(missing_docs, reason = "the name of a case states its rule")]

pub mod cancel;
pub mod claim;
pub mod hints;
pub mod insert;
pub mod lease;
pub mod list;
pub mod order;
pub mod reclaim;
pub mod report;
pub mod retention;
pub mod retry;
pub mod search;
pub mod settle;
pub mod shared;
pub mod stats;

use futures_util::future::join_all;

pub use crate::rig::run;

/// Runs each call in a task of its own and returns the results in the order of the calls.
async fn run_concurrently<F>(calls: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    join_all(tasks).await.into_iter().map(|result| result.expect("no task panics")).collect()
}

/// Generates one test for each case: `conformance!(name, fixture)`.
///
/// `fixture` is a future that returns a fresh [`Fixture`](crate::Fixture). Every test evaluates `fixture` once. The
/// tests are in the module `name`, in one module for each theme: `cargo test name::retry` runs the cases about retries.
///
/// ```
/// use async_endpoints_core::MemoryStore;
/// use async_endpoints_testkit::{Fixture, ManualClock, conformance};
///
/// conformance!(memory, async {
///     let clock = ManualClock::new();
///     Fixture::manual(MemoryStore::with_clock(clock.clone()), clock)
/// });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! conformance {
    ($name:ident, $fixture:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the fixture may use none of the imports")]
            use super::*;

            async fn fresh() -> $crate::Fixture {
                $fixture.await
            }

            $crate::__cases! {
                insert: [
                    new_job_reads_as_submitted,
                    ahead_counts_earlier_jobs_of_the_type,
                    ahead_is_exact_up_to_its_limit,
                    same_key_returns_the_job,
                    key_with_other_fingerprint_conflicts,
                    key_is_scoped_to_owner_and_type,
                    similar_keys_are_distinct,
                    same_id_returns_the_job,
                    key_takes_precedence_over_id,
                    key_and_id_are_checked_before_limit,
                    replay_returns_the_current_job,
                    concurrent_inserts_of_one_key_make_one_job,
                    queue_limit_counts_waiting_jobs,
                    accepted_jobs_requeue_past_queue_limit,
                    payload_and_result_bytes_are_preserved,
                    payload_is_readable_until_the_job_completes,
                    error_text_is_preserved,
                ]
                claim: [
                    attempt_carries_the_job_fields,
                    claim_without_runnable_jobs_is_empty,
                    other_types_are_not_claimed,
                    quotas_and_max_limit_a_claim,
                    claim_is_limited_to_a_batch,
                    max_bytes_limits_a_claim,
                    next_claim_is_zero_while_jobs_are_left,
                    next_claim_covers_requested_types_only,
                    bounded_promotion_sets_next_claim_to_zero,
                    attempts_are_counted_by_reason,
                    attempt_carries_the_previous_span,
                    lost_attempt_leaves_no_span,
                    runnable_since_is_the_start_of_waiting,
                    concurrent_claims_take_each_job_once,
                    concurrent_cancel_and_claim_agree,
                ]
                order: [
                    jobs_run_by_priority_then_acceptance,
                    jobs_of_one_instant_run_in_insert_order,
                    promoted_job_is_ordered_by_due_time,
                    unclaimed_promoted_job_keeps_due_time,
                    promoted_job_is_ordered_by_priority_first,
                    retried_job_is_ordered_by_retry_time,
                    released_job_keeps_its_position,
                    recovered_job_keeps_its_position,
                    released_promoted_job_keeps_due_time,
                ]
                lease: [
                    settle_after_expiry_is_accepted,
                    renew_after_expiry_is_accepted,
                    report_after_expiry_is_accepted,
                    renewed_lease_is_not_reclaimed,
                    renew_answers_in_order,
                    renew_accepts_empty_and_full_batches,
                    renew_does_not_change_the_job,
                    writes_with_foreign_lease_are_lost,
                    writes_to_queued_job_are_lost,
                    jobs_of_one_claim_settle_separately,
                    renew_works_with_a_blocked_runtime,
                    old_lease_is_lost_after_next_claim,
                ]
                settle: [
                    each_outcome_sets_the_job_state,
                    error_sources_are_kept,
                    retried_job_runs_after_its_delay,
                    repeated_settle_is_idempotent,
                    repeated_settle_after_next_claim_is_idempotent,
                    settle_with_older_lease_is_lost,
                    cancel_request_overrides_all_but_completed,
                    settle_after_reclaim_is_lost,
                    final_progress_replaces_progress,
                    final_progress_may_omit_fields,
                    settle_without_progress_keeps_the_last,
                    next_claim_clears_final_progress,
                    settle_appends_its_lines_once,
                    lines_of_settlements_are_limited,
                    settle_with_lost_lease_appends_no_lines,
                    batch_answers_in_order,
                    full_and_empty_batches_settle,
                    last_attempts_are_kept,
                    attempts_name_their_worker,
                    concurrent_settles_of_one_lease_agree,
                ]
                cancel: [
                    waiting_job_is_canceled_at_once,
                    running_job_gets_a_cancel_request,
                    repeated_cancel_changes_nothing,
                    ended_job_is_not_canceled,
                    unknown_job_is_not_found,
                    lost_lease_after_request_ends_canceled,
                    concurrent_cancel_and_settle_agree,
                    concurrent_cancels_agree,
                ]
                retry: [
                    new_job_copies_the_submission,
                    retried_job_links_to_the_new_job,
                    key_is_not_copied,
                    repeated_retry_returns_the_same_job,
                    concurrent_retries_make_one_job,
                    canceled_jobs_and_retries_can_be_retried,
                    other_states_are_not_retried,
                    taken_id_conflicts,
                    id_of_a_pruned_job_conflicts,
                    expired_job_is_gone,
                    expired_job_with_a_retry_is_gone,
                ]
                reclaim: [
                    expired_lease_counts_a_loss_and_requeues,
                    job_fails_beyond_max_losses,
                    zero_max_losses_fails_at_first_loss,
                    unexpired_lease_is_kept,
                    sweep_takes_oldest_up_to_limit,
                    sweep_limit_is_capped,
                    sweep_after_outage_waits_one_lease,
                    regular_sweeps_never_wait,
                    concurrent_sweeps_take_each_lease_once,
                    jobs_not_running_are_not_reclaimed,
                ]
                retention: [
                    expired_job_is_gone_before_prune,
                    job_is_kept_until_it_expires,
                    tombstone_lasts_one_more_retention,
                    tombstone_lasts_the_same_without_prune,
                    lease_of_pruned_job_is_lost,
                    replay_within_a_day_is_gone,
                    generated_id_is_free_after_tombstone,
                    key_is_free_after_a_day,
                    key_is_kept_as_long_as_its_job,
                    prune_stops_at_its_limit,
                    short_retention_behind_long_expires,
                    retry_job_outlives_the_old_job,
                ]
                list: [
                    all_jobs_are_listed_newest_first,
                    waiting_and_running_jobs_are_ordered,
                    ended_jobs_are_listed_latest_first,
                    list_filters_by_name,
                    list_filters_by_owner,
                    jobs_of_an_owner_are_found_by_index,
                    page_of_a_state_checks_few_jobs_of_others,
                    items_omit_results,
                    page_size_is_capped,
                    empty_store_lists_nothing,
                    changing_jobs_are_listed_once,
                    changing_jobs_of_a_state_are_not_repeated,
                    requeued_job_is_not_listed_twice,
                    restarted_job_is_not_listed_twice,
                    versions_answer_in_order,
                ]
                search: [
                    list_filters_by_error_code,
                    list_filters_by_time_of_acceptance,
                    time_of_acceptance_never_changes,
                    jobs_of_a_burst_are_in_their_range,
                    list_filters_by_text,
                    results_are_not_searched,
                    filters_combine,
                    time_range_is_found_by_index,
                    distant_job_is_found_by_continuing,
                    cursor_outside_the_range_is_answered,
                ]
                stats: [
                    jobs_are_counted_by_type_and_state,
                    empty_store_has_no_counts,
                    oldest_runnable_ignores_priority,
                    slow_and_overdue_attempts_are_counted,
                    long_waiting_jobs_are_stale,
                    expired_leases_are_unrecovered,
                    minutes_count_accepted_jobs,
                    minutes_count_attempts_and_ended_jobs,
                    minutes_count_lost_jobs_as_failed,
                    minutes_hold_queue_and_processing_time,
                    minutes_hold_equal_histograms,
                    minutes_are_listed_oldest_first,
                    old_minutes_are_dropped,
                    heartbeats_show_live_workers,
                    counts_hold_under_contention,
                ]
                report: [
                    progress_is_stored,
                    next_attempt_clears_progress,
                    log_lines_do_not_change_the_job,
                    lines_are_numbered_across_attempts,
                    lines_are_paged,
                    job_without_lines_reads_empty,
                    oldest_attempts_lose_lines_first,
                    reports_answer_in_order,
                ]
                hints: [
                    first_runnable_job_is_hinted,
                    released_job_is_hinted,
                    recovered_job_is_hinted,
                    promoted_jobs_are_hinted,
                    retry_is_hinted,
                    visible_changes_are_hinted,
                    recovery_and_cancel_are_hinted,
                    every_listener_is_notified,
                    slow_listener_blocks_no_call,
                ]
                shared: [
                    role_has_one_holder,
                    role_expires,
                    renewed_role_does_not_expire,
                    resigned_role_is_free,
                    concurrent_role_requests_have_one_winner,
                    document_is_written_by_version,
                    role_fences_document_writes,
                    concurrent_document_writes_have_one_winner,
                    probe_and_health_write_nothing,
                ]
            }
        }
    };
}

/// Generates one test for each listed case.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    ($($theme:ident: [$($case:ident),* $(,)?])*) => {$(
        mod $theme {
            $(
                #[$crate::__private::tokio::test(
                    flavor = "multi_thread",
                    worker_threads = 2,
                    crate = "async_endpoints_testkit::__private::tokio"
                )]
                async fn $case() {
                    $crate::conformance::run(super::fresh().await, $crate::conformance::$theme::$case).await;
                }
            )*
        }
    )*};
}

#[cfg(test)]
mod tests {
    /// Only listed cases run.
    #[test]
    fn every_case_is_listed() {
        let listed = include_str!("mod.rs");
        for text in [
            include_str!("insert.rs"),
            include_str!("claim.rs"),
            include_str!("order.rs"),
            include_str!("lease.rs"),
            include_str!("settle.rs"),
            include_str!("cancel.rs"),
            include_str!("retry.rs"),
            include_str!("reclaim.rs"),
            include_str!("retention.rs"),
            include_str!("list.rs"),
            include_str!("search.rs"),
            include_str!("stats.rs"),
            include_str!("report.rs"),
            include_str!("hints.rs"),
            include_str!("shared.rs"),
        ] {
            for case in text.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let case = case.split('(').next().unwrap_or(case);
                assert!(listed.contains(&format!(" {case},\n")), "{case} is not listed");
            }
        }
    }
}
