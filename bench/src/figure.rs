//! Figures beside promises.

use comfy_table::{Table, presets};
use serde::Serialize;

/// One measured promise.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// Short name, as in `SPECIFICATION.md`.
    pub(crate) name: String,
    /// What was measured, with its unit.
    pub(crate) measured: String,
    /// What is promised.
    pub(crate) promise: String,
    /// Whether the promise holds here.
    pub(crate) met: bool,
}

impl Figure {
    /// A figure that must not be over `limit`.
    pub(crate) fn at_most(name: &str, value: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            measured: format!("{value:.2} {unit}"),
            promise: format!("<= {limit} {unit}"),
            met: value <= limit,
        }
    }

    /// A figure that must not be under `limit`.
    pub(crate) fn at_least(name: &str, value: f64, limit: f64, unit: &str) -> Self {
        Self {
            name: name.to_owned(),
            measured: format!("{value:.0} {unit}"),
            promise: format!(">= {limit} {unit}"),
            met: value >= limit,
        }
    }
}

/// All figures of a run, and what could not be measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    failures: Vec<String>,
}

impl Report {
    /// Takes the figures of one benchmark, or why there are none.
    pub(crate) fn add(&mut self, result: anyhow::Result<Vec<Figure>>) {
        match result {
            Ok(figures) => self.figures.extend(figures),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    /// Whether everything that was asked for was measured.
    pub(crate) fn complete(&self) -> bool {
        self.failures.is_empty() && !self.figures.is_empty()
    }

    /// A table, followed by what failed.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what", "measured", "promised", ""]);
        for figure in &self.figures {
            let met = if figure.met { "met" } else { "not met" };
            table.add_row([&figure.name, &figure.measured, &figure.promise, met]);
        }
        let failures = self.failures.iter().map(|text| format!("\nnot measured: {text}"));
        table.to_string() + &failures.collect::<String>()
    }
}

/// The value below which `share` percent of the samples lie; sorts them.
pub(crate) fn percentile(samples: &mut [f64], share: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let index = samples.len().saturating_sub(1) * share / 100;
    samples.get(index).copied().unwrap_or(f64::NAN)
}
