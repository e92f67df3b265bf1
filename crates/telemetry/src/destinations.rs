//! Where each signal is exported.

#[cfg(feature = "otlp")]
use crate::otlp::Otlp;
use crate::{env::Vars, error::TelemetryError, signal::Signal};

/// Where a signal is exported.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Destinations {
    #[cfg(feature = "otlp")]
    pub(crate) otlp: Option<Otlp>,
    #[cfg(feature = "console")]
    pub(crate) console: bool,
}

impl Destinations {
    /// Whether the signal is exported at all.
    pub(crate) const fn any(&self) -> bool {
        let any = false;
        #[cfg(feature = "otlp")]
        let any = any || self.otlp.is_some();
        #[cfg(feature = "console")]
        let any = any || self.console;
        any
    }

    /// The destinations by `OTEL_<signal>_EXPORTER` and the variables of OTLP. Without those, the ones set in code.
    pub(crate) fn read(self, signal: Signal, vars: &Vars<'_>) -> Result<Self, TelemetryError> {
        let variable = format!("OTEL_{}_EXPORTER", signal.upper());
        let Some(list) = vars.get(&variable) else {
            #[cfg(feature = "otlp")]
            return Ok(Self { otlp: Otlp::from_vars(signal, vars)?.or(self.otlp), ..self });
            #[cfg(not(feature = "otlp"))]
            return Ok(self);
        };
        #[allow(unused_mut, reason = "without features there are no destinations")]
        let mut read = Self::default();
        for name in list.to_ascii_lowercase().split(',').map(str::trim) {
            match name {
                "" | "none" => {}
                // The exposition needs no exporter.
                "prometheus" if signal == Signal::Metrics => {}
                #[cfg(feature = "otlp")]
                "otlp" => {
                    let otlp = Otlp::from_vars(signal, vars)?.or_else(|| self.otlp.clone());
                    read.otlp = Some(otlp.map_or_else(|| Otlp::local(signal, vars), Ok)?);
                }
                #[cfg(feature = "console")]
                "console" => read.console = true,
                _ => {
                    let expected = match signal {
                        Signal::Metrics => "otlp (feature otlp), console (feature console), prometheus or none",
                        _ => "otlp (feature otlp), console (feature console) or none",
                    };
                    return Err(TelemetryError::setting(variable, list, expected));
                }
            }
        }
        Ok(read)
    }
}
