//! `/dashboard/types`: a table of job types.

use std::time::Duration;

use super::{
    super::{
        content::{Content, Failure, Refresh, Region, Section},
        view::View,
    },
    type_table,
};

/// The window of the rate and of the small charts. The current minute, which is not over, is one of its minutes.
const WINDOW: Duration = Duration::from_secs(11 * 60);

pub(super) async fn page(view: &View) -> Result<Content, Failure> {
    let types = view.endpoints.recent_types().await?;
    let stats = view.endpoints.recent_stats().await?;
    let series = view.endpoints.series(WINDOW, None).await?;
    Ok(Content {
        title: "Types".to_owned(),
        section: Section::Types,
        regions: vec![Region::new("types", type_table::table(view, &types, &stats, &series))],
        refresh: Refresh::STATISTICS,
    })
}
