//! `MonitoredProcess`: reads rows of the weather table, computes the felt temperature of each, and writes the results back.

use std::{sync::Arc, time::Instant};

use async_endpoints::{JobContext, JobError, JobType};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{INVALID_REQUEST, UNKNOWN_CATEGORY, invalid, known_category, now};
use crate::{
    day::Day,
    ledger::Ledger,
    weather::{Observation, Processed, Weather},
};

pub(crate) const MONITORED: JobType<DataProcessingRequest, DataProcessingResult> =
    JobType::new("MonitoredProcess").error_codes(&[INVALID_REQUEST, UNKNOWN_CATEGORY]);

/// Number of rows between checks of the cancellation token.
const STEP: usize = 100;

#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataProcessingRequest {
    /// A category of the weather table, such as `snow`.
    #[schema(example = "snow")]
    category: String,
    /// The first day, as a date or a time.
    start_date: Option<Day>,
    /// The last day.
    end_date: Option<Day>,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataProcessingResult {
    processed_count: usize,
    processed_at: String,
    summary: String,
}

/// The handler, which blocks its thread on SQLite.
pub(crate) fn handler(
    weather: Arc<Weather>,
    ledger: Ledger,
) -> impl Fn(JobContext<DataProcessingRequest>) -> Result<DataProcessingResult, JobError> + Send + Sync + 'static {
    move |ctx| {
        let _running = ledger.enter(ctx.job_id(), ctx.attempt());
        process(&weather, &ctx)
    }
}

fn process(weather: &Weather, ctx: &JobContext<DataProcessingRequest>) -> Result<DataProcessingResult, JobError> {
    let (request, started) = (ctx.request(), Instant::now());
    let DataProcessingRequest { category, start_date, end_date } = request;
    let [start_date, end_date] = [start_date, end_date].map(|day| day.as_ref().map(tracing::field::display));
    tracing::info!(category, start_date, end_date, user_id = ctx.header("x-user-id"), "data processing started");
    let observations = select(weather, request)?;
    tracing::debug!(rows = observations.len(), "rows fetched");
    let mut processed = Vec::with_capacity(observations.len());
    for rows in observations.chunks(STEP) {
        ctx.check_canceled()?;
        processed.extend(rows.iter().map(compute));
        ctx.progress().set(processed.len() as u64, observations.len() as u64);
        tracing::info!(processed = processed.len(), total = observations.len(), "data processing progress");
    }
    // Idempotent: after a crash the next attempt writes the same rows again.
    let processed_at = now();
    weather.save(&ctx.job_id().to_string(), &processed_at, &processed)?;
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(rows = processed.len(), seconds, "data processing completed");
    let summary = summary(category, &observations, seconds);
    Ok(DataProcessingResult { processed_count: processed.len(), processed_at, summary })
}

fn select(weather: &Weather, request: &DataProcessingRequest) -> Result<Vec<Observation>, JobError> {
    let DataProcessingRequest { category, start_date, end_date } = request;
    if let (Some(start), Some(end)) = (start_date, end_date)
        && start > end
    {
        return Err(invalid(format!("startDate {start} is after endDate {end}.")));
    }
    known_category(weather, category)?;
    Ok(weather.select(category, *start_date, *end_date)?)
}

fn compute(day: &Observation) -> Processed {
    let feels_like = feels_like(f64::midpoint(day.temp_min, day.temp_max), day.wind);
    let Observation { location, date, category, precipitation, temp_max, temp_min, .. } = day;
    let summary = format!(
        "{location}, {date}: {category}, {temp_min:.1} to {temp_max:.1} °C, feels like {feels_like:.1} °C, \
         {precipitation:.1} mm"
    );
    Processed { observation: day.id, feels_like, temp_range: temp_max - temp_min, summary }
}

/// Wind chill where its formula holds (at most 10 °C, more than 4.8 km/h), else the temperature itself.
#[expect(clippy::suboptimal_flops, reason = "the formula as it is published")]
fn feels_like(celsius: f64, metres_per_second: f64) -> f64 {
    let wind = metres_per_second * 3.6;
    if celsius > 10.0 || wind <= 4.8 {
        return celsius;
    }
    let wind = wind.powf(0.16);
    13.12 + 0.6215 * celsius - 11.37 * wind + 0.3965 * celsius * wind
}

fn summary(category: &str, days: &[Observation], seconds: f64) -> String {
    let mut text = format!("Processed {} {category} observations in {seconds:.2}s", days.len());
    if !days.is_empty() {
        let coldest = days.iter().map(|day| day.temp_min).fold(f64::INFINITY, f64::min);
        let warmest = days.iter().map(|day| day.temp_max).fold(f64::NEG_INFINITY, f64::max);
        let rain: f64 = days.iter().map(|day| day.precipitation).sum();
        text += &format!(": {coldest:.1} to {warmest:.1} °C, {rain:.1} mm of precipitation");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn request(category: &str, start: Option<&str>, end: Option<&str>) -> DataProcessingRequest {
        let day = |text: &str| text.parse().unwrap();
        DataProcessingRequest { category: category.to_owned(), start_date: start.map(day), end_date: end.map(day) }
    }

    #[test]
    fn wind_chill_matches_the_published_table() {
        // °C, km/h, felt
        for (celsius, wind, felt) in [(0.0, 20.0, -5.0), (-10.0, 30.0, -20.0), (-25.0, 60.0, -43.0)] {
            assert!((feels_like(celsius, wind / 3.6) - felt).abs() < 0.6, "{celsius} °C at {wind} km/h");
        }
        assert_eq!(feels_like(20.0, 10.0), 20.0);
        assert_eq!(feels_like(-5.0, 1.0), -5.0);
    }

    #[test]
    fn felt_temperature_of_a_day_is_computed() {
        let weather = Weather::open(Path::new(":memory:")).unwrap();
        let days = select(&weather, &request("snow", Some("2012-01-15"), Some("2012-01-15"))).unwrap();
        let seattle = days.iter().find(|day| day.location == "Seattle").map(compute).unwrap();
        assert_eq!(seattle.summary, "Seattle, 2012-01-15: snow, -3.3 to 1.1 °C, feels like -5.0 °C, 5.3 mm");
        assert!((seattle.temp_range - 4.4).abs() < 1e-9);
    }

    #[test]
    fn contradictory_request_is_a_permanent_error() {
        let weather = Weather::open(Path::new(":memory:")).unwrap();
        let unknown = select(&weather, &request("hail", None, None)).unwrap_err().to_string();
        assert!(unknown.starts_with("UNKNOWN_CATEGORY") && unknown.contains("drizzle, fog, rain, snow, sun"));
        let reversed = select(&weather, &request("sun", Some("2013-01-01"), Some("2012-01-01"))).unwrap_err();
        assert!(reversed.to_string().starts_with("INVALID_REQUEST"));
    }

    #[test]
    fn summary_without_days_has_no_numbers() {
        assert_eq!(summary("fog", &[], 0.0), "Processed 0 fog observations in 0.00s");
    }
}
