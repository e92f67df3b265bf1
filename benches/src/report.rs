//! Medians, and how they are printed.

use std::time::Duration;

/// The value that half of them do not exceed.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn per_second(n: u64, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

pub(crate) fn title(text: &str) {
    println!("\n{text}");
}

pub(crate) fn row(what: &str, value: &str) {
    println!("  {what:<58} {value}");
}
