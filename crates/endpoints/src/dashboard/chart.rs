//! Charts as SVG. The text of a chart is HTML around the drawing, so it does not shrink with it.

use std::{fmt::Write, time::Duration};

use maud::{Markup, html};

use super::format::{As, count, duration, time};
use crate::Timestamp;

const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;

/// A chart of values by minute.
pub(super) struct Chart<'a> {
    pub(super) title: &'static str,
    /// The times of the first and the last value.
    pub(super) span: (Timestamp, Timestamp),
    pub(super) lines: &'a [Line],
    pub(super) unit: Unit,
    /// Whether values are added up to areas.
    pub(super) is_stacked: bool,
}

/// What the values of a chart are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Jobs,
    Seconds,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Seconds => "seconds",
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Self::Jobs => count(value as u64),
            Self::Seconds => duration(Duration::try_from_secs_f64(value).unwrap_or_default()),
        }
    }
}

/// The values of one name.
pub(super) struct Line {
    pub(super) name: &'static str,
    /// The class that gives the line its color and pattern.
    pub(super) class: &'static str,
    /// One for each minute. None where nothing is known.
    pub(super) values: Vec<Option<f64>>,
}

impl Chart<'_> {
    pub(super) fn render(&self) -> Markup {
        let top = nice(self.highest());
        html! {
            figure.chart {
                figcaption { b { (self.title) } (self.legend()) }
                // The script shows the values of a minute under the pointer or by arrow keys.
                div.plot data-from=(self.span.0) data-to=(self.span.1) data-unit=(self.unit.name()) {
                    svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                        aria-label=(self.description()) {
                        path.grid d=(format!("M0 0H{WIDTH}M0 {}H{WIDTH}M0 {HEIGHT}H{WIDTH}", HEIGHT / 2.0)) {}
                        @if self.is_stacked { (self.areas(top)) } @else { (self.polylines(top)) }
                    }
                    span.limit { (self.unit.text(top)) }
                }
                div.axis { (time(self.span.0, As::Time)) (time(self.span.1, As::Time)) }
            }
        }
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for line in self.lines {
                    li class=(line.class) data-name=(line.name) data-values=(written(&line.values)) { (line.name) " " b { (self.last(line).unwrap_or_else(|| "–".to_owned())) } }
                }
            }
        }
    }

    fn last(&self, line: &Line) -> Option<String> {
        line.values.iter().rev().find_map(|value| *value).map(|value| self.unit.text(value))
    }

    /// The text for readers who do not see the drawing.
    fn description(&self) -> String {
        let mut text = format!("{}.", self.title);
        for line in self.lines {
            let highest = line.values.iter().flatten().copied().reduce(f64::max);
            let last = self.last(line);
            // Writing to a `String` cannot fail.
            let _ = match (last, highest) {
                (Some(last), Some(highest)) => {
                    write!(text, " {}: last {last}, highest {}.", line.name, self.unit.text(highest))
                }
                _ => write!(text, " {}: no values.", line.name),
            };
        }
        text
    }

    fn highest(&self) -> f64 {
        let length = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let at = |line: &Line, minute: usize| line.values.get(minute).copied().flatten().unwrap_or(0.0);
        let sum = |minute| self.lines.iter().map(|line| at(line, minute)).sum();
        let max = |minute| self.lines.iter().map(|line| at(line, minute)).fold(0.0, f64::max);
        (0..length).map(|minute| if self.is_stacked { sum(minute) } else { max(minute) }).fold(0.0, f64::max)
    }

    fn polylines(&self, top: f64) -> Markup {
        html! { @for line in self.lines { path class={ "line " (line.class) } d=(polyline(&line.values, top)) {} } }
    }

    /// One area for each line, each on the sum of those before it.
    fn areas(&self, top: f64) -> Markup {
        let length = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let mut below = vec![0.0; length];
        let areas = self.lines.iter().map(|line| {
            let lower = below.clone();
            let values = line.values.iter().map(|value| value.unwrap_or(0.0));
            below.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            html! { path class={ "area " (line.class) } d=(area(&lower, &below, top)) {} }
        });
        let areas: Vec<Markup> = areas.collect();
        html! { @for area in areas { (area) } }
    }
}

