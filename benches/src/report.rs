//! Computes and prints medians and quantiles.

use std::time::Duration;

/// Any failure ends the bench.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn per_second(n: impl Into<u64>, took: Duration) -> f64 {
    n.into() as f64 / took.as_secs_f64()
}

pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub(crate) fn title(text: &str) {
    println!("\n{text}");
}

pub(crate) fn row(what: &str, value: &str) {
    println!("  {what:<58} {value}");
}

/// Prints the median of a rate with the slowest and the fastest round.
pub(crate) fn rate(what: &str, unit: &str, rounds: &[f64]) {
    let (slowest, fastest) = (quantile(rounds, 0.0), quantile(rounds, 1.0));
    row(what, &format!("{:>9.0} {unit}   ({slowest:.0} … {fastest:.0})", median(rounds)));
}

/// Prints the ratio of the medians.
pub(crate) fn ratio(what: &str, ours: &[f64], reference: &[f64]) {
    row(what, &format!("{:>9.2}", median(ours) / median(reference)));
}

/// Prints p50 and p99 of times in microseconds.
pub(crate) fn times(what: &str, micros: &[f64]) {
    row(what, &format!("p50 {:>6.0} µs   p99 {:>6.0} µs", quantile(micros, 0.5), quantile(micros, 0.99)));
}
