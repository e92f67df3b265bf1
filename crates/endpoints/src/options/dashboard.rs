//! What the dashboard shows of an installation.

use serde::{Deserialize, de::IntoDeserializer};

use super::{OptionsError, Vars};

/// What a URL template of traces expects.
pub(super) const TRACE_URL: &str =
    "a URL with http or https and {trace_id}, such as https://traces.example.com/{trace_id}";

/// What the dashboard shows of this installation. It has no effect without the feature `dashboard`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DashboardOptions {
    /// `DASHBOARD_NAME`: the name of the installation at the top of each page. Defaults to `AsyncEndpoints`.
    pub name: Option<String>,
    /// `DASHBOARD_COLOR`: the color behind that name: `blue`, `teal`, `green`, `orange`, `red`, `purple` or `gray`. Staging should
    /// not look like production. Defaults to `blue`.
    pub color: InstanceColor,
    /// `DASHBOARD_TRACE_URL`: the address of a trace in your tracing system, with `{trace_id}` in place of the id. Jobs have a
    /// link to their trace if it is set.
    pub trace_url: Option<String>,
}

/// A color of the dashboard. Each has enough contrast to the text on it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "each is named after its color")]
pub enum InstanceColor {
    #[default]
    Blue,
    Teal,
    Green,
    Orange,
    Red,
    Purple,
    Gray,
}

impl InstanceColor {
    /// The name: `blue`, `teal`, `green`, `orange`, `red`, `purple` or `gray`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Teal => "teal",
            Self::Green => "green",
            Self::Orange => "orange",
            Self::Red => "red",
            Self::Purple => "purple",
            Self::Gray => "gray",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::deserialize(text.into_deserializer()).map_err(|_: serde::de::value::Error| ()).ok()
    }
}

impl DashboardOptions {
    /// Reads the variables of the dashboard.
    pub(super) fn read(&mut self, vars: &Vars<'_>) -> Result<(), OptionsError> {
        let colors = "a color: blue, teal, green, orange, red, purple or gray";
        vars.read("DASHBOARD_NAME", &mut self.name, "a name", |text| Some(Some(text.to_owned())))?;
        vars.read("DASHBOARD_COLOR", &mut self.color, colors, InstanceColor::parse)?;
        let url = |text: &str| is_trace_url(text).then(|| Some(text.to_owned()));
        vars.read("DASHBOARD_TRACE_URL", &mut self.trace_url, TRACE_URL, url)
    }
}

/// Whether the template is a link that a page may have. Other schemes could run scripts.
pub(super) fn is_trace_url(url: &str) -> bool {
    (url.starts_with("https://") || url.starts_with("http://")) && url.contains("{trace_id}")
}
