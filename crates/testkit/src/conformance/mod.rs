//! The rules of the contract, one case each, and the macro that makes a test of every case.
//! Must not know any particular store.
//!
//! A case works on a fresh store and may be read alone. It never waits for a fixed time to see something
//! happen; it lets the store's time pass.

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
pub mod settle;
pub mod shared;
pub mod stats;

pub use crate::rig::run;

/// Makes one test of every rule that a store keeps: `conformance!(name, fixture)`.
///
/// `fixture` is a future that gives a fresh [`Fixture`](crate::Fixture); it is evaluated for each test. The tests
/// are in the module `name`, by theme, so `cargo test name::retry` runs a part of them.
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
            #[allow(unused_imports, reason = "the fixture may need none of them")]
            use super::*;

            async fn fresh() -> $crate::Fixture {
                $fixture.await
            }

            $crate::__cases! {
                insert: [
                    a_new_job_reads_as_it_was_given,
                    ahead_counts_the_jobs_of_its_type_that_go_first,
                    ahead_is_exact_as_far_as_it_is_counted,
                    a_key_answers_with_its_job,
                    a_key_with_another_fingerprint_conflicts,
                    a_key_is_per_owner_and_name,
                    keys_are_not_confused,
                    an_id_answers_with_its_job,
                    the_key_decides_over_the_id,
                    checks_come_in_order,
                    a_replay_carries_the_job_as_it_is_now,
                    one_key_inserted_by_many_makes_one_job,
                    the_queue_limit_counts_what_waits,
                    the_queue_limit_never_refuses_what_was_accepted,
                    payloads_come_back_byte_by_byte,
                    texts_come_back_as_they_were,
                ]
                claim: [
                    an_attempt_carries_what_its_worker_needs,
                    nothing_runnable_gives_nothing,
                    types_not_wanted_are_left_alone,
                    wants_and_max_bound_a_claim,
                    a_claim_gives_no_more_than_a_batch,
                    bytes_bound_a_claim,
                    what_is_left_is_told,
                    the_next_due_job_is_of_the_types_asked_for,
                    promotion_is_bounded_and_says_so,
                    attempts_and_their_reasons_are_counted,
                    the_span_of_the_last_attempt_is_carried,
                    a_lost_attempt_has_no_span,
                    runnable_since_tells_when_waiting_began,
                    one_job_is_claimed_once_by_many,
                    a_cancel_racing_a_claim_loses_nothing,
                ]
                order: [
                    priority_then_acceptance_over_all_types,
                    acceptance_orders_within_one_instant,
                    a_promoted_job_goes_by_its_due_time,
                    a_promoted_job_keeps_its_due_time,
                    a_promoted_job_goes_by_priority_first,
                    a_retried_job_goes_by_its_next_time,
                    a_released_job_keeps_its_place,
                    a_recovered_job_keeps_its_place,
                    a_released_promoted_job_keeps_its_due_time,
                ]
                lease: [
                    a_late_settle_is_accepted,
                    a_late_renew_is_accepted,
                    a_late_report_is_accepted,
                    a_renewed_lease_lasts,
                    renew_answers_in_the_order_of_the_leases,
                    renew_takes_none_and_many,
                    renew_is_not_visible,
                    writes_are_fenced_by_the_lease,
                    a_job_that_does_not_run_has_no_lease,
                    one_token_holds_several_jobs,
                    a_blocked_runtime_keeps_its_leases,
                    an_old_lease_is_lost_after_the_next_claim,
                ]
                settle: [
                    each_outcome_ends_the_attempt,
                    a_retried_job_waits_its_delay,
                    a_repeat_answers_the_same_and_changes_nothing,
                    a_repeat_after_the_next_claim_answers_the_same,
                    leases_before_the_last_are_lost,
                    a_cancel_request_decides_every_outcome_but_completed,
                    a_settle_after_reclaim_is_lost,
                    final_progress_replaces_progress,
                    final_progress_may_lack_fields,
                    settle_without_progress_keeps_it,
                    final_progress_ends_with_the_next_claim,
                    a_batch_answers_in_order,
                    a_full_batch_settles,
                    the_last_attempts_are_remembered,
                    racing_settles_of_one_lease_agree,
                ]
                cancel: [
                    a_waiting_job_is_canceled_at_once,
                    a_running_job_is_asked,
                    a_repeat_changes_nothing,
                    an_ended_job_is_untouched,
                    an_unknown_job_is_not_found,
                    a_lost_lease_after_a_request_ends_canceled,
                    a_cancel_racing_a_settle_ends_once,
                    racing_cancels_agree,
                ]
                retry: [
                    it_copies_what_was_submitted,
                    the_old_job_says_who_repeats_it,
                    the_key_is_not_copied,
                    a_repeat_answers_with_the_same_new_job,
                    racing_retries_make_one_job,
                    canceled_jobs_and_repeats_can_be_repeated,
                    other_states_are_not_repeated,
                    a_taken_id_conflicts,
                    an_expired_job_is_not_repeated,
                    a_repeat_tells_of_a_new_job_that_expired,
                ]
                reclaim: [
                    a_lost_lease_counts_and_is_queued_again,
                    one_loss_too_many_fails_the_job,
                    without_losses_allowed_the_first_fails,
                    living_leases_stay,
                    a_sweep_is_bounded_and_oldest_first,
                    no_sweep_takes_more_than_its_bound,
                    a_sweeper_that_was_cut_off_waits,
                    a_regular_sweeper_never_waits,
                    racing_sweepers_take_each_lease_once,
                    jobs_that_do_not_run_are_not_swept,
                ]
                retention: [
                    an_expired_job_reads_as_gone_before_it_is_pruned,
                    nothing_expires_before_its_time,
                    a_tombstone_is_told_for_as_long_again,
                    the_same_is_told_without_a_prune,
                    a_lease_of_a_pruned_job_is_lost,
                    a_replay_within_a_day_never_runs_twice,
                    a_job_that_cannot_be_repeated_is_forgotten_in_time,
                    a_key_is_free_after_a_day,
                    a_key_lives_as_long_as_its_job,
                    a_prune_is_bounded,
                    a_longer_kept_job_in_front_keeps_nothing_readable,
                    a_repeat_of_a_new_job_that_is_gone_tells_so,
                ]
                list: [
                    all_jobs_come_newest_accepted_first,
                    waiting_and_running_jobs_come_in_their_order,
                    ended_jobs_come_last_ended_first,
                    a_name_filters,
                    items_are_jobs_without_results,
                    pages_are_bounded,
                    an_empty_store_lists_nothing,
                    pages_give_each_job_once_while_jobs_change,
                    pages_of_a_state_give_no_job_twice,
                    a_job_that_came_back_is_not_listed_again,
                    a_job_that_was_started_again_is_not_listed_again,
                    versions_come_in_order,
                ]
                stats: [
                    jobs_are_counted_by_type_and_state,
                    an_empty_store_counts_nothing,
                    the_oldest_runnable_job_waits_longest,
                    running_attempts_are_told_by_age,
                    jobs_that_wait_for_long_are_stale,
                    expired_leases_are_unrecovered,
                    slots_count_attempts_and_ends,
                    slots_count_jobs_that_were_lost,
                    slots_hold_both_times,
                    slots_come_by_minute,
                    slots_are_forgotten,
                    beats_tell_who_lives,
                    counts_hold_under_contention,
                ]
                report: [
                    progress_shows,
                    progress_is_of_the_latest_attempt,
                    log_lines_are_not_visible,
                    lines_are_numbered_through_the_job,
                    lines_are_read_in_parts,
                    jobs_without_lines_have_none,
                    the_oldest_attempts_lines_go_first,
                    reports_answer_in_order,
                ]
                hints: [
                    work_comes_when_a_type_becomes_runnable,
                    work_comes_when_a_job_is_released,
                    work_comes_when_a_job_is_recovered,
                    work_comes_when_jobs_are_promoted,
                    work_comes_with_a_retry,
                    every_visible_change_is_hinted,
                    changes_by_others_are_hinted,
                    every_listener_is_woken,
                    a_slow_listener_holds_nobody_up,
                ]
                shared: [
                    a_role_has_one_holder,
                    a_role_expires,
                    a_kept_role_lasts,
                    a_role_is_resigned,
                    racing_for_a_role_one_wins,
                    a_document_is_written_by_version,
                    a_role_guards_a_document,
                    racing_writes_of_one_version_one_wins,
                    a_probe_leaves_nothing_behind,
                ]
            }
        }
    };
}

/// One test for each case named.
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
    /// A case that is written and not listed would never run.
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
