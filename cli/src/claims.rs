//! Claims and figures and how they are told: tables for people, JSON for programs.

use std::path::Path;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// Columns of the table: what a terminal shows without wrapping, or a log without scrolling.
const WIDTH: u16 = 110;

/// Something the mesh is said to do, and whether it was seen to do it.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// Short name, stable.
    pub id: &'static str,
    /// What is claimed.
    pub claim: &'static str,
    /// Whether it held.
    pub ok: bool,
    /// What was seen.
    pub measured: String,
}

impl Claim {
    /// A claim with what was seen, or with why nothing could be seen.
    #[must_use]
    pub fn from_look(
        id: &'static str,
        claim: &'static str,
        look: anyhow::Result<(bool, String)>,
    ) -> Self {
        let (ok, measured) = look.unwrap_or_else(|error| (false, format!("{error:#}")));
        Self { id, claim, ok, measured }
    }
}

/// Something that was measured. It decides nothing: a busy machine must not fail a proof.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Short name, stable.
    pub id: &'static str,
    /// What is measured.
    pub figure: &'static str,
    /// What was measured.
    pub measured: String,
    /// What is promised, where something is.
    pub promise: Option<&'static str>,
    /// Whether the promise was kept in this run, where there is one.
    pub kept: Option<bool>,
}

/// All claims of one run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// In the order they were looked at.
    pub claims: Vec<Claim>,
    /// What was measured on the way.
    pub figures: Vec<Figure>,
    /// Duration of the whole run.
    pub seconds: f64,
}

impl Report {
    /// Whether every claim held, and there was one.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.ok)
    }

    /// The claims as a table, and below it what was measured.
    #[must_use]
    pub fn table(&self) -> String {
        let mut claims = table(["", "claim", "seen from outside"]);
        for claim in &self.claims {
            let mark = if claim.ok { "ok" } else { "FAIL" };
            claims.add_row([mark, claim.claim, &claim.measured]);
        }
        if self.figures.is_empty() {
            return claims.to_string();
        }
        let mut figures = table(["promise", "figure", "measured"]);
        for Figure { figure, measured, promise, kept, .. } in &self.figures {
            let mark = match (promise, kept) {
                (Some(promise), Some(true)) => format!("{promise}: kept"),
                (Some(promise), _) => format!("{promise}: NOT MET"),
                (None, _) => String::new(),
            };
            figures.add_row([mark.as_str(), figure, measured]);
        }
        format!("{claims}\n{figures}")
    }

    /// Writes the claims as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("the report cannot be written to {}", path.display()))
    }
}

fn table(header: [&str; 3]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_report_proves_nothing() {
        assert!(!Report::default().holds());
    }

    #[test]
    fn one_failed_claim_fails_the_report() {
        let good = Claim { id: "a", claim: "b", ok: true, measured: String::new() };
        let bad = Claim::from_look("c", "d", Err(anyhow::anyhow!("no answer")));
        let report = Report { claims: vec![good.clone(), bad], ..Report::default() };
        assert!(!report.holds());
        assert!(report.table().contains("no answer"));
        assert!(Report { claims: vec![good], ..Report::default() }.holds());
    }

    #[test]
    fn a_promise_that_is_not_met_is_told_and_fails_nothing() {
        let good = Claim { id: "a", claim: "b", ok: true, measured: String::new() };
        let figure = Figure {
            id: "start",
            figure: "start of a pod",
            measured: "2 s".to_owned(),
            promise: Some("<= 300 ms"),
            kept: Some(false),
        };
        let report = Report { claims: vec![good], figures: vec![figure], seconds: 1.0 };
        assert!(report.holds());
        assert!(report.table().contains("<= 300 ms: NOT MET"));
    }
}