/// Values for the script, which has `-` for an unknown one.
fn written(values: &[Option<f64>]) -> String {
    let text =
        |value: &Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{}", (value * 1e4).round() / 1e4));
    values.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// A small chart of counts, as columns. The text has the last count and the highest.
pub(super) fn sparkline(values: &[u64]) -> Markup {
    let highest = values.iter().copied().max().unwrap_or(0);
    let width = values.len() * 6;
    let last = values.last().copied().unwrap_or(0);
    html! {
        svg.spark viewBox=(format!("0 0 {width} 16")) width=(width) height="16" role="img"
            aria-label=(format!("last {last}, highest {highest}")) {
            @for (at, value) in values.iter().enumerate() {
                // A minute without jobs has a line at the bottom.
                @let height = (16 * value).div_ceil(highest.max(1)).max(1);
                rect x=(at * 6) y=(16 - height) width="5" height=(height) {}
            }
        }
    }
}

fn x(at: usize, length: usize) -> f64 {
    WIDTH * at as f64 / (length.max(2) - 1) as f64
}

fn y(value: f64, top: f64) -> f64 {
    HEIGHT - HEIGHT * value / top
}

/// A path through the known values. A value between two unknown ones is a point.
fn polyline(values: &[Option<f64>], top: f64) -> String {
    let (mut path, mut is_drawing) = (String::new(), false);
    for (at, value) in values.iter().enumerate() {
        if let Some(value) = value {
            let (command, x, y) = (if is_drawing { 'L' } else { 'M' }, x(at, values.len()), y(*value, top));
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            if !is_drawing {
                // A line of no length, so that a round cap draws a point.
                let _ = write!(path, "h0");
            }
        }
        is_drawing = value.is_some();
    }
    path
}

/// The area between two lines.
fn area(lower: &[f64], upper: &[f64], top: f64) -> String {
    let length = upper.len();
    let forth = upper.iter().enumerate();
    let back = lower.iter().enumerate().rev();
    let mut path = String::new();
    for (number, (at, value)) in forth.chain(back).enumerate() {
        let command = if number == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{:.1} {:.1}", x(at, length), y(*value, top));
    }
    path + "Z"
}

/// The next number of the form 1, 2 or 5 times a power of ten; 1 for 0.
fn nice(highest: f64) -> f64 {
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(highest.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|top| *top >= highest).unwrap_or(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_of_the_axis_is_round() {
        for (highest, top) in
            [(0.0, 1.0), (0.4, 0.5), (1.0, 1.0), (3.0, 5.0), (12.0, 20.0), (51.0, 100.0), (1_999.0, 2_000.0)]
        {
            assert_eq!(nice(highest), top, "{highest}");
        }
    }

    #[test]
    fn values_for_the_script_are_short() {
        assert_eq!(written(&[Some(12.0), None, Some(0.123_456), Some(0.0)]), "12 - 0.1235 0");
    }

    #[test]
    fn unknown_values_interrupt_a_line() {
        let path = polyline(&[Some(0.0), Some(1.0), None, Some(1.0)], 1.0);
        assert_eq!(path, "M0.0 120.0h0L200.0 0.0M600.0 0.0h0");
    }

    #[test]
    fn description_has_the_last_and_the_highest_value() {
        let lines = [
            Line { name: "arrivals", class: "a", values: vec![Some(7.0), Some(2.0), None] },
            Line { name: "completed", class: "b", values: vec![None; 3] },
        ];
        let span = (Timestamp::from_micros(0), Timestamp::from_micros(1));
        let chart = Chart { title: "Jobs", span, lines: &lines, unit: Unit::Jobs, is_stacked: false };
        assert_eq!(chart.description(), "Jobs. arrivals: last 2, highest 7. completed: no values.");
    }
}
